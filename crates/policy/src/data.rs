//! Data rules: what a class of data asks of a provider.

use std::fmt;

use freeway_catalog::{DataPolicy, Trains};
use freeway_types::{DataClass, Timestamp};

/// Days after which what was read of a data policy counts as unknown.
const STALE_DAYS: i64 = 180;
/// Longest retention that personal data allows.
const PERSONAL_RETENTION_DAYS: u32 = 30;

/// What one deployment's provider does with what it is sent, as far as it is still known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DataFacts {
    /// Whether it trains on it.
    pub trains: Trains,
    /// Days until it is deleted, if known.
    pub retention_days: Option<u32>,
    /// Whether an audit confirms that it is not kept.
    pub audited: bool,
    /// Whether it stays on the user's own machines.
    pub local: bool,
    /// Whether the facts were known once and are too old to count.
    pub stale: bool,
}

/// The rule that a deployment does not keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clause {
    /// The class of the request.
    pub class: DataClass,
    /// What is missing.
    missing: Missing,
    stale: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    Trains,
    TrainingUnknown,
    Retention(u32),
    RetentionUnknown,
}

impl DataFacts {
    /// What follows from a policy. `as_of` is when it was read (`None`: it is the user's own word, which does
    /// not age); `opted_out`, whether the user has turned the provider's switch.
    #[must_use]
    pub fn read(policy: &DataPolicy, as_of: Option<Timestamp>, opted_out: bool, local: bool, now: Timestamp) -> Self {
        let stale = as_of.is_some_and(|read| (now.as_secs() - read.as_secs()) / 86_400 > STALE_DAYS);
        if stale && !local {
            return Self { stale, ..Self::default() };
        }
        Self {
            trains: if local { Trains::No } else { policy.trains(opted_out).unwrap_or_default() },
            retention_days: if local { Some(0) } else { policy.retention_days },
            audited: policy.audited.unwrap_or(false),
            local,
            stale: false,
        }
    }
}

/// Whether a request of a class may go to a deployment.
///
/// # Errors
/// The rule that forbids it.
pub fn permits(class: DataClass, facts: &DataFacts) -> Result<(), Clause> {
    let clause = |missing| Err(Clause { class, missing, stale: facts.stale });
    if class == DataClass::Public {
        return Ok(());
    }
    match facts.trains {
        Trains::No => {}
        Trains::Yes => return clause(Missing::Trains),
        Trains::Unknown => return clause(Missing::TrainingUnknown),
    }
    let most = match class {
        DataClass::Public | DataClass::Internal => return Ok(()),
        DataClass::Personal => PERSONAL_RETENTION_DAYS,
        DataClass::Secret if facts.local || facts.audited => return Ok(()),
        DataClass::Secret => 0,
    };
    match facts.retention_days {
        Some(days) if days <= most => Ok(()),
        Some(days) => clause(Missing::Retention(days)),
        None => clause(Missing::RetentionUnknown),
    }
}

impl fmt::Display for Clause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let class = self.class;
        match self.missing {
            Missing::Trains => write!(f, "{class} data must not be trained on, and this provider trains")?,
            Missing::TrainingUnknown => {
                write!(f, "{class} data must not be trained on, and nobody knows whether this provider trains")?;
            }
            Missing::Retention(days) => write!(f, "{class} data must not be kept for {days} days")?,
            Missing::RetentionUnknown => {
                write!(f, "{class} data must not be kept, and nobody knows for how long this provider keeps it")?;
            }
        }
        if self.stale {
            write!(f, " (its policy was read more than {STALE_DAYS} days ago)")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use freeway_catalog::TrainClass;

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_795_000_000);

    fn check(policy: &DataPolicy, expected: &str) {
        let facts =
            DataFacts::read(policy, Some(NOW.before(std::time::Duration::from_secs(86_400))), false, false, NOW);
        let allowed: Vec<&str> =
            DataClass::ALL.into_iter().filter(|class| permits(*class, &facts).is_ok()).map(DataClass::as_str).collect();
        assert_eq!(allowed.join(" "), expected, "{policy:?}");
    }

    #[test]
    fn each_class_asks_more_than_the_one_before() {
        let policy =
            |class, retention_days| DataPolicy { train_class: Some(class), retention_days, ..DataPolicy::default() };
        check(&DataPolicy::default(), "public");
        check(&policy(TrainClass::Trains, Some(0)), "public");
        check(&policy(TrainClass::TrainsOptOut, Some(0)), "public");
        check(&policy(TrainClass::Upstream, Some(0)), "public");
        check(&policy(TrainClass::No, None), "public internal");
        check(&policy(TrainClass::No, Some(31)), "public internal");
        check(&policy(TrainClass::No, Some(30)), "public internal personal");
        check(&policy(TrainClass::No, Some(0)), "public internal personal secret");
        check(
            &DataPolicy { audited: Some(true), ..policy(TrainClass::NoStore, Some(30)) },
            "public internal personal secret",
        );
    }

    #[test]
    fn opting_out_and_age() {
        let policy = DataPolicy { train_class: Some(TrainClass::TrainsOptOut), ..DataPolicy::default() };
        let read = |days: u64, opted_out| {
            let as_of = NOW.before(std::time::Duration::from_secs(days * 86_400));
            permits(DataClass::Internal, &DataFacts::read(&policy, Some(as_of), opted_out, false, NOW)).is_ok()
        };
        assert!(read(180, true));
        assert!(!read(180, false));
        assert!(!read(181, true), "older than 180 days counts as unknown");
    }

    #[test]
    fn what_is_local_may_have_everything() {
        let facts = DataFacts::read(&DataPolicy::default(), Some(Timestamp::from_secs(0)), false, true, NOW);
        assert_eq!(permits(DataClass::Secret, &facts), Ok(()));
    }
}
