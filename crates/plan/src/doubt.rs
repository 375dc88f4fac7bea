//! Which targets rest on facts that may not hold.

use std::time::Duration;

use freeway_catalog::{Confidence, STALE_DAYS};
use freeway_quota::{Civil, LimitSpec, Rule};
use freeway_router::{Deployment, Snapshot};
use freeway_types::{CostClass, Metric, Timestamp};

const DAY: Duration = Duration::from_secs(86_400);

/// Why what is known of a target cannot be relied on at an instant, in words; `None` where it can. What the user wrote is
/// relied on, and that a paid target has no known limit is no doubt: it is there to be paid for.
#[must_use]
pub fn doubt(snapshot: &Snapshot, limits: &[LimitSpec], deployment: &Deployment, now: Timestamp) -> Option<String> {
    let account = &snapshot.accounts[deployment.account.get()];
    let specs: Vec<&LimitSpec> = deployment.limits.iter().map(|limit| &limits[limit.get()]).collect();
    for spec in specs.iter().filter(|spec| spec.metric != Metric::Concurrency) {
        if spec.amount.is_none() {
            return Some(format!("nobody knows how large the limit {} is", spec.name));
        }
        if spec.own {
            continue;
        }
        if spec.confidence == Some(Confidence::Low) {
            return Some(format!("the limit {} is of low confidence", spec.name));
        }
        if spec.as_of.is_none() && account.provider.is_some() {
            return Some("its facts have no date".to_owned());
        }
        if let Some(read) = spec.as_of.filter(|read| days_between(*read, now) > STALE_DAYS) {
            let date = read.to_rfc3339();
            return Some(format!("its facts are of {}, which is stale", date.split('T').next().unwrap_or_default()));
        }
    }
    if account.provider.is_none() || account.local || deployment.cost == CostClass::Paid {
        return None;
    }
    let is_credit = specs.iter().any(|spec| matches!(spec.rule, Rule::Never(_)));
    if let Some(ending) = account.ending.as_ref().filter(|_| !is_credit) {
        return Some(ending.clone());
    }
    let is_known = specs.iter().any(|spec| spec.own || is_long(&spec.rule));
    (!is_known).then(|| "no limit over a day or longer is known".to_owned())
}

/// Whether a limit counts over a day or longer: what shorter ones allow is had only by who never stops asking.
fn is_long(rule: &Rule) -> bool {
    match rule {
        Rule::Rolling(length) | Rule::Bucket(length) | Rule::Calendar(Civil::Multiple(length), _) => *length >= DAY,
        Rule::Calendar(..) | Rule::Never(_) => true,
        Rule::Concurrency => false,
    }
}

fn days_between(earlier: Timestamp, later: Timestamp) -> i64 {
    (later.as_secs() - earlier.as_secs()) / 86_400
}
