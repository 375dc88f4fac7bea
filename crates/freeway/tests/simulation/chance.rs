//! Draws that follow from a seed alone.

/// A source of draws: SplitMix64 (Steele, Lea and Flood, 2014).
#[derive(Clone, Debug)]
pub(crate) struct Chance(u64);

/// Two numbers made into one, so that every bit of both matters.
pub(crate) fn mixed(one: u64, other: u64) -> u64 {
    let mut value = one.rotate_left(23) ^ other.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

impl Chance {
    pub(crate) fn new(seed: u64, purpose: u64) -> Self {
        Self(mixed(mixed(0, seed), purpose))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(0, self.0)
    }

    /// A number from `least` to `most`, both included.
    pub(crate) fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.next() % (most - least + 1)
    }

    /// A number from 1 to `most` whose size is as likely to be small as large.
    pub(crate) fn any_size(&mut self, most: u64) -> u64 {
        let bits = u64::from(most.max(1).ilog2());
        let size = self.between(0, bits);
        self.between(1 << size, (2 << size) - 1).min(most.max(1))
    }

    /// Whether something happens that does so `times` in a thousand.
    pub(crate) fn permille(&mut self, times: u64) -> bool {
        self.next() % 1000 < times
    }

    pub(crate) fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        let place = usize::try_from(self.next() % list.len() as u64).unwrap_or(0);
        list[place]
    }
}
