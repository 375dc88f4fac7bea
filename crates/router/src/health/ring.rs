//! What was counted in the latest stretches of time of one length.

/// The latest `N` stretches, each in the place of its number modulo `N`. Stretches are numbered from any beginning.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ring<T, const N: usize>([(u64, T); N]);

impl<T: Copy + Default, const N: usize> Default for Ring<T, N> {
    fn default() -> Self {
        Self([(0, T::default()); N])
    }
}

impl<T: Copy + Default, const N: usize> Ring<T, N> {
    /// What is counted in the stretch of this number, which is now.
    pub(super) fn now(&mut self, number: u64) -> &mut T {
        let slot = &mut self.0[usize::try_from(number).unwrap_or(0) % N];
        if slot.0 != number {
            *slot = (number, T::default());
        }
        &mut slot.1
    }

    /// What was counted in the latest stretches, of which this is the last.
    pub(super) fn recent(&self, number: u64) -> impl Iterator<Item = &T> {
        let is_recent = move |slot: &&(u64, T)| number.saturating_sub(slot.0) < N as u64;
        self.0.iter().filter(is_recent).map(|(_, counted)| counted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_old_is_gone() {
        let mut ring = Ring::<u32, 3>::default();
        let mut sums = Vec::new();
        for number in [10, 10, 11, 12, 13, 20] {
            *ring.now(number) += 1;
            sums.push(ring.recent(number).sum::<u32>());
        }
        assert_eq!(sums, [1, 2, 3, 4, 3, 1]);
        assert_eq!(ring.recent(99).count(), 0);
    }
}
