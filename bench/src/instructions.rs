//! What a request costs in instructions, counted by callgrind. Times vary with the machine and its mood; these hardly do.
//!
//! A gateway is run twice, with some requests and with twice as many, and the difference is divided by theirs, so that
//! start and end fall out. One connection, one request after the other, one worker.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use crate::ask::{Prompt, chat};
use crate::load::Load;
use crate::service::Service;
use crate::setting::Freeway;

#[derive(Args)]
pub(crate) struct Arguments {
    /// The program to measure, as it is shipped.
    #[arg(long, value_name = "PATH")]
    freeway: PathBuf,
    /// The counts that were written down.
    #[arg(long, value_name = "FILE", default_value = "bench/instructions.toml")]
    expected: PathBuf,
    /// Write the counts down anew instead of holding them against the old ones.
    #[arg(long)]
    write: bool,
    /// Requests of the shorter run.
    #[arg(long, default_value_t = 300)]
    requests: u64,
}

/// More than this above what was written down is a failure, in percent.
const TOLERANCE: u64 = 5;
/// Streams whose chunks are counted, their chunks in the shorter and in the longer run, and the milliseconds between.
const STREAMS: u64 = 4;
const CHUNKS: (u64, u64) = (50, 250);
const CHUNK_MS: u64 = 10;
/// Requests after which prices are worked out, how long that may take, and how often it is looked whether they were.
const WARMING: u64 = 40;
const PRICING: Duration = Duration::from_secs(60);
const MOST_TRIES: u32 = 600;

/// What is counted.
struct Case {
    name: &'static str,
    /// The shorter and the longer run: model, and requests.
    runs: [(String, u64); 2],
    stream: bool,
    prompt: Prompt,
    /// How many things the longer run does more.
    more: u64,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<(), String> {
    let mut upstream = Service::upstream()?;
    upstream.ready(&chat("fast-0", false, Prompt::Short)).await?;
    let mut counts = BTreeMap::new();
    for case in cases(arguments.requests) {
        let mut totals = [0; 2];
        for (total, (model, requests)) in totals.iter_mut().zip(&case.runs) {
            *total = count(&arguments.freeway, &upstream, &case, model, *requests).await?;
        }
        let each = totals[1].saturating_sub(totals[0]) / case.more;
        println!("{:<24} {each:>10} instructions", case.name);
        counts.insert(case.name.to_owned(), each);
    }
    upstream.stop().await?;
    if arguments.write {
        return write(&arguments.expected, &counts);
    }
    let text = std::fs::read_to_string(&arguments.expected);
    let text = text.map_err(|error| format!("{}: {error}", arguments.expected.display()))?;
    let grown = grown(&read(&text)?, &counts);
    if grown.is_empty() {
        return Ok(());
    }
    Err(format!("{}\nIf this is worth it, write the counts down anew: bench/instructions.sh --write", grown.join("\n")))
}

fn cases(requests: u64) -> [Case; 3] {
    let plain = |name, prompt| Case {
        name,
        runs: [("fast".to_owned(), requests), ("fast".to_owned(), 2 * requests)],
        stream: false,
        prompt,
        more: requests,
    };
    [
        plain("plain_1kb", Prompt::Short),
        plain("plain_100kb", Prompt::Long),
        Case {
            name: "streamed_chunk",
            runs: [CHUNKS.0, CHUNKS.1].map(|chunks| (format!("paced{chunks}x{CHUNK_MS}"), STREAMS)),
            stream: true,
            prompt: Prompt::Short,
            more: STREAMS * (CHUNKS.1 - CHUNKS.0),
        },
    ]
}

/// Instructions of a whole life of the gateway, with so many requests in it.
async fn count(program: &Path, upstream: &Service, case: &Case, model: &str, requests: u64) -> Result<u64, String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let freeway = Freeway {
        program,
        folder: folder.path().to_owned(),
        upstream: upstream.address,
        aliases: vec![model.to_owned()],
        server: String::new(),
        more: String::new(),
    };
    let wrap = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"].map(ToOwned::to_owned);
    let mut service = freeway.start(&wrap)?;
    let ask = chat(model, case.stream, case.prompt);
    let plain = chat(model, false, Prompt::Short);
    service.ready(&plain).await?;
    let read_log = || std::fs::read_to_string(folder.path().join("freeway.log")).map_err(|error| error.to_string());
    // Prices are worked out once for many requests, which is not to fall into the one run and not into the other.
    Load { address: service.address, ask: plain, stream: false }.exactly(WARMING, 1).await?;
    for _ in 0..MOST_TRIES {
        if read_log()?.contains(" priced ") {
            break;
        }
        tokio::time::sleep(PRICING / MOST_TRIES).await;
    }
    Load { address: service.address, ask, stream: case.stream }.exactly(requests, 1).await?;
    service.stop().await?;
    let log = read_log()?;
    if !log.contains(" priced ") {
        return Err(format!("prices were not worked out within {PRICING:?}: {log}"));
    }
    collected(&log).ok_or_else(|| format!("callgrind says no count: {log}"))
}

/// The number in callgrind's closing words.
fn collected(log: &str) -> Option<u64> {
    log.lines().find_map(|line| line.split_once("Collected : "))?.1.trim().parse().ok()
}

fn read(text: &str) -> Result<BTreeMap<String, u64>, String> {
    let table: toml::Table = text.parse().map_err(|error| format!("{error}"))?;
    let number = |value: &toml::Value| value.as_integer().and_then(|count| u64::try_from(count).ok());
    table
        .into_iter()
        .map(|(name, value)| Ok((number(&value).ok_or_else(|| format!("{name}: not a count"))?, name)))
        .map(|pair| pair.map(|(count, name)| (name, count)))
        .collect()
}

fn write(path: &Path, counts: &BTreeMap<String, u64>) -> Result<(), String> {
    let mut text =
        "# Instructions of the whole gateway, counted by callgrind; written by `bench/instructions.sh --write`.\n\
                    # A request with a prompt of 1 KB or 100 KB, not streamed; a chunk of a paced stream.\n"
            .to_owned();
    for (name, count) in counts {
        text.push_str(&format!("{name} = {count}\n"));
    }
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

/// What costs more than was written down, with how much.
fn grown(expected: &BTreeMap<String, u64>, counts: &BTreeMap<String, u64>) -> Vec<String> {
    let mut grown = Vec::new();
    for (name, count) in counts {
        let Some(before) = expected.get(name) else {
            grown.push(format!("{name}: never written down"));
            continue;
        };
        if count * 100 > before * (100 + TOLERANCE) {
            let percent = (*count as f64 / *before as f64 - 1.0) * 100.0;
            grown.push(format!("{name}: {count} instructions, {percent:.1} % more than {before}"));
        }
    }
    grown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_percent_more_is_let_pass() {
        let counts = |count: u64| BTreeMap::from([("plain".to_owned(), count)]);
        let check = |count: u64, expected: &[&str]| assert_eq!(grown(&counts(1000), &counts(count)), expected);
        check(500, &[]);
        check(1050, &[]);
        check(1051, &["plain: 1051 instructions, 5.1 % more than 1000"]);
        assert_eq!(grown(&BTreeMap::new(), &counts(1)), ["plain: never written down"]);
    }

    #[test]
    fn the_count_is_read_from_callgrinds_words() {
        let log = "==9683== Events    : Ir\n==9683== Collected : 15854190\n==9683== \n";
        assert_eq!(collected(log), Some(15_854_190));
        assert_eq!(collected("==1== Command: freeway"), None);
    }

    #[test]
    fn what_is_written_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let (path, counts) = (folder.path().join("a.toml"), BTreeMap::from([("plain".to_owned(), 7)]));
        write(&path, &counts).unwrap();
        assert_eq!(read(&std::fs::read_to_string(&path).unwrap()).unwrap(), counts);
        assert!(read("plain = -1").is_err());
    }
}
