//! Why a deployment was left out, in words and in kinds.

use std::fmt;
use std::time::Duration;

use freeway_policy::Clause;
use freeway_types::{CostClass, Feature, LimitIndex, Now, Quality};

/// Why a deployment was left out of a plan.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    /// It is switched off.
    Off(String),
    /// It is not a model that chats.
    NotChat,
    /// A data rule forbids it.
    Data(Clause),
    /// The tier does not use its group.
    TierOrder {
        /// The tier's name.
        tier: String,
        /// What the deployment costs.
        cost: CostClass,
    },
    /// It costs money, and nobody agreed to spend any.
    WouldSpend,
    /// It is not good enough.
    Quality {
        /// What it is.
        has: Quality,
        /// What is needed.
        needs: Quality,
    },
    /// It cannot do something the request uses.
    Feature(Feature),
    /// It does not take a field of the request.
    Field(String),
    /// The request does not fit its context.
    Context {
        /// What fits.
        context: u64,
        /// The least that the request needs.
        needs: u64,
    },
    /// It does not answer at such length.
    Output {
        /// The most it answers with.
        most: u64,
        /// What was asked for.
        asked: u64,
    },
    /// A limit has not enough left.
    Quota {
        /// The limit.
        limit: LimitIndex,
        /// Its name.
        name: String,
        /// When the request fits again; `None`: not by waiting.
        until: Option<Now>,
        /// Whether the request is larger than the whole limit.
        too_large: bool,
    },
    /// Enough is left, and it is kept for what is worth more.
    Price {
        /// What the request is worth.
        value: f64,
        /// What it would take, at the prices in force.
        price: f64,
        /// When that is looked at again.
        until: Now,
    },
    /// A limit has enough left, and the disk was too slow to secure more of it.
    Unsecured {
        /// The limit's name.
        name: String,
    },
    /// It, its account or all of its keys are paused.
    Paused {
        /// Until when.
        until: Now,
        /// Why.
        why: String,
    },
    /// It failed again and again, and is left alone for a moment.
    Broken {
        /// Until when.
        until: Now,
    },
    /// It failed earlier in this request.
    Failed(String),
}

/// What kind of obstacle a reason is; decides what the client is told when nothing is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bar {
    /// The operator's or the caller's rules.
    Policy,
    /// The model cannot do it.
    Capability,
    /// The request is too long for it.
    Context,
    /// Used up; comes back.
    Quota,
    /// Something that will pass.
    Passing,
}

impl Reason {
    /// What kind of obstacle it is.
    #[must_use]
    pub const fn bar(&self) -> Bar {
        match self {
            Self::Data(_) | Self::TierOrder { .. } | Self::WouldSpend | Self::Quality { .. } => Bar::Policy,
            Self::Off(_) | Self::NotChat | Self::Feature(_) | Self::Field(_) | Self::Output { .. } => Bar::Capability,
            Self::Context { .. } => Bar::Context,
            Self::Quota { too_large: true, .. } => Bar::Context,
            Self::Quota { .. } | Self::Price { .. } => Bar::Quota,
            Self::Unsecured { .. } | Self::Paused { .. } | Self::Broken { .. } | Self::Failed(_) => Bar::Passing,
        }
    }

    /// One word for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Off(_) => "off",
            Self::NotChat => "not_chat",
            Self::Data(_) => "data_rule",
            Self::TierOrder { .. } => "tier_order",
            Self::WouldSpend => "would_spend",
            Self::Quality { .. } => "quality",
            Self::Feature(_) => "feature",
            Self::Field(_) => "field",
            Self::Context { .. } => "context",
            Self::Output { .. } => "output",
            Self::Quota { .. } => "quota",
            Self::Price { .. } => "price",
            Self::Unsecured { .. } => "unsecured",
            Self::Paused { .. } => "paused",
            Self::Broken { .. } => "breaker",
            Self::Failed(_) => "failed",
        }
    }

    /// When it will have passed, if that is known.
    #[must_use]
    pub const fn until(&self) -> Option<Now> {
        match self {
            Self::Quota { until, .. } => *until,
            Self::Paused { until, .. } | Self::Broken { until } | Self::Price { until, .. } => Some(*until),
            _ => None,
        }
    }

    /// How long that is from `now`.
    #[must_use]
    pub fn wait(&self, now: Now) -> Option<Duration> {
        self.until().map(|until| until.monotonic.since(now.monotonic))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off(why) => write!(f, "off: {why}"),
            Self::NotChat => f.write_str("not a chat model"),
            Self::Data(clause) => write!(f, "{clause}"),
            Self::TierOrder { tier, cost } => write!(f, "the tier `{tier}` uses no {} targets", cost.as_str()),
            Self::WouldSpend => {
                f.write_str("costs money: set plan = \"paid\" for this provider, or name it as provider/model")
            }
            Self::Quality { has, needs } => write!(f, "quality {has}, and {needs} is needed"),
            Self::Feature(feature) => write!(f, "cannot do {feature}"),
            Self::Field(field) => write!(f, "does not take `{field}`"),
            Self::Context { context, needs } => {
                write!(f, "a context of {context} tokens, and the request needs {needs} or more")
            }
            Self::Output { most, asked } => write!(f, "answers with {most} tokens at most, and {asked} are asked for"),
            Self::Quota { name, until: Some(until), .. } => write!(f, "{name}: used up until {}", until.wall),
            Self::Quota { name, too_large: true, .. } => {
                write!(f, "{name}: the request is larger than the whole limit")
            }
            Self::Quota { name, until: None, .. } => write!(f, "{name}: used up, and does not come back by itself"),
            Self::Price { value, price, .. } => {
                write!(f, "its quota is kept for what is worth more: a value of {value:.2} at a price of {price:.2}")
            }
            Self::Unsecured { name } => write!(f, "{name}: the ledger's disk is too slow to secure more of it"),
            Self::Paused { until, why } => write!(f, "paused until {}: {why}", until.wall),
            Self::Broken { until } => write!(f, "failed again and again, and is left alone until {}", until.wall),
            Self::Failed(why) => write!(f, "failed: {why}"),
        }
    }
}
