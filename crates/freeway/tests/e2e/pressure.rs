//! Many clients on one gateway whose targets have limits of every kind at once, measured by the providers' own books:
//! what they refused, what was used of what could be used; and the same while the gateway is killed again and again.
//!
//! `FREEWAY_PRESSURE_S` (30) is how long it goes on, `FREEWAY_KILLS` (8) how often the gateway is killed in that time,
//! and `FREEWAY_SEED` (1) decides when, and what clients ask for. The table is shown by `--nocapture`. How much is used
//! depends on how fast the machine is: the promised shares are asked for with `FREEWAY_SHARES=1`, on a machine that
//! does nothing else, and half of them otherwise. That nothing is overrun holds on any.

mod ledger;
mod measure;
mod targets;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use freeway_engine::Clock;
use freeway_sim::{Fault, Sim};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::gateway::{End, Gateway, Home};
use crate::http::{Ask, Connection, Reply};
use crate::patience::until;
use crate::upstream::Upstream;
use measure::{Row, measure};
use targets::{TARGETS, Target};

const CLIENTS: usize = 60;
/// Half of the clients press on one target for so long, then on the next.
const ROUND: Duration = Duration::from_millis(400);
/// A client that is told that nothing is left comes back after up to twice this time.
const COMES_BACK: Duration = Duration::from_millis(10);
/// An answer begins within this time and what the machine adds.
const FIRST_BYTE: Duration = Duration::from_millis(150);

/// What clients say. The lengths vary, and so do the tokens that are made of them.
const SAYINGS: [&str; 4] = [
    "the tide is out",
    "how far is it from the harbour to the lighthouse when the tide is out and the mud has dried?",
    "list the ships",
    "tell me in a few words what the keeper of the lighthouse wrote into his book on the day of the great storm, and why",
];

/// Numbers that look random: the same ones from the same seed.
struct Dice(u64);

/// One simulated provider and what it was made for.
pub(crate) struct Pressed {
    pub(crate) target: &'static Target,
    pub(crate) upstream: Upstream,
}

/// What all clients share.
struct Field {
    pressed: Vec<Pressed>,
    begun: Instant,
    length: Duration,
    seed: u64,
    /// Whether the gateway is killed now and then, so that answers may break off.
    killed: bool,
}

/// An answer that a client got whole.
pub(crate) struct Answered {
    pub(crate) id: String,
    pub(crate) attempts: u64,
    pub(crate) target: usize,
    pub(crate) took: Duration,
}

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 29)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.roll() % bound as u64).unwrap_or(0)
    }

    /// A part of twice this length.
    fn around(&mut self, length: Duration) -> Duration {
        2 * length * u32::try_from(self.roll() % 1001).unwrap_or(0) / 1000
    }
}

#[expect(clippy::disallowed_methods, reason = "whoever runs the tests chooses how long and how often")]
fn setting(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

async fn field(killed: bool) -> Field {
    let mut pressed = Vec::new();
    for target in TARGETS {
        let upstream = Upstream::with(target.id, target.facts, |config| {
            config.first_byte = FIRST_BYTE / 10;
            config.spread = FIRST_BYTE * 9 / 10;
            config.pace = target.pace;
        })
        .await;
        pressed.push(Pressed { target, upstream });
    }
    let length = Duration::from_secs(setting("FREEWAY_PRESSURE_S", 30));
    Field { pressed, begun: Instant::now(), length, seed: setting("FREEWAY_SEED", 1), killed }
}

impl Field {
    fn home(&self) -> Home {
        let tables: String = self.pressed.iter().map(|pressed| pressed.upstream.table()).collect();
        Home::new(&format!("[store]\nurl = \"sqlite:ledger.db\"\n{tables}"))
    }

    fn is_over(&self) -> bool {
        self.begun.elapsed() >= self.length
    }

    /// The target that a client presses on next.
    fn next(&self, client: usize, dice: &mut Dice) -> usize {
        if client.is_multiple_of(2) {
            return dice.below(self.pressed.len());
        }
        let round = self.begun.elapsed().as_millis() / ROUND.as_millis();
        usize::try_from(round).unwrap_or(0) % self.pressed.len()
    }

    /// One client: asks, and asks again as soon as it is answered, until the time is over.
    async fn client(self: Arc<Self>, client: usize, address: watch::Receiver<SocketAddr>) -> Vec<Answered> {
        let mut dice = Dice(self.seed.wrapping_mul(1 << 20).wrapping_add(client as u64));
        let mut answered = Vec::new();
        let mut connected: Option<(SocketAddr, Connection)> = None;
        while !self.is_over() {
            let gateway = *address.borrow();
            let Some((_, connection)) = connected.as_mut().filter(|(at, _)| *at == gateway) else {
                connected = Connection::try_open(gateway).await.map(|connection| (gateway, connection));
                assert!(connected.is_some() || self.killed, "the gateway takes connections");
                if connected.is_none() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                continue;
            };
            let target = self.next(client, &mut dice);
            let ask = self.pressed[target].target.ask(&mut dice);
            let sent = Instant::now();
            connection.send(&ask.bytes(gateway)).await;
            let reply = connection.reply().await;
            match reply.head.status {
                200 if reply.whole => {
                    answered.push(Answered::read(&reply, target, sent.elapsed()));
                    self.pressed[target].may_fail_next(&mut dice);
                }
                0 | 200 if self.killed => connected = None,
                429 => {
                    assert_eq!(reply.json()["error"]["code"], "quota_exhausted", "{}", reply.everything());
                    tokio::time::sleep(dice.around(COMES_BACK)).await;
                }
                500.. if self.pressed[target].target.fails => {}
                _ => panic!("{}: {}", self.pressed[target].target.id, reply.everything()),
            }
        }
        answered
    }

    /// All clients at once. `drive` gets what tells them where the gateway is, and runs beside them.
    async fn press(
        self: &Arc<Self>,
        gateway: Gateway,
        drive: impl AsyncFnOnce(Gateway, watch::Sender<SocketAddr>) -> Gateway,
    ) -> (Gateway, Vec<Answered>) {
        let (tell, address) = watch::channel(gateway.address);
        let mut clients = JoinSet::new();
        for client in 0..CLIENTS {
            clients.spawn(Arc::clone(self).client(client, address.clone()));
        }
        let gateway = drive(gateway, tell).await;
        (gateway, clients.join_all().await.into_iter().flatten().collect())
    }

    fn measured(&self, answered: &[Answered]) -> Vec<Row> {
        let now = Clock::start().now().wall.as_micros();
        let rows = self.pressed.iter().enumerate().flat_map(|(position, pressed)| {
            let took: Vec<Duration> =
                answered.iter().filter(|answer| answer.target == position).map(|answer| answer.took).collect();
            measure(pressed, &took, now)
        });
        rows.collect()
    }
}

impl Answered {
    fn read(reply: &Reply, target: usize, took: Duration) -> Self {
        let id = reply.head.header("x-freeway-request-id").unwrap_or_default().to_owned();
        Self { id, attempts: reply.head.number("x-freeway-attempts").unwrap_or(0), target, took }
    }
}

impl Pressed {
    fn may_fail_next(&self, dice: &mut Dice) {
        if self.target.fails && dice.below(3) == 0 {
            self.upstream.sim.set_faults(vec![Fault::status(503)]);
        }
    }

    pub(crate) fn sim(&self) -> &Sim {
        &self.upstream.sim
    }
}

impl Target {
    fn ask(&self, dice: &mut Dice) -> Ask {
        let model = self.models[dice.below(self.models.len())];
        let stream = dice.below(2) == 0;
        let saying = SAYINGS[dice.below(SAYINGS.len())].repeat(self.repeats);
        Ask::body(format!(
            r#"{{"model":"{}/{model}","stream":{stream},"max_tokens":{},"messages":[{{"role":"user","content":"{saying}"}}]}}"#,
            self.id, self.most_output
        ))
    }
}

#[expect(clippy::print_stderr, reason = "the figures are the point")]
fn show(rows: &[Row]) {
    eprintln!("{}", Row::HEAD);
    for row in rows {
        eprintln!("{row}");
    }
}

/// Whether the limits were used as far as is promised.
fn check_shares(rows: &[Row]) {
    let in_full = setting("FREEWAY_SHARES", 0) == 1;
    for row in rows {
        let Some(promised) = row.promised else { continue };
        let least = if in_full { promised } else { promised / 2.0 };
        assert!(row.share() >= least, "{}: {:.1} % of what is reachable was used", row.name, 100.0 * row.share());
    }
}

fn check_books(pressed: &[Pressed]) {
    for Pressed { target, upstream } in pressed {
        let (refused, asked) = (upstream.sim.overruns(), upstream.asked() as u64);
        assert!(refused * 100 <= asked * target.refused_percent, "{}: {refused} of {asked} refused", target.id);
        for state in upstream.sim.limits() {
            assert!(state.peak <= state.amount || target.refused_percent > 0, "{}: {state:?}", target.id);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_every_kind_at_once_are_used_up_and_never_overrun() {
    let mut field = field(false).await;
    let home = field.home();
    let gateway = home.serve().await;
    field.begun = Instant::now();
    let field = Arc::new(field);
    let (gateway, answered) = field.press(gateway, async |gateway, _| gateway).await;
    let rows = field.measured(&answered);
    show(&rows);
    check_books(&field.pressed);
    check_shares(&rows);
    gateway.end(End::Terminate).await;
    ledger::check(&home, &field.pressed, &answered);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_limit_is_overrun_and_no_answer_lost_however_often_the_gateway_is_killed() {
    let kills = setting("FREEWAY_KILLS", 8);
    let mut field = field(true).await;
    let home = field.home();
    let gateway = home.serve().await;
    field.begun = Instant::now();
    let field = Arc::new(field);
    let mut dice = Dice(field.seed);
    let between = field.length / u32::try_from(kills + 1).unwrap_or(u32::MAX);
    let kill = async |mut gateway: Gateway, tell: watch::Sender<SocketAddr>| {
        for number in 0..kills {
            // Some come just after the start before, all within the time.
            let latest = field.begun + between * u32::try_from(number + 1).unwrap_or(u32::MAX);
            let wait = latest.saturating_duration_since(Instant::now());
            tokio::time::sleep(wait * u32::try_from(dice.roll() % 1001).unwrap_or(0) / 1000).await;
            gateway.end(End::Kill).await;
            gateway = home.serve().await;
            tell.send_replace(gateway.address);
        }
        gateway
    };
    let (gateway, answered) = field.press(gateway, kill).await;
    show(&field.measured(&answered));
    check_books(&field.pressed);
    gateway.end(End::Terminate).await;
    ledger::check(&home, &field.pressed, &answered);
}

/// A provider that does not notice that a gateway has gone would still be at work on what it was sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_was_taken_at_a_kill_stays_taken_until_its_connection_must_be_gone() {
    let facts = r#"models = [{ id = "a-model", limits = [{ metric = "concurrency", amount = 1 }] }]"#;
    let a = Upstream::with("a", facts, |_| ()).await;
    a.once(r#"{"fault":"silence"}"#);
    let home = Home::new(&format!("[store]\nurl = \"sqlite:ledger.db\"\n{}", a.table()));
    let gateway = home.serve().await;
    let waiting = gateway.send(&Ask::chat("a/a-model", false)).await;
    until("the place is taken", async || (a.asked() == 1).then_some(())).await;
    let killed = Instant::now();
    gateway.end(End::Kill).await;
    drop(waiting);
    let gateway = home.serve().await;
    until("there is a place again", async || {
        let status = gateway.ask(&Ask::chat("a/a-model", false)).await.head.status;
        (status == 200).then_some(())
    })
    .await;
    assert!(killed.elapsed() >= Duration::from_secs(2), "{:?}", killed.elapsed());
    assert_eq!(a.sim.overruns(), 0);
}
