//! Damage to good inputs: bytes changed, lost, repeated, swapped for those that parsers stumble over.

/// Longest input made.
const BYTES_MAX: usize = 16 << 10;
/// Lengths at their edges, terminators, signs, characters of several bytes.
const TROUBLE: [&[u8]; 14] = [
    &[0x00],
    &[0x7f],
    &[0x80],
    &[0xff],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    b"{",
    b"}",
    b"\"",
    b"\\",
    b"\n",
    b"-1",
    b"NaN",
    "é".as_bytes(),
];

/// A source of damage; the same for the same name.
pub(crate) struct Damage(u64);

impl Damage {
    pub(crate) fn new(name: &str) -> Self {
        // FNV-1a.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self(hash)
    }

    /// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`, or zero.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// One of the seeds, damaged in one to four places.
    pub(crate) fn done_to(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut input = seeds[self.below(seeds.len())].clone();
        for _ in 0..=self.below(4) {
            self.once(&mut input, seeds);
        }
        input.truncate(BYTES_MAX);
        input
    }

    fn once(&mut self, input: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let at = self.below(input.len());
        let length = self.below(input.len() - at);
        match self.below(7) {
            0 if !input.is_empty() => input[at] = self.next() as u8,
            1 if !input.is_empty() => input[at] ^= 1 << self.below(8),
            2 => input.truncate(at),
            3 => drop(input.drain(at..at + length.min(16))),
            4 => {
                let part = input[at..at + length].to_vec();
                let to = self.below(input.len());
                input.splice(to..to, part);
            }
            5 => {
                let other = &seeds[self.below(seeds.len())];
                let from = self.below(other.len());
                input.splice(at.., other[from..].iter().copied());
            }
            _ => {
                let trouble = TROUBLE[self.below(TROUBLE.len())];
                input.splice(at..at, trouble.iter().copied());
            }
        }
    }
}
