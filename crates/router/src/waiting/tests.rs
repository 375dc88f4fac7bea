use proptest::prelude::*;

use super::*;

/// Serves what fits into what is left, and comes back each 100 s.
struct Counter {
    left: Size,
    now: Monotonic,
    asked: usize,
    served: Vec<u32>,
    gone: Vec<u32>,
    known: BTreeMap<u32, (char, Size)>,
}

impl Counter {
    fn new(left: u64) -> Self {
        let left = Size { input: left, output: 0 };
        let now = Monotonic::default();
        Self { left, now, asked: 0, served: Vec::new(), gone: Vec::new(), known: BTreeMap::new() }
    }
}

fn at(seconds: u64) -> Monotonic {
    Monotonic::from_micros(seconds * 1_000_000)
}

impl Desk<u32> for Counter {
    fn ask(&mut self, like: &u32, size: Size) -> Result<(), Unserved> {
        self.asked += 1;
        match (size.fits_within(self.left), self.known[like].0) {
            (true, _) => Ok(()),
            (false, 'x') => Err(Unserved::Never),
            (false, _) => Err(Unserved::NotBefore(self.now.after(Duration::from_secs(100)))),
        }
    }

    fn serve(&mut self, what: &u32) -> Result<(), Unserved> {
        let (_, size) = self.known[what];
        self.ask(what, size)?;
        self.left.input -= size.input;
        self.served.push(*what);
        Ok(())
    }

    fn give_up(&mut self, what: u32) {
        self.gone.push(what);
    }
}

/// Requests as kind, size and deadline in seconds; who is served of `left` at second 10, who leaves, and how many stay.
fn check(requests: &[(char, u64, u64)], left: u64, served: &[u32], gone: &[u32], stay: usize) -> Counter {
    let mut desk = Counter::new(left);
    let mut waiting = Waiting::new(usize::MAX);
    for (number, (kind, input, deadline)) in (0..).zip(requests) {
        let size = Size { input: *input, output: 0 };
        desk.known.insert(number, (*kind, size));
        waiting.join(*kind, size, at(*deadline), at(5), number).unwrap();
    }
    desk.now = at(10);
    waiting.take_turns(at(10), &mut desk);
    assert_eq!((desk.served.as_slice(), desk.gone.as_slice(), waiting.len()), (served, gone, stay), "of {left}");
    assert_eq!(waiting.iter().count(), stay);
    desk
}

#[test]
fn who_has_the_earliest_deadline_goes_first_across_lines() {
    check(&[('a', 1, 90), ('b', 1, 30), ('a', 1, 20), ('c', 1, 40)], 3, &[2, 1, 3], &[], 1);
    check(&[('a', 1, 30), ('b', 1, 30), ('a', 1, 30)], 2, &[0, 1], &[], 1);
}

#[test]
fn who_is_too_late_leaves_and_the_deadline_itself_is_not_too_late() {
    check(&[('a', 1, 9), ('a', 1, 10), ('b', 1, 3)], 9, &[1], &[2, 0], 0);
}

#[test]
fn a_small_one_passes_where_a_larger_one_in_front_does_not_fit() {
    check(&[('a', 5, 20), ('a', 2, 30), ('a', 6, 40), ('a', 1, 50)], 4, &[1, 3], &[], 2);
}

#[test]
fn where_waiting_does_not_help_all_leave() {
    check(&[('x', 5, 20), ('x', 6, 30), ('a', 1, 40)], 1, &[2], &[0, 1], 0);
}

#[test]
fn who_cannot_be_served_costs_little_however_many_they_are() {
    let many: Vec<(char, u64, u64)> = (0..1_000).map(|place| ('a', 10 + place % 7, 1_000 + place)).collect();
    let desk = check(&many, 3, &[], &[], 1_000);
    assert_eq!(desk.asked, 1);
    let desk = check(&many, 35, &[0, 1, 2], &[], 997);
    assert!(desk.asked < 30, "{}", desk.asked);
}

#[test]
fn nobody_is_looked_at_before_something_may_be_back() {
    let mut desk = Counter::new(0);
    let mut waiting = Waiting::new(2);
    let size = Size { input: 1, output: 0 };
    desk.known = [(1, ('a', size)), (2, ('a', size))].into();
    let place = waiting.join('a', size, at(500), at(50), 1).unwrap();
    waiting.join('a', size, at(600), at(80), 2).unwrap();
    assert_eq!(waiting.join('b', size, at(600), at(10), 3), Err(3), "two may wait");
    assert_eq!(waiting.next(), Some(at(50)));
    waiting.take_turns(at(49), &mut desk);
    assert_eq!(desk.asked, 0);
    desk.now = at(50);
    waiting.take_turns(at(50), &mut desk);
    assert_eq!((desk.asked, waiting.next()), (1, Some(at(150))));
    assert_eq!((waiting.leave(&place), waiting.leave(&place)), (Some(1), None));
    (desk.left, desk.now) = (size, at(150));
    waiting.take_turns(at(150), &mut desk);
    assert_eq!((desk.served.as_slice(), waiting.next(), waiting.is_empty()), (&[2][..], None, true));
}

proptest! {
    /// The same as asking each one by itself, the earliest deadline first.
    #[test]
    fn lines_change_nothing_but_the_cost(
        requests in prop::collection::vec((prop::sample::select(vec!['a', 'b', 'c']), 1_u64..9, 5_u64..30), 0..40),
        left in 0_u64..60,
    ) {
        let mut order: Vec<u32> = (0..).take(requests.len()).collect();
        order.sort_by_key(|number| (requests[*number as usize].2, *number));
        let (mut rest, mut served, mut gone) = (left, Vec::new(), 0);
        for number in order {
            let (_, size, deadline) = requests[number as usize];
            if deadline < 10 {
                gone += 1;
            } else if size <= rest {
                rest -= size;
                served.push(number);
            }
        }
        let mut desk = Counter::new(left);
        let mut waiting = Waiting::new(usize::MAX);
        for (number, (kind, input, deadline)) in (0..).zip(&requests) {
            let size = Size { input: *input, output: 0 };
            desk.known.insert(number, (*kind, size));
            waiting.join(*kind, size, at(*deadline), at(5), number).unwrap();
        }
        waiting.take_turns(at(10), &mut desk);
        prop_assert_eq!(&desk.served, &served);
        prop_assert_eq!(waiting.len(), requests.len() - served.len() - desk.gone.len());
        prop_assert!(desk.gone.len() <= gone);
    }
}

#[test]
fn what_comes_back_sooner_than_was_known_is_given_at_once() {
    let mut desk = Counter::new(3);
    let mut waiting = Waiting::new(usize::MAX);
    for (number, kind) in [(0, 'a'), (1, 'b')] {
        let size = Size { input: 2, output: 0 };
        desk.known.insert(number, (kind, size));
        waiting.join(kind, size, at(60), at(50), number).unwrap();
    }
    desk.now = at(10);
    waiting.take_turns(at(10), &mut desk);
    assert_eq!((desk.asked, waiting.lines(), waiting.next()), (0, 2, Some(at(50))));
    waiting.hurry(at(10));
    waiting.take_turns(at(10), &mut desk);
    assert_eq!((desk.served, waiting.lines(), waiting.next()), (vec![0], 1, Some(at(110))));
}
