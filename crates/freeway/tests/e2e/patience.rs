//! Waiting for what must come, with a bound; and running many cases at once.

use std::future::Future;
use std::time::Duration;

use tokio::task::{JoinSet, LocalSet};
use tokio::time::Instant;

/// What must come comes within this time.
const BOUND: Duration = Duration::from_secs(10);
/// Between two looks.
const STEP: Duration = Duration::from_millis(5);
/// Cases that run at the same time.
const AT_ONCE: usize = 6;

/// Looks until there is something to see.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(begun.elapsed() < BOUND, "{what}: not within {BOUND:?}");
        tokio::time::sleep(STEP).await;
    }
}

/// Runs cases, several at a time, and tells of all that fail.
pub(crate) async fn each<C, F>(cases: impl IntoIterator<Item = C>, check: impl Fn(C) -> F)
where
    F: Future<Output = ()> + 'static,
{
    let failed = failures(cases, check).await;
    assert_eq!(failed, 0, "cases failed; each has told its own story above");
}

/// Runs cases, several at a time. Gives how many fail; each tells its own story.
pub(crate) async fn failures<C, F>(cases: impl IntoIterator<Item = C>, check: impl Fn(C) -> F) -> usize
where
    F: Future<Output = ()> + 'static,
{
    let run_all = async {
        let mut running = JoinSet::new();
        let mut failed = 0;
        for case in cases {
            if running.len() >= AT_ONCE {
                failed += usize::from(running.join_next().await.is_some_and(|ended| ended.is_err()));
            }
            running.spawn_local(check(case));
        }
        while let Some(ended) = running.join_next().await {
            failed += usize::from(ended.is_err());
        }
        failed
    };
    LocalSet::new().run_until(run_all).await
}
