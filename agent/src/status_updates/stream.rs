//! Status updates of one task: kept in order, the oldest resent until acknowledged.
//!
//! Pure: no clock, no disk, no network; the shell is `handlers/status.rs`. Only the head of the queue is ever in
//! flight, so the framework sees the updates in order. Source: agent.md §6.1, Mesos
//! `src/slave/task_status_update_manager.cpp`.
//!
//! ```text
//! Updated(first) ──> Checkpoint, Forward, Arm(10 s) ──RetryDue──> Forward, Arm(20 s) ── … ──> Arm(10 min)
//!                          │ Acknowledged(head)
//!                          ├── no end ──> Checkpoint, and if more wait Forward(next), Arm(10 s)
//!                          └── an end ──> Finished, whatever waits is dropped
//! ```
//!
//! What a step changes is a [`Record`], and its [`Effect::Checkpoint`] comes before all that follows from the change.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use meseta_protocol::UpdateId;
use meseta_protocol::status::{StatusUpdate, TaskState};
use meseta_runtime::planted::mistake;

/// Time to the first retry of an update; it doubles with each one.
pub const FIRST_RETRY: Duration = Duration::from_secs(10);
/// Longest time between two retries.
pub const LONGEST_RETRY: Duration = Duration::from_secs(600);

/// Acknowledged updates by which a repeated one is known. An executor repeats an update only until the agent has said
/// that it arrived, so one that this many have followed does not come again.
pub const REMEMBERED: usize = 100;

/// What happens to a stream.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// The executor or the agent has made an update. It has a uuid.
    Updated(Box<StatusUpdate>),
    /// The framework has dealt with this update.
    Acknowledged(UpdateId),
    /// The time of the [`Effect::Arm`] with this number is over.
    RetryDue(u64),
    /// There is no master to send to.
    Pause,
    /// There is one, perhaps another; or the framework is subscribed anew.
    Resume,
}

/// A change of a stream. All of them in their order make the stream again.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// This update was taken.
    Updated(Box<StatusUpdate>),
    /// The framework has dealt with an update that is no end.
    Acknowledged {
        /// The oldest that waited.
        update: Box<StatusUpdate>,
        /// One that was acknowledged so long ago that it is remembered no longer.
        forgotten: Option<UpdateId>,
    },
}

/// What the shell has to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// The stream has changed by this; effects after it may show only when it cannot be forgotten.
    Checkpoint(Record),
    /// Send this update to the master.
    Forward(Box<StatusUpdate>),
    /// Come back with [`Input::RetryDue`] of this number.
    Arm {
        /// After this time.
        after: Duration,
        /// Number of the timer; only that of the newest counts.
        number: u64,
    },
    /// The end was acknowledged: forget the stream, with all that was written down of it.
    Finished,
}

/// The stream of one task.
#[derive(Debug, Clone, Default)]
pub struct Stream {
    waiting: VecDeque<StatusUpdate>,
    /// Acknowledged last, the oldest first: at most [`REMEMBERED`].
    acknowledged: VecDeque<UpdateId>,
    /// Those that wait and those acknowledged last.
    known: BTreeSet<UpdateId>,
    paused: bool,
    finished: bool,
    retry: Duration,
    timer: u64,
}

impl Stream {
    /// A stream without updates.
    pub fn new(paused: bool) -> Self {
        Self {
            paused,
            ..Self::default()
        }
    }

    /// A stream as its records tell of it: updates acknowledged last, the oldest first, and those that wait.
    pub fn recovered(
        acknowledged: impl IntoIterator<Item = UpdateId>,
        waiting: Vec<StatusUpdate>,
    ) -> Self {
        let mut acknowledged: VecDeque<UpdateId> = acknowledged.into_iter().collect();
        let spare = acknowledged.len().saturating_sub(REMEMBERED);
        acknowledged.drain(..spare);
        let known = acknowledged.iter().copied();
        let known = known.chain(waiting.iter().filter_map(|update| update.uuid));
        Self {
            known: known.collect(),
            acknowledged,
            waiting: waiting.into(),
            paused: true,
            ..Self::default()
        }
    }

    /// Whether this update waits, or was one of the [`REMEMBERED`] acknowledged last.
    pub fn knows(&self, uuid: &UpdateId) -> bool {
        self.known.contains(uuid)
    }

    /// The update that is in flight or will be next.
    pub fn head(&self) -> Option<&StatusUpdate> {
        self.waiting.front()
    }

    /// The updates that wait, the oldest first.
    pub fn waiting(&self) -> impl Iterator<Item = &StatusUpdate> {
        self.waiting.iter()
    }

    /// How many updates wait, the one in flight among them.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Applies one input. Effects are carried out in order.
    pub fn step(&mut self, input: Input) -> Vec<Effect> {
        if self.finished {
            return Vec::new();
        }
        match input {
            Input::Updated(update) => self.enqueue(*update),
            Input::Acknowledged(uuid) => self.acknowledge(uuid),
            Input::RetryDue(number) => self.retry(number),
            Input::Pause => {
                self.paused = true;
                Vec::new()
            }
            Input::Resume => {
                self.paused = false;
                self.forward_anew()
            }
        }
    }

    fn enqueue(&mut self, update: StatusUpdate) -> Vec<Effect> {
        let Some(uuid) = update.uuid else {
            debug_assert!(false, "an update in a stream has a uuid");
            return Vec::new();
        };
        if !self.known.insert(uuid) {
            return Vec::new();
        }
        let mut effects = vec![Effect::Checkpoint(Record::Updated(Box::new(
            update.clone(),
        )))];
        self.waiting.push_back(update);
        if mistake("agent sends ahead of acknowledgements") {
            let newest = self.waiting.back().cloned();
            effects.extend(newest.map(|update| Effect::Forward(Box::new(update))));
        } else if self.waiting.len() == 1 {
            effects.extend(self.forward_anew());
        }
        effects
    }

    fn acknowledge(&mut self, uuid: UpdateId) -> Vec<Effect> {
        let is_head = self.head().and_then(|head| head.uuid) == Some(uuid);
        if !is_head || mistake("agent forgets what was acknowledged") {
            return Vec::new();
        }
        let Some(update) = self.waiting.pop_front() else {
            return Vec::new();
        };
        if update.status.state.is_terminal() {
            self.waiting.clear();
            self.finished = true;
            return vec![Effect::Finished];
        }
        self.acknowledged.push_back(uuid);
        let is_full = self.acknowledged.len() > REMEMBERED;
        let forgotten = self.acknowledged.pop_front_if(|_| is_full);
        if let Some(forgotten) = &forgotten {
            self.known.remove(forgotten);
        }
        let mut effects = vec![Effect::Checkpoint(Record::Acknowledged {
            update: Box::new(update),
            forgotten,
        })];
        effects.extend(self.forward_anew());
        effects
    }

    fn retry(&mut self, number: u64) -> Vec<Effect> {
        if number != self.timer || self.paused || self.waiting.is_empty() {
            return Vec::new();
        }
        if mistake("agent gives up on an update") {
            self.waiting.pop_front();
            return self.forward_anew();
        }
        let after = self.retry.saturating_mul(2).min(LONGEST_RETRY);
        self.forward(after)
    }

    fn forward_anew(&mut self) -> Vec<Effect> {
        if self.paused {
            return Vec::new();
        }
        self.forward(FIRST_RETRY)
    }

    fn forward(&mut self, after: Duration) -> Vec<Effect> {
        let latest = self.latest_state();
        let Some(head) = self.waiting.front() else {
            return Vec::new();
        };
        self.retry = after;
        self.timer += 1;
        let mut update = head.clone();
        update.latest_state = latest;
        vec![
            Effect::Forward(Box::new(update)),
            Effect::Arm {
                after,
                number: self.timer,
            },
        ]
    }

    /// The task's newest state: that of the last update, since nothing is queued after an end.
    fn latest_state(&self) -> Option<TaskState> {
        self.waiting.back().map(|update| update.status.state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meseta_protocol::status::TaskStatus;
    use proptest::prelude::*;

    fn uuid(n: u8) -> UpdateId {
        UpdateId::from_bytes([n; 16])
    }

    fn update(n: u8, state: TaskState) -> Box<StatusUpdate> {
        Box::new(StatusUpdate {
            status: TaskStatus::new("t", state),
            uuid: Some(uuid(n)),
            ..StatusUpdate::default()
        })
    }

    fn nothing_is_sent(effects: &[Effect]) -> bool {
        seen(effects) == (Vec::new(), Vec::new())
    }

    /// Number and latest state of each forwarded update, then seconds of each timer.
    fn seen(effects: &[Effect]) -> (Vec<(u8, TaskState)>, Vec<u64>) {
        let (mut forwarded, mut armed) = (Vec::new(), Vec::new());
        for effect in effects {
            match effect {
                Effect::Forward(update) => forwarded.push((
                    update.uuid.unwrap().as_bytes()[0],
                    update.latest_state.unwrap(),
                )),
                Effect::Arm { after, .. } => armed.push(after.as_secs()),
                Effect::Finished => armed.push(0),
                Effect::Checkpoint(_) => {}
            }
        }
        (forwarded, armed)
    }

    #[test]
    fn only_the_head_is_in_flight_and_carries_the_latest_state() {
        let mut stream = Stream::new(false);
        let first = stream.step(Input::Updated(update(1, TaskState::Starting)));
        assert_eq!(seen(&first), (vec![(1, TaskState::Starting)], vec![10]));
        let second = stream.step(Input::Updated(update(2, TaskState::Running)));
        let third = stream.step(Input::Updated(update(3, TaskState::Finished)));
        assert!(nothing_is_sent(&second) && nothing_is_sent(&third));
        let next = stream.step(Input::Acknowledged(uuid(1)));
        assert_eq!(seen(&next), (vec![(2, TaskState::Finished)], vec![10]));
        assert_eq!(
            stream.step(Input::Acknowledged(uuid(3))),
            [],
            "not the head"
        );
        assert_eq!(
            stream.step(Input::Acknowledged(uuid(1))),
            [],
            "acknowledged before"
        );
        stream.step(Input::Acknowledged(uuid(2)));
        assert_eq!(
            stream.step(Input::Acknowledged(uuid(3))),
            [Effect::Finished]
        );
        assert_eq!(
            stream.step(Input::Updated(update(4, TaskState::Running))),
            []
        );
    }

    #[test]
    fn retries_come_after_10_20_40_seconds_and_at_most_10_minutes() {
        let mut stream = Stream::new(false);
        stream.step(Input::Updated(update(1, TaskState::Running)));
        let intervals: Vec<u64> = (1..9)
            .flat_map(|number| seen(&stream.step(Input::RetryDue(number))).1)
            .collect();
        assert_eq!(intervals, [20, 40, 80, 160, 320, 600, 600, 600]);
        assert_eq!(stream.step(Input::RetryDue(3)), [], "an older timer");
    }

    #[test]
    fn a_repeated_update_is_not_queued_again() {
        let mut stream = Stream::new(false);
        stream.step(Input::Updated(update(1, TaskState::Running)));
        assert_eq!(
            stream.step(Input::Updated(update(1, TaskState::Running))),
            []
        );
        stream.step(Input::Acknowledged(uuid(1)));
        assert_eq!(
            stream.step(Input::Updated(update(1, TaskState::Running))),
            []
        );
        assert!(stream.is_empty() && stream.knows(&uuid(1)));
    }

    #[test]
    fn a_long_task_leaves_no_more_behind_than_its_last_acknowledgements() {
        let mut stream = Stream::new(false);
        for n in 0..250 {
            stream.step(Input::Updated(update(n, TaskState::Running)));
            stream.step(Input::Acknowledged(uuid(n)));
        }
        assert_eq!(
            (stream.known.len(), stream.acknowledged.len()),
            (REMEMBERED, REMEMBERED)
        );
        assert!(stream.knows(&uuid(150)) && !stream.knows(&uuid(149)));
    }

    #[test]
    fn a_pause_holds_everything_and_a_resume_sends_the_head_at_once() {
        let mut stream = Stream::new(true);
        let first = stream.step(Input::Updated(update(1, TaskState::Running)));
        assert!(nothing_is_sent(&first));
        assert_eq!(stream.step(Input::RetryDue(0)), []);
        let resumed = stream.step(Input::Resume);
        assert_eq!(seen(&resumed), (vec![(1, TaskState::Running)], vec![10]));
        stream.step(Input::RetryDue(1));
        stream.step(Input::Pause);
        assert_eq!(stream.step(Input::RetryDue(2)), []);
        assert_eq!(
            seen(&stream.step(Input::Resume)).1,
            [10],
            "the back-off starts over"
        );
    }

    #[test]
    fn what_waits_behind_an_acknowledged_end_is_dropped() {
        let mut stream = Stream::new(false);
        stream.step(Input::Updated(update(1, TaskState::Failed)));
        stream.step(Input::Updated(update(2, TaskState::Running)));
        let ended = stream.step(Input::Acknowledged(uuid(1)));
        assert_eq!(ended.last(), Some(&Effect::Finished));
        assert!(stream.is_empty());
    }

    proptest! {
        /// Whatever mix of repeats, stray acknowledgements, pauses and lost forwards comes, the framework sees the
        /// updates in order, each after the one before was acknowledged, and in the end nothing is left.
        #[test]
        fn delivers_in_order_and_ends_empty(steps in proptest::collection::vec((0u8..6, any::<u8>()), 0..120)) {
            let mut stream = Stream::new(false);
            let (mut made, mut delivered, mut in_flight, mut timer) = (0u8, Vec::new(), None, 0);
            let mut note = |effects: Vec<Effect>, in_flight: &mut Option<u8>, timer: &mut u64| {
                for effect in effects {
                    match effect {
                        Effect::Forward(update) => {
                            let n = update.uuid.unwrap().as_bytes()[0];
                            if delivered.last() != Some(&n) {
                                delivered.push(n);
                            }
                            *in_flight = Some(n);
                        }
                        Effect::Arm { number, .. } => *timer = number,
                        Effect::Finished => *in_flight = None,
                        Effect::Checkpoint(_) => {}
                    }
                }
            };
            for (kind, n) in steps {
                let input = match kind {
                    0 if made < 50 => { made += 1; Input::Updated(update(made, TaskState::Running)) }
                    0 | 1 => Input::Updated(update(if made == 0 { continue } else { n % made + 1 }, TaskState::Running)),
                    2 => Input::Acknowledged(uuid(in_flight.unwrap_or(201 + n % 50))),
                    3 => Input::RetryDue(if n % 2 == 0 { timer } else { u64::from(n) }),
                    4 => Input::Pause,
                    _ => Input::Resume,
                };
                note(stream.step(input), &mut in_flight, &mut timer);
            }
            note(stream.step(Input::Updated(update(200, TaskState::Finished))), &mut in_flight, &mut timer);
            note(stream.step(Input::Resume), &mut in_flight, &mut timer);
            while let Some(n) = in_flight.take() {
                note(stream.step(Input::Acknowledged(uuid(n))), &mut in_flight, &mut timer);
            }
            prop_assert!(stream.is_empty());
            let expected: Vec<u8> = (1..=made).chain([200]).collect();
            prop_assert_eq!(delivered, expected);
        }
    }
}
