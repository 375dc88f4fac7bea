//! Whose fault a failure was, as far as it says something of what comes next.

use crate::refusal::{Meaning, Remedy};

/// What a failure is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: the request was at fault, the key, or the quota.
    None,
    /// The address: there was no connection.
    Address,
    /// The model.
    Model {
        /// 1, or more for what is unlikely to be chance.
        weight: u32,
    },
}

impl Fault {
    /// Whose fault a failure was. `status` is the upstream's, if it sent one; `sent`, whether there was a connection.
    #[must_use]
    pub fn of(meaning: &Meaning, status: Option<u16>, sent: bool) -> Self {
        let is_answer = |remedy: Remedy| matches!(remedy, Remedy::SameAgain(_) | Remedy::Another);
        match (meaning.case.as_str(), status) {
            _ if !sent => Self::Address,
            _ if meaning.is_quota(status) || !is_answer(meaning.remedy) => Self::None,
            // The model may think longer than it was given room for: that is the request's size.
            ("no_room_for_content", _) => Self::None,
            // An empty answer is no accident of the network: three of them are enough.
            ("empty_answer", _) => Self::Model { weight: 2 },
            (_, None | Some(200..=299 | 408 | 500..)) => Self::Model { weight: 1 },
            _ => Self::None,
        }
    }
}
