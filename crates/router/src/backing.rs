//! What the routes rest on, and which of them rest on something that will not last: the answer to "what works on day
//! 31?".
//!
//! A route is an alias; where none is configured, `auto` is the one that everybody calls.

use std::collections::BTreeSet;

use freeway_quota::{LimitSpec, Rule};
use freeway_types::{DeploymentIndex, LimitIndex, Timestamp};

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

/// What may happen to a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RiskKind {
    /// Nothing stands behind it even now.
    NoTarget,
    /// Everything behind it lapses or is used up for good.
    Ends,
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
            Self::SingleSource => "single_source",
        }
    }
}

/// The risks of all routes, at most one for each: the gravest. `spec` finds a limit.
#[must_use]
pub fn risks<'a>(snapshot: &'a Snapshot, spec: &dyn Fn(LimitIndex) -> &'a LimitSpec, now: Timestamp) -> Vec<Risk> {
    let aliases = snapshot.aliases.iter().map(|(name, alias)| (name.as_str(), alias.targets.as_slice(), false));
    let auto = snapshot.named("auto").ok().filter(|_| snapshot.aliases.is_empty());
    let routes = aliases.chain(auto.map(|named| ("auto", named.targets, true)));
    routes.filter_map(|(route, targets, is_auto)| risk(snapshot, spec, now, route, targets, is_auto)).collect()
}

fn risk<'a>(
    snapshot: &'a Snapshot,
    spec: &dyn Fn(LimitIndex) -> &'a LimitSpec,
    now: Timestamp,
    route: &str,
    targets: &[DeploymentIndex],
    is_auto: bool,
) -> Option<Risk> {
    let risk = |kind, why, remedy, is_wanted| Some(Risk { route: route.to_owned(), kind, why, remedy, is_wanted });
    let usable: Vec<(&Account, &Deployment)> = targets
        .iter()
        .map(|index| (snapshot.account_of(*index), snapshot.deployment(*index)))
        .filter(|(_, deployment)| deployment.off.is_none())
        .collect();
    if usable.is_empty() {
        let first = targets.first().map(|index| snapshot.deployment(*index));
        let why = first.and_then(|first| Some(format!("{}: {}", first.name, first.off.as_ref()?)));
        let why = format!("none of its targets can be used: {}", why.unwrap_or_else(|| "it has none".to_owned()));
        return risk(RiskKind::NoTarget, why, "put that right, or add a target that can be used", false);
    }
    let endings: Option<BTreeSet<String>> =
        usable.iter().map(|(account, deployment)| ending(account, deployment, spec, now)).collect();
    if let Some(endings) = endings {
        let why = format!("all that it rests on ends: {}", endings.into_iter().collect::<Vec<_>>().join("; "));
        let remedy = "add a target whose quota comes back, or one at an account with plan = \"paid\"";
        return risk(RiskKind::Ends, why, remedy, false);
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
            let is_wanted = is_auto || usable.iter().all(|(account, _)| account.local);
            risk(RiskKind::SingleSource, why, "add a target at another provider", is_wanted)
        }
        _ => None,
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
