//! What the simulated processes live in: time, the disk, the end of a life at any step, and the trace of it all.
//!
//! The gateway's life ends *within* a step: its files are copied as they are at that instant, its connections are
//! severed, and whatever its code still does afterwards, before its tasks are dropped, reaches nothing any more. So
//! nothing that tidies up at an orderly end can help the next life.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use freeway_engine::Boot;
use freeway_types::{Monotonic, Now, Timestamp};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::chance::Chance;
use crate::pipe::{Way, sever};
use crate::reached::{Rare, Reached};
use crate::scenario::{Death, Kill, Spared};
use crate::trace::Trace;

/// Where each life's monotonic clock begins: as far from zero as the gateway's own, so that older use can be replayed.
const ORIGIN: Duration = Duration::from_secs(40 * 86_400);

pub(crate) struct World {
    inside: Mutex<Inside>,
    /// Rings when a life ends.
    pub(crate) killed: Notify,
}

struct Inside {
    began: Instant,
    start_wall: i64,
    /// How long the machine was suspended in all, and in this life: clocks went on, timers did not.
    suspended: i64,
    suspended_before: i64,
    /// How much the gateway's wall clock is ahead of the truth.
    wall_error: i64,
    wall_was_wrong: bool,
    /// The life that goes on; `None` between two.
    life: Option<u64>,
    lives: u64,
    life_began: Instant,
    /// What is left until this life ends.
    death: Option<Death>,
    was_killed_wrong: bool,
    /// Losses of power so far, and the true time of the last.
    power_losses: u64,
    power_came_back: i64,
    root: PathBuf,
    /// Both ways of each connection of this life.
    cables: Vec<[Weak<Mutex<Way>>; 2]>,
    is_watched: bool,
    trace: Trace,
    reached: Reached,
    failure: Option<String>,
    chance: Chance,
    has_trouble: bool,
    streaming: u64,
}

impl World {
    pub(crate) fn new(seed: u64, start_wall: i64, root: &Path) -> Arc<Self> {
        let now = Instant::now();
        let inside = Inside {
            began: now,
            start_wall,
            suspended: 0,
            suspended_before: 0,
            wall_error: 0,
            wall_was_wrong: false,
            life: None,
            lives: 0,
            life_began: now,
            death: None,
            was_killed_wrong: false,
            power_losses: 0,
            power_came_back: start_wall,
            root: root.to_owned(),
            cables: Vec::new(),
            is_watched: true,
            trace: Trace::default(),
            reached: Reached::default(),
            failure: None,
            chance: Chance::new(seed, 2),
            has_trouble: true,
            streaming: 0,
        };
        Arc::new(Self { inside: Mutex::new(inside), killed: Notify::new() })
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // === time ===

    /// The true time, in microseconds since 1970.
    pub(crate) fn truth(&self) -> i64 {
        self.inside().truth()
    }

    /// The gateway's clocks in one of its lives. Reading them is a step.
    pub(crate) fn clock(&self, life: u64) -> Now {
        self.step(life, "reads the clocks", 0);
        let inside = self.inside();
        let lived = Instant::now().duration_since(inside.life_began);
        let slept = u64::try_from(inside.suspended - inside.suspended_before).unwrap_or(0);
        let monotonic = u64::try_from((ORIGIN + lived).as_micros()).unwrap_or(u64::MAX) + slept;
        let wall = Timestamp::from_micros(inside.truth() + inside.wall_error);
        Now { wall, monotonic: Monotonic::from_micros(monotonic) }
    }

    /// The gateway's wall clock is set by so much.
    pub(crate) fn step_wall(&self, by: i64) {
        let mut inside = self.inside();
        inside.wall_error += by;
        inside.wall_was_wrong = true;
        inside.trace("wall steps", [by.unsigned_abs(), u64::from(by < 0)]);
    }

    /// The machine sleeps.
    pub(crate) fn suspend(&self, length: i64) {
        let mut inside = self.inside();
        inside.suspended += length;
        inside.reached.note(Rare::Suspended);
        inside.trace("is suspended", [length.unsigned_abs(), 0]);
    }

    /// How far the gateway's wall clock is off.
    pub(crate) fn wall_error(&self) -> i64 {
        self.inside().wall_error
    }

    /// Whether a life ended after the wall clock was set wrong, so that the next one could not know how old its ledger's rows are.
    pub(crate) fn was_killed_wrong(&self) -> bool {
        self.inside().was_killed_wrong
    }

    // === lives ===

    /// A life begins, and will end by `death` if that comes. Gives its number and its folder.
    pub(crate) fn begin(&self, death: Option<Death>) -> (u64, PathBuf) {
        let mut inside = self.inside();
        inside.lives += 1;
        inside.life = Some(inside.lives);
        inside.life_began = Instant::now();
        inside.suspended_before = inside.suspended;
        inside.death = death;
        inside.streaming = 0;
        let life = inside.lives;
        inside.trace("lives", [life, 0]);
        let folder = inside.folder(life);
        drop(inside);
        self.flushed(life);
        (life, folder)
    }

    /// Whether that life goes on.
    pub(crate) fn lives(&self, life: u64) -> bool {
        self.inside().life == Some(life)
    }

    /// One step of the gateway's: here its life may end. Says whether it goes on.
    pub(crate) fn step(&self, life: u64, what: &'static str, number: u64) -> bool {
        let mut inside = self.inside();
        if inside.life != Some(life) {
            return false;
        }
        if !inside.is_watched {
            return true;
        }
        inside.trace(what, [number, 0]);
        if inside.is_last(what) {
            inside.end();
            drop(inside);
            self.killed.notify_one();
            return false;
        }
        true
    }

    /// What is written now outlives a loss of power.
    pub(crate) fn flushed(&self, life: u64) {
        let mut inside = self.inside();
        // Only of use if this life ends so.
        if inside.death.is_none_or(|death| death.power.is_none()) || inside.life != Some(life) {
            return;
        }
        let (from, disk) = (inside.folder(life), inside.disk());
        let _ = std::fs::remove_dir_all(&disk);
        let _ = std::fs::create_dir_all(&from);
        if let Err(error) = copy(&from, &disk, |_| true) {
            inside.failure.get_or_insert(format!("the files could not be copied: {error}"));
        }
    }

    /// The machine since it last had no power.
    pub(crate) fn boot(&self) -> Boot {
        let inside = self.inside();
        let uptime = u64::try_from(inside.truth() - inside.power_came_back).unwrap_or(0);
        Boot { id: Some(inside.power_losses.to_string()), uptime: Duration::from_micros(uptime) }
    }

    /// Whether rows of the ledger may have been lost.
    pub(crate) fn was_power_lost(&self) -> bool {
        self.inside().power_losses > 0
    }

    /// From now on no life ends.
    pub(crate) fn spare(&self) {
        self.inside().death = None;
    }

    /// Does something that leaves no trace: looking on is no step.
    pub(crate) fn unwatched<T>(&self, look: impl FnOnce() -> T) -> T {
        self.inside().is_watched = false;
        let seen = look();
        self.inside().is_watched = true;
        seen
    }

    /// A connection that ends with the present life.
    pub(crate) fn keep(&self, up: &Arc<Mutex<Way>>, down: &Arc<Mutex<Way>>) {
        let mut inside = self.inside();
        inside.cables.retain(|[up, _]| up.strong_count() > 0);
        inside.cables.push([Arc::downgrade(up), Arc::downgrade(down)]);
    }

    // === what is told ===

    /// Something that is no step of the gateway's.
    pub(crate) fn tell(&self, what: &'static str, numbers: [u64; 2]) {
        self.inside().trace(what, numbers);
    }

    pub(crate) fn note(&self, rare: Rare) {
        self.inside().reached.note(rare);
    }

    /// A stream begins or ends to have shown content to its client.
    pub(crate) fn streams(&self, begins: bool) {
        let mut inside = self.inside();
        inside.streaming = if begins { inside.streaming + 1 } else { inside.streaming.saturating_sub(1) };
    }

    /// Something is wrong. The first finding stands.
    pub(crate) fn fail(&self, what: impl fmt::Display) {
        let mut inside = self.inside();
        if inside.failure.is_none() {
            let at = inside.elapsed();
            inside.trace("FAILS", [0, 0]);
            inside.failure = Some(format!("at {:.3} s: {what}", at as f64 / 1e6));
        }
    }

    pub(crate) fn failure(&self) -> Option<String> {
        self.inside().failure.clone()
    }

    pub(crate) fn draw<T>(&self, draw: impl FnOnce(&mut Chance) -> T) -> T {
        draw(&mut self.inside().chance)
    }

    /// Whether connections get into trouble.
    pub(crate) fn has_trouble(&self) -> bool {
        self.inside().has_trouble
    }

    pub(crate) fn calm(&self) {
        self.inside().has_trouble = false;
    }

    pub(crate) fn trace(&self) -> (Trace, Reached) {
        let inside = self.inside();
        (inside.trace.clone(), inside.reached.clone())
    }
}

impl Inside {
    fn elapsed(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn truth(&self) -> i64 {
        self.start_wall + self.suspended + i64::try_from(self.elapsed()).unwrap_or(i64::MAX)
    }

    fn trace(&mut self, what: &'static str, numbers: [u64; 2]) {
        self.trace.add(self.elapsed(), what, numbers);
    }

    /// What the disk held when something was last flushed.
    fn disk(&self) -> PathBuf {
        self.root.join("disk")
    }

    fn folder(&self, life: u64) -> PathBuf {
        self.root.join(life.to_string())
    }

    /// Whether this step is the one at which the present life ends.
    fn is_last(&mut self, what: &str) -> bool {
        let count = match self.death.as_mut().map(|death| &mut death.kill) {
            None => return false,
            Some(Kill::AtStep(count)) => count,
            Some(Kill::AfterJournal(count)) if what == "is journalled" => count,
            Some(Kill::AfterWrite(count)) if what == "has written" => count,
            Some(_) => return false,
        };
        *count = count.saturating_sub(1);
        *count == 0
    }

    fn end(&mut self) {
        let death = self.death.take();
        let rare = match death.map(|death| death.kill) {
            Some(Kill::AfterJournal(_)) => Some(Rare::KilledBetweenJournalAndSend),
            Some(Kill::AfterWrite(_)) => Some(Rare::KilledAfterSend),
            _ => None,
        };
        rare.into_iter().for_each(|rare| self.reached.note(rare));
        if self.streaming > 0 {
            self.reached.note(Rare::KilledInMidStream);
        }
        self.was_killed_wrong |= self.wall_was_wrong;
        let (from, to) = (self.folder(self.lives), self.folder(self.lives + 1));
        let power = death.and_then(|death| death.power);
        if power.is_some() {
            self.power_losses += 1;
            self.power_came_back = self.truth();
        }
        let copied = match power {
            Some(spared) => salvage(&from, &self.disk(), &to, spared),
            None => copy(&from, &to, |_| true),
        };
        if let Err(error) = copied {
            self.failure.get_or_insert(format!("the files could not be copied: {error}"));
        }
        for [up, down] in self.cables.drain(..) {
            if let (Some(up), Some(down)) = (up.upgrade(), down.upgrade()) {
                sever(&up, &down);
            }
        }
        self.life = None;
        self.trace("dies", [self.lives, 0]);
    }
}

/// What the next life finds when this one is killed. The index of SQLite's log is memory, and a lock ends with its holder.
fn copy(from: &Path, to: &Path, takes: impl Fn(&str) -> bool) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !name.ends_with("-shm") && !name.ends_with(".lock") && takes(&name) {
            std::fs::copy(&path, to.join(name))?;
        }
    }
    Ok(())
}

/// What the next life finds when the power is lost: what was flushed last, and of the rest what was spared.
fn salvage(from: &Path, disk: &Path, to: &Path, spared: Spared) -> std::io::Result<()> {
    std::fs::create_dir_all(disk)?;
    let is_journal = |name: &str| name.contains(".sent-");
    copy(if spared.ledger { from } else { disk }, to, |name| !is_journal(name))?;
    copy(if spared.journal { from } else { disk }, to, is_journal)
}
