//! Chance that is data: a seed gives the same draws everywhere.

/// SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014).
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// From a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub const fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in 0..1.
    pub fn unit(&mut self) -> f64 {
        (self.draw() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number in 0..below; 0 of nothing.
    pub fn below(&mut self, below: usize) -> usize {
        ((u128::from(self.draw()) * below as u128) >> 64) as usize
    }

    /// About this share of the rows, in their order.
    pub fn share(&mut self, rows: &[usize], share: f64) -> Vec<u32> {
        rows.iter().filter(|_| share >= 1.0 || self.unit() < share).map(|&row| row as u32).collect()
    }

    /// This share of the columns, at least one, in their order.
    pub fn columns(&mut self, width: usize, share: f64) -> Vec<usize> {
        let wanted = ((width as f64 * share).ceil() as usize).clamp(1, width.max(1));
        let mut all: Vec<usize> = (0..width).collect();
        for at in 0..wanted.min(width) {
            let other = at + self.below(width - at);
            all.swap(at, other);
        }
        all.truncate(wanted);
        all.sort_unstable();
        all
    }
}
