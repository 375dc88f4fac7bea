//! How one of several targets is chosen.

mod cheapest;
mod fastest;
mod headroom;
mod ordered;
mod price;

use std::cmp::Ordering;
use std::time::Duration;

use freeway_types::Usd;

use crate::snapshot::Deployment;

/// How one of several targets is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// The greatest value less price: scarce quota is kept for what it is worth most to. Until there are prices, the
    /// lowest quality that will do, then the most headroom.
    #[default]
    Price,
    /// In the order of the list.
    Ordered,
    /// The least expected cost.
    Cheapest,
    /// The least time to the first content, as measured.
    Fastest,
    /// The most headroom.
    Headroom,
}

/// What a strategy looks at.
pub(crate) struct Standing<'a> {
    pub(crate) deployment: &'a Deployment,
    /// Share of the scarcest limit that is left, 0 to 1.
    pub(crate) headroom: f64,
    pub(crate) expected_cost: Option<Usd>,
    /// How long it usually takes to its first content, where the strategy asks for it and it is measured.
    pub(crate) first_content: Option<Duration>,
    /// Position in the list.
    pub(crate) position: usize,
}

impl Strategy {
    /// Every strategy.
    pub const ALL: [Self; 5] = [Self::Ordered, Self::Cheapest, Self::Fastest, Self::Headroom, Self::Price];

    /// The strategy of a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|strategy| strategy.as_str() == name)
    }

    /// The word used in configuration and pages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Price => "price",
            Self::Ordered => "ordered",
            Self::Cheapest => "cheapest",
            Self::Fastest => "fastest",
            Self::Headroom => "headroom",
        }
    }

    /// Which of two targets comes first. The position in the list breaks the last tie, so no two are equal.
    pub(crate) fn compare(self, one: &Standing<'_>, other: &Standing<'_>) -> Ordering {
        match self {
            Self::Price => price::compare(one, other),
            Self::Ordered => ordered::compare(one, other),
            Self::Cheapest => cheapest::compare(one, other),
            Self::Fastest => fastest::compare(one, other),
            Self::Headroom => headroom::compare(one, other),
        }
    }
}
