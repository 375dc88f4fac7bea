//! What every backend must do, as one suite. A backend's own tests call [`run`] on an empty store.

use freeway_quota::{Block, Bound, Demand, Lost};
use freeway_types::{Asked, Feature, Handling, Quality, RequestId, Timestamp, Usage, UsageSource, Usd};

use crate::Store;
use crate::record::{AttemptRecord, Dispatch, Learned, Legacy, Page, RequestRecord, UsageKey};

/// Runs the suite on an empty store.
///
/// # Panics
/// When the store does not do what it must.
#[expect(clippy::unwrap_used, reason = "a test suite panics when what it tests is wrong")]
pub fn run(store: &dyn Store) {
    let day = |days: i64| Timestamp::from_secs(days * 86_400 + 60);
    let records = [sample(1, day(100)), sample(2, day(100)), sample(3, day(101))];
    store.append(&records).unwrap();

    assert_eq!(store.request(records[0].id).unwrap().as_ref(), Some(&records[0]), "a request reads back whole");
    assert_eq!(store.request(RequestId::new(9, 9)).unwrap(), None, "an unknown id is no request");

    store.append(&records[..1]).unwrap();
    let all = store.requests(Page { caller: None, most: 10, before: None }).unwrap();
    assert_eq!(all.iter().map(|request| request.id).collect::<Vec<_>>(), [records[2].id, records[1].id, records[0].id]);
    let older = store.requests(Page { caller: None, most: 1, before: Some(records[2].id) }).unwrap();
    assert_eq!(older[0].id, records[1].id, "pages go back in time");
    let of =
        |caller: &str| store.requests(Page { caller: Some(caller.to_owned()), most: 10, before: None }).unwrap().len();
    assert_eq!((of("ci"), of("somebody else")), (3, 0), "a caller's own requests");

    let by = |key, since| {
        let rows = store.usage(key, since).unwrap();
        rows.into_iter()
            .map(|row| format!("{} {}/{} {} {}", row.name, row.answered, row.attempts, row.input, row.cost))
            .collect::<Vec<_>>()
    };
    assert_eq!(by(UsageKey::Provider, day(0)), ["groq 0/3 0 $0.000000", "lab 3/3 30 $0.000003"]);
    assert_eq!(by(UsageKey::Model, day(101)), ["groq/large 0/1 0 $0.000000", "lab/small 1/1 10 $0.000001"]);
    assert_eq!(by(UsageKey::Key, day(0)), ["ci 3/6 30 $0.000003"]);
    assert_eq!(by(UsageKey::Day, day(0)), ["1970-04-11 2/4 20 $0.000002", "1970-04-12 1/2 10 $0.000001"]);

    let spent = store.spent(day(101)).unwrap();
    assert_eq!(
        spent.iter().map(|spent| (spent.account.as_str(), spent.answered)).collect::<Vec<_>>(),
        [("groq", false), ("lab", true)]
    );
    let micros = |later| Timestamp::from_micros(day(101).as_micros() + later);
    let lab = &spent[1];
    assert_eq!((lab.sent_at, lab.counted_at, lab.ended_at), (micros(1), micros(401), micros(1001)));

    let names = |kind: &str| store.learned(kind).unwrap().into_iter().map(|fact| fact.name).collect::<Vec<_>>();
    let (later, small) = (learned("tokens", "lab/large", Some("1")), learned("tokens", "lab/small", Some("2")));
    store.write(&[], &[small.clone(), later.clone(), learned("pause", "lab/small", Some("3"))]).unwrap();
    assert_eq!(store.learned("tokens").unwrap(), [later, small], "of one kind, by name");
    let newer = Learned { at: day(102), ..learned("tokens", "lab/small", Some("4")) };
    let in_one = sample(4, day(101));
    store.write(std::slice::from_ref(&in_one), &[newer.clone(), learned("tokens", "lab/large", None)]).unwrap();
    assert_eq!(store.learned("tokens").unwrap(), [newer], "what is newer replaces, and no value takes away");
    assert_eq!(names("pause"), ["lab/small"], "another kind is not touched");
    assert_eq!(store.request(in_one.id).unwrap(), Some(in_one), "requests go with it");
    store.write(&[], &[learned("tokens", "unheard/of", None)]).unwrap();
    assert_eq!(names("tokens"), ["lab/small"], "what was never known is forgotten already");

    assert_eq!(store.forget(day(101)).unwrap(), 2, "retention forgets what is older");
    assert_eq!(names("tokens"), ["lab/small"], "and keeps what was learned");
    assert_eq!(store.request(records[0].id).unwrap(), None);
    assert_eq!(store.spent(day(0)).unwrap().len(), 4, "attempts go with their request");
}

/// Runs the suite on a store that outlives its process. `open` opens it, at first empty, and then again each time as
/// a process would that follows one that was killed.
///
/// # Panics
/// When the store does not do what it must.
#[expect(clippy::unwrap_used, reason = "a test suite panics when what it tests is wrong")]
pub fn run_killed(open: impl Fn() -> Box<dyn Store>) {
    let at = Timestamp::from_secs(86_400);
    let now = at.after(std::time::Duration::from_secs(5));
    let (written, lost) = (sample(1, at), dispatch(2, at));
    let store = open();
    store.dispatched(&Dispatch { request: written.id, ..dispatch(1, at) }).unwrap();
    store.dispatched(&lost).unwrap();
    store.append(std::slice::from_ref(&written)).unwrap();
    // The dispatch that is open is still there: an orderly end of the store puts away only what is settled.
    drop(store);

    let store = open();
    assert_eq!(store.request(lost.request).unwrap(), None);
    assert_eq!(store.recover(now).unwrap(), 1, "what was sent and not written is taken in");
    assert_eq!(store.request(lost.request).unwrap(), Some(lost.clone().interrupted(now)));
    assert_eq!(store.request(written.id).unwrap(), Some(written), "and nothing else");
    let spent = store.spent(at).unwrap();
    let of_lost: Vec<_> = spent.iter().filter(|spent| spent.held == Some(lost.held)).collect();
    assert_eq!(of_lost.len(), 1, "what was held for it stands, once");
    assert!(of_lost[0].counted_at > now, "and may be counted yet");
    assert!(of_lost[0].interrupted && of_lost[0].ended_at == now, "and may be running yet");
    assert_eq!(spent.iter().filter(|spent| spent.interrupted).count(), 1);
    drop(store);

    let store = open();
    assert_eq!(store.recover(now).unwrap(), 0, "nothing is taken in twice");
    assert_eq!(store.spent(at).unwrap(), spent);
}

/// Runs the suite of what bounds the use that a loss of power can make forgotten. `open` is as for [`run_killed`].
///
/// # Panics
/// When the store does not do what it must.
#[expect(clippy::unwrap_used, reason = "a test suite panics when what it tests is wrong")]
pub fn run_bounds(open: impl Fn() -> Box<dyn Store>) {
    let at = Timestamp::from_secs;
    let bound = |limit: &str, secs, most| Block { limit: limit.to_owned(), since: at(secs), most };
    let store = open();
    assert!(store.outlives_power());
    assert_eq!(store.legacy().unwrap(), Legacy { is_whole: true, ..Legacy::default() }, "nobody was here");
    store.begin("first", None).unwrap();
    store.secure(&[bound("a", 10, 5), bound("b", 10, 7), bound("a", 20, 1), bound("a", 20, 2)]).unwrap();
    store.secure(&[bound("a", 30, 3), bound("a", 40, 4)]).unwrap();
    drop(store);

    let store = open();
    let legacy = store.legacy().unwrap();
    assert_eq!((legacy.boot.as_deref(), legacy.is_whole), (Some("first"), false), "it did not come to its end");
    let kept = [bound("a", 20, 2), bound("a", 30, 3), bound("a", 40, 4), bound("b", 10, 7)];
    assert_eq!(legacy.bounds, kept, "three of each limit, the latest that was said");
    store.begin("second", None).unwrap();
    assert_eq!(store.legacy().unwrap().bounds, kept, "the next process counts on with them");
    store.end().unwrap();
    drop(store);

    let store = open();
    let legacy = store.legacy().unwrap();
    assert_eq!((legacy.boot.as_deref(), legacy.is_whole), (Some("second"), true));
    let lost = [Lost { limit: "a".to_owned(), units: 3, from: at(20), to: at(50) }];
    store.begin("third", Some(&lost)).unwrap();
    drop(store);

    let store = open();
    let legacy = store.legacy().unwrap();
    assert_eq!((legacy.bounds.len(), &legacy.lost[..], legacy.is_whole), (0, &lost[..], false));
    store.forget(at(50)).unwrap();
    assert_eq!(store.legacy().unwrap().lost, lost, "it may still count");
    store.forget(at(51)).unwrap();
    assert_eq!(store.legacy().unwrap().lost, [], "it is forgotten with the requests of its time");
}

/// An id as a request gets that comes at an instant.
fn id(number: u64, at: Timestamp) -> RequestId {
    RequestId::new(u64::try_from(at.as_micros() / 1000).unwrap_or(0), u128::from(number))
}

/// An attempt about to be sent.
#[must_use]
pub fn dispatch(number: u64, at: Timestamp) -> Dispatch<'static> {
    Dispatch {
        request: id(number, at),
        ordinal: 0,
        received_at: at,
        caller: "ci".into(),
        asked: "smart".into(),
        tier: "standard".into(),
        data: "public".into(),
        stream: true,
        account: "lab".into(),
        model: "small".into(),
        key: Some(0),
        sent_at: at,
        held: Demand {
            input: Bound { expected: 10, most: 30 },
            output: Bound { expected: 1000, most: 4000 },
            picos: Bound { expected: 7, most: 70 },
            units: Bound::default(),
        },
        priced: true,
    }
}

/// Something learned on the first day of 1970.
#[must_use]
pub fn learned(kind: &str, name: &str, value: Option<&str>) -> Learned {
    let at = Timestamp::from_secs(60);
    Learned { kind: kind.to_owned(), name: name.to_owned(), value: value.map(str::to_owned), at }
}

/// A request that failed over from one provider to another.
#[must_use]
pub fn sample(number: u64, at: Timestamp) -> RequestRecord {
    let attempt =
        |account: &str, model: &str, outcome: &str, micros: i64, usage: Usage, cost: Option<Usd>| AttemptRecord {
            account: account.to_owned(),
            model: model.to_owned(),
            key: Some(0),
            sent_at: Timestamp::from_micros(at.as_micros() + micros),
            took_us: 1000,
            counted_us: 400,
            status: Some(if outcome == "answered" { 200 } else { 429 }),
            outcome: outcome.to_owned(),
            message: (outcome != "answered").then(|| "slow down".to_owned()),
            usage,
            usage_source: UsageSource::Reported,
            cost,
            units: 0,
            held: None,
            handling: Some(Handling { paid: false, trains: Some(account == "groq"), retention_days: Some(30) }),
        };
    let usage = Usage { input: 10, output: 5, ..Usage::default() };
    RequestRecord {
        id: id(number, at),
        received_at: Timestamp::from_micros(at.as_micros() + i64::try_from(number).unwrap_or(0)),
        took_us: 2500,
        first_content_us: Some(2000),
        waited_us: 1500,
        caller: "ci".to_owned(),
        model: "smart".to_owned(),
        tier: "standard".to_owned(),
        data: "public".to_owned(),
        stream: true,
        asked: Some(Asked {
            input: 12,
            max_output: Some(100),
            min_quality: Quality::LOWEST,
            features: [Feature::Stream, Feature::Tools].into_iter().collect(),
            named_tier: true,
            named_data: false,
        }),
        status: 200,
        outcome: "answered".to_owned(),
        error: None,
        served_by: Some("lab/small".to_owned()),
        candidates: "[]".to_owned(),
        attempts: vec![
            attempt("groq", "large", "rate_limit", 0, Usage::default(), Some(Usd::ZERO)),
            attempt("lab", "small", "answered", 1, usage, Some(Usd::from_picos(1_000_000))),
        ],
    }
}
