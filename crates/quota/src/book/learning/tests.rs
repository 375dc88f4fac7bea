use std::time::Duration;

use freeway_catalog::Limit;
use freeway_types::{Metric, Monotonic, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::report::ReportWindow;
use crate::{Actual, Fit, LimitSpec, LimitView};

const ONE: [LimitIndex; 1] = [LimitIndex::FIRST];

fn start() -> Now {
    Now { wall: Timestamp::from_secs(1_792_569_600), monotonic: Monotonic::from_micros(40 * 86_400_000_000) }
}

fn at(seconds: u64) -> Now {
    start().after(Duration::from_secs(seconds))
}

fn spec(toml: &str, own: bool) -> LimitSpec {
    let limit = Limit { own, ..toml::from_str(toml).unwrap() };
    LimitSpec::read("lab/small", &limit).unwrap()
}

/// Sixty requests a minute, by the facts.
fn minute() -> Book {
    Book::new(vec![spec("metric = \"requests\"\nwindow = \"minute\"\namount = 60", false)], start())
}

fn report(amount: Option<u64>, left: Option<u64>) -> Report {
    let window = ReportWindow::Length(Duration::from_secs(60));
    let blank = Report::blank(Metric::Requests, window, ReportScope::Unknown, ReportSource::Header);
    Report { amount, left, ..blank }
}

/// Sends a request at one second, and hears these reports at another.
fn hear(book: &mut Book, sent: u64, heard: u64, reports: &[Report]) {
    let attempt = book.reserve(at(sent), &ONE, &Demand::default()).unwrap();
    book.received(attempt, at(heard));
    book.learn(&ONE, &Heard { reports, attempt, now: at(heard), refused: None });
    book.settle(attempt, at(heard), &Actual { answered: true, ..Actual::default() });
}

/// Sends a request at a second, and has it refused at once.
fn refuse(book: &mut Book, second: u64, reports: &[Report]) {
    let attempt = book.reserve(at(second), &ONE, &Demand::default()).unwrap();
    book.received(attempt, at(second));
    let demand = Demand::default();
    book.learn(&ONE, &Heard { reports, attempt, now: at(second), refused: Some(&demand) });
    book.settle(attempt, at(second), &Actual::default());
}

fn view(book: &mut Book, second: u64) -> LimitView<'_> {
    book.view(at(second)).next().unwrap()
}

fn left(book: &mut Book, second: u64) -> u64 {
    view(book, second).left
}

#[test]
fn use_that_is_not_ours_is_taken_off_until_it_is_gone() {
    let mut book = minute();
    hear(&mut book, 0, 1, &[report(Some(60), Some(20))]);
    assert_eq!(left(&mut book, 1), 20, "we have used one, others 39");
    assert_eq!(view(&mut book, 1).foreign, 39);
    assert_eq!(left(&mut book, 60), 20);
    assert_eq!(left(&mut book, 62), 60);
}

#[test]
fn what_an_older_answer_says_takes_away_and_gives_nothing_back() {
    let mut book = minute();
    let slow = book.reserve(at(0), &ONE, &Demand::default()).unwrap();
    hear(&mut book, 1, 2, &[report(Some(60), Some(10))]);
    assert_eq!(left(&mut book, 2), 10);
    // Sent before the other was answered: at that time more was left, and that means nothing now.
    book.received(slow, at(3));
    book.learn(&ONE, &Heard { reports: &[report(Some(60), Some(58))], attempt: slow, now: at(3), refused: None });
    assert_eq!(left(&mut book, 3), 10);
    hear(&mut book, 4, 5, &[report(Some(60), Some(40))]);
    assert_eq!(left(&mut book, 5), 40, "a newer answer tells what is true now");
}

#[test]
fn an_answer_that_took_long_does_not_make_our_own_use_somebody_elses() {
    let mut book = minute();
    for _ in 0..30 {
        hear(&mut book, 0, 0, &[]);
    }
    let slow = book.reserve(at(0), &ONE, &Demand::default()).unwrap();
    book.received(slow, at(61));
    // The provider counted 31 of ours when it took the request; by now they are all back.
    book.learn(&ONE, &Heard { reports: &[report(Some(60), Some(29))], attempt: slow, now: at(61), refused: None });
    assert_eq!(view(&mut book, 61).foreign, 0);
}

#[test]
fn the_providers_word_about_the_size_replaces_the_facts_and_only_tightens_the_users_own() {
    for (own, told, expected) in [(false, 100, 100), (false, 30, 30), (true, 100, 60), (true, 30, 30)] {
        let toml = "metric = \"requests\"\nwindow = \"minute\"\namount = 60";
        let mut book = Book::new(vec![spec(toml, own)], start());
        hear(&mut book, 0, 1, &[report(Some(told), None)]);
        assert_eq!(view(&mut book, 1).amount, Some(expected), "own {own}, told {told}");
        assert_eq!(view(&mut book, 1).declared, Some(60));
    }
}

#[test]
fn a_size_of_nothing_is_believed_of_a_refusal_alone_and_for_a_day() {
    let mut book = minute();
    hear(&mut book, 0, 1, &[report(Some(0), None)]);
    assert_eq!(view(&mut book, 1).amount, Some(60), "it has just answered");
    refuse(&mut book, 2, &[report(Some(0), None)]);
    let fit = book.fit(at(3), &ONE, &Demand::default());
    assert!(matches!(fit, Fit::Blocked(blocked) if blocked.too_large), "{fit:?}");
    let tomorrow = at(2 + 86_400);
    assert_eq!(book.fit(tomorrow, &ONE, &Demand::default()), Fit::Fits(Some(1.0)), "then it is tried again");
}

#[test]
fn nothing_left_with_every_good_answer_lets_one_through_in_a_window() {
    let mut book = minute();
    let mut sent = 0;
    for second in 0..600 {
        if let Ok(attempt) = book.reserve(at(second), &ONE, &Demand::default()) {
            sent += 1;
            book.received(attempt, at(second));
            let reports = [report(Some(60), Some(0))];
            book.learn(&ONE, &Heard { reports: &reports, attempt, now: at(second), refused: None });
            book.settle(attempt, at(second), &Actual { answered: true, ..Actual::default() });
        }
    }
    assert!((9..=10).contains(&sent), "{sent}");
}

#[test]
fn a_limit_of_unknown_size_is_learned_from_its_first_refusal() {
    let mut book = Book::new(vec![spec("metric = \"requests\"\nwindow = \"minute\"", false)], start());
    for _ in 0..12 {
        hear(&mut book, 0, 0, &[]);
    }
    refuse(&mut book, 1, &[]);
    assert_eq!(view(&mut book, 1).amount, Some(12));
    assert_eq!(left(&mut book, 1), 0);
    assert_eq!(left(&mut book, 62), 12);
}

#[test]
fn a_size_from_refusals_grows_again_after_clean_windows() {
    let mut book = Book::new(vec![spec("metric = \"requests\"\nwindow = \"minute\"", false)], start());
    (0..10).for_each(|_| hear(&mut book, 0, 0, &[]));
    refuse(&mut book, 0, &[]);
    for window in 1..=5 {
        let second = window * 61;
        while book.fit(at(second), &ONE, &Demand::default()) != Fit::Blocked(blocked(&mut book, second)) {
            hear(&mut book, second, second, &[report(None, None)]);
        }
    }
    assert_eq!(view(&mut book, 6 * 61).amount, Some(11));
}

fn blocked(book: &mut Book, second: u64) -> crate::Blocked {
    match book.fit(at(second), &ONE, &Demand::default()) {
        Fit::Blocked(blocked) => blocked,
        Fit::Fits(_) => crate::Blocked { limit: LimitIndex::FIRST, until: None, too_large: true, unsecured: false },
    }
}

#[test]
fn refused_below_its_size_once_it_is_others_use_and_twice_it_is_smaller() {
    let mut book = minute();
    let named = Report { source: ReportSource::Refusal, ..report(None, None) };
    (0..20).for_each(|_| hear(&mut book, 0, 0, &[]));
    refuse(&mut book, 1, &[named]);
    assert_eq!((left(&mut book, 1), view(&mut book, 1).amount), (0, Some(60)));
    (0..25).for_each(|_| hear(&mut book, 70, 70, &[]));
    refuse(&mut book, 71, &[named]);
    assert_eq!(view(&mut book, 71).amount, Some(20), "the least that got through");
}

#[test]
fn a_report_that_could_mean_two_limits_is_passed_over() {
    let specs = vec![
        spec("metric = \"requests\"\nwindow = \"minute\"\namount = 60", false),
        LimitSpec {
            of_model: false,
            name: "lab".to_owned(),
            ..spec("metric = \"requests\"\nwindow = \"minute\"\namount = 90", false)
        },
    ];
    let mut book = Book::new(specs, start());
    let both = [LimitIndex::new(0), LimitIndex::new(1)];
    let spoken = |book: &Book, report: &Report| book.spoken_of(&both, report).map(LimitIndex::get);
    assert_eq!(spoken(&book, &report(None, Some(5))), None);
    assert_eq!(spoken(&book, &report(Some(90), Some(5))), Some(1), "its size tells");
    assert_eq!(spoken(&book, &Report { scope: ReportScope::Model, ..report(None, Some(5)) }), Some(0));
    assert_eq!(spoken(&book, &Report { scope: ReportScope::Account, ..report(None, Some(5)) }), Some(1));
    assert!(!book.restore_all_is_empty());
}

impl Book {
    fn restore_all_is_empty(&mut self) -> bool {
        self.restore("lab", Size { amount: 5, source: None, at: start().wall }, start());
        self.sizes().next().is_none()
    }
}

proptest! {
    /// Whatever providers say, in whatever order: never may more be sent than by our own count and the user's own word.
    #[test]
    fn nothing_said_makes_more_than_the_users_own_word_allows(
        said in prop::collection::vec((0_u64..120, 0_u64..30, prop::option::of(0_u64..200), prop::option::of(0_u64..200), any::<bool>()), 0..60)
    ) {
        let toml = "metric = \"requests\"\nwindow = \"minute\"\namount = 60";
        let (mut hearing, mut deaf) = (Book::new(vec![spec(toml, true)], start()), Book::new(vec![spec(toml, true)], start()));
        let mut now = 0;
        let mut under_way: Vec<(u64, ReservationId, ReservationId)> = Vec::new();
        for (gap, takes, amount, left, refused) in said {
            now += gap / 10;
            under_way.sort_by_key(|(ends, ..)| *ends);
            while under_way.first().is_some_and(|(ends, ..)| *ends <= now) {
                let (ends, heard, unheard) = under_way.remove(0);
                hearing.received(heard, at(ends));
                deaf.received(unheard, at(ends));
                let demand = Demand::default();
                let reports = [report(amount, left)];
                let refused = refused.then_some(&demand);
                hearing.learn(&ONE, &Heard { reports: &reports, attempt: heard, now: at(ends), refused });
                hearing.settle(heard, at(ends), &Actual { answered: true, ..Actual::default() });
                deaf.settle(unheard, at(ends), &Actual { answered: true, ..Actual::default() });
            }
            if let Ok(heard) = hearing.reserve(at(now), &ONE, &Demand::default()) {
                let unheard = deaf.reserve(at(now), &ONE, &Demand::default());
                prop_assert!(unheard.is_ok(), "at {now} s more was allowed than by our own count");
                under_way.push((now + takes, heard, unheard.unwrap()));
            }
        }
    }
}

/// Fifty requests a day, of an account. The day began with [`start`].
fn day() -> Book {
    let limit = toml::from_str("metric = \"requests\"\nwindow = \"day\"\namount = 50\nreset = \"calendar\"").unwrap();
    Book::new(vec![LimitSpec::read("lab", &limit).unwrap()], start())
}

/// What an endpoint says of the day.
fn told(left: u64) -> Report {
    let window = ReportWindow::Length(Duration::from_secs(86_400));
    let blank = Report::blank(Metric::Requests, window, ReportScope::Account, ReportSource::Endpoint);
    Report { amount: Some(50), left: Some(left), ..blank }
}

/// Asks the endpoint at one second; the answer comes at another.
fn inquire(book: &mut Book, asked: u64, answered: u64, left: u64) -> (u64, u64) {
    let asked = book.ask(&ONE, at(asked));
    book.learn_answer(&asked, &[told(left)], at(answered));
    let view = view(book, answered);
    (view.foreign, view.left)
}

fn send(book: &mut Book, second: u64) {
    hear(book, second, second, &[]);
}

#[test]
fn an_endpoint_shows_what_others_use_until_the_day_ends() {
    assert_eq!(start().wall.as_micros() % 86_400_000_000, 8 * 3_600_000_000, "eight in the morning");
    let mut book = day();
    send(&mut book, 0);
    assert_eq!(inquire(&mut book, 10, 11, 38), (11, 38), "twelve are used, and one of them is ours");
    assert_eq!(left(&mut book, 16 * 3_600 - 10), 38);
    assert_eq!(left(&mut book, 16 * 3_600 + 10), 50, "a new day");
    assert_eq!(
        view(&mut book, 11).provenance,
        crate::Provenance::Learned(Size { amount: 50, source: Some(ReportSource::Endpoint), at: at(11).wall })
    );
}

#[test]
fn what_is_sent_while_an_endpoint_answers_is_not_taken_for_others() {
    let mut book = day();
    let asked = book.ask(&ONE, at(0));
    (0..5).for_each(|_| send(&mut book, 1));
    let flying = book.reserve(at(1), &ONE, &Demand::default()).unwrap();
    // It may have counted all six by then, or none.
    book.learn_answer(&asked, &[told(44)], at(2));
    assert_eq!((view(&mut book, 2).foreign, left(&mut book, 2)), (0, 44));
    book.release(flying);
}

#[test]
fn an_endpoint_that_answers_from_a_minute_ago_gives_nothing_back() {
    let mut book = day();
    assert_eq!(inquire(&mut book, 0, 1, 45), (5, 45));
    (0..4).for_each(|_| send(&mut book, 30));
    // It has not seen our four: that the others still use five cannot be told from their using one.
    assert_eq!(inquire(&mut book, 40, 41, 45), (5, 41));
    // It has: nothing new.
    assert_eq!(inquire(&mut book, 50, 51, 41), (5, 41));
    // Half an hour later our four are surely in its count, and what others gave back is believed.
    assert_eq!(inquire(&mut book, 1_850, 1_851, 44), (2, 44));
    assert_eq!(inquire(&mut book, 1_900, 1_901, 30), (16, 30), "what is less is believed at once");
}

#[test]
fn an_endpoint_speaks_of_the_account_and_not_of_a_model_alone() {
    let mut book = Book::new(
        vec![spec("metric = \"requests\"\nwindow = \"day\"\namount = 1000\nreset = \"calendar\"", false)],
        start(),
    );
    let asked = book.ask(&ONE, at(0));
    book.learn_answer(&asked, &[told(0)], at(1));
    assert_eq!(left(&mut book, 1), 1_000);
}

/// A request at a second, whose answer says that the day's limit comes back at that hour of the day, UTC.
fn hear_reset(book: &mut Book, second: u64, hour: u64) {
    let passed = 8 * 3_600 + second;
    let returns = (hour * 3_600 + 2 * 86_400 - passed % 86_400) % 86_400;
    let window = ReportWindow::Length(Duration::from_secs(86_400));
    let blank = Report::blank(Metric::Requests, window, ReportScope::Unknown, ReportSource::Header);
    hear(book, second, second, &[Report { returns: Some(Duration::from_secs(returns)), ..blank }]);
}

const HOUR: u64 = 3_600;

#[test]
fn a_boundary_that_has_moved_grants_nothing_twice() {
    let mut book = day();
    // Documented is midnight, 16 hours from the start; the provider says noon.
    (0..3).for_each(|hour| hear_reset(&mut book, hour * HOUR, 12));
    assert!(view(&mut book, 2 * HOUR).spec.moved);
    assert_eq!((view(&mut book, 2 * HOUR).used, left(&mut book, 2 * HOUR)), (3, 47), "nothing is forgotten");
    (0..47).for_each(|_| send(&mut book, 3 * HOUR));
    for second in [4 * HOUR + 60, 16 * HOUR + 60, 20 * HOUR] {
        assert_eq!(left(&mut book, second), 0, "neither at noon nor at midnight, at {second} s");
    }
    assert_eq!(left(&mut book, 29 * HOUR), 50, "a day and an hour later, whenever it was");
}

#[test]
fn a_boundary_that_is_documented_again_is_kept_again() {
    let mut book = day();
    (0..3).for_each(|hour| hear_reset(&mut book, hour * HOUR, 12));
    let flying = book.reserve(at(3 * HOUR), &ONE, &Demand::default()).unwrap();
    (3..6).for_each(|hour| hear_reset(&mut book, hour * HOUR, 0));
    assert!(!view(&mut book, 6 * HOUR).spec.moved);
    assert_eq!((view(&mut book, 6 * HOUR).used, view(&mut book, 6 * HOUR).held), (7, 1));
    book.release(flying);
    assert_eq!((left(&mut book, 6 * HOUR), left(&mut book, 16 * HOUR + 60)), (44, 50), "midnight gives it back");
}

#[test]
fn an_edit_leaves_a_boundary_that_has_moved_where_it_is() {
    let mut book = day();
    (0..3).for_each(|hour| hear_reset(&mut book, hour * HOUR, 12));
    let limit = toml::from_str("metric = \"requests\"\nwindow = \"day\"\namount = 40\nreset = \"calendar\"").unwrap();
    let spec = LimitSpec::read("lab", &limit).unwrap();
    assert!(book.counts(&spec));
    book.adopt(vec![spec], at(3 * HOUR));
    assert!(view(&mut book, 3 * HOUR).spec.moved);
    assert_eq!((left(&mut book, 3 * HOUR), left(&mut book, 17 * HOUR)), (37, 37));
}

#[test]
fn a_refusal_right_after_the_boundary_holds_until_the_stated_return_and_does_not_loop() {
    let midnight = 16 * HOUR;
    for (stated, back) in [(Some(4 * HOUR), midnight + 10 + 4 * HOUR), (None, midnight + 10 + 48 * HOUR)] {
        let mut book = day();
        (0..50).for_each(|_| send(&mut book, HOUR));
        assert_eq!(left(&mut book, midnight + 10), 50, "it is thought to be back");
        let report = Report { source: ReportSource::Refusal, returns: stated.map(Duration::from_secs), ..told(0) };
        refuse(&mut book, midnight + 10, &[Report { amount: None, left: None, ..report }]);
        for second in (midnight + 11..back).step_by(1_700) {
            assert_eq!(left(&mut book, second), 0, "{stated:?}: at {second} s");
        }
        assert!(left(&mut book, back + 60) >= 49, "{stated:?}");
    }
}
