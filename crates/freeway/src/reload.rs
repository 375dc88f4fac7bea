//! Taking in edits of the configuration while requests are served: all of an edit, or none of it.
//!
//! The file is looked at twice a second, and read once it has stood still between two looks, so that a file that is
//! being written is not read in the middle. SIGHUP reads it at once, with everything that it refers to.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use freeway_config::{Settings, needs_restart};
use freeway_engine::Engine;
use freeway_server::Editions;
use freeway_telemetry::Event;
use freeway_upstream::Resolver;

use crate::boot::{Parts, Retention, assemble, bounds};
use crate::environment;

const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A file as it was when it was read.
pub(crate) struct Watched {
    file: PathBuf,
    taken: Stamp,
}

/// Watches one file.
pub(crate) struct Reloader {
    pub(crate) watched: Watched,
    pub(crate) editions: Editions,
    pub(crate) engine: Arc<Engine>,
    pub(crate) resolver: Resolver,
    pub(crate) settings: Settings,
    pub(crate) retention: Retention,
}

/// By what an edit is noticed.
type Stamp = Option<(SystemTime, u64)>;

impl Watched {
    /// Remembers how a file stands. Call it before the file is read, so that no edit falls between.
    pub(crate) fn new(file: PathBuf) -> Self {
        let taken = stamp(&file);
        Self { file, taken }
    }
}

fn stamp(file: &Path) -> Stamp {
    let about = std::fs::metadata(file).ok()?;
    Some((about.modified().ok()?, about.len()))
}

impl Reloader {
    /// Watches until it is dropped.
    pub(crate) async fn run(mut self) {
        let mut hangups = Hangups::new();
        let mut last = self.watched.taken;
        loop {
            let asked = tokio::select! {
                () = hangups.next() => true,
                () = tokio::time::sleep(LOOK_EVERY) => false,
            };
            let now = stamp(&self.watched.file);
            let still = now == last && now != self.watched.taken && now.is_some();
            last = now;
            if asked || still {
                self.watched.taken = now;
                self.reload();
            }
        }
    }

    fn reload(&mut self) {
        let now = self.engine.now().wall;
        match self.take_in() {
            Ok(targets) => self.engine.telemetry().tell(now, &Event::Reloaded { targets }),
            Err(mistakes) => {
                let why = mistakes.lines().next().unwrap_or_default();
                self.engine.telemetry().tell(now, &Event::ReloadRefused { why });
                eprintln!("{}\nThe configuration before stays in force.", mistakes.trim_end());
            }
        }
    }

    /// Puts the edited configuration in force; says how many targets it has.
    fn take_in(&mut self) -> Result<usize, String> {
        let loaded = environment::configuration(Some(&self.watched.file), self.engine.now().wall)?;
        if needs_restart(&self.settings, &loaded.settings) {
            let file = self.watched.file.display();
            return Err(format!(
                "{file}: `[server] listen` and `[store] url` change only when the gateway is started again"
            ));
        }
        let Parts { setup, keys, settings, retention } = assemble(loaded, &self.resolver)?;
        let targets = setup.snapshot.deployments.iter().filter(|deployment| deployment.off.is_none()).count();
        self.engine = Arc::new(self.engine.succeed(setup).map_err(|error| error.to_string())?);
        self.editions.replace(Arc::clone(&self.engine), keys, bounds(&settings));
        self.engine.tell_warnings();
        self.settings = settings;
        *self.retention.lock().unwrap_or_else(PoisonError::into_inner) = retention;
        Ok(targets)
    }
}

/// SIGHUP, where there is such a thing.
struct Hangups {
    #[cfg(unix)]
    signals: Option<tokio::signal::unix::Signal>,
}

impl Hangups {
    #[cfg(unix)]
    fn new() -> Self {
        Self { signals: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).ok() }
    }

    #[cfg(not(unix))]
    fn new() -> Self {
        Self {}
    }

    async fn next(&mut self) {
        #[cfg(unix)]
        if let Some(signals) = &mut self.signals
            && signals.recv().await.is_some()
        {
            return;
        }
        std::future::pending::<()>().await;
    }
}
