//! What the routes rest on, and which of them rest on something that will not last: the answer to "what works on day
//! 31?".
//!
//! A route is an alias; where none is configured, `auto` is the one that everybody calls. Every route is critical where a
//! client key's own tier is: any key may call any route. Such a route is looked at with that key's eyes, and what would
//! do for others does not do for it.

use std::collections::BTreeSet;

use freeway_policy::{ClientKeyRule, Tier, permits};
use freeway_quota::{LimitSpec, Rule};
use freeway_types::{CostClass, DataClass, DeploymentIndex, LimitIndex, Timestamp};

use crate::snapshot::{Account, Deployment, Snapshot};

/// A route that may stop to work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Risk {
    /// The name that clients call.
    pub route: String,
    /// What kind of risk it is.
    pub kind: RiskKind,
    /// What it rests on, in words.
    pub why: String,
    /// What helps.
    pub remedy: &'static str,
    /// Whether it is what the configuration plainly wants, so that it is shown only to those who ask.
    pub is_wanted: bool,
}

/// What may happen to a route, the gravest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RiskKind {
    /// Nothing stands behind it even now.
    NoTarget,
    /// Everything behind it lapses or is used up for good.
    Ends,
    /// Critical requests may call it, and everything behind it is a gift.
    CriticalFree,
    /// One provider stands behind it.
    SingleSource,
}

impl RiskKind {
    /// Its word in the interface.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoTarget => "no_target",
            Self::Ends => "ends",
            Self::CriticalFree => "critical_free",
            Self::SingleSource => "single_source",
        }
    }
}

/// The name of the tier from whose value on requests are critical.
const CRITICAL: &str = "critical";

struct Route<'a> {
    name: &'a str,
    targets: &'a [DeploymentIndex],
    is_auto: bool,
}

/// A client key whose requests are critical unless they say otherwise.
struct CriticalKey<'a> {
    name: &'a str,
    tier: &'a Tier,
    data: DataClass,
}

/// The risks of all routes, at most one for each: the gravest. `spec` finds a limit.
#[must_use]
pub fn risks<'a>(snapshot: &'a Snapshot, spec: &dyn Fn(LimitIndex) -> &'a LimitSpec, now: Timestamp) -> Vec<Risk> {
    let aliases = snapshot.aliases.iter();
    let aliases = aliases.map(|(name, alias)| Route { name, targets: &alias.targets, is_auto: false });
    let auto = snapshot.named("auto").ok().filter(|_| snapshot.aliases.is_empty());
    let auto = auto.map(|named| Route { name: "auto", targets: named.targets, is_auto: true });
    let keys = critical_keys(snapshot);
    let gravest = |route: Route<'a>| match keys.is_empty() {
        true => risk(snapshot, spec, now, &route, None),
        // A key sees some of the targets, so whatever is a risk for all is one for it, or a graver one.
        false => {
            keys.iter().filter_map(|key| risk(snapshot, spec, now, &route, Some(key))).min_by_key(|risk| risk.kind)
        }
    };
    aliases.chain(auto).filter_map(gravest).collect()
}

/// The client keys whose own tier is worth as much as the critical one, or more.
fn critical_keys(snapshot: &Snapshot) -> Vec<CriticalKey<'_>> {
    let rules = &snapshot.rules;
    let find = |name: &str| rules.tiers.iter().find(|tier| tier.name == name);
    let Some(critical) = find(CRITICAL) else { return Vec::new() };
    let critical_key = |key: &'_ ClientKeyRule| {
        let tier = find(key.tier.as_deref()?).filter(|tier| tier.value >= critical.value)?;
        Some((tier, key.data.unwrap_or(rules.data)))
    };
    let keys = rules.client_keys.iter();
    keys.filter_map(|key| critical_key(key).map(|(tier, data)| CriticalKey { name: &key.name, tier, data })).collect()
}

fn risk<'a>(
    snapshot: &'a Snapshot,
    spec: &dyn Fn(LimitIndex) -> &'a LimitSpec,
    now: Timestamp,
    route: &Route<'a>,
    key: Option<&CriticalKey<'_>>,
) -> Option<Risk> {
    let risk = |kind, why: String, remedy, is_wanted| {
        let why = match key {
            Some(key) => format!("{why}; requests of the client key {} to it are {}", key.name, key.tier.name),
            None => why,
        };
        Some(Risk { route: route.name.to_owned(), kind, why, remedy, is_wanted: is_wanted && key.is_none() })
    };
    let mut usable: Vec<(&Account, &Deployment)> = route
        .targets
        .iter()
        .map(|index| (snapshot.account_of(*index), snapshot.deployment(*index)))
        .filter(|(_, deployment)| deployment.off.is_none())
        .collect();
    if usable.is_empty() {
        let first = route.targets.first().map(|index| snapshot.deployment(*index));
        let why = first.and_then(|first| Some(format!("{}: {}", first.name, first.off.as_ref()?)));
        let why = format!("none of its targets can be used: {}", why.unwrap_or_else(|| "it has none".to_owned()));
        return risk(RiskKind::NoTarget, why, "put that right, or add a target that can be used", false);
    }
    if let Some(key) = key {
        usable.retain(|(account, deployment)| key.may_use(account, deployment));
        if usable.is_empty() {
            let why = "none of its targets is allowed by both tier and data class".to_owned();
            return risk(RiskKind::NoTarget, why, "add a target that they allow", false);
        }
    }
    let endings: Option<BTreeSet<String>> =
        usable.iter().map(|(account, deployment)| ending(account, deployment, spec, now)).collect();
    if let Some(endings) = endings {
        let why = format!("all that it rests on ends: {}", endings.into_iter().collect::<Vec<_>>().join("; "));
        let remedy = "add a target whose quota comes back, or one at an account with plan = \"paid\"";
        return risk(RiskKind::Ends, why, remedy, false);
    }
    // One's own server is free and nobody's gift.
    let is_gift =
        |(account, deployment): &(&Account, &Deployment)| deployment.cost == CostClass::Free && !account.local;
    if key.is_some() && usable.iter().all(is_gift) {
        let remedy = "add a target at an account with plan = \"paid\", and let the tier's order have it";
        return risk(RiskKind::CriticalFree, "all that it rests on is free".to_owned(), remedy, false);
    }
    let provider = |account: &'a Account| account.provider.as_ref().unwrap_or(&account.id).as_str();
    let providers: BTreeSet<&str> = usable.iter().map(|(account, _)| provider(account)).collect();
    let accounts: BTreeSet<&str> = usable.iter().map(|(account, _)| account.id.as_str()).collect();
    let mut providers = providers.into_iter();
    match (providers.next(), providers.next()) {
        (Some(only), None) => {
            let why = match accounts.len() {
                1 => format!("it rests on one account, {}", usable[0].0.id),
                count => format!("it rests on one provider, {only}, by {count} accounts"),
            };
            let is_wanted = route.is_auto || usable.iter().all(|(account, _)| account.local);
            risk(RiskKind::SingleSource, why, "add a target at another provider", is_wanted)
        }
        _ => None,
    }
}

impl CriticalKey<'_> {
    /// Whether its requests may go there when they name a route: what costs money only where that is agreed to.
    fn may_use(&self, account: &Account, deployment: &Deployment) -> bool {
        self.tier.order.iter().any(|group| group.contains(deployment.cost))
            && (deployment.cost == CostClass::Free || account.may_spend)
            && permits(self.data, &deployment.data).is_ok()
    }
}

/// How a target comes to its end, if it is plain that it will.
fn ending<'a>(
    account: &Account,
    deployment: &Deployment,
    spec: &dyn Fn(LimitIndex) -> &'a LimitSpec,
    now: Timestamp,
) -> Option<String> {
    let credit = deployment.limits.iter().map(|limit| spec(*limit)).find_map(|limit| match &limit.rule {
        // Credits are in the order in which they lapse; those without an end come last.
        Rule::Never(grants) => grants.last(),
        _ => None,
    });
    let words = match (credit.map(|last| last.expires), &account.ending) {
        (Some(Some(end)), _) if end <= now => "the credit has lapsed".to_owned(),
        (Some(Some(end)), _) => format!("the credit lapses at {end}"),
        (Some(None), _) => "the credit does not come back".to_owned(),
        (None, Some(ending)) => ending.clone(),
        (None, None) => return None,
    };
    Some(format!("{}: {words}", account.id))
}
