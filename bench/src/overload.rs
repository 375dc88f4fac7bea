//! Twice what can be served: how much is served still, who is refused, and how soon.
//!
//! All is measured by the client. The peak is what a closed loop brings: connections that each send the next request
//! when they have the answer. Then requests of three tiers, a third each, are sent when they are due, whether others
//! were answered or not, together a multiple of the peak; that is what makes queues grow where nobody stops them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::ask::{Bytes, Prompt, chat, chat_in_tier, get};
use crate::exchange::{Pool, Reply};
use crate::load::{Load, pace};
use crate::service::Service;
use crate::setting::Freeway;
use crate::statistics::percentile;

#[derive(Args)]
pub(crate) struct Arguments {
    /// The program to run.
    #[arg(long, value_name = "PATH")]
    freeway: PathBuf,
    /// Seconds of each load that are measured.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Seconds of overload before that, told apart from the rest.
    #[arg(long, default_value_t = 1)]
    warm_up: u64,
    /// What is offered, as a multiple of the peak.
    #[arg(long, default_value_t = 2.0)]
    times: f64,
    /// Connections of the closed loop.
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// How the mock upstream answers: `fast`, `slow200`, `paced20x10` … (`src/behaviour.rs`).
    #[arg(long, default_value = "fast")]
    behaviour: String,
    /// Ask for streams.
    #[arg(long)]
    stream: bool,
    /// The gateway's own bound on requests under way, so that it binds before the processor does.
    #[arg(long)]
    max_requests: Option<u32>,
    /// Fail unless at least so many parts in a hundred of the peak are served.
    #[arg(long, value_name = "PERCENT")]
    least_goodput: Option<f64>,
    /// Fail if the 99th percentile of the refusals' times is longer, in milliseconds.
    #[arg(long, value_name = "MS")]
    most_refusal: Option<f64>,
}

/// The tiers, the highest first.
const TIERS: [&str; 3] = ["critical", "standard", "batch"];
/// What must answer whatever is going on.
const ALWAYS: [&str; 5] = ["/healthz", "/readyz", "/metrics", "/freeway/v1/quotas", "/freeway/v1/deployments"];
/// Between two looks at each of them.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What came of the requests that were due in one part of the overload.
#[derive(Debug, Default)]
struct Part {
    /// By tier.
    tiers: [Outcomes; 3],
    /// From the instant at which a request that was refused was due to its answer, in milliseconds.
    refusals_ms: Vec<f64>,
    /// The same from the instant at which it was sent.
    refusals_sent_ms: Vec<f64>,
    /// The same of those that were answered.
    answers_ms: Vec<f64>,
    /// What should not be, and how often.
    faults: BTreeMap<String, u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Outcomes {
    answered: u64,
    refused: u64,
    other: u64,
}

/// One request of the overload and its answer.
struct Answer {
    tier: usize,
    due: Instant,
    sent: Instant,
    ended: Instant,
    reply: Result<Reply, String>,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let mut upstream = Service::upstream()?;
    upstream.ready(&chat("fast-0", false, Prompt::Short)).await?;
    let model = arguments.behaviour.as_str();
    let freeway = Freeway {
        program: &arguments.freeway,
        folder: folder.path().to_owned(),
        upstream: upstream.address,
        aliases: vec![model.to_owned()],
        server: arguments.max_requests.map_or(String::new(), |most| format!("max_requests = {most}\n")),
        more: String::new(),
    };
    let mut service = freeway.start(&[])?;
    service.ready(&chat(model, false, Prompt::Short)).await?;

    // Of the tier that is refused last, so that the peak is the gateway's and not its refusals'.
    let load = Load {
        address: service.address,
        ask: chat_in_tier(model, arguments.stream, TIERS[0]),
        stream: arguments.stream,
    };
    let length = Duration::from_secs(arguments.seconds.max(1));
    load.closed(arguments.connections, Duration::from_secs(1)).await?;
    let brought = load.closed(arguments.connections, length).await?;
    let peak = brought.requests as f64 / brought.elapsed.as_secs_f64();
    println!("peak: {peak:.0} requests/s, closed loop, {} connections\n", arguments.connections);

    let asks = TIERS.map(|tier| chat_in_tier(model, arguments.stream, tier));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some thousands a second")]
    let per_second = (peak * arguments.times).round().max(1.0) as u32;
    let warm_up = Duration::from_secs(arguments.warm_up);
    let (going_on, over) = watch::channel(());
    let looking = tokio::spawn(look(service.address, over));
    let parts = overload(service.address, &asks, arguments.stream, per_second, warm_up, length).await?;
    drop(going_on);
    let looks = looking.await.map_err(|error| error.to_string())?;
    let [first, mut rest] = parts;
    service.stop().await?;
    upstream.stop().await?;

    let seconds = length.as_secs_f64();
    println!("offered: {per_second} requests/s, a third of each tier\n");
    if arguments.warm_up > 0 {
        println!("In the first {} s:\n\n{}", arguments.warm_up, first.table());
    }
    println!("In the {seconds:.0} s after:\n\n{}", rest.table());
    let served = rest.answered() as f64 / seconds;
    let goodput = 100.0 * served / peak;
    println!("goodput: {served:.0} requests/s, {goodput:.1} % of the peak");
    let refusal_p99 = percentile(&mut rest.refusals_ms, 0.99);
    println!("refusals, ms from when they were due:  {}", percentiles(&mut rest.refusals_ms));
    println!("refusals, ms from when they were sent: {}", percentiles(&mut rest.refusals_sent_ms));
    println!("answers, ms from when they were due:   {}", percentiles(&mut rest.answers_ms));
    println!(
        "meanwhile {} of {} looks at {} were answered, the slowest in {:.1} ms",
        looks.answered,
        looks.all,
        ALWAYS.join(", "),
        looks.slowest_ms
    );

    let mut faults: Vec<String> = [&first.faults, &rest.faults]
        .into_iter()
        .flatten()
        .map(|(fault, times)| format!("{fault}, {times} times"))
        .collect();
    faults.extend((looks.answered < looks.all).then(|| "what must always answer did not".to_owned()));
    faults.extend(out_of_order(&rest.tiers));
    if let Some(least) = arguments.least_goodput.filter(|least| goodput < *least) {
        faults.push(format!("goodput is {goodput:.1} % of the peak; at least {least} was asked for"));
    }
    if let (Some(most), Some(p99)) = (arguments.most_refusal, refusal_p99)
        && p99 > most
    {
        faults.push(format!("the 99th percentile of refusals is {p99:.1} ms; at most {most} was asked for"));
    }
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
}

/// Sends requests of all tiers in turn when they are due. Gives those due in the warm-up, and those due after it.
async fn overload(
    address: SocketAddr,
    asks: &[Bytes; 3],
    stream: bool,
    per_second: u32,
    warm_up: Duration,
    length: Duration,
) -> Result<[Part; 2], String> {
    let pool = Arc::new(Pool::new(address));
    let mut due = pace(per_second, warm_up + length);
    let mut running: JoinSet<Answer> = JoinSet::new();
    let mut parts = [Part::default(), Part::default()];
    let measured = Instant::now() + warm_up;
    let mut turn = 0_usize;
    loop {
        tokio::select! {
            biased;
            Some(ended) = running.join_next(), if !running.is_empty() => {
                let answer = ended.map_err(|error| error.to_string())?;
                parts[usize::from(answer.due >= measured)].count(answer, stream);
            }
            due = due.recv() => {
                let Some(due) = due else { break };
                let tier = turn % TIERS.len();
                turn += 1;
                let (pool, ask) = (Arc::clone(&pool), Bytes::clone(&asks[tier]));
                running.spawn(async move {
                    let sent = Instant::now();
                    let reply = pool.ask(&ask).await.map_err(|error| error.to_string());
                    Answer { tier, due, sent, ended: Instant::now(), reply }
                });
            }
        }
    }
    while let Some(ended) = running.join_next().await {
        let answer = ended.map_err(|error| error.to_string())?;
        parts[usize::from(answer.due >= measured)].count(answer, stream);
    }
    Ok(parts)
}

/// Looks at what must always answer.
#[derive(Debug, Default)]
struct Looks {
    all: u64,
    answered: u64,
    slowest_ms: f64,
}

/// Looks until the other end of `over` is dropped.
async fn look(address: SocketAddr, mut over: watch::Receiver<()>) -> Looks {
    let asks = ALWAYS.map(get);
    let pool = Pool::new(address);
    let mut looks = Looks::default();
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = over.changed() => return looks,
        }
        for ask in &asks {
            let sent = Instant::now();
            let reply = pool.ask(ask).await;
            looks.all += 1;
            looks.answered += u64::from(reply.is_ok_and(|reply| reply.is_good(false)));
            looks.slowest_ms = looks.slowest_ms.max(sent.elapsed().as_secs_f64() * 1e3);
        }
    }
}

impl Part {
    fn count(&mut self, answer: Answer, stream: bool) {
        let Answer { tier, due, sent, ended, reply } = answer;
        let outcomes = &mut self.tiers[tier];
        let ms = |from: Instant| ended.duration_since(from).as_secs_f64() * 1e3;
        match reply {
            Ok(reply) if reply.is_good(stream) => {
                outcomes.answered += 1;
                self.answers_ms.push(ms(due));
            }
            Ok(reply) if reply.status == 503 && reply.text.contains("\"server_is_overloaded\"") => {
                outcomes.refused += 1;
                self.refusals_ms.push(ms(due));
                self.refusals_sent_ms.push(ms(sent));
                if reply.retry_after.is_none() {
                    *self.faults.entry("a refusal without retry-after".to_owned()).or_default() += 1;
                }
            }
            Ok(reply) => {
                outcomes.other += 1;
                *self.faults.entry(format!("an answer with status {}: {}", reply.status, reply.text)).or_default() += 1;
            }
            Err(error) => {
                outcomes.other += 1;
                *self.faults.entry(format!("no answer: {error}")).or_default() += 1;
            }
        }
    }

    fn answered(&self) -> u64 {
        self.tiers.iter().map(|tier| tier.answered).sum()
    }

    fn table(&self) -> String {
        let mut text =
            String::from("| tier | answered | refused | share refused | otherwise |\n|---|---|---|---|---|\n");
        for (name, tier) in TIERS.iter().zip(&self.tiers) {
            let Outcomes { answered, refused, other } = tier;
            text.push_str(&format!("| {name} | {answered} | {refused} | {:.1} % | {other} |\n", 100.0 * tier.share()));
        }
        text
    }
}

impl Outcomes {
    /// The share that was refused.
    fn share(self) -> f64 {
        self.refused as f64 / (self.answered + self.refused).max(1) as f64
    }
}

/// Whether a higher tier was refused more often than a lower one.
fn out_of_order(tiers: &[Outcomes; 3]) -> Option<String> {
    let [critical, standard, batch] = tiers.map(Outcomes::share);
    (critical > standard || standard > batch)
        .then(|| "a higher tier was refused more often than a lower one".to_owned())
}

fn percentiles(values: &mut [f64]) -> String {
    match (percentile(values, 0.5), percentile(values, 0.99), percentile(values, 1.0)) {
        (Some(p50), Some(p99), Some(most)) => format!("p50 {p50:.2}, p99 {p99:.2}, longest {most:.2}"),
        _ => "none".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(tier: usize, status: u16, text: &str, retry_after: Option<u32>) -> Answer {
        let now = Instant::now();
        let reply = Reply { status, whole: true, text: text.to_owned(), retry_after, ..Reply::default() };
        Answer {
            tier,
            due: now - Duration::from_millis(3),
            sent: now - Duration::from_millis(1),
            ended: now,
            reply: Ok(reply),
        }
    }

    #[test]
    fn answers_are_counted_by_what_they_are() {
        let mut part = Part::default();
        let overloaded = r#"{"error":{"code":"server_is_overloaded"}}"#;
        part.count(answer(0, 200, "", None), false);
        part.count(answer(2, 503, overloaded, Some(3)), false);
        part.count(answer(2, 503, overloaded, Some(3)), false);
        assert_eq!((part.answered(), part.tiers[2].refused, part.faults.len()), (1, 2, 0));
        assert_eq!(
            (part.refusals_ms.len(), part.refusals_ms[0].round(), part.refusals_sent_ms[0].round()),
            (2, 3.0, 1.0)
        );
        part.count(answer(1, 503, overloaded, None), false);
        part.count(answer(1, 503, r#"{"error":{"code":"upstream_unavailable"}}"#, Some(1)), false);
        part.count(Answer { reply: Err("reset".to_owned()), ..answer(1, 0, "", None) }, false);
        assert_eq!((part.tiers[1], part.faults.len()), (Outcomes { answered: 0, refused: 1, other: 2 }, 3));
        assert!(part.table().contains("| standard | 0 | 1 | 100.0 % | 2 |"), "{}", part.table());
    }

    #[test]
    fn lower_tiers_go_first() {
        let tiers = |refused: [u64; 3]| refused.map(|refused| Outcomes { answered: 100 - refused, refused, other: 0 });
        assert_eq!(out_of_order(&tiers([0, 50, 100])), None);
        assert_eq!(out_of_order(&tiers([0, 0, 0])), None);
        assert!(out_of_order(&tiers([0, 50, 40])).is_some());
        assert!(out_of_order(&tiers([1, 0, 100])).is_some());
    }
}
