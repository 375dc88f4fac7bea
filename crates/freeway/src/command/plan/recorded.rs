//! A need as it was: from what the running gateway has in its ledger.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use freeway_plan::Draft;
use freeway_types::Timestamp;
use http::Method;
use serde_json::Value;

use crate::client::{self, Unanswered, ask};

/// Requests of one page, and the most pages that are read: what came before them is not looked at.
const PAGE: usize = 500;
const MOST_PAGES: usize = 400;
const DAY_S: u64 = 86_400;

/// What the ledger says of the requests of some days.
#[derive(Default)]
struct Found {
    requests: u64,
    tiers: BTreeMap<String, u64>,
    by_hour: [u64; 24],
    /// The first that was looked at.
    first: Option<Timestamp>,
}

/// A need with what it lacks taken from the requests of so many days.
pub(super) fn filled(mut draft: Draft, days: u32, config: Option<&Path>) -> Result<Draft, String> {
    let loaded = client::configuration(config)?;
    let get = |path: &str| ask(&loaded, Method::GET, path, &[], None).map_err(Unanswered::message);
    let now = client::now();
    let mut since = now.before(Duration::from_secs(u64::from(days) * DAY_S));
    let mut found = Found::default();
    let mut before = String::new();
    for page in 1.. {
        let answer = get(&format!("/freeway/v1/requests?limit={PAGE}{before}"))?;
        let rows = answer["requests"].as_array().map(Vec::as_slice).unwrap_or_default();
        let is_over = rows.iter().any(|row| !found.see(row, since));
        if is_over || rows.len() < PAGE {
            break;
        }
        if page == MOST_PAGES {
            since = found.first.unwrap_or(since);
            break;
        }
        before = format!("&before={}", rows.last().and_then(|row| row["id"].as_str()).unwrap_or_default());
    }
    let usage = get(&format!("/freeway/v1/usage?by=provider&since={since}"))?;
    let sum = |name: &str| -> u64 {
        usage["rows"].as_array().into_iter().flatten().filter_map(|row| row[name].as_u64()).sum()
    };
    let answered = sum("answered");
    if found.requests == 0 || answered == 0 {
        return Err(format!("--recorded: no request was answered in the last {days} days; describe the need instead"));
    }
    let length = now.since(since).as_secs().max(1);
    let a_day = (u128::from(found.requests) * u128::from(DAY_S)).div_ceil(u128::from(length));
    draft.requests.get_or_insert((u64::try_from(a_day).unwrap_or(u64::MAX), DAY_S));
    draft.by_hour = Some(found.by_hour);
    if (draft.tokens, draft.input, draft.output) == (None, None, None) {
        draft.input = Some(sum("input_tokens").div_ceil(answered));
        draft.output = Some(sum("output_tokens").div_ceil(answered));
    }
    if draft.tiers.is_empty() {
        for (tier, count) in &found.tiers {
            #[expect(clippy::cast_precision_loss, reason = "a share of requests")]
            draft.share(tier, *count as f64 / found.requests as f64).map_err(|error| error.to_string())?;
        }
    }
    Ok(draft)
}

impl Found {
    /// Takes a request in, if it came at `since` or later. Gives whether it did.
    fn see(&mut self, row: &Value, since: Timestamp) -> bool {
        let Some(at) = row["received_at"].as_str().and_then(Timestamp::parse) else { return true };
        if at < since {
            return false;
        }
        // What could never have been served is no need: a request that was wrong, or was not allowed.
        if row["outcome"] != "refused" {
            self.requests += 1;
            *self.tiers.entry(row["tier"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
            let hour = usize::try_from(at.as_secs().rem_euclid(86_400) / 3_600).unwrap_or(0);
            self.by_hour[hour] += 1;
        }
        self.first = Some(at);
        true
    }
}
