//! What happened, step by step: a hash over all of it, and the last steps for reading.

use std::collections::VecDeque;
use std::fmt;

use crate::chance::mixed;

/// So many steps are kept for reading.
const KEPT: usize = 80;

/// One thing that happened.
#[derive(Clone, Debug)]
struct Step {
    /// Virtual microseconds since the beginning.
    at: u64,
    what: &'static str,
    numbers: [u64; 2],
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Trace {
    hash: u64,
    steps: u64,
    last: VecDeque<Step>,
}

impl Trace {
    pub(crate) fn add(&mut self, at: u64, what: &'static str, numbers: [u64; 2]) {
        self.steps += 1;
        let words = what.bytes().fold(0, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
        self.hash = [at, words, numbers[0], numbers[1]].into_iter().fold(self.hash, mixed);
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back(Step { at, what, numbers });
    }

    /// Stands for everything that happened.
    pub(crate) fn hash(&self) -> u64 {
        mixed(self.hash, self.steps)
    }

    pub(crate) fn steps(&self) -> u64 {
        self.steps
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Step { at, what, numbers: [one, other] } in &self.last {
            writeln!(f, "  {:>12.6} s  {what} {one} {other}", *at as f64 / 1e6)?;
        }
        Ok(())
    }
}
