//! Counts by name and labels. Labels hold only names from the configuration and
//! words from this code, so that a caller cannot make their number grow.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Counts since the start of the process.
#[derive(Debug, Default)]
pub struct Metrics {
    counts: BTreeMap<&'static str, BTreeMap<String, u64>>,
}

impl Metrics {
    /// Adds to a count.
    pub fn add(&mut self, name: &'static str, labels: &[(&str, &str)], amount: u64) {
        let mut text = String::new();
        for (label, value) in labels {
            let comma = if text.is_empty() { "" } else { "," };
            // Writing to a string does not fail.
            let _ = write!(
                text,
                "{comma}{label}=\"{}\"",
                value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
            );
        }
        *self.counts.entry(name).or_default().entry(text).or_default() += amount;
    }

    /// All counts, in Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        for (name, series) in &self.counts {
            let _ = writeln!(text, "# TYPE {name} counter");
            for (labels, count) in series {
                let _ = if labels.is_empty() {
                    writeln!(text, "{name} {count}")
                } else {
                    writeln!(text, "{name}{{{labels}}} {count}")
                };
            }
        }
        text
    }
}
