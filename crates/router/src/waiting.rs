//! Requests that wait for quota, and whose turn it is: whose time runs out first.
//!
//! Who waits for the same stands in one line: requests of one kind, which only differ in size. A line knows when its
//! smallest request may be served at the earliest, and nobody in it is looked at before. So ten thousand that wait for
//! one target cost as much as a few each time that something comes back there: where the smallest does not fit, no
//! other does, and one that is at least as large as one that did not fit is passed over. That rests on this: of two
//! requests of one kind, the larger is never served where the smaller is not.

use std::collections::BTreeMap;
use std::time::Duration;

use freeway_types::Monotonic;

/// A line is never looked at again sooner than this, whatever is said of it.
const SOONEST: Duration = Duration::from_millis(1);

/// The size of a request, in tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Of input.
    pub input: u64,
    /// Of output, at most.
    pub output: u64,
}

/// Why somebody who waits was not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unserved {
    /// It may be served from this instant on, and not before.
    NotBefore(Monotonic),
    /// Waiting does not help.
    Never,
}

/// Who serves those that wait.
pub trait Desk<T> {
    /// Whether a request like one that waits, but of this size, would be served now. Serves nobody.
    ///
    /// # Errors
    /// When it would not be.
    fn ask(&mut self, like: &T, size: Size) -> Result<(), Unserved>;

    /// Serves a request that waits.
    ///
    /// # Errors
    /// When it cannot be served now.
    fn serve(&mut self, what: &T) -> Result<(), Unserved>;

    /// A request leaves, because its time ran out or waiting does not help.
    fn give_up(&mut self, what: T);
}

/// The requests that wait. `K` says what makes requests of one kind.
#[derive(Debug)]
pub struct Waiting<K, T> {
    lines: BTreeMap<K, Line<T>>,
    /// How many may wait.
    most: usize,
    count: usize,
    /// How many ever joined: of two with the same deadline, who came first goes first.
    joined: u64,
}

/// Names the place of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place<K> {
    kind: K,
    turn: Turn,
}

/// Deadline and number: the order within a line, and among lines.
type Turn = (Monotonic, u64);

#[derive(Debug)]
struct Line<T> {
    members: BTreeMap<Turn, Member<T>>,
    /// When somebody in it may be served at the earliest.
    again: Monotonic,
    /// Nobody in it is smaller than this.
    least: Size,
}

#[derive(Debug)]
struct Member<T> {
    size: Size,
    what: T,
}

/// How far a line has been looked at, at one instant.
struct Visit<K> {
    kind: K,
    /// Whose turn it is next.
    next: Option<Turn>,
    /// Sizes that were not served.
    unserved: Vec<Size>,
    /// The earliest instant that was heard for one of them.
    again: Option<Monotonic>,
    /// The smallest of those who stay.
    least: Option<Size>,
    /// Whether the smallest would have been served when that was last asked, and nothing is known against it since.
    is_open: bool,
}

// === impl Size ===

impl Size {
    /// Whether this is at most as large as `other` in every way.
    #[must_use]
    pub const fn fits_within(self, other: Self) -> bool {
        self.input <= other.input && self.output <= other.output
    }

    fn least(self, other: Self) -> Self {
        Self { input: self.input.min(other.input), output: self.output.min(other.output) }
    }
}

// === impl Waiting ===

impl<K: Ord + Clone, T> Waiting<K, T> {
    /// Nobody waits yet; at most `most` may.
    #[must_use]
    pub const fn new(most: usize) -> Self {
        Self { lines: BTreeMap::new(), most, count: 0, joined: 0 }
    }

    /// How many wait.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether nobody waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Everybody who waits, in no order that matters.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.lines.values().flat_map(|line| line.members.values().map(|member| &member.what))
    }

    /// Lets a request wait until `deadline`, that instant included. It may be served from `again` on.
    ///
    /// # Errors
    /// Gives it back where too many wait already.
    pub fn join(&mut self, kind: K, size: Size, deadline: Monotonic, again: Monotonic, what: T) -> Result<Place<K>, T> {
        if self.count >= self.most {
            return Err(what);
        }
        self.count += 1;
        self.joined += 1;
        let turn = (deadline, self.joined);
        let line =
            self.lines.entry(kind.clone()).or_insert_with(|| Line { members: BTreeMap::new(), again, least: size });
        line.again = line.again.min(again);
        line.least = line.least.least(size);
        line.members.insert(turn, Member { size, what });
        Ok(Place { kind, turn })
    }

    /// Takes out a request that waits no longer; `None` if it has left already.
    pub fn leave(&mut self, place: &Place<K>) -> Option<T> {
        let line = self.lines.get_mut(&place.kind)?;
        let member = line.members.remove(&place.turn)?;
        if line.members.is_empty() {
            self.lines.remove(&place.kind);
        }
        self.count -= 1;
        Some(member.what)
    }

    /// How many lines they stand in.
    #[must_use]
    pub fn lines(&self) -> usize {
        self.lines.len()
    }

    /// Whether anybody waits in a line.
    #[must_use]
    pub fn has_line(&self, kind: &K) -> bool {
        self.lines.contains_key(kind)
    }

    /// Something came back sooner than was known: everybody's turn may come now.
    pub fn hurry(&mut self, now: Monotonic) {
        self.lines.values_mut().for_each(|line| line.again = line.again.min(now));
    }

    /// The earliest instant at which somebody's turn may come.
    #[must_use]
    pub fn next(&self) -> Option<Monotonic> {
        self.lines.values().map(|line| line.again).min()
    }

    /// Serves whom it can at an instant, the earliest deadline first.
    pub fn take_turns(&mut self, now: Monotonic, desk: &mut impl Desk<T>) {
        let due = self.lines.iter().filter(|(_, line)| line.again <= now);
        let mut visits: Vec<Visit<K>> = due.map(|(kind, line)| Visit::new(kind.clone(), line)).collect();
        loop {
            let first = visits.iter_mut().filter(|visit| visit.next.is_some()).min_by_key(|visit| visit.next);
            let Some(visit) = first else { break };
            self.take_turn(visit, now, desk);
        }
        for visit in visits {
            if let Some(line) = self.lines.get_mut(&visit.kind) {
                line.again = visit.again.unwrap_or(now).max(now.after(SOONEST));
                line.least = visit.least.unwrap_or(line.least);
            }
        }
        self.lines.retain(|_, line| !line.members.is_empty());
    }

    /// Looks at the one whose turn it is in a line.
    fn take_turn(&mut self, visit: &mut Visit<K>, now: Monotonic, desk: &mut impl Desk<T>) {
        let (Some(line), Some(turn)) = (self.lines.get_mut(&visit.kind), visit.next) else { return };
        let Some(member) = line.members.get(&turn) else { return };
        let (size, is_late) = (member.size, turn.0 < now);
        let is_hopeless = visit.unserved.iter().any(|unserved| unserved.fits_within(size));
        if is_hopeless && !is_late {
            visit.pass(line, turn, size);
            return;
        }
        if !is_late && !visit.is_open && size != line.least {
            match desk.ask(&member.what, line.least) {
                Ok(()) => visit.is_open = true,
                Err(Unserved::NotBefore(again)) => {
                    (visit.again, visit.least, visit.next) = (Some(again), None, None);
                    return;
                }
                Err(Unserved::Never) => {
                    self.count -= line.members.len();
                    std::mem::take(&mut line.members).into_values().for_each(|member| desk.give_up(member.what));
                    visit.next = None;
                    return;
                }
            }
        }
        let answer = if is_late { Err(Unserved::Never) } else { desk.serve(&member.what) };
        if let Err(Unserved::NotBefore(again)) = answer {
            if size == line.least {
                // Where the smallest is not served, nobody is.
                (visit.again, visit.least, visit.next) = (Some(again), None, None);
                return;
            }
            visit.unserved.push(size);
            visit.again = Some(visit.again.map_or(again, |other| other.min(again)));
            visit.is_open = false;
            visit.pass(line, turn, size);
            return;
        }
        visit.next = line.following(turn);
        self.count -= 1;
        if let (Some(member), Err(_)) = (line.members.remove(&turn), answer) {
            desk.give_up(member.what);
        }
    }
}

// === impl Visit ===

impl<K> Visit<K> {
    fn new<T>(kind: K, line: &Line<T>) -> Self {
        let next = line.members.keys().next().copied();
        Self { kind, next, unserved: Vec::new(), again: None, least: None, is_open: false }
    }

    /// Leaves one where it is.
    fn pass<T>(&mut self, line: &Line<T>, turn: Turn, size: Size) {
        self.least = Some(self.least.map_or(size, |least| least.least(size)));
        self.next = line.following(turn);
    }
}

// === impl Line ===

impl<T> Line<T> {
    fn following(&self, turn: Turn) -> Option<Turn> {
        let behind = (std::ops::Bound::Excluded(turn), std::ops::Bound::Unbounded);
        self.members.range(behind).next().map(|(turn, _)| *turn)
    }
}

#[cfg(test)]
mod tests;
