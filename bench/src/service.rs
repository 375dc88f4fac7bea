//! A program that is started, waited for, looked at and stopped.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::Instant;

use crate::client::Connection;
use crate::exchange::exchange;
use crate::process;

/// A program answers within this time of its start, or it never will.
const START_LIMIT: Duration = Duration::from_secs(60);
/// A program ends within this time of being asked to.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// A program that serves. It is asked to end when this is dropped.
pub(crate) struct Service {
    name: String,
    pub(crate) address: SocketAddr,
    child: Child,
    started: Instant,
}

impl Service {
    /// Starts a program that will listen on `address`. What it prints goes to a file.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start(name: &str, mut command: Command, address: SocketAddr, log: &Path) -> Result<Self, String> {
        let told = |error: std::io::Error| format!("{name}: {error}");
        let file = File::options().create(true).append(true).open(log).map_err(told)?;
        let copy = file.try_clone().map_err(told)?;
        let started = Instant::now();
        let child = command.stdin(Stdio::null()).stdout(file).stderr(copy).spawn().map_err(told)?;
        Ok(Self { name: name.to_owned(), address, child, started })
    }

    /// Starts the mock upstream as a process of its own.
    ///
    /// # Errors
    /// When it does not say where it listens.
    pub(crate) fn upstream() -> Result<Self, String> {
        let told = |error: std::io::Error| format!("upstream: {error}");
        let started = Instant::now();
        let mut command = Command::new(std::env::current_exe().map_err(told)?);
        let mut child = command.arg("upstream").stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(told)?;
        let mut line = String::new();
        if let Some(pipe) = child.stdout.take() {
            BufReader::new(pipe).read_line(&mut line).map_err(told)?;
        }
        let address = line.trim().strip_prefix("http://").and_then(|rest| rest.split('/').next()?.parse().ok());
        let address = address.ok_or_else(|| format!("upstream: says {line:?}"))?;
        Ok(Self { name: "upstream".to_owned(), address, child, started })
    }

    /// Waits until this request gets a good answer, and gives the time since the start.
    ///
    /// # Errors
    /// When it ends, or takes longer than a minute.
    pub(crate) async fn ready(&mut self, ask: &[u8]) -> Result<Duration, String> {
        let mut last = "no connection".to_owned();
        while self.started.elapsed() < START_LIMIT {
            if let Ok(mut connection) = Connection::open(self.address).await {
                match exchange(&mut connection, ask).await {
                    Ok((reply, _)) if reply.is_good(false) => return Ok(self.started.elapsed()),
                    Ok((reply, _)) => last = format!("status {}: {}", reply.status, reply.text),
                    Err(error) => last = error.to_string(),
                }
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("{} has ended: {status}", self.name));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Err(format!("{} does not serve: {last}", self.name))
    }

    /// Its process and the children of it.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub(crate) fn processes(&self) -> Result<Vec<u32>, String> {
        process::tree(self.child.id())
    }

    /// Asks it to end, and waits until it has.
    ///
    /// # Errors
    /// When it takes longer than a minute; it is killed then.
    pub(crate) async fn stop(mut self) -> Result<(), String> {
        let asked = Instant::now();
        self.terminate();
        while asked.elapsed() < STOP_LIMIT {
            if let Ok(Some(_)) = self.child.try_wait() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let _ = self.child.kill();
        Err(format!("{} does not end when it is asked to", self.name))
    }

    fn terminate(&mut self) {
        // nginx's workers end with their master only if the master is asked; a kill would leave them behind.
        if let Ok(None) = self.child.try_wait() {
            let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.terminate();
        let _ = self.child.wait();
    }
}

/// An address of this machine with a port that was free a moment ago.
///
/// # Errors
/// When the system gives none.
pub(crate) fn free_address() -> Result<SocketAddr, String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| error.to_string())?;
    listener.local_addr().map_err(|error| error.to_string())
}
