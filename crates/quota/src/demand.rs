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
        if charging.estimate == Estimate::Strict || charging.charges == Charges::Requested {
            self.most
        } else {
            self.expected
        }
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
            Metric::OutputTokens => self.output.pick(charging),
            Metric::Tokens | Metric::UncachedTokens => {
                self.input.pick(charging).saturating_add(self.output.pick(charging))
            }
            Metric::Usd => self.picos.pick(charging),
            Metric::Units => self.units.pick(charging),
        }
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
