//! Rare things that many seeds together must have reached: a simulation that never gets there proves nothing about it.

use std::fmt;

/// Something rare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rare {
    KilledBetweenJournalAndSend,
    KilledAfterSend,
    KilledInMidStream,
    KilledWhileStarting,
    CountedOnAfterRestart,
    CalendarBoundaryInFlight,
    WallSteppedBackOverBoundary,
    WallSteppedForward,
    Suspended,
    AnotherTargetServed,
    LeftInMidStream,
    BrokenStreamTold,
    LimitUsedToItsEnd,
    NothingLeftTold,
    HeldBeforeFirstContent,
    PowerWasLost,
    MoreWasLostThanIsKnown,
    BreakerOpened,
    TwoAttemptsAtOnce,
    StreamWentOn,
    StreamBegunAnew,
    WaitedAndWasServed,
    WaitedInVain,
}

const ALL: [Rare; 23] = [
    Rare::KilledBetweenJournalAndSend,
    Rare::KilledAfterSend,
    Rare::KilledInMidStream,
    Rare::KilledWhileStarting,
    Rare::CountedOnAfterRestart,
    Rare::CalendarBoundaryInFlight,
    Rare::WallSteppedBackOverBoundary,
    Rare::WallSteppedForward,
    Rare::Suspended,
    Rare::AnotherTargetServed,
    Rare::LeftInMidStream,
    Rare::BrokenStreamTold,
    Rare::LimitUsedToItsEnd,
    Rare::NothingLeftTold,
    Rare::HeldBeforeFirstContent,
    Rare::PowerWasLost,
    Rare::MoreWasLostThanIsKnown,
    Rare::BreakerOpened,
    Rare::TwoAttemptsAtOnce,
    Rare::StreamWentOn,
    Rare::StreamBegunAnew,
    Rare::WaitedAndWasServed,
    Rare::WaitedInVain,
];

/// How often each was reached.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reached([u64; ALL.len()]);

impl Reached {
    pub(crate) fn note(&mut self, rare: Rare) {
        self.0[rare as usize] += 1;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, more)| *sum += u64::from(more > 0));
    }

    /// What was never reached.
    pub(crate) fn missing(&self) -> Vec<Rare> {
        ALL.into_iter().filter(|rare| self.0[*rare as usize] == 0).collect()
    }
}

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        ALL.iter().try_for_each(|rare| writeln!(f, "  {:>6} × {rare:?}", self.0[*rare as usize]))
    }
}
