//! What a provider says of its limits, as a value. What follows from it is decided elsewhere.
//!
//! Figures come from outside: one that is negative, no number, or absurd says nothing, and what was not said is
//! unknown. Neither is ever taken for zero; a zero that was said stays, since a limit of 0 means "never on this plan".

use std::time::Duration;

use freeway_types::Metric;
use serde::{Deserialize, Serialize};

/// No count of requests or tokens is believed beyond this.
const MOST_UNITS: f64 = 1e15;
/// No sum of money in USD is believed beyond this, which still fits in picodollars.
const MOST_USD: f64 = 1e7;
/// A return is allowed to lie this much behind the end of its window: `date` has whole seconds, and answers travel.
const LEAST_SLACK: Duration = Duration::from_secs(2);

/// What a provider said of one of its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// What the limit counts.
    pub metric: Metric,
    /// The window it speaks of.
    pub window: ReportWindow,
    /// Its size, in the units in which limits are counted: requests, tokens, picodollars. 0 means never.
    pub amount: Option<u64>,
    /// What was left of it when the answer was made, in the same units.
    pub left: Option<u64>,
    /// How long after the answer it comes back. For a bucket, when it is full again.
    pub returns: Option<Duration>,
    /// What the limit belongs to.
    pub scope: ReportScope,
    /// Where it was said.
    pub source: ReportSource,
}

/// The window that a report speaks of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReportWindow {
    /// It was not said.
    #[default]
    Unknown,
    /// One of this length, a day as 24 hours and a month as 31 days.
    Length(Duration),
    /// None: what is spent does not come back, as with a credit.
    Never,
}

/// What the limit of a report belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReportScope {
    /// The model that was asked.
    Model,
    /// The whole account.
    Account,
    /// It was not said.
    #[default]
    Unknown,
}

/// Where a report was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReportSource {
    /// In the headers of an answer or a refusal.
    Header,
    /// In the body of a refusal.
    Refusal,
    /// In the answer of a quota endpoint.
    Endpoint,
}

impl Report {
    /// A report that says nothing yet.
    #[must_use]
    pub const fn blank(metric: Metric, window: ReportWindow, scope: ReportScope, source: ReportSource) -> Self {
        Self { metric, window, amount: None, left: None, returns: None, scope, source }
    }

    /// Whether it says anything.
    #[must_use]
    pub const fn says_something(&self) -> bool {
        self.amount.is_some() || self.left.is_some() || self.returns.is_some()
    }

    /// The report in `reports` on the same limit as `blank`, which is put there first if there is none.
    pub fn entry(reports: &mut Vec<Self>, blank: Self) -> &mut Self {
        let same = |report: &Self| {
            report.metric == blank.metric && report.window == blank.window && report.scope == blank.scope
        };
        let place = reports.iter().position(same).unwrap_or_else(|| {
            reports.push(blank);
            reports.len() - 1
        });
        &mut reports[place]
    }

    /// Takes over from `other` what this one does not say.
    pub fn fill(&mut self, other: &Self) {
        self.amount = self.amount.or(other.amount);
        self.left = self.left.or(other.left);
        self.returns = self.returns.or(other.returns);
    }

    /// Gives up a window that the report itself contradicts: nothing comes back later than one window from now. Some
    /// providers send a day's figures under the names of the minute's.
    pub fn doubt_window(&mut self) {
        if let (ReportWindow::Length(window), Some(returns)) = (self.window, self.returns)
            && returns > window.saturating_add(LEAST_SLACK.max(window / 50))
        {
            self.window = ReportWindow::Unknown;
        }
    }
}

impl ReportWindow {
    /// Its length, if it has one that is known.
    #[must_use]
    pub const fn length(self) -> Option<Duration> {
        match self {
            Self::Length(length) => Some(length),
            Self::Unknown | Self::Never => None,
        }
    }
}

/// Reads a figure of a limit as text: digits, perhaps with a fraction. Gives the units in which the metric is
/// counted, rounded down; for money picodollars, rounded to the nearest.
#[must_use]
pub fn parse_figure(metric: Metric, text: &str) -> Option<u64> {
    let text = text.trim();
    // Nearly all are whole numbers, and this runs for each answer.
    if metric != Metric::Usd && (1..=15).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok();
    }
    let is_plain = text.len() <= 32 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    figure(metric, is_plain.then(|| text.parse().ok())??)
}

/// Turns a figure of a limit into the units in which the metric is counted; nothing if it is negative or absurd.
#[must_use]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "both ranges are checked, and fit")]
pub fn figure(metric: Metric, number: f64) -> Option<u64> {
    if metric == Metric::Usd {
        return (0.0..=MOST_USD).contains(&number).then(|| (number * 1e12).round() as u64);
    }
    (0.0..=MOST_UNITS).contains(&number).then_some(number as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_that_are_none_say_nothing() {
        let requests = |text| parse_figure(Metric::Requests, text);
        assert_eq!(requests("0"), Some(0));
        assert_eq!(requests(" 1000 "), Some(1000));
        assert_eq!(requests("99.9"), Some(99));
        assert_eq!(requests("1000000000000000"), Some(1_000_000_000_000_000));
        for nothing in
            ["", "-1", "NaN", "inf", "1e3", "1,000", "1000000000000001", "unlimited", "null", ".", "+5", "0x10"]
        {
            assert_eq!(requests(nothing), None, "{nothing}");
        }
        assert_eq!(requests(&"9".repeat(400)), None);
        assert_eq!(figure(Metric::Tokens, f64::NAN), None);
        assert_eq!(figure(Metric::Tokens, -0.5), None);
    }

    #[test]
    fn money_is_counted_in_picodollars() {
        assert_eq!(parse_figure(Metric::Usd, "37.66"), Some(37_660_000_000_000));
        assert_eq!(figure(Metric::Usd, 4e-13), Some(0));
        assert_eq!(parse_figure(Metric::Usd, "10000001"), None);
    }

    #[test]
    fn a_window_is_given_up_when_the_return_lies_behind_its_end() {
        let window = ReportWindow::Length(Duration::from_secs(60));
        let report = |returns| {
            let blank = Report::blank(Metric::Requests, window, ReportScope::Unknown, ReportSource::Header);
            let mut report = Report { returns: Some(Duration::from_millis(returns)), ..blank };
            report.doubt_window();
            report.window
        };
        assert_eq!(report(62_000), window);
        assert_eq!(report(62_001), ReportWindow::Unknown);
    }
}
