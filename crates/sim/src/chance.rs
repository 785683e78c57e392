//! The only source of chance in a run: a stream of numbers from the seed (splitmix64).

/// A stream of numbers.
#[derive(Clone, Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    /// The stream of a seed.
    pub(crate) fn new(seed: u64) -> Self {
        Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    /// A stream of its own, for a part whose draws must not shift those of others.
    pub(crate) fn fork(&mut self) -> Self {
        Chance(self.number())
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.0;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    }

    /// A number below `bound`; 0 for 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.number() % bound }
    }

    /// A number from `low` up to and with `high`.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// Yes, so many times in a hundred.
    pub(crate) fn percent(&mut self, odds: u64) -> bool {
        self.below(100) < odds
    }

    /// Yes, so many times in a thousand.
    pub(crate) fn permille(&mut self, odds: u64) -> bool {
        self.below(1000) < odds
    }

    /// One of these, which are some.
    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }

    /// A time around `mean`: mostly shorter, now and then several times as long.
    pub(crate) fn around(&mut self, mean: u64) -> u64 {
        // The sum of two draws is a rough but quick stand-in for an exponential one.
        let draw = self.below(2 * mean + 1);
        if self.percent(10) { 3 * draw } else { draw }.max(1)
    }
}
