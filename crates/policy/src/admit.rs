//! Admission: which tier and data class a request gets, within what its caller may ask for.

use std::time::Duration;

use freeway_types::{DataClass, Group, Quality};

/// A tier of requests.
#[derive(Clone, Debug, PartialEq)]
pub struct Tier {
    /// Its name.
    pub name: String,
    /// Groups of deployments, tried in turn.
    pub order: Vec<Group>,
    /// What serving one of its requests is worth against the others.
    pub value: f64,
    /// How long a request of it may wait for quota.
    pub wait: Duration,
}

/// The rules that admission follows.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// All tiers, highest value first.
    pub tiers: Vec<Tier>,
    /// The data class of a request that names none.
    pub data: DataClass,
    /// What the holders of client keys may ask for.
    pub client_keys: Vec<ClientKeyRule>,
}

/// What the holder of one client key may ask for: each is both the default and the ceiling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientKeyRule {
    /// The key's name in the configuration.
    pub name: String,
    /// Its tier; lower ones may be asked for.
    pub tier: Option<String>,
    /// Its data class; stricter ones may be asked for.
    pub data: Option<DataClass>,
}

/// Who sends a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// The operator, or anyone where no keys are set.
    Operator,
    /// The holder of the client key at this position.
    Client(usize),
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish<'a> {
    /// A tier, by name.
    pub tier: Option<&'a str>,
    /// A data class, by name.
    pub data: Option<&'a str>,
    /// The least quality, as text.
    pub min_quality: Option<&'a str>,
}

/// What a request gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Position of its tier in [`Rules::tiers`].
    pub tier: usize,
    /// Its data class.
    pub data: DataClass,
    /// The least quality that will do.
    pub min_quality: Quality,
}

/// Why a request is not admitted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// The request asks for something that is not there.
    #[error("{header}: `{value}` is not known; there are {known}")]
    Unknown {
        /// The header at fault.
        header: &'static str,
        /// What it says.
        value: String,
        /// What it may say.
        known: String,
    },
    /// The caller's key does not allow it.
    #[error("{header}: the key `{key}` allows {ceiling} and what is {direction}, not `{value}`")]
    Ceiling {
        /// The header at fault.
        header: &'static str,
        /// The client key's name.
        key: String,
        /// What it allows.
        ceiling: String,
        /// Which side of the ceiling is open.
        direction: &'static str,
        /// What was asked for.
        value: String,
    },
}

/// The tier that requests get when neither they nor their key name one.
const DEFAULT_TIER: &str = "standard";

/// Decides what a request gets.
///
/// # Errors
/// When it asks for an unknown tier, class or quality, or for more than its key allows.
pub fn admit(rules: &Rules, caller: Caller, wish: Wish<'_>) -> Result<Admission, Denial> {
    let key = client_key(rules, caller);
    Ok(Admission {
        tier: tier(rules, key, wish.tier)?,
        data: data(rules, key, wish.data)?,
        min_quality: wish.min_quality.map_or(Ok(Quality::LOWEST), min_quality)?,
    })
}

/// The tier that a request counts as before anything else of it is looked at: the one it names, or its key's own where
/// that name is unknown or above the key's ceiling. So nobody gains by a claim that admission will refuse.
#[must_use]
pub fn claim(rules: &Rules, caller: Caller, wished: Option<&str>) -> usize {
    let key = client_key(rules, caller);
    tier(rules, key, wished).or_else(|_| tier(rules, key, None)).unwrap_or(0)
}

fn client_key(rules: &Rules, caller: Caller) -> Option<&ClientKeyRule> {
    match caller {
        Caller::Operator => None,
        Caller::Client(position) => rules.client_keys.get(position),
    }
}

fn tier(rules: &Rules, key: Option<&ClientKeyRule>, wished: Option<&str>) -> Result<usize, Denial> {
    let find = |name: &str| rules.tiers.iter().position(|tier| tier.name == name);
    let own = key.and_then(|key| key.tier.as_deref()).and_then(find);
    let Some(name) = wished else {
        return Ok(own.or_else(|| find(DEFAULT_TIER)).unwrap_or(0));
    };
    let position = find(name).ok_or_else(|| Denial::Unknown {
        header: "x-freeway-tier",
        value: shown(name),
        known: rules.tiers.iter().map(|tier| tier.name.as_str()).collect::<Vec<_>>().join(", "),
    })?;
    match (key, own) {
        (Some(key), Some(own)) if rules.tiers[position].value > rules.tiers[own].value => Err(Denial::Ceiling {
            header: "x-freeway-tier",
            key: key.name.clone(),
            ceiling: rules.tiers[own].name.clone(),
            direction: "lower in value",
            value: shown(name),
        }),
        _ => Ok(position),
    }
}

fn data(rules: &Rules, key: Option<&ClientKeyRule>, wished: Option<&str>) -> Result<DataClass, Denial> {
    // A client key that names no class has the server's: for clients, that is a ceiling too.
    let own = key.map(|key| key.data.unwrap_or(rules.data));
    let Some(word) = wished else { return Ok(own.unwrap_or(rules.data)) };
    let class = DataClass::parse(word).ok_or_else(|| Denial::Unknown {
        header: "x-freeway-data",
        value: shown(word),
        known: DataClass::ALL.map(DataClass::as_str).join(", "),
    })?;
    match (key, own) {
        (Some(key), Some(own)) if class < own => Err(Denial::Ceiling {
            header: "x-freeway-data",
            key: key.name.clone(),
            ceiling: own.to_string(),
            direction: "stricter",
            value: shown(word),
        }),
        _ => Ok(class),
    }
}

fn min_quality(text: &str) -> Result<Quality, Denial> {
    text.parse().ok().and_then(Quality::new).ok_or_else(|| Denial::Unknown {
        header: "x-freeway-min-quality",
        value: shown(text),
        known: "1, 2, 3, 4, 5".to_owned(),
    })
}

/// A caller's text, short and without control characters.
fn shown(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        let tier =
            |name: &str, value| Tier { name: name.to_owned(), order: vec![Group::Any], value, wait: Duration::ZERO };
        let key =
            ClientKeyRule { name: "ci".to_owned(), tier: Some("standard".to_owned()), data: Some(DataClass::Internal) };
        Rules {
            tiers: vec![tier("critical", 10.0), tier("standard", 3.0), tier("batch", 1.0)],
            data: DataClass::Public,
            client_keys: vec![key],
        }
    }

    fn check(caller: Caller, tier: Option<&str>, data: Option<&str>, expected: &str) {
        let rules = rules();
        let answer = match admit(&rules, caller, Wish { tier, data, min_quality: None }) {
            Ok(admission) => format!("{} {}", rules.tiers[admission.tier].name, admission.data),
            Err(denial) => denial.to_string(),
        };
        assert_eq!(answer, expected);
    }

    #[test]
    fn defaults_and_ceilings() {
        check(Caller::Operator, None, None, "standard public");
        check(Caller::Operator, Some("critical"), Some("secret"), "critical secret");
        check(Caller::Client(0), None, None, "standard internal");
        check(Caller::Client(0), Some("batch"), Some("personal"), "batch personal");
        let higher = "x-freeway-tier: the key `ci` allows standard and what is lower in value, not `critical`";
        check(Caller::Client(0), Some("critical"), None, higher);
        let looser = "x-freeway-data: the key `ci` allows internal and what is stricter, not `public`";
        check(Caller::Client(0), None, Some("public"), looser);
        let unknown = "x-freeway-tier: `urg\\nent` is not known; there are critical, standard, batch";
        check(Caller::Operator, Some("urg\nent"), None, unknown);
    }

    #[test]
    fn a_claim_above_the_ceiling_counts_as_the_keys_own_tier() {
        let check = |caller, wished, expected: &str| {
            let rules = rules();
            assert_eq!(rules.tiers[claim(&rules, caller, wished)].name, expected, "{caller:?} {wished:?}");
        };
        check(Caller::Operator, None, "standard");
        check(Caller::Operator, Some("critical"), "critical");
        check(Caller::Operator, Some("urgent"), "standard");
        check(Caller::Client(0), Some("critical"), "standard");
        check(Caller::Client(0), Some("batch"), "batch");
        check(Caller::Client(0), Some("urgent"), "standard");
    }

    #[test]
    fn quality_is_a_number_from_one_to_five() {
        let ask = |text| admit(&rules(), Caller::Operator, Wish { min_quality: Some(text), ..Wish::default() });
        assert_eq!(ask("4").unwrap().min_quality.get(), 4);
        for bad in ["0", "6", "high", ""] {
            assert!(ask(bad).is_err(), "{bad}");
        }
    }
}
