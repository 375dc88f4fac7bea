//! Which of a plan's targets a request goes to, or that it waits.
//!
//! This is where a strategy takes part that is more than an order of the plan: one that looks ahead, and leaves quota
//! unused for what comes later.

use freeway_router::{Plan, Unserved};

use crate::scene::Scene;
use crate::workload::Arrival;

/// What is done with a request that could be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// It goes to the candidate at this position of the plan, which was kept.
    Take(usize),
    /// It goes nowhere now.
    Leave {
        /// From when on it may.
        unserved: Unserved,
        /// Why, in one word for programs.
        code: &'static str,
    },
}

/// Chooses among a plan's kept targets.
///
/// Whoever chooses must be consistent: what it takes for a request it takes, at the same instant and with the same
/// counts, for a smaller one of the same kind. Those that wait are served by that rule.
pub trait Chooser {
    /// Time has come to the scene's instant, which never falls. Called before each decision and before each turn of
    /// those that wait: whoever forecasts or solves does it here.
    fn advance(&mut self, _scene: &mut Scene<'_>) {}

    /// A request arrives, before anything is decided of it: what a forecast may learn from.
    fn arrived(&mut self, _scene: &Scene<'_>, _arrival: &Arrival) {}

    /// A request was served by what was chosen for it.
    fn served(&mut self, _scene: &Scene<'_>, _arrival: &Arrival) {}

    /// Chooses for a request whose plan keeps at least one target. It may be asked for requests that nobody sent, to find
    /// out whether a smaller one would be served.
    fn choose(&self, scene: &Scene<'_>, arrival: &Arrival, plan: &Plan) -> Choice;
}

/// Takes the first of the plan's order, as each strategy does that ranks.
#[derive(Clone, Copy, Debug, Default)]
pub struct InOrder;

impl Chooser for InOrder {
    fn choose(&self, _: &Scene<'_>, _: &Arrival, plan: &Plan) -> Choice {
        match plan.order.first() {
            Some(first) => Choice::Take(*first),
            None => Choice::Leave { unserved: Unserved::Never, code: "no_target" },
        }
    }
}
