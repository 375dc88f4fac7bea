//! When a provider's quota endpoint is asked about an account, and what its answer ends.
//!
//! Asking costs the provider something and tells little that is new, so it is done rarely, and only of accounts that
//! somebody wants to use: once after the start, every ten minutes from then on, and every quarter of an hour while
//! something is said to be used up, even if nobody asks for it meanwhile. An endpoint that fails is no news of the
//! account: it changes nothing, and is asked again after waits that grow.

use std::time::Duration;

use freeway_types::{Metric, Monotonic, Now};
use serde::{Deserialize, Serialize};

use crate::report::{Report, ReportWindow};

/// How often an account in use is asked about.
const EVERY: Duration = Duration::from_secs(10 * 60);
/// How often one is asked about of which something is used up.
const EVERY_SHORT: Duration = Duration::from_secs(15 * 60);
/// The wait after an endpoint has failed, doubled with each time in a row …
const AFTER_FAILURE: Duration = Duration::from_secs(60);
/// … up to this.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// So often in a row it is asked again although nobody wants the account meanwhile.
const RETRIES: u32 = 6;
/// Windows from this length on are asked about; shorter ones are back before an answer helps.
const A_DAY: Duration = Duration::from_secs(86_400);

/// What a refusal said is used up, if that lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shortage {
    /// Money: a credit, a balance, a budget.
    Credit,
    /// What a limit allows in a day or in longer.
    Quota,
}

/// When an account is asked about.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inquiry {
    asked: Option<Monotonic>,
    /// When it was last asked about because of a shortage.
    asked_short: Option<Monotonic>,
    /// Answers in a row that did not come, or could not be read.
    failures: u32,
    /// Whether somebody has wanted to use it since it was last asked about.
    wanted: bool,
    /// Until when money is said to be used up, and a limit.
    short_until: [Option<Monotonic>; 2],
}

impl Shortage {
    /// Whether an endpoint's answer says that there is something left again. A limit of another kind says nothing
    /// about it, and where several are of its kind, none may be at its end.
    #[must_use]
    pub fn is_over(self, reports: &[Report]) -> bool {
        let is_money = |report: &&Report| matches!(report.metric, Metric::Usd | Metric::Units);
        let lasts = |window| match window {
            ReportWindow::Length(length) => length >= A_DAY,
            ReportWindow::Never | ReportWindow::Unknown => true,
        };
        let concerns = |report: &&Report| match self {
            Self::Credit => is_money(report),
            Self::Quota => !is_money(report) && lasts(report.window),
        };
        let mut left = reports.iter().filter(concerns).filter_map(|report| report.left).peekable();
        left.peek().is_some() && left.all(|left| left > 0)
    }
}

impl Inquiry {
    /// Somebody used the account, or would have.
    pub fn want(&mut self) {
        self.wanted = true;
    }

    /// It refused because something is used up, which lasts until then.
    pub fn run_short(&mut self, shortage: Shortage, until: Now) {
        self.wanted = true;
        let standing = &mut self.short_until[shortage as usize];
        *standing = (*standing).max(Some(until.monotonic));
    }

    /// How long it is until the account is to be asked about: zero if now, nothing if not before somebody wants it.
    #[must_use]
    pub fn wait(&self, now: Now) -> Option<Duration> {
        let is_short = self.is_short(now);
        if !self.wanted && !is_short {
            return None;
        }
        let failed = self.failures.checked_sub(1).map(|doublings| {
            let wait = AFTER_FAILURE.saturating_mul(1 << doublings.min(6)).min(LONGEST_WAIT);
            self.asked.map(|asked| asked.after(wait))
        });
        let usual = match is_short {
            true => self.asked_short.map(|asked| asked.after(EVERY_SHORT)),
            false => self.asked.map(|asked| asked.after(EVERY)),
        };
        let due = failed.unwrap_or(usual);
        Some(due.map_or(Duration::ZERO, |due| due.since(now.monotonic)))
    }

    /// It is asked about now.
    pub fn ask(&mut self, now: Now) {
        self.wanted = false;
        self.asked = Some(now.monotonic);
        if self.is_short(now) {
            self.asked_short = self.asked;
        }
    }

    /// There was an answer, which may say of what was used up that it is back.
    pub fn answered(&mut self, reports: &[Report]) {
        self.failures = 0;
        for shortage in [Shortage::Credit, Shortage::Quota] {
            if shortage.is_over(reports) {
                self.short_until[shortage as usize] = None;
            }
        }
    }

    /// There was no answer that can be read.
    pub fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
        // Whoever wanted to know still does, for an hour or so.
        self.wanted |= self.failures <= RETRIES;
    }

    fn is_short(&self, now: Now) -> bool {
        self.short_until.iter().flatten().any(|until| *until > now.monotonic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{ReportScope, ReportSource};

    fn at(seconds: u64) -> Now {
        Now::default().after(Duration::from_secs(seconds))
    }

    fn said(metric: Metric, window: ReportWindow, left: Option<u64>) -> Report {
        Report { left, ..Report::blank(metric, window, ReportScope::Account, ReportSource::Endpoint) }
    }

    fn wait(inquiry: &Inquiry, seconds: u64) -> Option<u64> {
        inquiry.wait(at(seconds)).map(|wait| wait.as_secs())
    }

    #[test]
    fn who_is_used_is_asked_about_at_once_and_then_every_ten_minutes() {
        let mut inquiry = Inquiry::default();
        assert_eq!(wait(&inquiry, 0), None, "nobody wants it");
        inquiry.want();
        assert_eq!(wait(&inquiry, 5), Some(0));
        inquiry.ask(at(5));
        inquiry.answered(&[]);
        assert_eq!(wait(&inquiry, 6), None, "idle from then on");
        inquiry.want();
        assert_eq!(wait(&inquiry, 65), Some(540));
        assert_eq!(wait(&inquiry, 4_000), Some(0));
    }

    #[test]
    fn what_is_used_up_is_asked_about_at_once_and_then_every_quarter_of_an_hour() {
        let mut inquiry = Inquiry::default();
        inquiry.want();
        inquiry.ask(at(0));
        inquiry.answered(&[]);
        inquiry.run_short(Shortage::Credit, at(10_000));
        assert_eq!(wait(&inquiry, 30), Some(0), "the last answer is older than the refusal");
        inquiry.ask(at(30));
        inquiry.answered(&[]);
        assert_eq!(wait(&inquiry, 30), Some(900), "even if nobody wants it");
        inquiry.run_short(Shortage::Credit, at(9_000));
        assert_eq!(wait(&inquiry, 40), Some(890), "a second refusal hastens nothing");
        inquiry.ask(at(930));
        inquiry.answered(&[said(Metric::Requests, ReportWindow::Length(A_DAY), Some(3))]);
        assert_eq!(wait(&inquiry, 930), Some(900), "of money it says nothing");
        inquiry.answered(&[said(Metric::Usd, ReportWindow::Never, Some(3))]);
        assert_eq!(wait(&inquiry, 930), None, "it is back");
        inquiry.run_short(Shortage::Credit, at(9_000));
        assert_eq!(wait(&inquiry, 931), Some(899), "said to be back and refused again: no faster than before");
        assert_eq!(wait(&inquiry, 9_000), Some(0), "over, but wanted");
    }

    #[test]
    fn an_endpoint_that_fails_is_asked_again_after_waits_that_grow() {
        let mut inquiry = Inquiry::default();
        inquiry.want();
        let mut now = 0;
        let mut waits = Vec::new();
        for _ in 0..9 {
            inquiry.ask(at(now));
            inquiry.failed();
            assert_eq!(wait(&inquiry, now).is_none(), waits.len() >= 6, "for ever only while somebody wants it");
            inquiry.want();
            let next = wait(&inquiry, now).unwrap();
            waits.push(next / 60);
            now += next;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        inquiry.ask(at(now));
        inquiry.answered(&[]);
        assert_eq!(wait(&inquiry, now), None);
    }

    #[test]
    fn only_a_limit_of_its_kind_ends_a_shortage() {
        let day = ReportWindow::Length(A_DAY);
        let minute = ReportWindow::Length(Duration::from_secs(60));
        let check = |shortage: Shortage, reports: &[Report], expected| {
            assert_eq!(shortage.is_over(reports), expected, "{shortage:?} {reports:?}");
        };
        check(Shortage::Credit, &[said(Metric::Usd, ReportWindow::Never, Some(1))], true);
        check(Shortage::Credit, &[said(Metric::Usd, ReportWindow::Never, Some(0))], false);
        check(Shortage::Credit, &[said(Metric::Usd, ReportWindow::Never, None)], false);
        check(Shortage::Credit, &[said(Metric::Requests, day, Some(38))], false);
        check(Shortage::Credit, &[said(Metric::Usd, day, Some(5)), said(Metric::Usd, day, Some(0))], false);
        check(Shortage::Quota, &[said(Metric::Requests, day, Some(38))], true);
        check(Shortage::Quota, &[said(Metric::Requests, day, Some(0))], false);
        check(Shortage::Quota, &[said(Metric::Requests, minute, Some(20))], false);
        check(Shortage::Quota, &[said(Metric::Requests, day, Some(0)), said(Metric::Usd, day, Some(5))], false);
        check(Shortage::Quota, &[], false);
    }
}
