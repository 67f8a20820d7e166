//! A pool of numbers, each given to one owner at a time.

use rand::Rng;
use std::ops::Div;

/// Numbers from 0 up to a size. The lower band is only given away when asked for, or when the rest is used up: what
/// people pick by hand is there, and rarely collides with what the server picks.
#[derive(Debug)]
pub(super) struct Pool {
    used: Vec<u64>,
    size: usize,
    band: usize,
    free: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum TakeError {
    Taken,
    OutOfRange,
    /// None of the ranges of addresses has it.
    NoRange,
}

impl Pool {
    pub(super) fn new(size: usize, band: usize) -> Self {
        Self { used: vec![0; size.div_ceil(64)], size, band: band.min(size), free: size }
    }

    fn is_used(&self, number: usize) -> bool {
        self.used[number / 64] & (1 << (number % 64)) != 0
    }

    pub(super) fn take(&mut self, number: usize) -> Result<(), TakeError> {
        if number >= self.size {
            return Err(TakeError::OutOfRange);
        }
        if self.is_used(number) {
            return Err(TakeError::Taken);
        }
        self.used[number / 64] |= 1 << (number % 64);
        self.free -= 1;
        Ok(())
    }

    /// Any free number; nothing when all are used.
    pub(super) fn take_any(&mut self) -> Option<usize> {
        if self.free == 0 {
            return None;
        }
        let found = self.find(self.band, self.size).or_else(|| self.find(0, self.band))?;
        self.take(found).ok().map(|()| found)
    }

    /// A free number in `from..to`, searched from a random place on.
    fn find(&self, from: usize, to: usize) -> Option<usize> {
        if from >= to {
            return None;
        }
        let start = rand::rng().random_range(from..to);
        (start..to).chain(from..start).find(|number| !self.is_used(*number))
    }

    pub(super) fn give_back(&mut self, number: usize) {
        if number < self.size && self.is_used(number) {
            self.used[number / 64] &= !(1 << (number % 64));
            self.free += 1;
        }
    }
}

/// How much of a range of `size` is kept for those who ask: at least `min`, a `share`th, at most `max`.
pub(super) fn band<N: Copy + Ord + Div<Output = N> + From<u16>>(size: N, min: u16, share: u16, max: u16) -> N {
    if size <= min.into() { 0.into() } else { (size / share.into()).clamp(min.into(), max.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_given_once() {
        let mut pool = Pool::new(100, 10);
        assert_eq!(pool.take(3), Ok(()));
        assert_eq!(pool.take(3), Err(TakeError::Taken));
        assert_eq!(pool.take(100), Err(TakeError::OutOfRange));
        let upper: Vec<_> = (0..90).filter_map(|_| pool.take_any()).collect();
        assert!(upper.iter().all(|number| *number >= 10), "the lower band comes last");
        let lower: Vec<_> = (0..9).filter_map(|_| pool.take_any()).collect();
        assert_eq!(lower.len(), 9);
        assert_eq!(pool.take_any(), None);
        pool.give_back(3);
        pool.give_back(3);
        assert_eq!(pool.take_any(), Some(3));
        assert_eq!(pool.take_any(), None);
    }

    #[test]
    fn bands_are_upstreams() {
        assert_eq!(band(65_534_u128, 16, 16, 256), 256);
        assert_eq!(band(254_u128, 16, 16, 256), 16);
        assert_eq!(band(14_u128, 16, 16, 256), 0);
        assert_eq!(band(2768_usize, 16, 32, 128), 86);
    }
}
