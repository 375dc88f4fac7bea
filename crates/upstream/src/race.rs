//! The first of several addresses that answers.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

/// How long an address is waited for before the next one is tried beside it (RFC 8305, section 5).
const HEAD_START: Duration = Duration::from_millis(250);

/// Addresses in the order in which they are tried: the two families in turn, so that one which leads nowhere costs a
/// single head start. The first stays the first.
pub(crate) fn in_turn(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let leads_v6 = addresses.first().is_some_and(IpAddr::is_ipv6);
    let (same, other): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|address| address.is_ipv6() == leads_v6);
    let (mut same, mut other) = (same.into_iter(), other.into_iter());
    let mut all = Vec::with_capacity(same.len() + other.len());
    loop {
        let pair = [same.next(), other.next()];
        if pair == [None, None] {
            return all;
        }
        all.extend(pair.into_iter().flatten());
    }
}

/// Tries each address in turn, the next one as soon as the one before has failed or has had its head start. What is
/// slower than the first to succeed is dropped. `None` if there are no addresses.
///
/// # Errors
/// How the last of them failed, once all have.
pub(crate) async fn first<T, E, F: Future<Output = Result<T, E>>>(
    addresses: Vec<IpAddr>,
    mut attempt: impl FnMut(IpAddr) -> F,
) -> Option<Result<T, E>> {
    let mut waiting = addresses.into_iter();
    let mut running: Vec<Pin<Box<F>>> = vec![Box::pin(attempt(waiting.next()?))];
    let mut start = std::pin::pin!(tokio::time::sleep(HEAD_START));
    let outcome = std::future::poll_fn(|context| {
        loop {
            let mut failure = None;
            let mut place = 0;
            while let Some(one) = running.get_mut(place) {
                match one.as_mut().poll(context) {
                    Poll::Pending => place += 1,
                    Poll::Ready(Ok(made)) => return Poll::Ready(Ok(made)),
                    Poll::Ready(Err(error)) => {
                        drop(running.swap_remove(place));
                        failure = Some(error);
                    }
                }
            }
            let is_time = failure.is_some() || start.as_mut().poll(context).is_ready();
            match (is_time.then(|| waiting.next()).flatten(), failure) {
                (Some(address), _) => {
                    running.push(Box::pin(attempt(address)));
                    start.as_mut().reset(tokio::time::Instant::now() + HEAD_START);
                }
                (None, Some(error)) if running.is_empty() => return Poll::Ready(Err(error)),
                (None, _) => return Poll::Pending,
            }
        }
    });
    Some(outcome.await)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tokio::time::{Instant, sleep};

    use super::*;

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns() {
        let check = |given: &[&str], tried: &[&str]| assert_eq!(in_turn(addresses(given)), addresses(tried));
        check(&[], &[]);
        check(&["::1", "::2", "::3", "10.0.0.1"], &["::1", "10.0.0.1", "::2", "::3"]);
        check(&["10.0.0.1", "10.0.0.2", "::1", "::2"], &["10.0.0.1", "::1", "10.0.0.2", "::2"]);
    }

    /// Addresses `10.0.0.N`, which answer or fail after so many milliseconds: which one wins, after how long, and
    /// when each was tried.
    async fn race(answers: &[(u64, bool)]) -> (Option<Result<u8, u8>>, u128, Vec<u128>) {
        let began = Instant::now();
        let tried = RefCell::new(Vec::new());
        let all = (0..answers.len()).map(|place| IpAddr::from([10, 0, 0, u8::try_from(place).unwrap()])).collect();
        // What is tried is polled in this one task.
        let won = first(all, |address| {
            tried.borrow_mut().push(began.elapsed().as_millis());
            let IpAddr::V4(v4) = address else { unreachable!() };
            let place = v4.octets()[3];
            let (after, good) = answers[usize::from(place)];
            async move {
                sleep(Duration::from_millis(after)).await;
                if good { Ok(place) } else { Err(place) }
            }
        })
        .await;
        (won, began.elapsed().as_millis(), tried.into_inner())
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_to_answer_wins() {
        assert_eq!(race(&[]).await, (None, 0, vec![]));
        // In time, nobody else is tried.
        assert_eq!(race(&[(200, true), (0, true)]).await, (Some(Ok(0)), 200, vec![0]));
        // A silent one is not waited for.
        assert_eq!(race(&[(9_999, true), (100, true)]).await, (Some(Ok(1)), 350, vec![0, 250]));
        // A slow one may still win.
        assert_eq!(race(&[(300, true), (100, true)]).await, (Some(Ok(0)), 300, vec![0, 250]));
        // One that fails costs no head start.
        assert_eq!(race(&[(10, false), (20, true)]).await, (Some(Ok(1)), 30, vec![0, 10]));
        assert_eq!(race(&[(10, false), (20, false), (5, true)]).await, (Some(Ok(2)), 35, vec![0, 10, 30]));
        // That the second fails ends nothing while the first is under way.
        assert_eq!(race(&[(400, true), (10, false)]).await, (Some(Ok(0)), 400, vec![0, 250]));
        assert_eq!(race(&[(400, false), (10, false)]).await, (Some(Err(0)), 400, vec![0, 250]));
    }
}
