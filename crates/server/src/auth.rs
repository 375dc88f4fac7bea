//! Who asks. Keys are kept and compared as hashes, each with every one, in constant time.

use freeway_policy::Caller;
use freeway_types::Secret;
use http::HeaderMap;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

/// A client's key and its name in the configuration.
pub struct ClientKey {
    /// The name; the position in the list is what [`Caller::Client`] holds.
    pub name: String,
    /// The key.
    pub key: Secret,
}

/// All keys that are accepted.
pub struct Keys {
    /// Hash of each key, and who it stands for: 0 is the operator, others a client's position plus one.
    hashes: Vec<([u8; 32], u32)>,
    names: Vec<String>,
}

impl Keys {
    /// The operator's keys and the clients'. Without any, everybody is the operator.
    #[must_use]
    pub fn new(operator: &[Secret], clients: &[ClientKey]) -> Self {
        let mut hashes: Vec<_> = operator.iter().map(|key| (hash(key.expose()), 0)).collect();
        for (position, client) in clients.iter().enumerate() {
            hashes.push((hash(client.key.expose()), u32::try_from(position + 1).unwrap_or(u32::MAX)));
        }
        Self { hashes, names: clients.iter().map(|client| client.name.clone()).collect() }
    }

    /// Whether a key is needed.
    #[must_use]
    pub fn are_set(&self) -> bool {
        !self.hashes.is_empty()
    }

    /// A caller's name in the ledger.
    pub(crate) fn name(&self, caller: Caller) -> &str {
        match caller {
            Caller::Operator => "operator",
            Caller::Client(position) => self.names.get(position).map_or("unknown", String::as_str),
        }
    }

    /// Who sends a request with these headers; `None` if a key is needed and none, or a wrong one, is there.
    pub(crate) fn caller(&self, headers: &HeaderMap) -> Option<Caller> {
        if !self.are_set() {
            return Some(Caller::Operator);
        }
        let offered = hash(offered(headers).unwrap_or_default());
        let (mut found, mut who) = (Choice::from(0), 0_u32);
        for (known, caller) in &self.hashes {
            let same = known.ct_eq(&offered);
            who.conditional_assign(caller, same);
            found |= same;
        }
        if !bool::from(found) {
            return None;
        }
        Some(if who == 0 { Caller::Operator } else { Caller::Client(who as usize - 1) })
    }
}

fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

/// The key that a client of any dialect sends.
fn offered(headers: &HeaderMap) -> Option<&str> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(authorization) = text("authorization") {
        let (scheme, key) = authorization.split_once(' ')?;
        return scheme.eq_ignore_ascii_case("bearer").then(|| key.trim()).filter(|key| !key.is_empty());
    }
    text("x-api-key").or_else(|| text("x-goog-api-key")).filter(|key| !key.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        let client = ClientKey { name: "ci".to_owned(), key: Secret::new("sk-test-ci") };
        Keys::new(&[Secret::new("sk-test-operator")], &[client])
    }

    fn check(name: &'static str, value: &str, expected: Option<Caller>) {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        assert_eq!(keys().caller(&headers), expected, "{name}: {value}");
    }

    #[test]
    fn keys_are_found_where_clients_put_them() {
        check("authorization", "Bearer sk-test-operator", Some(Caller::Operator));
        check("authorization", "bearer sk-test-ci", Some(Caller::Client(0)));
        check("x-api-key", "sk-test-ci", Some(Caller::Client(0)));
        check("x-goog-api-key", "sk-test-operator", Some(Caller::Operator));
        for wrong in ["Bearer", "Bearer ", "Basic sk-test-ci", "Bearer sk-test-c", "Bearer sk-test-ci2", "sk-test-ci"] {
            check("authorization", wrong, None);
        }
        assert_eq!(keys().caller(&HeaderMap::new()), None);
    }

    #[test]
    fn without_keys_everybody_is_the_operator() {
        assert_eq!(Keys::new(&[], &[]).caller(&HeaderMap::new()), Some(Caller::Operator));
    }
}
