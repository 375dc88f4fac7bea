//! What must hold: after each step, and when all is over.

use std::collections::BTreeMap;

use freeway_engine::Engine;
use freeway_sim::{LogEntry, Sim};
use freeway_store::{AttemptRecord, Page, RequestRecord, Store};
use freeway_types::{RequestId, UsageSource};

use crate::client::number_in;
use crate::limit::Limit;
use crate::reached::Rare;
use crate::scenario::{Deed, Scenario};
use crate::world::World;

/// Who waits may do so for so much longer than was said, because timers go by whole milliseconds.
const SLACK_MS: u64 = 10;

/// Whether a limit can be judged by now: none can once a life ended after the wall clock was set wrong, because the next
/// one cannot know how old its ledger's rows are.
fn is_judged(limit: &Limit, world: &World) -> bool {
    limit.is_exact() && !world.was_killed_wrong()
}

/// After a step: what the gateway counts is never less than what the provider has counted, what is held is what is
/// in flight, and nobody was refused for a limit that is known.
pub(crate) fn check_now(world: &World, scenario: &Scenario, engine: &Engine, sims: &[Sim], active: usize) {
    let here = engine.limits();
    for (provider, sim) in scenario.providers.iter().zip(sims) {
        let there = sim.limits();
        for limit in &provider.limits {
            let (name_here, name_there) = (limit.name_here(&provider.name), limit.name_there());
            // A model's limits are the gateway's only once a request could be under them; the provider's likewise.
            let Some(theirs) = there.iter().find(|theirs| theirs.name == name_there) else { continue };
            if theirs.used == theirs.amount {
                world.note(Rare::LimitUsedToItsEnd);
            }
            if limit.hidden {
                continue;
            }
            let Some(ours) = here.iter().find(|ours| ours.name == name_here) else {
                world.fail(format!("the gateway has no limit {name_here}"));
                continue;
            };
            if ours.held > ours.used && ours.used < ours.amount.unwrap_or(0) {
                world.fail(format!("{name_here}: {} are held and {} used", ours.held, ours.used));
            }
            if matches!(limit.metric, "requests" | "concurrency") && ours.held > active as u64 {
                world.fail(format!("{name_here}: {} are held for {active} requests", ours.held));
            }
            if !is_judged(limit, world) {
                continue;
            }
            if theirs.refused > 0 {
                world.fail(format!("{name_here}: the provider refused {} requests for it", theirs.refused));
            }
            // A place is free here as soon as its connection is closed, and there when that is seen. What is counted
            // for successes alone is taken back here and there at moments of their own.
            let is_bound = limit.metric != "concurrency" && !limit.successes;
            if is_bound && ours.used < theirs.used.min(theirs.amount) {
                world.fail(format!(
                    "{name_here}: {} are used by our count, {} by the provider's",
                    ours.used, theirs.used
                ));
            }
        }
    }
}

/// When nothing is under way: nothing is held.
pub(crate) fn check_quiet(world: &World, engine: &Engine) {
    for limit in engine.limits().iter().filter(|limit| limit.held > 0) {
        world.fail(format!("{}: {} are held for requests that are over", limit.name, limit.held));
    }
    if engine.waiting() > 0 {
        world.fail(format!("{} wait, and nobody is there", engine.waiting()));
    }
}

/// When all is over: what reached a provider is in the ledger, each once, with the tokens that were counted there.
pub(crate) fn check_ledger(world: &World, scenario: &Scenario, sims: &[Sim], store: &dyn Store, ids: &[RequestId]) {
    let all = store.requests(Page { caller: None, most: 10_000, before: None }).unwrap_or_default();
    if let Some(stranger) = all.iter().find(|record| !ids.contains(&record.id)) {
        world.fail(format!("the ledger has a request that nobody made: {}", stranger.id));
    }
    let mut arrived: BTreeMap<(usize, &str), Vec<LogEntry>> = BTreeMap::new();
    for (provider, sim) in scenario.providers.iter().zip(sims) {
        for entry in sim.log() {
            match number_in(&entry.body) {
                Some(number) => arrived.entry((number, &provider.name)).or_default().push(entry),
                None => world.fail(format!("a request reached {} that is none of ours", provider.name)),
            }
        }
    }
    for ((number, account), entries) in &arrived {
        let found = ids.get(*number).and_then(|id| store.request(*id).ok().flatten());
        let Some(record) = found else {
            if world.was_power_lost() {
                continue;
            }
            world.fail(format!("request {number} reached {account} and is not in the ledger"));
            continue;
        };
        let attempts: Vec<_> =
            record.attempts.iter().filter(|a| a.account == *account && a.outcome != "connection_failed").collect();
        if entries.len() > attempts.len() && !world.was_power_lost() {
            let (came, known) = (entries.len(), attempts.len());
            world.fail(format!("request {number} reached {account} {came} times, of which the ledger knows {known}"));
        }
        check_tokens(world, *number, entries, &attempts);
    }
    for (number, id) in ids.iter().enumerate() {
        let Ok(Some(record)) = store.request(*id) else { continue };
        check_record(world, number, &record, |account| arrived.contains_key(&(number, account)));
        check_wait(world, scenario, number, &record);
    }
}

/// Nobody waits who may not, nor longer than he may, as long as the machine does not sleep meanwhile.
fn check_wait(world: &World, scenario: &Scenario, number: usize, record: &RequestRecord) {
    if record.waited_us == 0 {
        return;
    }
    let is_awake = !scenario.deeds.iter().any(|(_, deed)| matches!(deed, Deed::Suspend(_)));
    let may_ms = if record.tier == "patient" { scenario.wait_ms + SLACK_MS } else { 0 };
    if is_awake && record.waited_us > may_ms * 1_000 {
        world.fail(format!("request {number} of the tier {} waited for {} µs", record.tier, record.waited_us));
    }
    world.note(if record.status == 200 { Rare::WaitedAndWasServed } else { Rare::WaitedInVain });
}

/// Where the provider reported what it used, the ledger has that.
fn check_tokens(world: &World, number: usize, entries: &[LogEntry], attempts: &[&AttemptRecord]) {
    let served: Vec<_> = entries.iter().filter(|entry| entry.status == Some(200)).collect();
    let answered: Vec<_> = attempts.iter().filter(|attempt| attempt.outcome == "answered").collect();
    let ([.., entry], [.., attempt]) = (&served[..], &answered[..]) else { return };
    let counted = (attempt.usage.input, attempt.usage.output);
    if attempt.usage_source == UsageSource::Reported && entry.booked != Some(counted) {
        world.fail(format!("request {number}: {counted:?} tokens in the ledger, {:?} at the provider", entry.booked));
    }
}

fn check_record(world: &World, number: usize, record: &RequestRecord, arrived: impl Fn(&str) -> bool) {
    let RequestRecord { outcome, attempts, .. } = record;
    let answered = attempts.iter().filter(|attempt| attempt.outcome == "answered");
    for attempt in answered.filter(|attempt| !arrived(&attempt.account)) {
        world.fail(format!("request {number} was answered by {}, which never saw it", attempt.account));
    }
    let known = ["answered", "failed", "refused", "cancelled", "interrupted"];
    if !known.contains(&outcome.as_str()) {
        world.fail(format!("request {number} ended as `{outcome}`"));
    }
}
