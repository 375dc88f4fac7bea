//! What a request may use and a model may lack.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Something a request can use that not every model can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Feature {
    /// Answers sent piece by piece.
    Stream,
    /// Tool (function) calls.
    Tools,
    /// `response_format` of type `json_object`.
    JsonObject,
    /// `response_format` of type `json_schema`.
    JsonSchema,
    /// Images in messages.
    Vision,
    /// Audio in messages.
    AudioIn,
    /// Documents (files) in messages.
    Documents,
    /// Reasoning that the caller can set.
    Reasoning,
    /// An answer that has begun: an assistant's turn at the end, from which the model goes on.
    Prefill,
}

/// A set of features.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct FeatureSet(u16);

/// What is known of a model's features.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Known to work.
    pub present: FeatureSet,
    /// Known not to work. A feature in neither set is unknown: allowed, and learned.
    pub absent: FeatureSet,
}

impl Feature {
    /// Every feature.
    pub const ALL: [Self; 9] = [
        Self::Stream,
        Self::Tools,
        Self::JsonObject,
        Self::JsonSchema,
        Self::Vision,
        Self::AudioIn,
        Self::Documents,
        Self::Reasoning,
        Self::Prefill,
    ];

    /// The feature that a word stands for.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|feature| feature.as_str() == word)
    }

    /// The word used in configuration and pages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Tools => "tools",
            Self::JsonObject => "json_object",
            Self::JsonSchema => "json_schema",
            Self::Vision => "vision",
            Self::AudioIn => "audio_in",
            Self::Documents => "documents",
            Self::Reasoning => "reasoning",
            Self::Prefill => "prefill",
        }
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FeatureSet {
    /// Adds a feature.
    pub const fn insert(&mut self, feature: Feature) {
        self.0 |= 1 << feature as u16;
    }

    /// Whether the feature is in the set.
    #[must_use]
    pub const fn contains(self, feature: Feature) -> bool {
        self.0 & (1 << feature as u16) != 0
    }

    /// The features that are in both sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The features of this set that are not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether the set is empty.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The features, in the order of [`Feature::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Feature> {
        Feature::ALL.into_iter().filter(move |feature| self.contains(*feature))
    }
}

impl FromIterator<Feature> for FeatureSet {
    fn from_iter<I: IntoIterator<Item = Feature>>(features: I) -> Self {
        let mut set = Self::default();
        for feature in features {
            set.insert(feature);
        }
        set
    }
}

impl Features {
    /// What follows from a list that is somebody's word: what it leaves out is absent.
    #[must_use]
    pub fn from_list(listed: FeatureSet) -> Self {
        let all: FeatureSet = Feature::ALL.into_iter().collect();
        Self { present: listed, absent: all.without(listed) }
    }
}
