//! What was written of tasks and agents before, for as long as they stay what they were.
//!
//! A value in the tables is not changed while others hold it: whoever changes it makes another one (`Arc::make_mut`). So
//! the same value has the same text, and after a change in a large cluster only what has changed is written anew. A text is
//! kept until the next document after its value has gone, and a weak hold keeps the value's place in memory from being
//! another's until then.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use meseta_protocol::task::Task;
use parking_lot::Mutex;
use serde::ser::{Error as _, Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};

use crate::state::Agent;

/// Bytes of texts of one kind, and of the values that they hold in memory, after which no more are kept.
const MOST_BYTES: usize = 64 << 20;

/// Texts by kind. Each kind has one form.
#[derive(Debug, Default)]
pub(super) struct Texts {
    pub(super) tasks: Kept<Task>,
    pub(super) agents: Kept<Agent>,
}

impl Texts {
    /// Lets go of the texts of values that nobody holds any more.
    pub(super) fn forget_what_is_gone(&self) {
        self.tasks.forget_what_is_gone();
        self.agents.forget_what_is_gone();
    }
}

/// Texts of values of one type.
#[derive(Debug)]
pub(super) struct Kept<T>(Mutex<Inner<T>>);

#[derive(Debug)]
struct Inner<T> {
    /// By the places of the values in memory.
    all: HashMap<usize, (Weak<T>, Box<RawValue>)>,
    bytes: usize,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(Mutex::new(Inner {
            all: HashMap::new(),
            bytes: 0,
        }))
    }
}

impl<T> Kept<T> {
    /// Writes a value: as `shown` the first time, and then what was written.
    pub(super) fn write<S: Serializer, F: Serialize>(
        &self,
        value: &Arc<T>,
        serializer: S,
        shown: impl FnOnce() -> F,
    ) -> Result<S::Ok, S::Error> {
        let place = Arc::as_ptr(value).addr();
        let mut inner = self.0.lock();
        if let Some((_, text)) = inner.all.get(&place) {
            return text.serialize(serializer);
        }
        if inner.bytes > MOST_BYTES {
            drop(inner);
            return shown().serialize(serializer);
        }
        let text = to_raw_value(&shown()).map_err(S::Error::custom)?;
        let written = text.serialize(serializer);
        inner.bytes += weight::<T>(&text);
        inner.all.insert(place, (Arc::downgrade(value), text));
        written
    }

    fn forget_what_is_gone(&self) {
        let mut inner = self.0.lock();
        let Inner { all, bytes } = &mut *inner;
        all.retain(|_, (value, text)| {
            let stays = value.strong_count() > 0;
            if !stays {
                *bytes -= weight::<T>(text);
            }
            stays
        });
    }
}

/// Bytes that a text holds, with the place of its value.
fn weight<T>(text: &RawValue) -> usize {
    text.get().len() + size_of::<T>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(kept: &Kept<u32>, value: &Arc<u32>) -> String {
        struct Shown<'a>(&'a Kept<u32>, &'a Arc<u32>);
        impl Serialize for Shown<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                (self.0).write(self.1, serializer, || {
                    ["a \"number\"".to_owned(), self.1.to_string()]
                })
            }
        }
        serde_json::to_string(&Shown(kept, value)).unwrap()
    }

    #[test]
    fn the_text_of_a_value_is_that_of_what_it_is_now() {
        let kept = Kept::default();
        let mut value = Arc::new(1);
        let before = text(&kept, &value);
        assert_eq!(before, r#"["a \"number\"","1"]"#);
        assert_eq!(text(&kept, &value), before);
        for changed in 2..5 {
            *Arc::make_mut(&mut value) = changed;
            let now = format!(r#"["a \"number\"","{changed}"]"#);
            assert_eq!(text(&kept, &value), now);
            kept.forget_what_is_gone();
            assert_eq!(text(&kept, &value), now);
        }
        assert_eq!(kept.0.lock().all.len(), 1);
        drop(value);
        kept.forget_what_is_gone();
        let inner = kept.0.lock();
        assert_eq!((inner.all.len(), inner.bytes), (0, 0));
    }

    #[test]
    fn no_more_is_kept_than_there_is_room_for() {
        let kept = Kept::default();
        kept.0.lock().bytes = MOST_BYTES + 1;
        assert_eq!(text(&kept, &Arc::new(7)), r#"["a \"number\"","7"]"#);
        assert!(kept.0.lock().all.is_empty());
    }
}
