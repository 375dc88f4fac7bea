//! What somebody should hear of before requests fail: routes that rest on something that will not last, and credits
//! that end.

use freeway_quota::{CreditAlarm, GrantView};
use freeway_router::{Risk, risks};
use freeway_telemetry::Event;

use crate::engine::Engine;

/// One thing that somebody should hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// A route may stop to work.
    Route(Risk),
    /// A credit ends.
    Credit {
        /// What it is called.
        name: String,
        /// What is about to happen.
        alarm: CreditAlarm,
        /// How it stands, in words.
        why: String,
    },
}

impl Warning {
    /// Its kind, as a word of the interface.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Route(risk) => risk.kind.as_str(),
            Self::Credit { alarm, .. } => alarm.as_str(),
        }
    }

    /// The route or the credit.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Route(risk) => &risk.route,
            Self::Credit { name, .. } => name,
        }
    }
}

impl Engine {
    /// Everything that somebody should hear of, as things stand now.
    #[must_use]
    pub fn warnings(&self) -> Vec<Warning> {
        let now = self.now().wall;
        let routes = {
            let state = self.state();
            risks(&self.snapshot, &|limit| state.book.spec(limit), now)
        };
        let credits = self.limits().into_iter().flat_map(|limit| limit.credits);
        let credits = credits.flat_map(|credit| {
            let warnings: Vec<Warning> = credit.alarms(now).map(|alarm| of_credit(&credit, alarm)).collect();
            warnings
        });
        routes.into_iter().map(Warning::Route).chain(credits).collect()
    }

    /// Writes warnings to the log that were not written there before, but for what the configuration plainly wants.
    pub fn tell_warnings(&self) {
        let now = self.now().wall;
        for warning in self.warnings() {
            let event = match &warning {
                Warning::Route(Risk { is_wanted: true, .. }) => continue,
                Warning::Route(Risk { route, why, remedy, .. }) => Event::RouteAtRisk { route, why, remedy },
                Warning::Credit { name, why, .. } => Event::CreditEnding { credit: name, why },
            };
            if self.shared().is_said_first(format!("{} {}", warning.kind(), warning.name())) {
                self.telemetry().tell(now, &event);
            }
        }
    }
}

fn of_credit(credit: &GrantView, alarm: CreditAlarm) -> Warning {
    let left = match credit.amount {
        0 => "an unknown rest".to_owned(),
        amount => format!("{} % of it", u128::from(credit.left) * 100 / u128::from(amount)),
    };
    let why = match (alarm, credit.lapses) {
        (CreditAlarm::Lapsing, Some(end)) => format!("it lapses at {end}, with {left} left"),
        _ if credit.left == 0 => "nothing of it is left".to_owned(),
        _ => format!("{left} is left"),
    };
    Warning::Credit { name: credit.name.clone(), alarm, why }
}
