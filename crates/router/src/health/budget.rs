//! How often something may be sent twice. A count for each request is the wrong tool: when everything fails, every
//! request uses up its count, and a provider in trouble gets several times its usual load. A share of all requests
//! cannot do that.

use std::time::Duration;

use freeway_types::{Monotonic, Now};

use super::ring::Ring;

/// Seconds that are looked at.
const SECONDS: usize = 10;
/// One retry for so many first attempts …
const FIRST_FOR_A_RETRY: u64 = 10;
/// … but always so many in a second, over all the seconds that are looked at.
const ALWAYS: u64 = 3 * SECONDS as u64;

/// Retries at one provider: at most a tenth of the first attempts there, and three a second in any case.
#[derive(Clone, Debug, Default)]
pub struct RetryBudget {
    seconds: Ring<Second, SECONDS>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Second {
    first: u64,
    again: u64,
}

impl RetryBudget {
    /// A request goes to the provider for the first time.
    pub fn first(&mut self, now: Now) {
        self.seconds.now(second_of(now)).first += 1;
    }

    /// Whether a request may go there once more; if so, it is taken for granted that it does.
    pub fn again(&mut self, now: Now) -> bool {
        let recent = self.seconds.recent(second_of(now));
        let (first, again) = recent.fold((0, 0), |(first, again), second| (first + second.first, again + second.again));
        let may = again < (first / FIRST_FOR_A_RETRY).max(ALWAYS);
        if may {
            self.seconds.now(second_of(now)).again += 1;
        }
        may
    }
}

fn second_of(now: Now) -> u64 {
    now.monotonic.since(Monotonic::default()).as_secs()
}

/// What a request adds, in thousandths of a hedge: a twentieth of one …
const SHARE: u64 = 50;
/// … and the same share of its tokens, one in so many.
const TOKENS_FOR_A_TOKEN: u64 = 20;
/// Hedges that may be saved up, in thousandths, whatever the traffic.
const SAVED: u64 = 2_000;
const MINUTE: Duration = Duration::from_secs(60);

/// Hedges: at most a twentieth of all requests, and of all tokens. What is not used is saved only for two of them, or
/// for a hundredth of a minute's requests.
#[derive(Clone, Debug, Default)]
pub struct HedgeBudget {
    /// Thousandths of a hedge.
    hedges: u64,
    tokens: u64,
    /// Requests of the minute under way, of the one before, and since when.
    requests: u64,
    before: u64,
    since: Monotonic,
}

impl HedgeBudget {
    /// A request came that is expected to use so many tokens.
    pub fn request(&mut self, tokens: u64, now: Now) {
        let passed = now.monotonic.since(self.since);
        if passed >= MINUTE {
            self.before = if passed < 2 * MINUTE { self.requests } else { 0 };
            (self.requests, self.since) = (0, now.monotonic);
        }
        self.requests += 1;
        let rate = self.before.max(self.requests);
        self.hedges = (self.hedges + SHARE).min((rate * 10).max(SAVED));
        // As many tokens as requests of this size would have saved hedges for.
        let most = tokens.saturating_mul((rate / 100).max(2));
        self.tokens = (self.tokens + tokens / TOKENS_FOR_A_TOKEN).min(most.max(self.tokens));
    }

    /// Whether a second attempt may be made that uses so many tokens; if so, it is taken for granted that it is.
    pub fn hedge(&mut self, tokens: u64) -> bool {
        let may = self.hedges >= 1_000 && self.tokens >= tokens;
        if may {
            self.hedges -= 1_000;
            self.tokens -= tokens;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use freeway_types::Timestamp;

    fn at(micros: u64) -> Now {
        Now { wall: Timestamp::default(), monotonic: Monotonic::from_micros(micros) }
    }

    #[test]
    fn an_outage_is_not_made_worse_by_more_than_a_tenth() {
        let mut budget = RetryBudget::default();
        let mut again = 0;
        // A minute of a hundred requests a second, each of which would be sent again three times.
        for request in 0..6_000_u64 {
            let now = at(request * 10_000);
            budget.first(now);
            again += (0..3).filter(|_| budget.again(now)).count();
        }
        assert!((550..=660).contains(&again), "{again} of 6000");
    }

    #[test]
    fn little_traffic_may_always_try_again() {
        let mut budget = RetryBudget::default();
        for second in 0..100 {
            budget.first(at(second * 1_000_000));
            assert!((0..3).all(|_| budget.again(at(second * 1_000_000))), "second {second}");
        }
        let storm = (0..1_000).filter(|_| budget.again(at(99_500_000))).count();
        assert_eq!(storm, 0, "and thirty in ten seconds are all there is");
        assert!(budget.again(at(120_000_000)));
    }

    #[test]
    fn hedges_are_a_twentieth_of_requests_and_of_tokens() {
        let mut budget = HedgeBudget::default();
        let (mut hedges, mut tokens, mut hedged_tokens) = (0_u64, 0, 0);
        for request in 0..10_000_u64 {
            // Every tenth is ten times as large.
            let size = if request % 10 == 0 { 10_000 } else { 1_000 };
            budget.request(size, at(request * 10_000));
            tokens += size;
            if budget.hedge(size) {
                hedges += 1;
                hedged_tokens += size;
            }
        }
        assert!((400..=500).contains(&hedges), "{hedges}");
        assert!(hedged_tokens * 20 <= tokens, "{hedged_tokens} of {tokens}");
    }

    #[test]
    fn nothing_is_hedged_before_anything_was_asked_and_a_quiet_hour_saves_two() {
        let mut budget = HedgeBudget::default();
        assert!(!budget.hedge(0));
        for request in 0..60 {
            budget.request(1_000, at(request * 60_000_000));
        }
        assert_eq!((0..10).filter(|_| budget.hedge(1_000)).count(), 2);
    }
}
