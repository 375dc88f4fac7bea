//! What is wrong with a file, shown with its line underlined.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Where in the text, in bytes.
    pub span: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

/// Every mistake of one file.
#[derive(Clone, Debug)]
pub struct Diagnostics {
    /// The file's name.
    pub path: String,
    /// Its text.
    pub text: String,
    /// The mistakes, in the order of the text.
    pub list: Vec<Diagnostic>,
}

impl Diagnostic {
    pub(crate) fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { span, message: message.into(), help: None }
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let renderer = Renderer::plain();
        for (position, diagnostic) in self.list.iter().enumerate() {
            let end = diagnostic.span.end.min(self.text.len());
            let span = diagnostic.span.start.min(end)..end;
            let snippet = Snippet::source(self.text.as_str())
                .path(self.path.as_str())
                .annotation(AnnotationKind::Primary.span(span));
            let mut report = vec![Level::ERROR.primary_title(diagnostic.message.as_str()).element(snippet)];
            if let Some(help) = &diagnostic.help {
                report.push(annotate_snippets::Group::with_title(Level::HELP.secondary_title(help.as_str())));
            }
            if position > 0 {
                writeln!(f)?;
            }
            writeln!(f, "{}", renderer.render(&report))?;
        }
        Ok(())
    }
}
