//! Every strategy on every scenario that `cargo xtask scenarios DIR` wrote, as a table.
//!
//!     cargo run --release -p freeway-simulate --example seeds DIR [01,07]

#![expect(clippy::print_stdout, reason = "printing is what it is for")]
#![expect(clippy::disallowed_methods, reason = "it says how long it took")]

use std::path::Path;
use std::time::{Duration, Instant};

use freeway_config::{Surroundings, load};
use freeway_router::Strategy;
use freeway_simulate::{Scenario, Summary, Workload, bound, recount, simulate};
use freeway_types::Timestamp;

/// How often prices are worked out anew.
const RESOLVE: Duration = Duration::from_secs(3 * 3_600);

const COMPARED: [Strategy; 5] =
    [Strategy::Price, Strategy::Ordered, Strategy::Cheapest, Strategy::Fastest, Strategy::Headroom];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).ok_or("which folder?")?;
    let only = std::env::args().nth(2);
    println!("| scenario | bound | price | ordered | cheapest | fastest | headroom | solved | s |");
    println!("|---|---|---|---|---|---|---|---|---|");
    let mut folders: Vec<_> = std::fs::read_dir(&folder)?.filter_map(Result::ok).map(|entry| entry.path()).collect();
    folders.sort();
    for path in folders.iter().filter(|path| path.is_dir()) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if only.as_ref().is_none_or(|only| only.split(',').any(|only| *only == name)) {
            println!("{}", row(&name, path)?);
        }
    }
    Ok(())
}

fn row(name: &str, path: &Path) -> Result<String, Box<dyn std::error::Error>> {
    let config = std::fs::read_to_string(path.join("config.toml"))?;
    let lines = std::fs::read_to_string(path.join("workload.jsonl"))?;
    // The command that goes with it stands in its second line.
    let start = config.lines().nth(1).and_then(|line| line.rsplit_once(' ')).map_or("", |(_, start)| start);
    let start = Timestamp::parse(start).ok_or("the scenario does not say when it starts")?;
    let surroundings = Surroundings { variable: &|_| None, folder: path, now: start };
    let loaded = load("config.toml", Some(&config), &surroundings).map_err(|mistakes| mistakes.to_string())?;
    let (snapshot, limits) = (&loaded.snapshot, loaded.limits.as_slice());
    let (mut most, mut cells) = (None, Vec::new());
    for strategy in COMPARED {
        let workload = Workload::read("workload.jsonl", &lines, snapshot, Some(strategy))?;
        let scenario = Scenario { snapshot, limits, workload: &workload, start, resolve: RESOLVE };
        let begun = Instant::now();
        let most = *most.get_or_insert_with(|| bound(scenario).unwrap_or(f64::NAN));
        let run = simulate(scenario);
        let summary = Summary::of(scenario, &run, &recount(scenario, &run.decisions));
        let broken = if summary.broken.is_empty() { "" } else { " BROKEN" };
        cells.push(format!("{:.4}{broken}", summary.value / most));
        if strategy == Strategy::Price {
            cells.insert(0, format!("{most:.0}"));
            cells.push(format!("{}/{}", run.solutions, run.failures));
            cells.push(format!("{:.1}", begun.elapsed().as_secs_f64()));
        }
    }
    let (solved, took) = (cells.remove(2), cells.remove(2));
    Ok(format!("| {name} | {} | {solved} | {took} |", cells.join(" | ")))
}
