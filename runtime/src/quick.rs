//! Hashing for tables on the path of every message.
//!
//! Pure. A few multiplications for a key of some words, where the standard hasher takes as long as the rest of the path.
//! It does not keep out keys that somebody chose to collide: use it only where keys come from authenticated peers or the
//! table is bounded, and be content with any result.

use std::hash::{BuildHasherDefault, Hasher};

/// A table's state for [`Quick`].
pub(crate) type QuickState = BuildHasherDefault<Quick>;

/// The hasher.
#[derive(Debug, Default)]
pub(crate) struct Quick(u64);

impl Quick {
    fn mix(&mut self, word: u64) {
        self.0 = (self.0 ^ word)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29);
    }
}

impl Hasher for Quick {
    /// The table looks at the highest and at the lowest bits.
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            let mut eight = [0; 8];
            eight.copy_from_slice(word);
            self.mix(u64::from_le_bytes(eight));
        }
        let rest = words.remainder();
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            self.mix(u64::from_le_bytes(last));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.mix(u64::from(value));
    }

    fn write_u16(&mut self, value: u16) {
        self.mix(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.mix(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.mix(value);
    }

    fn write_usize(&mut self, value: usize) {
        self.mix(value as u64);
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher as _;

    use super::*;

    #[test]
    fn names_that_are_numbered_spread_over_the_table() {
        let hashes = (0..1000_u32).map(|n| QuickState::default().hash_one(format!("slave({n})")));
        let places: std::collections::HashSet<u64> = hashes.map(|hash| hash & 1023).collect();
        assert!(places.len() > 550, "{} of 1024", places.len());
    }
}
