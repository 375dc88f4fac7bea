//! Counts by name and labels. Labels hold only names from the configuration and
//! words from this code, so that a caller cannot make their number grow.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Counts since the start of the process.
#[derive(Debug, Default)]
pub struct Metrics {
    counts: BTreeMap<&'static str, Family>,
    /// For looking a series up without an allocation.
    key: String,
}

/// The series of one name.
#[derive(Debug, Default)]
struct Family {
    labels: Vec<&'static str>,
    /// By the labels' values, each ended by [`END`].
    series: BTreeMap<String, u64>,
}

/// Stands behind each value in a series' key. A value that holds one itself is shown cut there.
const END: char = '\u{1f}';

impl Metrics {
    /// Adds to a count. A name has the same labels, in the same order, wherever it is counted.
    pub fn add(&mut self, name: &'static str, labels: &[(&'static str, &str)], amount: u64) {
        self.key.clear();
        for (_, value) in labels {
            self.key.push_str(value);
            self.key.push(END);
        }
        let family = self.counts.entry(name).or_default();
        if let Some(count) = family.series.get_mut(&self.key) {
            *count += amount;
            return;
        }
        family.labels = labels.iter().map(|(label, _)| *label).collect();
        family.series.insert(self.key.clone(), amount);
    }

    /// All counts, in Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        for (name, family) in &self.counts {
            let _ = writeln!(text, "# TYPE {name} counter");
            for (key, count) in &family.series {
                text.push_str(name);
                for (position, (label, value)) in family.labels.iter().zip(key.split(END)).enumerate() {
                    let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
                    // Writing to a string does not fail.
                    let _ = write!(text, "{}{label}=\"{value}\"", if position == 0 { '{' } else { ',' });
                }
                let _ = writeln!(text, "{} {count}", if family.labels.is_empty() { "" } else { "}" });
            }
        }
        text
    }
}
