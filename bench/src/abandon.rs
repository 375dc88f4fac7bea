//! Many streams that nobody reads to their end: what stays behind in the gateway when their clients have left?

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::ask::{Bytes, Prompt, chat, chat_in_tier};
use crate::client::Connection;
use crate::dice::Dice;
use crate::process::{State, most_files, state};
use crate::service::Service;
use crate::setting::Freeway;
use crate::soak::metrics;

#[derive(Args)]
pub(crate) struct Arguments {
    /// The program to run.
    #[arg(long, value_name = "PATH")]
    freeway: PathBuf,
    /// How many streams are opened and left.
    #[arg(long, default_value_t = 10_000)]
    streams: u32,
    /// Streams that are open at the same time, at most.
    #[arg(long, default_value_t = 400)]
    wave: u32,
    /// What the instants are drawn with.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Streams of 200 chunks at 20 ms, which outlast every client here.
const MODEL: &str = "paced200x20";
/// A client leaves within this time of its request, give or take what the machine needs.
const LONGEST_STAY: Duration = Duration::from_millis(600);
/// Everything is given back within this time of the last client's leaving.
const GIVEN_BACK: Duration = Duration::from_secs(5);
/// Files of the gateway that a stream needs: a socket to each side.
const FILES_PER_STREAM: u64 = 2;
/// Files that it needs besides.
const OTHER_FILES: u64 = 100;

/// How far streams had come when their clients left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Left {
    before_head: u64,
    before_content: u64,
    mid_stream: u64,
    /// Refused because the wave was more than the machine can do at once.
    refused: u64,
    /// Broken or at an end: nothing of that should be.
    otherwise: u64,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<(), String> {
    let wave = arguments.wave.max(1);
    if u64::from(wave) * FILES_PER_STREAM + OTHER_FILES > most_files() {
        return Err(format!(
            "{} files may be open here, too few for waves of {wave}: choose a smaller --wave",
            most_files()
        ));
    }
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let mut upstream = Service::upstream()?;
    upstream.ready(&chat("fast-0", false, Prompt::Short)).await?;
    let freeway = Freeway {
        program: &arguments.freeway,
        folder: folder.path().to_owned(),
        upstream: upstream.address,
        aliases: vec!["fast".to_owned(), MODEL.to_owned()],
        server: String::new(),
        more: String::new(),
    };
    let mut service = freeway.start(&[])?;
    service.ready(&chat("fast", false, Prompt::Short)).await?;
    let (processes, providers) = (service.processes()?, upstream.processes()?);
    let asked_before = recorded(service.address).await?;
    let (before, provider_before) = (state(&processes)?, state(&providers)?);

    // A wave comes all at once. Of this tier it would be refused last, and here is looked at what is not refused.
    let ask = chat_in_tier(MODEL, true, "critical");
    let mut dice = Dice::new(arguments.seed);
    let mut left = Left::default();
    let begun = Instant::now();
    let mut to_come = arguments.streams;
    while to_come > 0 {
        let streams = to_come.min(wave);
        to_come -= streams;
        let mut clients = JoinSet::new();
        for _ in 0..streams {
            let stay = Duration::from_micros(dice.below(LONGEST_STAY.as_micros().try_into().unwrap_or(u64::MAX)));
            clients.spawn(abandon(service.address, Bytes::clone(&ask), stay));
        }
        while let Some(ended) = clients.join_next().await {
            left.add(ended.map_err(|error| error.to_string())?);
        }
    }
    let ended = Instant::now();
    let at_once = state(&processes)?;
    sleep_until(ended + GIVEN_BACK).await;
    let (after, provider_after) = (state(&processes)?, state(&providers)?);
    let recorded = recorded(service.address).await? - asked_before;
    service.stop().await?;

    println!("{} streams, at most {wave} at a time, in {:.1} s\n", arguments.streams, (ended - begun).as_secs_f64());
    println!("| left | streams |\n|---|---|");
    for (name, count) in left.counts() {
        println!("| {name} | {count} |");
    }
    println!("\nRequests that the gateway recorded: {recorded}\n");
    println!("| | sockets | files | threads | KiB resident | sockets of the provider |\n|---|---|---|---|---|---|");
    let row = |name: &str, state: State, provider: &str| {
        let State { resident_kib, threads, files, sockets } = state;
        println!("| {name} | {sockets} | {files} | {threads} | {resident_kib} | {provider} |");
    };
    row("before", before, &provider_before.sockets.to_string());
    row("as the last one left", at_once, "");
    row("5 s later", after, &provider_after.sockets.to_string());
    verdict(before, after, provider_before, provider_after, &left)
}

/// What is wrong with how things stand at the end.
fn verdict(before: State, after: State, provider: State, provider_after: State, left: &Left) -> Result<(), String> {
    let mut faults = Vec::new();
    for (whose, before, after) in [("gateway", before, after), ("provider", provider, provider_after)] {
        if after.sockets > before.sockets {
            let (now, then) = (after.sockets, before.sockets);
            faults.push(format!(
                "the {whose} has {now} sockets {} s after everybody left, where it had {then}",
                GIVEN_BACK.as_secs()
            ));
        }
    }
    if after.threads > before.threads {
        faults.push(format!("{} threads are there, where {} were", after.threads, before.threads));
    }
    if left.otherwise > 0 {
        faults.push(format!("{} streams did not go as they should", left.otherwise));
    }
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
}

/// Opens a stream and leaves it when the time is over.
async fn abandon(address: SocketAddr, ask: Bytes, stay: Duration) -> Left {
    let until = Instant::now() + stay;
    let mut left = Left { before_head: 1, ..Left::default() };
    let reading = async {
        let Ok(mut connection) = Connection::open(address).await else { return };
        if connection.send(&ask).await.is_err() {
            return;
        }
        let Ok(head) = connection.head().await else { return };
        if head.status != 200 {
            left = Left::default();
            left.refused += u64::from(head.status == 503 && head.retry_after.is_some());
            return;
        }
        left = Left { before_content: 1, ..Left::default() };
        while let Ok(Some(_)) = connection.piece().await {
            left = Left { mid_stream: 1, ..Left::default() };
        }
    };
    match timeout_at(until, reading).await {
        // The time ended it; the connection is closed as the exchange is dropped.
        Err(_) => left,
        Ok(()) if left.refused > 0 => left,
        Ok(()) => Left { otherwise: 1, ..Left::default() },
    }
}

/// How many requests the gateway has recorded.
async fn recorded(address: SocketAddr) -> Result<u64, String> {
    Ok(sum(&metrics(address).await?, "freeway_requests_total"))
}

/// All counts of one name together.
fn sum(metrics: &str, name: &str) -> u64 {
    let lines = metrics.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{')?.rsplit_once(' '));
    lines.filter_map(|(_, count)| count.parse::<u64>().ok()).sum()
}

impl Left {
    fn add(&mut self, other: Self) {
        self.before_head += other.before_head;
        self.before_content += other.before_content;
        self.mid_stream += other.mid_stream;
        self.refused += other.refused;
        self.otherwise += other.otherwise;
    }

    const fn counts(&self) -> [(&'static str, u64); 5] {
        [
            ("before the head", self.before_head),
            ("before the first content", self.before_content),
            ("in mid-stream", self.mid_stream),
            ("refused as too many at once", self.refused),
            ("otherwise", self.otherwise),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_one_name_are_added() {
        let metrics = "# TYPE freeway_requests_total counter\nfreeway_requests_total{outcome=\"answered\"} 3\n\
                       freeway_requests_total{outcome=\"cancelled\"} 40\nfreeway_requests_total_other{a=\"b\"} 7\n";
        assert_eq!(sum(metrics, "freeway_requests_total"), 43);
    }

    #[test]
    fn what_is_left_over_is_a_fault() {
        let with = |sockets, threads| State { sockets, threads, ..State::default() };
        let fine = Left::default();
        let check = |after: State, provider_after: State, left: &Left| {
            verdict(with(5, 3), after, with(8, 1), provider_after, left).is_ok()
        };
        assert!(check(with(5, 3), with(8, 1), &fine));
        assert!(check(with(4, 3), with(1, 1), &fine));
        assert!(!check(with(6, 3), with(8, 1), &fine));
        assert!(!check(with(5, 4), with(8, 1), &fine));
        assert!(!check(with(5, 3), with(9, 1), &fine));
        assert!(!check(with(5, 3), with(8, 1), &Left { otherwise: 1, ..Left::default() }));
    }
}
