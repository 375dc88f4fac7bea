//! How one of several targets is chosen.

use std::cmp::Ordering;

use freeway_types::Usd;

use crate::snapshot::Deployment;

/// How one of several targets is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// The lowest quality that will do, then the most headroom: good models are kept for what needs them.
    /// It stands in for prices until those exist.
    #[default]
    Adequate,
    /// In the order of the list.
    Ordered,
    /// The least expected cost.
    Cheapest,
    /// The most headroom.
    Headroom,
}

/// What a strategy looks at.
pub(crate) struct Standing<'a> {
    pub(crate) deployment: &'a Deployment,
    /// Share of the scarcest limit that is left, 0 to 1.
    pub(crate) headroom: f64,
    pub(crate) expected_cost: Option<Usd>,
    /// Position in the list.
    pub(crate) position: usize,
}

impl Strategy {
    /// Every strategy.
    pub const ALL: [Self; 4] = [Self::Ordered, Self::Cheapest, Self::Headroom, Self::Adequate];

    /// The strategy of a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|strategy| strategy.as_str() == name)
    }

    /// The word used in configuration and pages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Adequate => "adequate",
            Self::Ordered => "ordered",
            Self::Cheapest => "cheapest",
            Self::Headroom => "headroom",
        }
    }

    /// Which of two targets comes first. The position in the list breaks every tie.
    pub(crate) fn compare(self, one: &Standing<'_>, other: &Standing<'_>) -> Ordering {
        let headroom = || other.headroom.total_cmp(&one.headroom);
        let preference = match self {
            Self::Ordered => Ordering::Equal,
            Self::Adequate => one.deployment.quality.cmp(&other.deployment.quality).then_with(headroom),
            // An unknown price counts as the highest.
            Self::Cheapest => {
                let key = |standing: &Standing<'_>| (standing.expected_cost.is_none(), standing.expected_cost);
                key(one).cmp(&key(other)).then_with(headroom)
            }
            Self::Headroom => headroom(),
        };
        preference.then(one.position.cmp(&other.position))
    }
}
