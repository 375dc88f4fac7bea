//! The small enumerations of policy: how sensitive a request is, how good a
//! model is, and whether a deployment costs money.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How sensitive a request is. Later variants are stricter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DataClass {
    /// May go anywhere.
    Public,
    /// Must not be trained on.
    Internal,
    /// Must not be trained on, and must be gone after 30 days.
    Personal,
    /// Must not be kept at all.
    Secret,
}

/// How good a model is: 1 (small) to 5 (frontier).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "u8", into = "u8")]
#[schemars(with = "u8", extend("minimum" = 1, "maximum" = 5))]
pub struct Quality(u8);

/// Whether a deployment costs money under its account's plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CostClass {
    /// Nothing is charged.
    Free,
    /// Money is, or may be, charged.
    Paid,
}

/// One group in a tier's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    /// Deployments that cost nothing.
    Free,
    /// Deployments that cost money.
    Paid,
    /// Both, without preference.
    Any,
}

// === impl DataClass ===

impl DataClass {
    /// Every class, mildest first.
    pub const ALL: [Self; 4] = [Self::Public, Self::Internal, Self::Personal, Self::Secret];

    /// The word used in configuration, headers and pages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Internal => "internal",
            Self::Personal => "personal",
            Self::Secret => "secret",
        }
    }

    /// Reads the word used in headers.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.as_str() == word)
    }
}

impl fmt::Display for DataClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Quality ===

impl Quality {
    /// The lowest class, and what an unknown model is taken for.
    pub const LOWEST: Self = Self(1);

    /// The class `value`, if it is one of 1 to 5.
    #[must_use]
    pub fn new(value: u8) -> Option<Self> {
        (1..=5).contains(&value).then_some(Self(value))
    }

    /// The class as a number from 1 to 5.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl TryFrom<u8> for Quality {
    type Error = &'static str;
    fn try_from(value: u8) -> Result<Self, Self::Error> {
        Self::new(value).ok_or("quality is a number from 1 to 5")
    }
}

impl From<Quality> for u8 {
    fn from(quality: Quality) -> Self {
        quality.0
    }
}

impl fmt::Display for Quality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

// === impl CostClass and Group ===

impl CostClass {
    /// The word used in configuration and pages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Paid => "paid",
        }
    }
}

impl Group {
    /// Whether a deployment of this cost belongs to the group.
    #[must_use]
    pub const fn contains(self, cost: CostClass) -> bool {
        matches!((self, cost), (Self::Any, _) | (Self::Free, CostClass::Free) | (Self::Paid, CostClass::Paid))
    }

    /// The word used in configuration and pages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Paid => "paid",
            Self::Any => "any",
        }
    }
}
