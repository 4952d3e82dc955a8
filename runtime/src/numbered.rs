//! Maps by number: for keys that the runtime itself counts up, such as timers and asks.
//!
//! Pure. The hash is one multiplication. Nobody else chooses the keys, so nobody can make them collide.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map by a number that the runtime has given out.
pub(crate) type Numbered<K, V> = HashMap<K, V, BuildHasherDefault<NumberHasher>>;

#[derive(Default)]
pub(crate) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn write_u64(&mut self, number: u64) {
        // The golden ratio in 64 bits; the map looks at the highest bits and at the lowest.
        let mixed = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_numbers_apart() {
        let mut map: Numbered<u64, u64> = Numbered::default();
        for number in (0..1_000).chain((0..1_000).map(|n| n << 32)) {
            map.insert(number, number + 1);
        }
        assert_eq!(map.len(), 1_999);
        assert!(map.iter().all(|(key, value)| *value == key + 1));
    }
}
