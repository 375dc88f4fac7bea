//! What the mixed traffic is made of, and what may come of each part.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::ask::{Bytes, KEY, Prompt, body, chat, get, post};
use crate::client::Connection;
use crate::dice::Dice;
use crate::exchange::{Pool, Reply, exchange};
use crate::setting::{model, provider};

/// A client's conduct, and what may come of it.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// How often it comes, against the others.
    weight: u64,
    conduct: Conduct,
    /// Outcomes that are right.
    expected: &'static [&'static str],
}

/// What a client does.
enum Conduct {
    /// Asks, and reads the answer to its end.
    Ask(Bytes),
    /// Asks, and leaves after at most so many pieces of the answer.
    LeaveWhileReading(Bytes, u64),
    /// Asks, and leaves after at most so many milliseconds, before there can be an answer.
    LeaveWhileWaiting(Bytes, u64),
    /// Leaves somewhere within its request.
    LeaveWhileSending(Bytes),
}

/// Aliases of the mock upstream's behaviours, each with ten targets.
pub(crate) const ALIASES: [&str; 4] = ["fast", "paced20x20", "paced50x20", "slow500"];
/// Behaviours that pause what plays them, which is therefore an account of its own.
const FAULTS: [&str; 5] = ["status500", "status429", "reset", "breaks5", "status400"];

const WHOLE: &[&str] = &["whole"];
const LEFT_WAITING: &[&str] = &["left", "left too late"];
/// What is left to say once every target has refused: a refusal of its own, or a word that all are paused.
const NOBODY: &[&str] = &["429", "502", "503"];

/// Accounts that fail in different ways, and aliases that begin with them.
pub(crate) fn configuration(upstream: SocketAddr) -> String {
    let mut text = String::new();
    for fault in FAULTS {
        let account = format!("with-{fault}");
        text.push('\n');
        text.push_str(&provider(&account, upstream));
        text.push_str(&model(&account, fault));
    }
    text.push_str(
        r#"
[aliases.flaky]
targets = ["with-status500/status500", "with-status429/status429", "with-reset/reset", "bench/fast-0"]
strategy = "ordered"

[aliases.down]
targets = ["with-status500/status500", "with-status429/status429", "with-reset/reset"]
strategy = "ordered"
"#,
    );
    text
}

/// The whole mix.
pub(crate) fn mix() -> Vec<Scenario> {
    use Conduct::{Ask, LeaveWhileReading, LeaveWhileSending, LeaveWhileWaiting};
    let short = |model: &str, stream: bool| chat(model, stream, Prompt::Short);
    let long = |model: &str, stream: bool| chat(model, stream, Prompt::Long);
    let scenario = |name, weight, conduct, expected| Scenario { name, weight, conduct, expected };
    vec![
        scenario("plain", 30, Ask(short("fast", false)), WHOLE),
        scenario("plain, 100 KB", 5, Ask(long("fast", false)), WHOLE),
        scenario("streamed", 15, Ask(short("fast", true)), WHOLE),
        scenario("streamed, 100 KB", 3, Ask(long("fast", true)), WHOLE),
        scenario("paced stream", 10, Ask(short("paced20x20", true)), WHOLE),
        scenario("left a stream", 8, LeaveWhileReading(short("paced50x20", true), 50), &["left"]),
        scenario("left before the answer", 4, LeaveWhileWaiting(short("slow500", false), 450), LEFT_WAITING),
        scenario("left before the stream", 4, LeaveWhileWaiting(short("slow500", true), 450), LEFT_WAITING),
        scenario("left while sending", 3, LeaveWhileSending(long("fast", false)), &["left"]),
        scenario("a wrong key", 3, Ask(post("sk-test-nobody", &body("fast", false, Prompt::Short))), &["401"]),
        scenario("no JSON", 3, Ask(post(KEY, "{\"model\":\"fast\"")), &["400"]),
        scenario("no such model", 2, Ask(short("absent", false)), &["404"]),
        scenario("failover", 5, Ask(short("flaky", false)), WHOLE),
        scenario("failover of a stream", 3, Ask(short("flaky", true)), WHOLE),
        scenario("nobody can serve", 2, Ask(short("down", false)), NOBODY),
        scenario("a stream that breaks", 3, Ask(short("breaks5", true)), &["broken off", "429", "502", "503"]),
        scenario("refused upstream", 2, Ask(short("status400", false)), &["400"]),
        scenario("the quotas", 1, Ask(get("/freeway/v1/quotas")), WHOLE),
        scenario("the latest requests", 1, Ask(get("/freeway/v1/requests")), WHOLE),
    ]
}

/// Draws one of the mix.
pub(crate) fn draw<'a>(mix: &'a [Scenario], dice: &mut Dice) -> Option<&'a Scenario> {
    let total = mix.iter().map(|scenario| scenario.weight).sum::<u64>();
    let mut left = dice.below(total.max(1));
    mix.iter().find(|scenario| {
        let found = left < scenario.weight;
        left = left.saturating_sub(scenario.weight);
        found
    })
}

impl Scenario {
    pub(crate) fn allows(&self, outcome: &str) -> bool {
        self.expected.contains(&outcome)
    }

    /// Plays it, and says in a word what came of it.
    pub(crate) async fn play(&self, pool: &Pool, address: SocketAddr, dice: &mut Dice) -> String {
        let played = match &self.conduct {
            // Some clients keep their connections, some do not.
            Conduct::Ask(ask) if dice.below(4) > 0 => pool.ask(ask).await.map(|reply| word(ask, &reply)),
            Conduct::Ask(ask) => alone(address, ask).await,
            Conduct::LeaveWhileReading(ask, most) => leave_while_reading(address, ask, dice.below(*most)).await,
            Conduct::LeaveWhileWaiting(ask, most) => {
                let wait = Duration::from_millis(dice.below(*most));
                let begun = Instant::now();
                // The connection is closed when the exchange is dropped.
                match timeout(wait, alone(address, ask)).await {
                    // Whoever comes to leave too late, because this load had no processor, says nothing of the gateway.
                    Ok(Ok(_)) if begun.elapsed() >= wait => Ok("left too late".to_owned()),
                    Ok(outcome) => outcome,
                    Err(_) => Ok("left".to_owned()),
                }
            }
            Conduct::LeaveWhileSending(ask) => {
                let sent = usize::try_from(dice.below(ask.len() as u64)).unwrap_or_default();
                leave_while_sending(address, &ask[..sent]).await
            }
        };
        played.unwrap_or_else(|error| format!("no answer: {error}"))
    }
}

async fn alone(address: SocketAddr, ask: &Bytes) -> std::io::Result<String> {
    let mut connection = Connection::open(address).await?;
    let (reply, _) = exchange(&mut connection, ask).await?;
    Ok(word(ask, &reply))
}

async fn leave_while_reading(address: SocketAddr, ask: &[u8], pieces: u64) -> std::io::Result<String> {
    let mut connection = Connection::open(address).await?;
    connection.send(ask).await?;
    let head = connection.head().await?;
    for _ in 0..pieces {
        if connection.piece().await?.is_none() {
            break;
        }
    }
    Ok(if head.status == 200 { "left".to_owned() } else { head.status.to_string() })
}

async fn leave_while_sending(address: SocketAddr, part: &[u8]) -> std::io::Result<String> {
    let mut connection = Connection::open(address).await?;
    connection.send(part).await?;
    Ok("left".to_owned())
}

/// An answer in a word.
fn word(ask: &[u8], reply: &Reply) -> String {
    let stream = memchr::memmem::find(ask, b"\"stream\":true").is_some();
    match reply.status {
        200 if reply.is_good(stream) => "whole".to_owned(),
        200 if reply.error_event => "broken off".to_owned(),
        200 => "cut off without a word".to_owned(),
        status => status.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_in_the_mix_comes() {
        let (mix, mut dice) = (mix(), Dice::new(1));
        let mut drawn: Vec<&str> = (0..5000).filter_map(|_| draw(&mix, &mut dice)).map(|drawn| drawn.name).collect();
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn.len(), mix.len());
    }

    #[test]
    fn an_answer_is_told_in_a_word() {
        let check = |status: u16, whole: bool, done: bool, error_event: bool, stream: bool, expected: &str| {
            let ask = chat("fast", stream, Prompt::Short);
            assert_eq!(word(&ask, &Reply { status, whole, done, error_event, ..Reply::default() }), expected);
        };
        check(200, true, false, false, false, "whole");
        check(200, true, true, false, true, "whole");
        check(200, true, false, true, true, "broken off");
        check(200, true, false, false, true, "cut off without a word");
        check(200, false, false, false, false, "cut off without a word");
        check(503, true, false, false, true, "503");
    }
}
