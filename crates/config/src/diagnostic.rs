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
        let text = without_keys(&self.text);
        for (position, diagnostic) in self.list.iter().enumerate() {
            let end = diagnostic.span.end.min(text.len());
            let span = diagnostic.span.start.min(end)..end;
            let snippet =
                Snippet::source(text.as_str()).path(self.path.as_str()).annotation(AnnotationKind::Primary.span(span));
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

/// The text with every key that is written out, and the address of a proxy, which may hold a password, replaced by as
/// many stars, so that places stay where they are.
fn without_keys(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for word in [b"key".as_slice(), b"proxy"] {
        let mut at = 0;
        while let Some(found) = find_key(&bytes, word, at) {
            at = found;
            let is_list = bytes.get(at) == Some(&b'[');
            let end = if is_list {
                bytes[at..].iter().position(|byte| *byte == b']').map_or(bytes.len(), |end| at + end)
            } else {
                line_end(&bytes, at)
            };
            at = mask_strings(&mut bytes, at, end);
        }
    }
    String::from_utf8(bytes).unwrap_or_default()
}

/// Where the value of the next `WORD =` or `WORDs =` begins.
fn find_key(bytes: &[u8], word: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        at += bytes.get(at..)?.windows(word.len()).position(|here| here == word)?;
        let starts_word = at == 0 || !(bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
        let mut after = at + word.len();
        after += usize::from(bytes.get(after) == Some(&b's'));
        while bytes.get(after).is_some_and(|byte| matches!(byte, b' ' | b'\t' | b'"')) {
            after += 1;
        }
        if starts_word && bytes.get(after) == Some(&b'=') {
            after += 1;
            while bytes.get(after).is_some_and(|byte| matches!(byte, b' ' | b'\t')) {
                after += 1;
            }
            return Some(after);
        }
        at += word.len();
    }
}

fn line_end(bytes: &[u8], from: usize) -> usize {
    bytes[from..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |end| from + end)
}

/// Puts stars into the strings between two places, but for references.
fn mask_strings(bytes: &mut [u8], from: usize, end: usize) -> usize {
    let mut at = from;
    while at < end {
        let quote = bytes[at];
        if !matches!(quote, b'"' | b'\'') {
            at += 1;
            continue;
        }
        let start = at + 1;
        let close = bytes[start..end].iter().position(|byte| *byte == quote).map_or(end, |close| start + close);
        if !(bytes[start..close].starts_with(b"env:") || bytes[start..close].starts_with(b"file:")) {
            bytes[start..close].fill(b'*');
        }
        at = close + 1;
    }
    at.max(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_written_out_are_never_shown() {
        let text =
            "keys = [\"sk-test-a\", \"env:B\",\n  'sk-test-c']\n[x]\nkey=\"sk-test-d\" # key\nmonkey = \"banana\"\n";
        let masked = without_keys(text);
        assert_eq!(masked.len(), text.len());
        assert!(!masked.contains("sk-test"), "{masked}");
        assert!(masked.contains("env:B") && masked.contains("banana"), "{masked}");
        assert!(!without_keys("key = \"sk-test-broken").contains("sk-test"));
        let proxies = without_keys("[server]\nproxy = \"user:canary@proxy:1\"\n[x]\nproxy = 'file:proxy.txt'\n");
        assert!(!proxies.contains("canary") && proxies.contains("'file:proxy.txt'"), "{proxies}");
    }
}
