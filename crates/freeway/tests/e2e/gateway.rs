//! The real program, started for one test.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::oneshot;

use crate::http::{Ask, Connection, Reply};
use crate::patience::until;

/// How the line in which the program says where it listens names the address.
const ADDRESS: &str = "http://127.0.0.1:";

/// The program, serving; it is killed when this is dropped.
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    child: Child,
    said: Arc<Mutex<String>>,
}

/// A folder with a configuration, and what the gateway writes into it.
pub(crate) struct Home {
    folder: TempDir,
}

/// How a gateway is ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    Terminate,
    Kill,
}

/// The program with some arguments and an empty environment.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_freeway"));
    command.env_clear();
    command
}

/// What a command printed that went well.
pub(crate) fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What a command said of its operator's mistake.
pub(crate) fn complaint(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    said
}

// === impl Home ===

impl Home {
    /// A folder for a configuration. `text` lacks what all have in common: a free port, and the ledger in memory
    /// unless it names one itself.
    pub(crate) fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let home = Self { folder };
        home.write(text, "127.0.0.1:0");
        home
    }

    /// Writes the configuration anew.
    pub(crate) fn write(&self, text: &str, listen: &str) {
        let store = if text.contains("[store]") { "" } else { "[store]\nurl = \"sqlite::memory:\"\n" };
        let listen = format!("[server]\nlisten = \"{listen}\"");
        let text = match text.contains("[server]") {
            true => text.replace("[server]", &listen),
            false => format!("{listen}\n{text}"),
        };
        std::fs::write(self.config(), format!("{text}\n{store}")).expect("a file in the folder");
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path().join("freeway.toml")
    }

    /// Starts a gateway with this configuration.
    pub(crate) async fn serve(&self) -> Gateway {
        let mut command = program();
        command.args(["serve", "--log", "debug", "--config"]).arg(self.config()).current_dir(self.path());
        Gateway::run(command).await
    }

    /// Runs another command with this configuration.
    pub(crate) async fn command(&self, arguments: &[&str]) -> Output {
        let mut command = program();
        command.args(arguments).arg("--config").arg(self.config()).current_dir(self.path());
        tokio::task::spawn_blocking(move || command.output().expect("the program runs")).await.expect("it ends")
    }

    /// Everything in the folder but the configuration, as bytes.
    pub(crate) fn written(&self) -> Vec<u8> {
        let mut all = Vec::new();
        for entry in std::fs::read_dir(self.path()).expect("the folder").flatten() {
            if entry.path() != self.config() {
                all.extend(std::fs::read(entry.path()).unwrap_or_default());
            }
        }
        all
    }
}

// === impl Gateway ===

impl Gateway {
    /// Starts a gateway whose configuration nobody needs to look at again.
    pub(crate) async fn start(text: &str) -> Self {
        Home::new(text).serve().await
    }

    /// Runs the program until it says where it listens.
    pub(crate) async fn run(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let said = Arc::new(Mutex::new(String::new()));
        let (found, address) = oneshot::channel();
        listen(child.stdout.take().expect("a pipe"), Arc::clone(&said), Some(found));
        listen(child.stderr.take().expect("a pipe"), Arc::clone(&said), None);
        let address = tokio::time::timeout(Duration::from_secs(20), address).await;
        let Ok(Ok(address)) = address else {
            let _ = child.kill();
            let _ = child.wait();
            panic!("the gateway does not serve: {}", said.lock().expect("its words"));
        };
        Self { address, child, said }
    }

    /// The program's process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything that the program printed so far.
    pub(crate) fn said(&self) -> String {
        self.said.lock().expect("its words").clone()
    }

    pub(crate) async fn send(&self, ask: &Ask) -> Connection {
        self.send_bytes(&ask.bytes(self.address)).await
    }

    pub(crate) async fn send_bytes(&self, bytes: &[u8]) -> Connection {
        let mut connection = Connection::open(self.address).await;
        connection.send(bytes).await;
        connection
    }

    /// Asks on a connection of its own.
    pub(crate) async fn ask(&self, ask: &Ask) -> Reply {
        self.send(ask).await.reply().await
    }

    /// A document of the operator's API.
    pub(crate) async fn document(&self, path: &str) -> Value {
        let reply = self.ask(&Ask::get(path)).await;
        assert_eq!(reply.head.status, 200, "{path}: {}", reply.text());
        reply.json()
    }

    /// What the ledger says of the request that got this answer; it is written when the request is over.
    pub(crate) async fn ledger(&self, reply: &Reply) -> Value {
        let id = reply.head.header("x-freeway-request-id").expect("an id");
        let ask = Ask::get(&format!("/freeway/v1/requests/{id}"));
        until("the ledger knows the request", async || {
            let reply = self.ask(&ask).await;
            (reply.head.status == 200).then(|| reply.json())
        })
        .await
    }

    /// Asks it to stop.
    pub(crate) fn terminate(&self) {
        let status = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(status.expect("kill is there").success());
    }

    /// Ends it, and waits until it is over.
    pub(crate) async fn end(mut self, how: End) {
        match how {
            End::Kill => self.child.kill().expect("it can be killed"),
            End::Terminate => self.terminate(),
        }
        let ended = until("the program ends", async || self.child.try_wait().expect("it can be waited for")).await;
        assert!(ended.success() || matches!(how, End::Kill), "{how:?}: {ended}");
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Collects what the program prints, and looks for its address.
fn listen(pipe: impl Read + Send + 'static, said: Arc<Mutex<String>>, mut found: Option<oneshot::Sender<SocketAddr>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if let Ok(mut said) = said.lock() {
                said.push_str(&line);
                said.push('\n');
            }
            let port = line.split_once(ADDRESS).and_then(|(_, rest)| rest.split('/').next()?.parse().ok());
            if let Some(port) = port
                && let Some(found) = found.take()
            {
                let _ = found.send(SocketAddr::from(([127, 0, 0, 1], port)));
            }
        }
    });
}
