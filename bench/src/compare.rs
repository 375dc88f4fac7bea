//! The comparison: a direct call, nginx and Freeway, in turns within one run, so that whatever else the machine does
//! falls on all alike.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use crate::ask::{Prompt, chat};
use crate::load::{Brought, Load};
use crate::process::{State, cpu, most_files, state};
use crate::report;
use crate::service::Service;
use crate::setting::{Freeway, start_nginx};

#[derive(Args)]
pub(crate) struct Arguments {
    /// The program to measure, as it is shipped.
    #[arg(long, value_name = "PATH")]
    freeway: PathBuf,
    /// nginx.
    #[arg(long, value_name = "PATH", default_value = "nginx")]
    nginx: PathBuf,
    /// How often everything is measured, in turns.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Length of each measurement.
    #[arg(long, default_value_t = 4)]
    seconds: u32,
    /// Short and rough, to see whether everything works: one round of a second each, and few rows.
    #[arg(long)]
    quick: bool,
    /// Rows of the ledger for the start with a long history. Freeway fills it itself, by serving.
    #[arg(long, default_value_t = 100_000)]
    rows: u64,
    /// A prepared ledger for that start, instead of filling one. It is copied.
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
    /// Write the figures as JSON, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Fail if the CPU per request exceeds so many times nginx's, for prompts of 1 KB, not streamed.
    #[arg(long, value_name = "TIMES")]
    most_ratio: Option<f64>,
}

/// What answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    /// The mock upstream, with nothing between.
    Direct,
    Nginx,
    /// Freeway, choosing among ten targets.
    Freeway,
    /// Freeway, with the target named by the client.
    FreewayNamed,
}

/// Figures by case and subject: one for each round, or all of all rounds.
pub(crate) type Series<Case> = BTreeMap<(Case, Who), Vec<f64>>;

/// Everything that was measured.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// The day and the machine.
    pub(crate) machine: String,
    /// Microseconds of CPU for a request at full load, by the prompt's place in `PROMPTS` and whether it is streamed.
    pub(crate) cpu: Series<(usize, bool)>,
    /// Requests a second at full load.
    pub(crate) rates: Series<(usize, bool)>,
    /// Milliseconds of single requests, by requests a second.
    pub(crate) latencies: Series<u32>,
    /// Milliseconds to the first event of single streams.
    pub(crate) firsts: Series<()>,
    /// Microseconds of CPU for a chunk of a paced stream.
    pub(crate) chunk_cpu: Series<()>,
    /// Milliseconds that single chunks of paced streams took from the upstream's write to the client.
    pub(crate) delays: Series<()>,
    /// Milliseconds from start to first answer; `true`: with the long ledger.
    pub(crate) starts: Series<bool>,
    /// Rows of the long ledger, where they are known.
    pub(crate) rows: Option<u64>,
    /// KiB resident, by when.
    pub(crate) memory: BTreeMap<(&'static str, Who), u64>,
    /// Streams that were open while the memory was looked at.
    pub(crate) open_streams: u32,
    /// Bytes of the program.
    pub(crate) program_bytes: u64,
}

pub(crate) const PROMPTS: [Prompt; 2] = [Prompt::Short, Prompt::Long];
/// Requests a second for latencies. Streams are timed at the first of them.
pub(crate) const RATES: [u32; 2] = [50, 200];
pub(crate) const EVERYONE: [Who; 4] = [Who::Direct, Who::Nginx, Who::Freeway, Who::FreewayNamed];
const CONNECTIONS: usize = 16;
/// Paced streams at the same time, and the milliseconds between two chunks of each.
const PACED_STREAMS: u32 = 100;
const PACED_MS: u32 = 20;
/// Streams that are held open to see their memory: a chunk each quarter of a second, so that little CPU is needed.
const HELD: &str = "paced32x250";
const HELD_SPREAD: Duration = Duration::from_secs(4);
const HELD_STREAMS: u32 = 1000;
const STARTS: u32 = 5;
/// Load before each measurement at full load, which is not counted.
const WARM_UP: Duration = Duration::from_millis(300);
/// After a load, what is still being written gets this time to be counted.
const SETTLE: Duration = Duration::from_millis(200);

/// Everything that runs while the comparison is made.
struct Stage {
    upstream: Service,
    nginx: Service,
    freeway: Service,
    length: Duration,
}

impl Who {
    /// The model to ask for, so that the upstream behaves in this way.
    fn model(self, behaviour: &str) -> String {
        match self {
            Self::Direct | Self::Nginx => format!("{behaviour}-0"),
            Self::Freeway => behaviour.to_owned(),
            Self::FreewayNamed => format!("bench/{behaviour}-0"),
        }
    }
}

pub(crate) async fn run(arguments: &Arguments) -> Result<(), String> {
    let (rounds, seconds, rows) =
        if arguments.quick { (1, 1, 2_000) } else { (arguments.rounds, arguments.seconds, arguments.rows) };
    let paced = format!("paced{}x{PACED_MS}", seconds * 1000 / PACED_MS);
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let mut upstream = Service::upstream()?;
    let freeway = Freeway {
        program: &arguments.freeway,
        folder: folder.path().join("freeway"),
        upstream: upstream.address,
        aliases: vec!["fast".to_owned(), paced.clone(), HELD.to_owned()],
        server: String::new(),
        more: String::new(),
    };
    upstream.ready(&chat("fast-0", false, Prompt::Short)).await?;
    let mut figures = Figures { rows: Some(rows).filter(|_| arguments.ledger.is_none()), ..Figures::default() };
    figures.machine = report::machine(&arguments.nginx);
    figures.program_bytes = std::fs::metadata(&arguments.freeway).map_err(|error| error.to_string())?.len();

    say("start");
    figures.time_starts(&freeway, &arguments.nginx, folder.path()).await?;
    let mut stage = Stage {
        nginx: start_nginx(&arguments.nginx, &folder.path().join("nginx"), upstream.address)?,
        freeway: freeway.start(&[])?,
        upstream,
        length: Duration::from_secs(seconds.into()),
    };
    for who in [Who::Nginx, Who::Freeway] {
        stage.service(who).ready(&chat(&who.model("fast"), false, Prompt::Short)).await?;
    }
    tokio::time::sleep(SETTLE).await;
    figures.weigh("idle", &stage)?;
    for round in 0..rounds {
        say(&format!("round {} of {rounds}", round + 1));
        figures.round(round as usize, &stage, &paced).await?;
    }
    tokio::time::sleep(SETTLE).await;
    figures.weigh("after the load", &stage)?;
    say("open streams");
    figures.hold_streams(&stage).await?;
    stage.freeway.stop().await?;
    stage.nginx.stop().await?;

    say("start with a long ledger");
    figures.time_long_starts(&freeway, rows, arguments.ledger.as_deref()).await?;
    stage.upstream.stop().await?;

    let text = report::markdown(&figures, rounds, seconds);
    println!("{text}");
    if let Some(file) = &arguments.json {
        std::fs::write(file, format!("{:#}\n", report::json(&figures)))
            .map_err(|error| format!("{}: {error}", file.display()))?;
    }
    match (arguments.most_ratio, report::ratio(&figures.cpu, (0, false), Who::Freeway)) {
        (Some(most), Some(ratio)) if ratio.middle > most => {
            Err(format!("a request costs {:.2} times what it costs nginx; at most {most} was asked for", ratio.middle))
        }
        _ => Ok(()),
    }
}

fn say(what: &str) {
    eprintln!("… {what}");
}

// === impl Stage ===

impl Stage {
    const fn service(&mut self, who: Who) -> &mut Service {
        match who {
            Who::Direct => &mut self.upstream,
            Who::Nginx => &mut self.nginx,
            Who::Freeway | Who::FreewayNamed => &mut self.freeway,
        }
    }

    const fn address(&self, who: Who) -> SocketAddr {
        match who {
            Who::Direct => self.upstream.address,
            Who::Nginx => self.nginx.address,
            Who::Freeway | Who::FreewayNamed => self.freeway.address,
        }
    }

    /// The processes whose cost is measured; none for the direct call.
    fn processes(&self, who: Who) -> Result<Vec<u32>, String> {
        match who {
            Who::Direct => Ok(Vec::new()),
            Who::Nginx => self.nginx.processes(),
            Who::Freeway | Who::FreewayNamed => self.freeway.processes(),
        }
    }

    fn state(&self, who: Who) -> Result<State, String> {
        state(&self.processes(who)?)
    }

    fn load(&self, who: Who, behaviour: &str, stream: bool, prompt: Prompt) -> Load {
        Load { address: self.address(who), ask: chat(&who.model(behaviour), stream, prompt), stream }
    }

    /// Microseconds of CPU that a load costs a subject.
    async fn cost<L>(&self, who: Who, load: L) -> Result<(Brought, f64), String>
    where
        L: Future<Output = Result<Brought, String>>,
    {
        let processes = self.processes(who)?;
        let before = cpu(&processes)?;
        let brought = load.await?;
        tokio::time::sleep(SETTLE).await;
        Ok((brought, cpu(&processes)?.since(&before) as f64 / 1e3))
    }
}

// === impl Figures ===

impl Figures {
    /// Measures everything once. Who comes first changes from round to round.
    async fn round(&mut self, round: usize, stage: &Stage, paced: &str) -> Result<(), String> {
        let turns = |everyone: &[Who]| -> Vec<Who> {
            let mut turns = everyone.to_vec();
            turns.rotate_left(round % everyone.len());
            turns
        };
        for (place, prompt) in PROMPTS.into_iter().enumerate() {
            for stream in [false, true] {
                for who in turns(&EVERYONE) {
                    let load = stage.load(who, "fast", stream, prompt);
                    load.closed(CONNECTIONS, WARM_UP).await?;
                    let (brought, cost) = stage.cost(who, load.closed(CONNECTIONS, stage.length)).await?;
                    let key = ((place, stream), who);
                    self.cpu.entry(key).or_default().push(cost / brought.requests as f64);
                    let rate = brought.requests as f64 / brought.elapsed.as_secs_f64();
                    self.rates.entry(key).or_default().push(rate);
                }
            }
        }
        let through = &EVERYONE[..3];
        for rate in RATES {
            for who in turns(through) {
                let brought = stage.load(who, "fast", false, Prompt::Short).at_rate(rate, stage.length).await?;
                self.latencies.entry((rate, who)).or_default().extend(brought.latencies);
            }
        }
        for who in turns(through) {
            let brought = stage.load(who, "fast", true, Prompt::Short).at_rate(RATES[0], stage.length).await?;
            self.firsts.entry(((), who)).or_default().extend(brought.firsts);
        }
        for who in turns(through) {
            let load = stage.load(who, paced, true, Prompt::Short);
            let spread = Duration::from_millis(PACED_MS.into());
            let (brought, cost) = stage.cost(who, load.streams(PACED_STREAMS, spread)).await?;
            self.chunk_cpu.entry(((), who)).or_default().push(cost / brought.delays.len() as f64);
            self.delays.entry(((), who)).or_default().extend(brought.delays);
        }
        Ok(())
    }

    fn weigh(&mut self, when: &'static str, stage: &Stage) -> Result<(), String> {
        for who in [Who::Nginx, Who::Freeway] {
            self.memory.insert((when, who), stage.state(who)?.resident_kib);
        }
        Ok(())
    }

    /// Looks at the memory while many streams are open.
    async fn hold_streams(&mut self, stage: &Stage) -> Result<(), String> {
        // Each stream takes two descriptors of the gateway; some are left for everything else.
        let can = u32::try_from(most_files().saturating_sub(100) / 2).unwrap_or(u32::MAX);
        self.open_streams = HELD_STREAMS.min(can);
        for who in [Who::Nginx, Who::Freeway] {
            let load = stage.load(who, HELD, true, Prompt::Short);
            let before = stage.state(who)?.resident_kib;
            let look = async {
                tokio::time::sleep(HELD_SPREAD + Duration::from_secs(1)).await;
                stage.state(who)
            };
            let (streams, state) = tokio::join!(load.streams(self.open_streams, HELD_SPREAD), look);
            streams?;
            self.memory.insert(("before the streams", who), before);
            self.memory.insert(("with the streams open", who), state?.resident_kib);
        }
        Ok(())
    }

    async fn time_starts(&mut self, freeway: &Freeway<'_>, nginx: &Path, folder: &Path) -> Result<(), String> {
        for start in 0..STARTS {
            let home = folder.join(format!("start-{start}"));
            let service = start_nginx(nginx, &home, freeway.upstream)?;
            self.time_start(false, Who::Nginx, service).await?;
            let service = Freeway { folder: home, ..freeway.clone() }.start(&[])?;
            self.time_start(false, Who::Freeway, service).await?;
        }
        Ok(())
    }

    async fn time_long_starts(&mut self, freeway: &Freeway<'_>, rows: u64, ready: Option<&Path>) -> Result<(), String> {
        let folder = freeway.folder.with_file_name("long");
        let freeway = Freeway { folder, ..freeway.clone() };
        std::fs::create_dir_all(&freeway.folder).map_err(|error| error.to_string())?;
        if let Some(ledger) = ready {
            std::fs::copy(ledger, freeway.folder.join("freeway.db"))
                .map_err(|error| format!("{}: {error}", ledger.display()))?;
        } else {
            let mut service = freeway.start(&[])?;
            let ask = chat("fast", false, Prompt::Short);
            service.ready(&ask).await?;
            let load = Load { address: service.address, ask, stream: false };
            load.exactly(rows.saturating_sub(1), CONNECTIONS).await?;
            service.stop().await?;
        }
        for _ in 0..STARTS {
            self.time_start(true, Who::Freeway, freeway.start(&[])?).await?;
        }
        Ok(())
    }

    async fn time_start(&mut self, long: bool, who: Who, mut service: Service) -> Result<(), String> {
        let time = service.ready(&chat(&who.model("fast"), false, Prompt::Short)).await?;
        self.starts.entry((long, who)).or_default().push(time.as_secs_f64() * 1e3);
        service.stop().await
    }
}
