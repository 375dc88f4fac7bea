//! What one seed draws: providers, load, faults, clocks, and the ends of lives.

use std::fmt;

use freeway_sim::{Fault, FaultKind};
use serde_json::json;

use crate::chance::Chance;
use crate::limit::{Limit, Owner};

/// Most requests of one scenario.
const MOST_CALLS: u64 = 90;
/// 2026-01-01T00:00:00Z, in seconds.
const YEAR: u64 = 1_767_225_600;
/// Instants near which calendars turn: midnights (UTC, Los Angeles, Santiago, Kolkata), a Monday, a first of the
/// month, and days of 23 and 25 hours. In seconds since 1970.
const TURNS: [u64; 9] = [
    1_780_272_000, // 2026-06-01T00:00Z, a Monday
    1_780_297_200, // 2026-06-01T07:00Z, midnight in Los Angeles
    1_780_252_200, // 2026-05-31T18:30Z, midnight in Kolkata
    1_772_956_800, // 2026-03-08T08:00Z, a day of 23 hours begins in Los Angeles
    1_773_039_600, // 2026-03-09T07:00Z, and ends
    1_793_516_400, // 2026-11-01T07:00Z, a day of 25 hours begins in Los Angeles
    1_793_606_400, // 2026-11-02T08:00Z, and ends
    1_788_667_200, // 2026-09-06T04:00Z, a missing midnight in Santiago
    1_798_761_600, // 2027-01-01T00:00Z
];

/// When a life of the gateway ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kill {
    /// After so many steps.
    AtStep(u64),
    /// After so many attempts were written down, before anything of the last one is sent.
    AfterJournal(u64),
    /// After so many writes to providers.
    AfterWrite(u64),
}

/// What of the files a loss of power spares beyond what was flushed: each file is written back when the system likes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spared {
    pub(crate) ledger: bool,
    pub(crate) journal: bool,
}

/// The end of a life, and when the next one begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Death {
    pub(crate) kill: Kill,
    /// Milliseconds between the two.
    pub(crate) down_ms: u64,
    /// Whether the machine loses its power, too.
    pub(crate) power: Option<Spared>,
}

#[derive(Clone, Debug)]
pub(crate) struct Provider {
    pub(crate) name: String,
    pub(crate) models: usize,
    pub(crate) limits: Vec<Limit>,
    /// Milliseconds on the way there, which is how long counting lags behind the end of a request, and back.
    pub(crate) up_ms: u64,
    pub(crate) down_ms: u64,
    pub(crate) first_byte_ms: u64,
    pub(crate) pace_ms: u64,
    /// How far its clock is ahead of the truth, in microseconds.
    pub(crate) skew: i64,
    /// How many connections in a thousand get into trouble.
    pub(crate) trouble: u64,
    /// Whether its models go on from an answer that has begun.
    pub(crate) goes_on: bool,
}

/// One request of a client.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) at_ms: u64,
    pub(crate) model: String,
    pub(crate) stream: bool,
    pub(crate) words: u64,
    pub(crate) max_tokens: Option<u64>,
    /// The client leaves after so many milliseconds.
    pub(crate) leaves_ms: Option<u64>,
    pub(crate) deadline_ms: Option<u64>,
    /// What its client wants to become of a stream that breaks off.
    pub(crate) rescue: Option<&'static str>,
    /// Whether it is of the tier that may wait.
    pub(crate) is_patient: bool,
}

/// What the world does at an instant.
#[derive(Clone, Debug)]
pub(crate) enum Deed {
    /// The gateway's wall clock is set by so many microseconds.
    StepWall(i64),
    /// The machine sleeps for so many microseconds.
    Suspend(i64),
    /// A provider goes wrong.
    Faults(usize, Vec<Fault>),
}

#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    /// Microseconds since 1970.
    pub(crate) start_wall: i64,
    /// How one of several targets is chosen, as a line of the configuration.
    pub(crate) strategy: &'static str,
    pub(crate) providers: Vec<Provider>,
    pub(crate) calls: Vec<Call>,
    pub(crate) deeds: Vec<(u64, Deed)>,
    /// How long requests of the tier that may wait do so.
    pub(crate) wait_ms: u64,
    /// How each life ends that does.
    pub(crate) deaths: Vec<Death>,
    /// When faults stop.
    pub(crate) calm_ms: u64,
}

impl Scenario {
    pub(crate) fn draw(seed: u64) -> Self {
        let chance = &mut Chance::new(seed, 1);
        let count = chance.between(1, 4);
        let mut providers: Vec<Provider> = (0..count).map(|number| Provider::draw(chance, number)).collect();
        let length = chance.any_size(240_000).max(3_000);
        let mut calls = draw_calls(chance, &providers, length);
        // Now and then, most of a day goes by in between.
        let pause = if chance.permille(200) { chance.any_size(86_400_000) } else { 0 };
        let half = length / 2;
        calls.iter_mut().filter(|call| call.at_ms > half).for_each(|call| call.at_ms += pause);
        calls.sort_by_key(|call| call.at_ms);
        let rescues = &mut Chance::new(seed, 4);
        for call in &mut calls {
            call.rescue = rescues.permille(500).then(|| rescues.pick(&["continue", "continue", "restart", "fail"]));
        }
        providers.iter_mut().for_each(|provider| provider.goes_on = rescues.permille(500));
        let patience = &mut Chance::new(seed, 5);
        let wait_ms = patience.any_size(120_000);
        calls.iter_mut().for_each(|call| call.is_patient = patience.permille(400));
        let calm_ms = length + pause;
        let mut deeds = draw_faults(chance, count, calm_ms);
        if chance.permille(250) {
            deeds.extend(draw_clocks(chance, calm_ms));
        }
        deeds.sort_by_key(|(at, _)| *at);
        let powers = &mut Chance::new(seed, 3);
        let mut death = |chance: &mut Chance| Death {
            kill: draw_kill(chance),
            down_ms: chance.any_size(20_000) + 2_000,
            power: powers.permille(300).then(|| Spared { ledger: powers.permille(300), journal: powers.permille(300) }),
        };
        let deaths = (0..chance.between(0, 3)).map(|_| death(chance)).collect();
        let strategy =
            chance.pick(&["", "strategy = \"ordered\"\n", "strategy = \"headroom\"\n", "strategy = \"cheapest\"\n"]);
        Self {
            seed,
            start_wall: draw_start(chance, calm_ms),
            strategy,
            providers,
            calls,
            deeds,
            wait_ms,
            deaths,
            calm_ms,
        }
    }

    /// The gateway's configuration.
    pub(crate) fn configuration(&self) -> String {
        let tables = self.providers.iter().enumerate().map(|(place, provider)| {
            let Provider { name, .. } = provider;
            let head = format!("[providers.{name}]\nbase_url = \"http://127.0.0.1:{}/v1\"", place + 1);
            format!("{head}\ncost = \"free\"\nkeys = [\"sk-test-{name}\"]\n{}", provider.facts(false))
        });
        let targets: Vec<String> = self
            .providers
            .iter()
            .flat_map(|provider| (0..provider.models).map(move |model| format!("\"{}/m{model}\"", provider.name)))
            .collect();
        let any = format!("[aliases.any]\n{}targets = [{}]\n", self.strategy, targets.join(", "));
        let patient = format!("[tiers.patient]\nwait = {}.{:03}\n", self.wait_ms / 1_000, self.wait_ms % 1_000);
        tables.chain([any, patient]).collect()
    }
}

impl Provider {
    fn draw(chance: &mut Chance, number: u64) -> Self {
        let models = chance.between(1, 2);
        let limits = Limit::draw_some(chance, models);
        let slack = limits.iter().map(Limit::slack).min().unwrap_or(0);
        let skew = i64::try_from(chance.between(0, 2 * slack)).unwrap_or(0) - i64::try_from(slack).unwrap_or(0);
        Self {
            name: format!("p{number}"),
            models: usize::try_from(models).unwrap_or(1),
            limits,
            up_ms: chance.any_size(1_900),
            down_ms: chance.any_size(300),
            first_byte_ms: chance.any_size(3_000),
            pace_ms: chance.any_size(400),
            skew,
            trouble: if chance.permille(400) { chance.any_size(250) } else { 0 },
            goes_on: false,
        }
    }

    /// Its facts, with the limits that the gateway does not know of or without.
    pub(crate) fn facts(&self, with_hidden: bool) -> String {
        let rows = |owner: &dyn Fn(Owner) -> bool| {
            let meant = self.limits.iter().filter(|limit| owner(limit.owner) && (with_hidden || !limit.hidden));
            meant.map(Limit::row).collect::<Vec<_>>().join(", ")
        };
        let models: Vec<String> = (0..self.models)
            .map(|model| {
                // What a model lists comes before the account's rows: what is pooled stands with both.
                let own = rows(&|owner| owner == Owner::Model(model) || owner == Owner::Pool);
                let features = if self.goes_on { ", features = [\"stream\", \"prefill\"]" } else { "" };
                format!("{{ id = \"m{model}\", limits = [{own}]{features} }}")
            })
            .collect();
        format!("limits = [{}]\nmodels = [{}]\n", rows(&|owner| owner == Owner::Account), models.join(", "))
    }
}

fn draw_calls(chance: &mut Chance, providers: &[Provider], length: u64) -> Vec<Call> {
    let mut calls = Vec::new();
    for _ in 0..chance.between(1, 5) {
        let (begin, width) = (chance.between(0, length), chance.any_size(3_000));
        let clients = chance.any_size(80);
        for _ in 0..clients {
            if calls.len() as u64 >= MOST_CALLS {
                break;
            }
            let provider = &providers[usize::try_from(chance.between(0, providers.len() as u64 - 1)).unwrap_or(0)];
            let direct = format!("{}/m{}", provider.name, chance.between(0, provider.models as u64 - 1));
            calls.push(Call {
                at_ms: begin + chance.between(0, width),
                model: if chance.permille(400) { direct } else { "any".to_owned() },
                stream: chance.permille(500),
                words: chance.any_size(40),
                max_tokens: chance.permille(800).then(|| chance.any_size(300)),
                leaves_ms: chance.permille(150).then(|| chance.any_size(15_000)),
                deadline_ms: chance.permille(100).then(|| chance.between(500, 20_000)),
                rescue: None,
                is_patient: false,
            });
        }
    }
    calls
}

fn draw_faults(chance: &mut Chance, providers: u64, length: u64) -> Vec<(u64, Deed)> {
    let count = if chance.permille(600) { chance.any_size(8) } else { 0 };
    let deed = |chance: &mut Chance| {
        let provider = usize::try_from(chance.between(0, providers - 1)).unwrap_or(0);
        let faults = (0..chance.between(1, 4)).map(|_| draw_fault(chance)).collect();
        (chance.between(0, length), Deed::Faults(provider, faults))
    };
    (0..count).map(|_| deed(chance)).collect()
}

fn draw_fault(chance: &mut Chance) -> Fault {
    let after_events = usize::try_from(chance.between(0, 5)).unwrap_or(0);
    let abrupt = chance.permille(500);
    let status = |status: u16, wait: Option<u64>| FaultKind::Status {
        status,
        body: None,
        headers: wait.map(|wait| ("retry-after".to_owned(), wait.to_string())).into_iter().collect(),
        content_type: None,
    };
    let kind = match chance.between(0, 16) {
        0 => status(chance.pick(&[500, 502, 503, 529, 408, 404, 401]), None),
        1 => status(429, Some(chance.any_size(100))),
        2 => status(429, None),
        3 => FaultKind::Reset,
        4 => FaultKind::ResetMidHeaders,
        5 | 6 => FaultKind::ResetMidBody { after_events },
        7 => FaultKind::Silence,
        8 => FaultKind::Stall { after_events },
        9 | 10 => FaultKind::Cut { after_events, abrupt },
        11 => FaultKind::Empty,
        12 => FaultKind::EmptyBody,
        13 => FaultKind::ErrorIn200 { error: json!({ "message": "simulated", "code": 500 }) },
        14 => FaultKind::TruncatedJson,
        15 => FaultKind::NoDone,
        _ => FaultKind::Slow { first_byte_ms: chance.any_size(20_000), pace_ms: chance.any_size(2_000) },
    };
    Fault::new(kind).times(u32::try_from(chance.between(1, 6)).unwrap_or(1))
}

fn draw_clocks(chance: &mut Chance, length: u64) -> Vec<(u64, Deed)> {
    let deed = |chance: &mut Chance| {
        let size = i64::try_from(chance.any_size(86_400) * 1_000_000).unwrap_or(0);
        let deed = match chance.between(0, 2) {
            0 => Deed::StepWall(size),
            1 => Deed::StepWall(-size),
            _ => Deed::Suspend(size),
        };
        (chance.between(0, length), deed)
    };
    let only_suspended = chance.permille(400);
    let deeds = (0..chance.between(1, 3)).map(|_| deed(chance));
    deeds.filter(|(_, deed)| !only_suspended || matches!(deed, Deed::Suspend(_))).collect()
}

fn draw_kill(chance: &mut Chance) -> Kill {
    match chance.between(0, 3) {
        0 => Kill::AfterJournal(chance.any_size(16)),
        1 => Kill::AfterWrite(chance.any_size(16)),
        _ => Kill::AtStep(chance.any_size(1_500)),
    }
}

/// Anywhere in a year, or so that a calendar turns while the scenario goes on.
fn draw_start(chance: &mut Chance, length_ms: u64) -> i64 {
    let start = if chance.permille(400) {
        (YEAR + chance.between(0, 365 * 86_400)) * 1_000_000
    } else {
        chance.pick(&TURNS) * 1_000_000 - chance.between(0, length_ms.min(120_000)) * 1_000
    };
    i64::try_from(start).unwrap_or(0)
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}, from {} µs since 1970", self.seed, self.start_wall)?;
        writeln!(f, "{}", self.configuration())?;
        for Provider { name, up_ms, down_ms, first_byte_ms, pace_ms, skew, trouble, limits, .. } in &self.providers {
            writeln!(
                f,
                "{name}: {up_ms} ms there, {down_ms} ms back, {first_byte_ms} ms to the first byte, {pace_ms} ms between events, clock ahead by {skew} µs, {trouble} ‰ of connections in trouble"
            )?;
            for limit in limits.iter().filter(|limit| limit.hidden) {
                writeln!(f, "  hidden: {:?} {}", limit.owner, limit.row())?;
            }
        }
        for (number, call) in self.calls.iter().enumerate() {
            writeln!(f, "call {number}: {call:?}")?;
        }
        self.deeds.iter().try_for_each(|(at, deed)| writeln!(f, "{at} ms: {deed:?}"))?;
        self.deaths.iter().try_for_each(|death| writeln!(f, "{death:?}"))?;
        writeln!(f, "faults stop at {} ms", self.calm_ms)
    }
}
