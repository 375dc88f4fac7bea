//! Scenarios for `freeway simulate`: a configuration and a workload from each seed.
//!
//! They were fixed before any strategy was tuned on them, and each is reported. What a seed makes is the same on every
//! machine: numbers come from [`Dice`] and from additions, multiplications and divisions alone.

mod targets;
mod workload;

use std::path::Path;

use crate::dice::Dice;

/// How many days each scenario lasts.
pub(crate) const DAYS: u64 = 3;

/// One scenario, by what it is.
#[derive(Clone, Copy)]
pub(crate) struct Seed {
    pub(crate) number: u64,
    /// How much is asked for, as a share of what the limits can carry of requests of the usual sizes.
    pub(crate) load: f64,
    pub(crate) shift: Shift,
    /// Whether one of the targets costs money.
    pub(crate) is_paid: bool,
    /// When it begins.
    pub(crate) start: &'static str,
}

/// What changes on the way, and from which day on (the first is 1).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shift {
    /// Nothing: every day is like the first.
    None,
    /// Twice as much is asked for as before.
    Level(u64),
    /// More of it is critical.
    Tiers(u64),
    /// Requests are twice as large.
    Sizes(u64),
}

const HALF: f64 = 0.5;
const MATCHED: f64 = 1.0;
const TRIPLE: f64 = 3.0;

/// Every scenario. Some begin in the middle of a day in every zone, some shortly before a month ends.
#[rustfmt::skip]
pub(crate) const SEEDS: [Seed; 10] = [
    Seed { number: 1, load: HALF, shift: Shift::None, is_paid: false, start: "2026-11-02T00:00:00Z" },
    Seed { number: 2, load: HALF, shift: Shift::Level(2), is_paid: true, start: "2026-11-10T09:30:00Z" },
    Seed { number: 3, load: MATCHED, shift: Shift::None, is_paid: false, start: "2026-11-16T00:00:00Z" },
    Seed { number: 4, load: MATCHED, shift: Shift::None, is_paid: true, start: "2026-11-29T06:00:00Z" },
    Seed { number: 5, load: MATCHED, shift: Shift::Level(3), is_paid: false, start: "2026-12-07T18:00:00Z" },
    Seed { number: 6, load: MATCHED, shift: Shift::Tiers(2), is_paid: false, start: "2026-12-01T00:00:00Z" },
    Seed { number: 7, load: TRIPLE, shift: Shift::None, is_paid: false, start: "2026-11-05T12:00:00Z" },
    Seed { number: 8, load: TRIPLE, shift: Shift::None, is_paid: true, start: "2026-12-30T03:00:00Z" },
    Seed { number: 9, load: TRIPLE, shift: Shift::Sizes(2), is_paid: false, start: "2026-11-20T00:00:00Z" },
    Seed { number: 10, load: TRIPLE, shift: Shift::Tiers(3), is_paid: true, start: "2027-01-11T15:45:00Z" },
];

/// When others begin.
const STARTS: [&str; 8] = [
    "2026-11-03T15:00:00Z",
    "2026-12-12T00:00:00Z",
    "2026-11-27T09:00:00Z",
    "2027-01-21T06:00:00Z",
    "2026-12-04T21:00:00Z",
    "2027-02-26T18:00:00Z",
    "2026-11-18T12:00:00Z",
    "2027-03-14T03:00:00Z",
];

/// The two files of a scenario.
pub(crate) struct Files {
    pub(crate) config: String,
    pub(crate) workload: String,
}

impl Seed {
    /// One beside those of the table, for seeing whether what serves these serves others as well.
    fn other(number: u64) -> Self {
        let dice = &mut Dice::new(number ^ (1 << 32));
        let load = [HALF, MATCHED, MATCHED, TRIPLE, TRIPLE, TRIPLE][place(dice, 6)];
        let day = 2 + dice.below(2);
        let shifts = [Shift::None, Shift::None, Shift::None, Shift::Level(day), Shift::Tiers(day), Shift::Sizes(day)];
        let shift = shifts[place(dice, shifts.len())];
        Self { number, load, shift, is_paid: dice.below(3) == 0, start: STARTS[place(dice, STARTS.len())] }
    }

    /// What it is, in words.
    pub(crate) fn name(&self) -> String {
        let load = match self.load {
            load if load < MATCHED => "half",
            load if load > MATCHED => "three times",
            _ => "matched",
        };
        let shift = match self.shift {
            Shift::None => "stationary".to_owned(),
            Shift::Level(day) => format!("twice as much from day {day} on"),
            Shift::Tiers(day) => format!("more that is critical from day {day} on"),
            Shift::Sizes(day) => format!("twice as large from day {day} on"),
        };
        format!("{load}, {shift}{}", if self.is_paid { ", one paid target" } else { "" })
    }

    /// Makes the scenario; `part` is the share of the requests that is kept, for tests that are to be quick.
    pub(crate) fn files(&self, part: f64) -> Files {
        let mut dice = Dice::new(self.number);
        let targets = targets::draw(&mut dice, self.is_paid);
        let mean = workload::mean_size(self.number);
        let per_day = targets.iter().map(|target| target.carries(mean)).sum::<f64>();
        let head = format!(
            "# Scenario {}: {}.\n# freeway simulate --config config.toml --workload workload.jsonl --start {}\n",
            self.number,
            self.name(),
            self.start
        );
        let accounts: Vec<String> = targets.iter().map(targets::Account::table).collect();
        let config = format!("{head}\n{}", accounts.join("\n"));
        let workload = workload::lines(&mut dice, self, per_day * self.load * part);
        Files { config, workload }
    }
}

/// Writes every scenario into a folder of its own; or others, from one number to another, such as `11..31`.
pub(crate) fn write(folder: &Path, others: Option<&str>) -> Result<(), String> {
    let numbers = |text: &str| {
        let (from, to) = text.split_once("..")?;
        Some(from.parse::<u64>().ok()?.max(SEEDS.len() as u64 + 1)..to.parse::<u64>().ok()?)
    };
    let seeds: Vec<Seed> = match others {
        None => SEEDS.to_vec(),
        Some(text) => numbers(text).ok_or("usage: cargo xtask scenarios DIR [11..31]")?.map(Seed::other).collect(),
    };
    for seed in seeds {
        let place = folder.join(format!("{:02}", seed.number));
        std::fs::create_dir_all(&place).map_err(|error| format!("{}: {error}", place.display()))?;
        let Files { config, workload } = seed.files(1.0);
        let requests = workload.lines().count();
        for (name, text) in [("config.toml", config), ("workload.jsonl", workload)] {
            let path = place.join(name);
            std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        println!("{}  {requests} requests from {}: {}", place.display(), seed.start, seed.name());
    }
    Ok(())
}

/// A position below `bound`.
fn place(dice: &mut Dice, bound: usize) -> usize {
    usize::try_from(dice.below(bound as u64)).unwrap_or(0)
}

/// One of some amounts, each as likely as the others.
fn pick(dice: &mut Dice, amounts: &[u64]) -> u64 {
    amounts[place(dice, amounts.len())]
}

#[cfg(test)]
mod tests;
