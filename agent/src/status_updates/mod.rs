//! All streams of status updates of an agent, one per task, and whether there is a master to send to.
//!
//! Pure: no clock, no disk. A stream lives from a task's first update to the acknowledgement of its last. Every change
//! passes [`StatusUpdates::step`], whose effects say what is to be written down before what.

pub mod stream;
#[cfg(test)]
mod stream_tests;

use std::collections::BTreeMap;

use meseta_protocol::status::StatusUpdate;
use meseta_protocol::{FrameworkId, TaskId, UpdateId};

pub use stream::{Effect, Input, Record, Stream};

/// Names a stream.
pub type Key = (FrameworkId, TaskId);

/// All streams.
#[derive(Debug, Default)]
pub struct StatusUpdates {
    streams: BTreeMap<Key, Stream>,
    paused: bool,
}

impl StatusUpdates {
    /// No streams, and no master yet.
    pub fn new() -> Self {
        Self {
            streams: BTreeMap::new(),
            paused: true,
        }
    }

    /// Whether this update was taken before.
    pub fn knows(&self, key: &Key, uuid: &UpdateId) -> bool {
        self.streams
            .get(key)
            .is_some_and(|stream| stream.knows(uuid))
    }

    /// The update in flight for a task, or next to be.
    pub fn head(&self, key: &Key) -> Option<&StatusUpdate> {
        self.streams.get(key)?.head()
    }

    /// Adds a stream that an earlier run of the agent has left.
    pub fn recover(&mut self, key: Key, stream: Stream) {
        self.streams.insert(key, stream);
    }

    /// All streams, by task.
    pub fn streams(&self) -> impl Iterator<Item = (&Key, &Stream)> {
        self.streams.iter()
    }

    /// How many streams there are.
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// Applies one input to one stream, which an update makes when it is missing.
    pub fn step(&mut self, key: &Key, input: Input) -> Vec<Effect> {
        if matches!(input, Input::Updated(_)) {
            let paused = self.paused;
            self.streams
                .entry(key.clone())
                .or_insert_with(|| Stream::new(paused));
        }
        let Some(stream) = self.streams.get_mut(key) else {
            return Vec::new();
        };
        let effects = stream.step(input);
        if effects.contains(&Effect::Finished) {
            self.streams.remove(key);
        }
        effects
    }

    /// Sends nothing until [`StatusUpdates::resume`].
    pub fn pause(&mut self) {
        self.paused = true;
        for stream in self.streams.values_mut() {
            stream.step(Input::Pause);
        }
    }

    /// Sends the head of every stream at once.
    pub fn resume(&mut self) -> Vec<(Key, Effect)> {
        self.paused = false;
        self.resend(|_| true)
    }

    /// Sends the head of every stream of a framework at once, if there is a master to send to.
    pub fn resume_framework(&mut self, framework_id: &FrameworkId) -> Vec<(Key, Effect)> {
        if self.paused {
            return Vec::new();
        }
        self.resend(|(framework, _)| framework == framework_id)
    }

    fn resend(&mut self, of: impl Fn(&Key) -> bool) -> Vec<(Key, Effect)> {
        let mut all = Vec::new();
        for (key, stream) in self.streams.iter_mut().filter(|(key, _)| of(key)) {
            let effects = stream.step(Input::Resume);
            all.extend(effects.into_iter().map(|effect| (key.clone(), effect)));
        }
        all
    }

    /// Forgets all streams of a framework.
    pub fn forget_framework(&mut self, framework_id: &FrameworkId) {
        self.streams
            .retain(|(framework, _), _| framework != framework_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meseta_protocol::status::{TaskState, TaskStatus};

    fn updated(n: u8, state: TaskState) -> Input {
        Input::Updated(Box::new(StatusUpdate {
            status: TaskStatus::new("t", state),
            uuid: Some(UpdateId::from_bytes([n; 16])),
            ..StatusUpdate::default()
        }))
    }

    #[test]
    fn streams_wait_for_a_master_and_go_with_their_framework() {
        let mut all = StatusUpdates::new();
        let (one, other): (Key, Key) = (("f".into(), "t".into()), ("g".into(), "t".into()));
        // It is taken, and nothing is sent.
        assert_eq!(all.step(&one, updated(1, TaskState::Running)).len(), 1);
        assert_eq!(all.step(&other, updated(2, TaskState::Running)).len(), 1);
        assert_eq!(all.resume_framework(&one.0), [], "paused");
        assert_eq!(all.resume().len(), 4);
        assert_eq!(all.resume_framework(&one.0).len(), 2);
        all.forget_framework(&one.0);
        assert_eq!((all.len(), all.head(&one)), (1, None));
        assert!(all.knows(&other, &UpdateId::from_bytes([2; 16])));
        all.step(&other, Input::Acknowledged(UpdateId::from_bytes([2; 16])));
        all.step(&other, updated(3, TaskState::Killed));
        all.step(&other, Input::Acknowledged(UpdateId::from_bytes([3; 16])));
        assert!(all.is_empty());
    }
}
