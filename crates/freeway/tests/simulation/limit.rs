//! The limits of simulated providers, in the catalogue's language.

use crate::chance::Chance;

/// Windows and their lengths in seconds.
const WINDOWS: [(&str, u64); 9] = [
    ("1s", 1),
    ("2s", 2),
    ("5s", 5),
    ("10s", 10),
    ("30s", 30),
    ("minute", 60),
    ("5m", 300),
    ("hour", 3600),
    ("day", 86_400),
];
const ZONES: [&str; 4] = ["UTC", "America/Los_Angeles", "America/Santiago", "Asia/Kolkata"];

/// What a limit counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Owner {
    Account,
    Model(usize),
    Pool,
}

#[derive(Clone, Debug)]
pub(crate) struct Limit {
    pub(crate) owner: Owner,
    pub(crate) metric: &'static str,
    pub(crate) window: Option<(&'static str, u64)>,
    pub(crate) reset: &'static str,
    zone: Option<&'static str>,
    pub(crate) amount: u64,
    pub(crate) successes: bool,
    requested: bool,
    pub(crate) strict: bool,
    /// Whether the gateway does not know of it.
    pub(crate) hidden: bool,
}

impl Limit {
    fn draw(chance: &mut Chance, models: u64) -> Self {
        let owner = match chance.between(0, 9) {
            0..=3 => Owner::Account,
            4..=7 => Owner::Model(usize::try_from(chance.between(0, models - 1)).unwrap_or(0)),
            _ => Owner::Pool,
        };
        let metric = chance.pick(&["requests", "requests", "requests", "tokens", "input_tokens", "concurrency"]);
        let hidden = chance.permille(80);
        let plain = Self {
            owner,
            metric,
            window: None,
            reset: "rolling",
            zone: None,
            amount: chance.between(1, 8),
            successes: false,
            requested: false,
            strict: false,
            hidden,
        };
        if metric == "concurrency" {
            return plain;
        }
        let window = chance.pick(&WINDOWS);
        let reset = chance.pick(&["rolling", "bucket", "calendar", "calendar", "anchored"]);
        let is_civil = reset == "calendar" && window.0 == "day";
        let (window, reset) = match chance.between(0, 29) {
            0 => (("week", 7 * 86_400), "calendar"),
            1 => (("month", 31 * 86_400), "calendar"),
            _ => (window, reset),
        };
        let counts_tokens = metric != "requests";
        Self {
            window: Some(window),
            reset,
            zone: (is_civil || window.0 == "week" || window.0 == "month").then(|| chance.pick(&ZONES)),
            amount: if counts_tokens { chance.between(800, 6000) } else { chance.any_size(60) },
            successes: !counts_tokens && chance.permille(150),
            requested: counts_tokens && chance.permille(300),
            strict: counts_tokens && chance.permille(800),
            ..plain
        }
    }

    /// One to four limits of which no two share a name.
    pub(crate) fn draw_some(chance: &mut Chance, models: u64) -> Vec<Self> {
        let mut limits: Vec<Self> = Vec::new();
        for _ in 0..chance.between(1, 4) {
            let limit = Self::draw(chance, models);
            let same = |other: &Self| {
                let window = |limit: &Self| limit.window.map(|(name, _)| name);
                (other.owner, other.metric, window(other)) == (limit.owner, limit.metric, window(&limit))
            };
            if !limits.iter().any(same) {
                limits.push(limit);
            }
        }
        limits
    }

    /// The row in a configuration.
    pub(crate) fn row(&self) -> String {
        let Self { metric, amount, .. } = self;
        let mut row = format!("{{ metric = \"{metric}\", amount = {amount}");
        if let Some((window, _)) = self.window {
            row.push_str(&format!(", window = \"{window}\", reset = \"{}\"", self.reset));
        }
        if let Some(zone) = self.zone {
            row.push_str(&format!(", zone = \"{zone}\""));
        }
        let more = [
            (self.owner == Owner::Pool, ", pool = \"shared\""),
            (self.successes, ", counts = \"successes\""),
            (self.requested, ", charges = \"requested\""),
            (self.strict, ", estimate = \"strict\""),
        ];
        more.iter().filter(|(is_so, _)| *is_so).for_each(|(_, text)| row.push_str(text));
        row.push_str(" }");
        row
    }

    /// Whether the gateway promises that it is never overrun.
    pub(crate) fn is_exact(&self) -> bool {
        !self.hidden && (matches!(self.metric, "requests" | "concurrency") || self.strict)
    }

    /// Whether it is counted by the calendar, that is by the wall clock.
    pub(crate) fn is_calendar(&self) -> bool {
        self.reset == "calendar"
    }

    /// Its name at the gateway.
    pub(crate) fn name_here(&self, account: &str) -> String {
        let owner = match self.owner {
            Owner::Account => account.to_owned(),
            Owner::Model(model) => format!("{account}/m{model}"),
            Owner::Pool => format!("{account} (shared)"),
        };
        format!("{owner} {} per {}", self.metric, self.window.map_or("in flight", |(window, _)| window))
    }

    /// Its name at the provider.
    pub(crate) fn name_there(&self) -> String {
        let owner = match self.owner {
            Owner::Account => "account".to_owned(),
            Owner::Model(model) => format!("model m{model}"),
            Owner::Pool => "pool shared".to_owned(),
        };
        match self.window {
            Some((window, _)) => format!("{owner}: {} per {window}", self.metric),
            None => format!("{owner}: {}", self.metric),
        }
    }

    /// How far a provider's clock may be from the gateway's without harm, in microseconds.
    pub(crate) fn slack(&self) -> u64 {
        match self.window {
            Some((_, seconds)) if self.is_calendar() => (seconds * 1_000_000 / 50).min(1_000_000),
            _ => 1_000_000,
        }
    }
}
