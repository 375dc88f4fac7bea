//! The figures as tables for people, and as JSON for programs.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::compare::{EVERYONE, Figures, PROMPTS, RATES, Series, Who};
use crate::statistics::{median, percentile};

/// A request or chunk that took so many milliseconds has waited for a timer of TCP's.
const STALL_MS: f64 = 40.0;

/// How many times nginx's figure a figure is: in the middle of the rounds, and at their ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ratio {
    pub(crate) least: f64,
    pub(crate) middle: f64,
    pub(crate) most: f64,
}

/// What design promises, and what was measured of it.
struct Promise {
    what: &'static str,
    most: f64,
    unit: &'static str,
    measured: Option<f64>,
}

/// The ratio to nginx, taken within each round, so that what slows down a round does so on both sides.
pub(crate) fn ratio<Case: Ord + Copy>(series: &Series<Case>, case: Case, who: Who) -> Option<Ratio> {
    let (own, nginx) = (series.get(&(case, who))?, series.get(&(case, Who::Nginx))?);
    let mut ratios: Vec<f64> = own.iter().zip(nginx).map(|(own, nginx)| own / nginx).collect();
    let middle = median(&ratios)?;
    ratios.sort_by(f64::total_cmp);
    Some(Ratio { least: *ratios.first()?, middle, most: *ratios.last()? })
}

/// Everything as Markdown.
pub(crate) fn markdown(figures: &Figures, rounds: u32, seconds: u32) -> String {
    let mut text = format!("{}; {rounds} rounds of {seconds} s each\n\n", figures.machine);
    promises(figures, &mut text);
    full_load(figures, &mut text);
    latencies(figures, &mut text);
    streams(figures, &mut text);
    memory_and_start(figures, &mut text);
    text
}

fn promises(figures: &Figures, text: &mut String) {
    text.push_str("| promise | at most | measured | |\n|---|---|---|---|\n");
    for Promise { what, most, unit, measured } in promised(figures) {
        let kept = measured.map_or("", |measured| if measured <= most { "kept" } else { "**not kept**" });
        let measured = measured.map_or_else(|| "–".to_owned(), |measured| format!("{measured:.2}{unit}"));
        line(text, &format!("| {what} | {most}{unit} | {measured} | {kept} |"));
    }
    text.push('\n');
}

fn promised(figures: &Figures) -> Vec<Promise> {
    let times = |prompt: usize| ratio(&figures.cpu, (prompt, false), Who::Freeway).map(|ratio| ratio.middle);
    let memory = |when: &'static str| figures.memory.get(&(when, Who::Freeway)).map(|kib| *kib as f64);
    let start =
        |long: bool| figures.starts.get(&(long, Who::Freeway)).and_then(|starts| median(starts)).map(|ms| ms / 1e3);
    let promise = |what, most, unit, measured| Promise { what, most, unit, measured };
    vec![
        promise("CPU of a request, 1 KB, not streamed, against nginx", 2.0, "×", times(0)),
        promise("CPU of a request, 100 KB, not streamed, against nginx", 4.0, "×", times(1)),
        promise("CPU of a paced chunk", 20.0, " µs", middle(&figures.chunk_cpu, (), Who::Freeway)),
        promise("first chunk, added at the median", 0.5, " ms", added(&figures.firsts, (), Who::Freeway, 0.5)),
        promise("p99 added at 200 requests/s", 1.0, " ms", added(&figures.latencies, 200, Who::Freeway, 0.99)),
        promise("requests and chunks that stalled for 40 ms", 0.0, "", Some(stalls(figures, Who::Freeway))),
        promise("resident, idle", 30.0, " MB", memory("idle").map(|kib| kib * 1024.0 / 1e6)),
        promise("resident for an open stream", 64.0, " KiB", per_stream(figures, Who::Freeway)),
        promise("start to first answer", 0.1, " s", start(false)),
        promise("start to first answer with a long ledger", 0.5, " s", start(true)),
        promise("the program", 25.0, " MB", Some(figures.program_bytes as f64 / 1e6)),
    ]
}

fn full_load(figures: &Figures, text: &mut String) {
    text.push_str("| full load, 16 connections | | CPU µs/request | × nginx (least … most) | requests/s |\n");
    text.push_str("|---|---|---|---|---|\n");
    for case in cases() {
        for who in EVERYONE {
            let cpu = middle(&figures.cpu, case, who).filter(|_| who != Who::Direct);
            let ratio = ratio(&figures.cpu, case, who).filter(|_| !matches!(who, Who::Direct | Who::Nginx));
            let ratio = ratio.map_or_else(
                || "–".to_owned(),
                |Ratio { least, middle, most }| format!("{middle:.2} ({least:.2} … {most:.2})"),
            );
            let rate = middle(&figures.rates, case, who);
            line(
                text,
                &format!(
                    "| {} | {} | {} | {ratio} | {} |",
                    case_name(case),
                    name(who),
                    figure(cpu, 1),
                    figure(rate, 0)
                ),
            );
        }
    }
    text.push('\n');
}

fn latencies(figures: &Figures, text: &mut String) {
    text.push_str("| fixed rate, 1 KB, ms | | p50 | p99 | most | p50 added | p99 added | of 40 ms |\n");
    text.push_str("|---|---|---|---|---|---|---|---|\n");
    for rate in RATES {
        for who in &EVERYONE[..3] {
            time_row(text, &format!("{rate} requests/s"), &figures.latencies, rate, *who);
        }
    }
    for who in &EVERYONE[..3] {
        time_row(text, &format!("first chunk, {} streams/s", RATES[0]), &figures.firsts, (), *who);
    }
    for who in &EVERYONE[..3] {
        time_row(text, "each chunk, 100 paced streams", &figures.delays, (), *who);
    }
    text.push('\n');
}

fn time_row<Case: Ord + Copy>(text: &mut String, what: &str, series: &Series<Case>, case: Case, who: Who) {
    let part = |part| figure(at(series, case, who, part), 2);
    let more = |part| figure(added(series, case, who, part).filter(|_| who != Who::Direct), 2);
    let slow = slow(series, case, who);
    line(
        text,
        &format!(
            "| {what} | {} | {} | {} | {} | {} | {} | {slow} |",
            name(who),
            part(0.5),
            part(0.99),
            part(1.0),
            more(0.5),
            more(0.99)
        ),
    );
}

fn streams(figures: &Figures, text: &mut String) {
    text.push_str("| 100 paced streams, a chunk each 20 ms | CPU µs/chunk |\n|---|---|\n");
    for who in [Who::Nginx, Who::Freeway] {
        line(text, &format!("| {} | {} |", name(who), figure(middle(&figures.chunk_cpu, (), who), 1)));
    }
    text.push('\n');
}

fn memory_and_start(figures: &Figures, text: &mut String) {
    text.push_str("| | nginx | freeway |\n|---|---|---|\n");
    let mut row = |what: &str, of: &dyn Fn(Who) -> String| {
        line(text, &format!("| {what} | {} | {} |", of(Who::Nginx), of(Who::Freeway)));
    };
    for when in ["idle", "after the load"] {
        row(&format!("KiB resident, {when}"), &|who| {
            figure(figures.memory.get(&(when, who)).map(|kib| *kib as f64), 0)
        });
    }
    let open = figures.open_streams;
    row(&format!("KiB more for each of {open} open streams"), &|who| figure(per_stream(figures, who), 1));
    row("ms from start to first answer", &|who| figure(middle(&figures.starts, false, who), 0));
    let rows = figures.rows.map_or_else(|| "the ledger given".to_owned(), |rows| format!("{rows} rows in the ledger"));
    row(&format!("the same with {rows}"), &|who| figure(middle(&figures.starts, true, who), 0));
}

/// Everything as JSON: the single values of each round, and the percentiles of what was pooled.
pub(crate) fn json(figures: &Figures) -> Value {
    let full_load: Vec<Value> = cases()
        .flat_map(|case| EVERYONE.map(|who| (case, who)))
        .map(|(case, who)| {
            let (cpu, rates) = (figures.cpu.get(&(case, who)), figures.rates.get(&(case, who)));
            json!({ "case": case_name(case), "who": name(who), "cpu_us": cpu, "requests_per_second": rates })
        })
        .collect();
    let latencies: Vec<Value> = RATES
        .into_iter()
        .flat_map(|rate| EVERYONE.map(|who| (rate, who)))
        .map(|(rate, who)| json!({ "per_second": rate, "who": name(who), "ms": times(&figures.latencies, rate, who) }))
        .collect();
    let streams: Vec<Value> = EVERYONE
        .into_iter()
        .map(|who| {
            json!({
                "who": name(who),
                "first_chunk_ms": times(&figures.firsts, (), who),
                "chunk_ms": times(&figures.delays, (), who),
                "chunk_cpu_us": figures.chunk_cpu.get(&((), who)),
            })
        })
        .collect();
    let memory: Vec<Value> = figures
        .memory
        .iter()
        .map(|((when, who), kib)| json!({ "when": when, "who": name(*who), "resident_kib": kib }))
        .collect();
    let starts: Vec<Value> = figures
        .starts
        .iter()
        .map(|((long, who), ms)| json!({ "long_ledger": long, "who": name(*who), "ms": ms }))
        .collect();
    json!({
        "machine": figures.machine,
        "full_load": full_load,
        "latencies": latencies,
        "streams": streams,
        "memory": memory,
        "open_streams": figures.open_streams,
        "starts": starts,
        "ledger_rows": figures.rows,
        "program_bytes": figures.program_bytes,
    })
}

fn times<Case: Ord + Copy>(series: &Series<Case>, case: Case, who: Who) -> Value {
    let part = |part| at(series, case, who, part);
    let count = series.get(&(case, who)).map_or(0, Vec::len);
    json!({ "count": count, "p50": part(0.5), "p99": part(0.99), "most": part(1.0), "stalls": slow(series, case, who) })
}

fn cases() -> impl Iterator<Item = (usize, bool)> {
    (0..PROMPTS.len()).flat_map(|prompt| [(prompt, false), (prompt, true)])
}

fn case_name((prompt, stream): (usize, bool)) -> String {
    format!("{}, {}", PROMPTS[prompt].name(), if stream { "streamed" } else { "not streamed" })
}

const fn name(who: Who) -> &'static str {
    match who {
        Who::Direct => "direct",
        Who::Nginx => "nginx",
        Who::Freeway => "freeway",
        Who::FreewayNamed => "freeway, target named",
    }
}

fn middle<Case: Ord + Copy>(series: &Series<Case>, case: Case, who: Who) -> Option<f64> {
    median(series.get(&(case, who))?)
}

fn at<Case: Ord + Copy>(series: &Series<Case>, case: Case, who: Who, part: f64) -> Option<f64> {
    percentile(&mut series.get(&(case, who))?.clone(), part)
}

/// How much more a percentile is than that of the direct call.
fn added<Case: Ord + Copy>(series: &Series<Case>, case: Case, who: Who, part: f64) -> Option<f64> {
    Some(at(series, case, who, part)? - at(series, case, Who::Direct, part)?)
}

fn slow<Case: Ord + Copy>(series: &Series<Case>, case: Case, who: Who) -> usize {
    series.get(&(case, who)).map_or(0, |times| times.iter().filter(|time| **time >= STALL_MS).count())
}

fn stalls(figures: &Figures, who: Who) -> f64 {
    let at_rates: usize = RATES.into_iter().map(|rate| slow(&figures.latencies, rate, who)).sum();
    (at_rates + slow(&figures.firsts, (), who) + slow(&figures.delays, (), who)) as f64
}

fn per_stream(figures: &Figures, who: Who) -> Option<f64> {
    let memory = |when| figures.memory.get(&(when, who)).map(|kib| *kib as f64);
    Some((memory("with the streams open")? - memory("before the streams")?) / f64::from(figures.open_streams))
}

fn figure(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
}

fn line(text: &mut String, line: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{line}");
}

/// The day, the machine and nginx, in a line.
pub(crate) fn machine(nginx: &Path) -> String {
    let said = |program: &Path, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok()?;
        // nginx says its version on its standard error.
        let bytes = if output.stdout.is_empty() { output.stderr } else { output.stdout };
        Some(String::from_utf8_lossy(&bytes).trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor =
        processor.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|pair| pair.1);
    let parts = [
        said(Path::new("date"), &["-u", "+%F"]),
        Some(format!("{cores} cores, {}", processor.unwrap_or("unknown processor"))),
        said(Path::new("uname"), &["-sr"]),
        said(nginx, &["-v"]),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_within_a_round() {
        let mut series = Series::default();
        series.insert(((), Who::Nginx), vec![10.0, 20.0, 40.0]);
        series.insert(((), Who::Freeway), vec![20.0, 42.0, 120.0]);
        assert_eq!(ratio(&series, (), Who::Freeway), Some(Ratio { least: 2.0, middle: 2.1, most: 3.0 }));
        assert_eq!(ratio(&series, (), Who::FreewayNamed), None);
    }

    #[test]
    fn a_promise_is_kept_up_to_its_figure() {
        let check = |kib: u64, expected: &str| {
            let mut figures = Figures::default();
            figures.memory.insert(("idle", Who::Freeway), kib);
            let text = markdown(&figures, 1, 1);
            let row = text.lines().find(|line| line.starts_with("| resident, idle")).unwrap();
            assert!(row.ends_with(expected), "{row}");
        };
        check(29_296, "| 30.00 MB | kept |");
        check(29_400, "| 30.11 MB | **not kept** |");
    }

    #[test]
    fn stalls_are_counted_wherever_they_are() {
        let mut figures = Figures::default();
        figures.latencies.insert((200, Who::Freeway), vec![1.0, 44.0]);
        figures.delays.insert(((), Who::Freeway), vec![40.0, 39.9]);
        assert!((stalls(&figures, Who::Freeway) - 2.0).abs() < f64::EPSILON);
    }
}
