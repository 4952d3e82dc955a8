//! Steps of single parts that have been taken before. The same replica gets the same request in thousands of states that
//! differ elsewhere; the shipped code is run once for it.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex};

const SHARDS: usize = 64;

/// Keys are digests already.
#[derive(Default)]
pub(crate) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = self.0.rotate_left(5) ^ number;
    }
}

type Shard<T> = Mutex<HashMap<(u64, u64), Arc<T>, BuildHasherDefault<AsItIs>>>;

/// Outcomes by the digests of the part and of what it was given.
pub(crate) struct Memo<T>(Vec<Shard<T>>);

impl<T> Default for Memo<T> {
    fn default() -> Self {
        Self((0..SHARDS).map(|_| Mutex::default()).collect())
    }
}

impl<T> Memo<T> {
    /// The outcome, found or made.
    pub(crate) fn of(&self, part: u64, given: u64, make: impl FnOnce() -> T) -> Arc<T> {
        let shard = usize::try_from((part ^ given) % SHARDS as u64).unwrap_or_default();
        let shard = &self.0[shard];
        let found = shard
            .lock()
            .expect("no part panics")
            .get(&(part, given))
            .cloned();
        if let Some(found) = found {
            return found;
        }
        let made = Arc::new(make());
        shard
            .lock()
            .expect("no part panics")
            .insert((part, given), Arc::clone(&made));
        made
    }
}
