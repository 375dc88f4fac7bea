//! What one attempt is expected to charge.

use freeway_catalog::Estimate;
use freeway_types::{Metric, Usage};
use serde::{Deserialize, Serialize};

use crate::spec::{Charging, LimitSpec};
use freeway_catalog::Charges;

/// A figure that is not known yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// What it will likely be.
    pub expected: u64,
    /// The most that it can be.
    pub most: u64,
}

/// What one attempt is expected to charge, before it is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Demand {
    /// Input tokens.
    pub input: Bound,
    /// Output tokens.
    pub output: Bound,
    /// Money, in picodollars.
    pub picos: Bound,
    /// The provider's own units.
    pub units: Bound,
}

impl Bound {
    /// A figure that is known.
    #[must_use]
    pub const fn exactly(value: u64) -> Self {
        Self { expected: value, most: value }
    }

    fn pick(self, charging: Charging) -> u64 {
        if charging.estimate == Estimate::Strict { self.most } else { self.expected }
    }

    /// Where what was asked for is charged, that is known, however much of it will be used.
    fn pick_asked(self, charging: Charging) -> u64 {
        if charging.charges == Charges::Requested { self.most } else { self.pick(charging) }
    }
}

impl Demand {
    /// What a limit of this kind is charged while the attempt is in flight.
    #[must_use]
    pub fn amount(&self, spec: &LimitSpec) -> u64 {
        let charging = spec.charging;
        match spec.metric {
            Metric::Requests | Metric::Concurrency => 1,
            Metric::InputTokens => self.input.pick(charging),
            Metric::OutputTokens => self.output.pick_asked(charging),
            Metric::Tokens | Metric::UncachedTokens => {
                self.input.pick(charging).saturating_add(self.output.pick_asked(charging))
            }
            Metric::Usd => self.picos.pick_asked(charging),
            Metric::Units => self.units.pick_asked(charging),
        }
    }

    /// What must be left of a limit of so much for an attempt to be sent: what it is charged and, where that is an
    /// estimate, a hundredth of the limit for those that fall short.
    ///
    /// The slack is asked of the attempt and not taken off the limit, so that an attempt that needs the whole limit
    /// still fits into it while nothing else is used, and what is left is shown as it is.
    #[must_use]
    pub fn room(&self, spec: &LimitSpec, amount: u64) -> u64 {
        let need = self.amount(spec);
        let counts_tokens =
            matches!(spec.metric, Metric::Tokens | Metric::InputTokens | Metric::OutputTokens | Metric::UncachedTokens);
        if !counts_tokens || spec.charging.estimate == Estimate::Strict {
            return need;
        }
        need.saturating_add((amount / 100).min(amount.saturating_sub(need)))
    }
}

/// What a finished attempt used of a metric, in the units of a limit: one request, no place, tokens, picodollars.
#[must_use]
pub fn used(metric: Metric, usage: Usage, picos: u64, units: u64) -> u64 {
    match metric {
        Metric::Requests => 1,
        Metric::Concurrency => 0,
        Metric::InputTokens => usage.input,
        Metric::OutputTokens => usage.output,
        Metric::Tokens => usage.total(),
        Metric::UncachedTokens => usage.total().saturating_sub(usage.cached_input),
        Metric::Usd => picos,
        Metric::Units => units,
    }
}
