// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the decisions of a world come from: a seed, or the bytes of a fuzzer.

/// A source of decisions. The same answers give the same run.
pub trait Choices {
    /// A number below `bound`, which is at least one.
    fn below(&mut self, bound: u32) -> u32;
}

/// Decisions drawn from a seed.
#[derive(Clone, Debug)]
pub struct Seeded(fastrand::Rng);

impl Seeded {
    /// The decisions of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }
}

impl Choices for Seeded {
    fn below(&mut self, bound: u32) -> u32 {
        self.0.u32(..bound.max(1))
    }
}

/// Decisions read from bytes, one byte each for bounds up to 256. When they are used up decisions go on from a fixed
/// seed, so that everybody still gets a turn and every run ends.
#[derive(Clone, Debug)]
pub struct Bytes<'b> {
    left: &'b [u8],
    then: Seeded,
}

impl<'b> Bytes<'b> {
    /// The decisions in `bytes`.
    #[must_use]
    pub fn new(bytes: &'b [u8]) -> Self {
        Self { left: bytes, then: Seeded::new(0) }
    }
}

impl Choices for Bytes<'_> {
    fn below(&mut self, bound: u32) -> u32 {
        let bound = bound.max(1);
        let wanted = if bound > 256 { 4 } else { 1 };
        match self.left.split_at_checked(wanted) {
            Some((now, later)) => {
                self.left = later;
                now.iter().fold(0, |value, byte| value << 8 | u32::from(*byte)) % bound
            }
            None => self.then.below(bound),
        }
    }
}
