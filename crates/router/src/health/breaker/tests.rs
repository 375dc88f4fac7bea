use super::*;
use proptest::prelude::*;

fn at(millis: u64) -> Now {
    let wall = Timestamp::from_micros(i64::try_from(millis * 1_000).unwrap());
    Now { wall, monotonic: Monotonic::from_micros(millis * 1_000) }
}

fn opened() -> Breaker {
    let mut breaker = Breaker::default();
    let opened: Vec<bool> = (0..5).map(|millis| breaker.failed(at(millis), 1, 0)).collect();
    assert_eq!(opened, [false, false, false, false, true]);
    breaker
}

#[test]
fn five_failures_in_a_row_open_it_and_one_request_tries() {
    let mut breaker = opened();
    assert!(matches!(breaker.standing(at(100)), Standing::Open { .. }));
    assert!(!breaker.admit(at(1_900)));
    assert_eq!(breaker.standing(at(2_010)), Standing::HalfOpen);
    assert!(breaker.admit(at(2_010)));
    assert!(!breaker.admit(at(2_011)), "only one tries");
    assert!(breaker.worked(at(2_500)));
    assert_eq!(breaker.standing(at(2_500)), Standing::Closed);
    assert!((0..4).all(|millis| !breaker.failed(at(3_000 + millis), 1, 0)), "and it begins anew");
}

#[test]
fn something_that_works_in_between_keeps_it_closed() {
    let mut breaker = Breaker::default();
    for round in 0..100 {
        assert!((0..4).all(|_| !breaker.failed(at(round * 10_000), 1, 0)));
        breaker.worked(at(round * 10_000));
    }
    assert_eq!(breaker.standing(at(1_000_000)), Standing::Closed);
}

#[test]
fn more_failures_than_answers_among_many_open_it() {
    let mut breaker = Breaker::default();
    let mut opened_at = None;
    for request in 0..60_u64 {
        // Two fail, one works.
        let now = at(request * 100);
        match request % 3 {
            2 => {
                breaker.worked(now);
            }
            _ if breaker.failed(now, 1, 0) => {
                opened_at = Some(request);
                break;
            }
            _ => {}
        }
    }
    assert_eq!(opened_at, Some(19), "twenty are enough to tell");
    let mut spread = Breaker::default();
    for request in 0..200_u64 {
        let now = at(request * 1_000);
        assert!(request % 3 == 2 || !spread.failed(now, 1, 0), "ten in ten seconds are too few");
        if request % 3 == 2 {
            spread.worked(now);
        }
    }
}

#[test]
fn it_stays_open_longer_each_time_up_to_half_a_minute() {
    let mut breaker = opened();
    let mut now = 4;
    let mut lengths = Vec::new();
    for _ in 0..6 {
        let Standing::Open { until } = breaker.standing(at(now)) else { panic!("open") };
        lengths.push(until.monotonic.since(at(now).monotonic).as_secs());
        now = u64::try_from(until.wall.as_micros()).unwrap() / 1_000;
        assert!(breaker.admit(at(now)));
        assert!(breaker.failed(at(now), 1, 0));
    }
    assert_eq!(lengths, [2, 4, 8, 16, 30, 30]);
    // An hour of calm, and all that is forgotten.
    breaker.worked(at(now));
    let later = now + 3_600_000;
    assert!((0..5).any(|_| breaker.failed(at(later), 1, 0)));
    assert_eq!(breaker.standing(at(later)), Standing::Open { until: at(later + 2_000) });
}

#[test]
fn a_try_that_says_nothing_leaves_it_to_the_next() {
    let mut breaker = opened();
    assert!(breaker.admit(at(3_000)));
    breaker.unclear();
    assert!(breaker.admit(at(3_001)));
    // Of this one, nothing is ever heard.
    assert!(!breaker.admit(at(100_000)));
    assert!(breaker.admit(at(190_000)));
}

#[test]
fn late_failures_of_older_requests_do_not_prolong_it() {
    let mut breaker = opened();
    let before = breaker.standing(at(10));
    assert!(!breaker.failed(at(10), 1, 0));
    assert_eq!(breaker.standing(at(10)), before);
    assert!(!breaker.failed(at(2_500), 1, 0), "nor does one that comes when its time is over and nobody tried");
    assert_eq!(breaker.standing(at(2_500)), Standing::HalfOpen);
}

#[test]
fn where_there_is_nothing_else_one_a_second_goes_there_all_the_same() {
    let mut breaker = opened();
    let admitted = (0..20).filter(|tenth| breaker.admit_last_resort(at(100 + tenth * 100))).count();
    assert_eq!(admitted, 2);
    assert!(breaker.answers(at(2_000)), "and if it answers, all is well at once");
    assert_eq!(breaker.standing(at(2_000)), Standing::Closed);
}

#[test]
fn what_is_unlikely_to_be_chance_weighs_more() {
    let mut breaker = Breaker::default();
    assert_eq!([0, 1, 2].map(|millis| breaker.failed(at(millis), 2, 0)), [false, false, true]);
}

#[test]
fn it_outlives_a_restart() {
    let mut breaker = opened();
    let stored = serde_json::to_string(&breaker.stored().unwrap()).unwrap();
    let read: StoredBreaker = serde_json::from_str(&stored).unwrap();
    // The monotonic clock of another process says something else.
    let now = Now { wall: at(1_000).wall, monotonic: at(50).monotonic };
    let again = Breaker::restore(&read, now);
    let Standing::Open { until } = again.standing(now) else { panic!("open") };
    assert_eq!(until.monotonic.since(now.monotonic), Duration::from_millis(1_004));
    let later = Now { wall: at(99_000).wall, monotonic: at(50).monotonic };
    assert_eq!(Breaker::restore(&read, later).standing(later), Standing::HalfOpen, "nobody knows yet");
    breaker.worked(at(5_000));
    assert_eq!(breaker.stored(), None);
}

proptest! {
    /// Whatever happens: closed, or open for half a minute at most, and then somebody may try.
    #[test]
    fn it_is_never_open_for_longer_than_half_a_minute(steps in prop::collection::vec((0..5_u8, 0..20_000_u64, any::<u64>()), 1..200)) {
        let (mut breaker, mut now) = (Breaker::default(), 0);
        for (step, passed, chance) in steps {
            now += passed;
            match step {
                0 => { breaker.worked(at(now)); }
                1 => breaker.unclear(),
                2 => { breaker.admit(at(now)); }
                _ => { breaker.failed(at(now), 1, chance); }
            }
            if let Standing::Open { until } = breaker.standing(at(now)) {
                prop_assert!(until.monotonic.since(at(now).monotonic) <= LONGEST);
            }
            let is_stuck = matches!(breaker.standing(at(now + 211_000)), Standing::Open { .. });
            prop_assert!(!is_stuck);
        }
    }
}
