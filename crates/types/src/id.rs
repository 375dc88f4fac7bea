//! Identifiers. Positions in a snapshot are small integers, so that the hot
//! path indexes instead of hashing; a snapshot never changes under them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! index {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u32);

        impl $name {
            /// The first entry of a table.
            pub const FIRST: Self = Self(0);

            /// The entry at `position` of its table.
            /// Tables hold fewer than 2^32 entries; a position beyond that stands for the last one.
            #[must_use]
            pub fn new(position: usize) -> Self {
                Self(u32::try_from(position).unwrap_or(u32::MAX))
            }

            /// The position in its table.
            #[must_use]
            pub const fn get(self) -> usize {
                self.0 as usize
            }
        }
    };
}

index!(
    /// An account in the snapshot.
    AccountIndex
);
index!(
    /// A deployment (one model at one account) in the snapshot.
    DeploymentIndex
);
index!(
    /// A limit in the quota book.
    LimitIndex
);
index!(
    /// A key of one account.
    KeyIndex
);

/// Names one client request: `req_` and 26 letters and digits that sort by time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct RequestId(u128);

/// Text that is not a request id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a request id is `req_` followed by 26 letters and digits")]
pub struct NotARequestId;

const PREFIX: &str = "req_";
/// Crockford's base 32: no I, L, O or U, so that an id survives being read aloud.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

impl RequestId {
    /// An id made of a time in milliseconds since the epoch (48 bits are kept)
    /// and 80 random bits.
    #[must_use]
    pub const fn new(unix_ms: u64, random: u128) -> Self {
        Self(((unix_ms as u128 & 0xffff_ffff_ffff) << 80) | (random & ((1 << 80) - 1)))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = *b"req_00000000000000000000000000";
        // Sixty bits at a time: arithmetic on 128 of them costs several times as much.
        let parts = [(4..6, self.0 >> 120), (6..18, self.0 >> 60), (18..30, self.0)];
        for (place, bits) in parts {
            let mut bits = (bits & ((1 << 60) - 1)) as u64;
            for letter in text[place].iter_mut().rev() {
                *letter = ALPHABET[(bits & 31) as usize];
                bits >>= 5;
            }
        }
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for RequestId {
    type Err = NotARequestId;

    fn from_str(text: &str) -> Result<Self, NotARequestId> {
        let letters = text.strip_prefix(PREFIX).ok_or(NotARequestId)?;
        if letters.len() != 26 {
            return Err(NotARequestId);
        }
        let mut value: u128 = 0;
        for letter in letters.bytes() {
            let digit = ALPHABET.iter().position(|a| *a == letter).ok_or(NotARequestId)?;
            value = (value << 5) | digit as u128;
        }
        Ok(Self(value))
    }
}

impl From<RequestId> for String {
    fn from(id: RequestId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for RequestId {
    type Error = NotARequestId;

    fn try_from(text: String) -> Result<Self, NotARequestId> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_read_back_and_sort_by_time() {
        let early = RequestId::new(1_700_000_000_000, u128::MAX);
        let late = RequestId::new(1_700_000_000_001, 0);
        assert_eq!(early.to_string().parse(), Ok(early));
        assert!(early.to_string() < late.to_string());
        assert_eq!("req_short".parse::<RequestId>(), Err(NotARequestId));
    }
}
