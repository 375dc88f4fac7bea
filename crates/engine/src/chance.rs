//! The one place where chance comes from: ids and jitter.

use std::cell::RefCell;

/// How many draws are fetched at once: asking the system costs the same for one as for many.
const AT_ONCE: usize = 64;

thread_local! {
    static DRAWN: RefCell<Drawn> = const { RefCell::new(Drawn { ready: Vec::new(), seed: None }) };
}

struct Drawn {
    ready: Vec<u128>,
    /// Set in a simulation: what the next draws are made of.
    seed: Option<u64>,
}

/// From now on, what this thread draws follows from the seed alone: for simulations.
pub fn seed_chance(seed: u64) {
    DRAWN.with_borrow_mut(|drawn| *drawn = Drawn { ready: Vec::new(), seed: Some(seed) });
}

/// Random bits. A system without randomness gives zeros: ids then differ by their time alone.
pub(crate) fn random() -> u128 {
    DRAWN.with_borrow_mut(|drawn| {
        if drawn.ready.is_empty() {
            let mut bytes = [0_u8; AT_ONCE * 16];
            match &mut drawn.seed {
                Some(seed) => bytes.as_chunks_mut().0.iter_mut().for_each(|bytes| *bytes = next(seed).to_le_bytes()),
                None => {
                    let _ = getrandom::fill(&mut bytes);
                }
            }
            drawn.ready.extend(bytes.as_chunks().0.iter().map(|bytes| u128::from_le_bytes(*bytes)));
        }
        drawn.ready.pop().unwrap_or_default()
    })
}

/// SplitMix64 (Steele, Lea and Flood, 2014).
fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*seed ^ (*seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same() {
        let draw = |seed| {
            seed_chance(seed);
            (0..200).map(|_| random()).collect::<Vec<_>>()
        };
        let first = draw(7);
        assert_eq!(first, draw(7));
        assert_ne!(first, draw(8));
        assert!(first.iter().collect::<std::collections::BTreeSet<_>>().len() == 200);
    }
}
