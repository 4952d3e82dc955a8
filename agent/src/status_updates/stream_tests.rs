//! The stream of one task: every event in every state, and any mix of them beside a plain model.

use std::time::Duration;

use meseta_protocol::UpdateId;
use meseta_protocol::status::{StatusUpdate, TaskState, TaskStatus};
use proptest::prelude::*;

use super::stream::{Effect, FIRST_RETRY, Input, LONGEST_RETRY, REMEMBERED, Record, Stream};

fn uuid(n: u8) -> UpdateId {
    UpdateId::from_bytes([n; 16])
}

/// Update number `n`; of a terminal one the number ends in 9.
fn update(n: u8) -> Box<StatusUpdate> {
    let state = if n % 10 == 9 {
        TaskState::Finished
    } else {
        TaskState::Running
    };
    Box::new(StatusUpdate {
        status: TaskStatus::new("t", state),
        uuid: Some(uuid(n)),
        ..StatusUpdate::default()
    })
}

fn number(update: &StatusUpdate) -> u8 {
    update.uuid.unwrap().as_bytes()[0]
}

/// `+n`: n is recorded; `-n`: its acknowledgement is; `n` is sent; `(s)`: armed for so many seconds; `end`.
fn shown(effects: &[Effect]) -> String {
    let word = |effect: &Effect| match effect {
        Effect::Checkpoint(Record::Updated(update)) => format!("+{}", number(update)),
        Effect::Checkpoint(Record::Acknowledged { update, .. }) => format!("-{}", number(update)),
        Effect::Forward(update) => number(update).to_string(),
        Effect::Arm { after, .. } => format!("({})", after.as_secs()),
        Effect::Finished => "end".to_owned(),
    };
    effects.iter().map(word).collect::<Vec<_>>().join(" ")
}

fn updated(n: u8) -> Input {
    Input::Updated(update(n))
}

fn acknowledged(n: u8) -> Input {
    Input::Acknowledged(uuid(n))
}

/// Number of [`states`].
const STATES: usize = 14;

/// Each state. 1 is always acknowledged; of those that wait 2 or the end 29 is the head.
fn states() -> [(&'static str, Stream); STATES] {
    let after = |mut stream: Stream, inputs: Vec<Input>| {
        for input in inputs {
            stream.step(input);
        }
        stream
    };
    let acked = |more: Vec<Input>| {
        let begun = after(Stream::new(false), vec![updated(1), acknowledged(1)]);
        after(begun, more)
    };
    let recovered = |waiting: &[u8]| {
        let waiting = waiting.iter().map(|n| *update(*n));
        Stream::recovered([uuid(1)], waiting.collect())
    };
    let (end, ended) = (updated(29), acknowledged(29));
    [
        ("idle", acked(vec![])),
        ("one in flight", acked(vec![updated(2)])),
        ("one waits", acked(vec![updated(2), updated(3)])),
        ("its end in flight", acked(vec![end.clone()])),
        (
            "its end in flight, and more after it",
            acked(vec![end.clone(), updated(3)]),
        ),
        (
            "retried twice",
            acked(vec![updated(2), Input::RetryDue(2), Input::RetryDue(3)]),
        ),
        ("paused, idle", acked(vec![Input::Pause])),
        (
            "paused, one waits",
            acked(vec![updated(2), updated(3), Input::Pause]),
        ),
        (
            "paused, its end waits",
            acked(vec![end.clone(), Input::Pause]),
        ),
        ("finished", acked(vec![end.clone(), ended.clone()])),
        (
            "finished while paused",
            acked(vec![end, Input::Pause, ended]),
        ),
        ("recovered, idle", recovered(&[])),
        ("recovered, one waits", recovered(&[2])),
        (
            "recovered, one in flight",
            after(recovered(&[2]), vec![Input::Resume]),
        ),
    ]
}

/// What happens to a stream, and what follows in each of [`states`].
#[rustfmt::skip]
fn table() -> Vec<(&'static str, Input, [&'static str; STATES])> {
    // In the order of `states`: five that run, one retried, three paused, two finished, three recovered.
    vec![
        ("a new update", updated(5), [
            "+5 5 (10)", "+5", "+5", "+5", "+5", "+5", "+5", "+5", "+5", "", "", "+5", "+5", "+5",
        ]),
        ("a new end", updated(9), [
            "+9 9 (10)", "+9", "+9", "+9", "+9", "+9", "+9", "+9", "+9", "", "", "+9", "+9", "+9",
        ]),
        ("an acknowledged one again", updated(1), [""; STATES]),
        ("one that waits, or is new, again", updated(2), [
            "+2 2 (10)", "", "", "+2", "+2", "", "+2", "", "+2", "", "", "+2", "", "",
        ]),
        ("the head acknowledged", acknowledged(2), [
            "", "-2", "-2 3 (10)", "", "", "-2", "", "-2", "", "", "", "", "-2", "-2",
        ]),
        ("the end acknowledged", acknowledged(29), [
            "", "", "", "end", "end", "", "", "", "end", "", "", "", "", "",
        ]),
        ("the second acknowledged", acknowledged(3), [""; STATES]),
        ("a repeated acknowledgement", acknowledged(1), [""; STATES]),
        ("a foreign acknowledgement", acknowledged(77), [""; STATES]),
        ("a timer of an earlier run", Input::RetryDue(0), [""; STATES]),
        ("the timer of the first update", Input::RetryDue(1), [
            "", "", "", "", "", "", "", "", "", "", "", "", "", "2 (20)",
        ]),
        ("the timer of the second", Input::RetryDue(2), [
            "", "2 (20)", "2 (20)", "29 (20)", "29 (20)", "", "", "", "", "", "", "", "", "",
        ]),
        ("the timer of the second retry", Input::RetryDue(4), [
            "", "", "", "", "", "2 (80)", "", "", "", "", "", "", "", "",
        ]),
        ("no master", Input::Pause, [""; STATES]),
        ("a master", Input::Resume, [
            "", "2 (10)", "2 (10)", "29 (10)", "29 (10)", "2 (10)", "", "2 (10)", "29 (10)", "", "",
            "", "2 (10)", "2 (10)",
        ]),
    ]
}

#[test]
fn every_event_in_every_state_does_what_the_table_says() {
    for (event, input, expected) in table() {
        for ((state, mut stream), expected) in states().into_iter().zip(expected) {
            let effects = stream.step(input.clone());
            assert_eq!(shown(&effects), expected, "{event}: {state}");
        }
    }
}

/// What was remembered for long enough is forgotten, on disk too, and the stream as it is recovered then knows the same.
#[test]
fn so_many_acknowledged_updates_are_remembered_and_no_more() {
    let mut stream = Stream::new(false);
    let of = |n: usize| u8::try_from(n + 100).unwrap();
    let made = |n: usize| {
        let mut update = update(1);
        update.uuid = Some(uuid(of(n)));
        update
    };
    for n in 0..=REMEMBERED {
        stream.step(Input::Updated(made(n)));
        let effects = stream.step(Input::Acknowledged(uuid(of(n))));
        let forgotten = effects.iter().find_map(|effect| match effect {
            Effect::Checkpoint(Record::Acknowledged { forgotten, .. }) => *forgotten,
            Effect::Checkpoint(Record::Updated(_))
            | Effect::Forward(_)
            | Effect::Arm { .. }
            | Effect::Finished => None,
        });
        assert_eq!(forgotten, (n == REMEMBERED).then(|| uuid(of(0))));
    }
    let all = (0..=REMEMBERED).map(|n| uuid(of(n)));
    let again = Stream::recovered(all.clone(), Vec::new());
    for known in [&stream, &again] {
        let missing: Vec<UpdateId> = all.clone().filter(|one| !known.knows(one)).collect();
        assert_eq!(missing, [uuid(of(0))]);
    }
}

/// All that was ever made, how much of it is over, and the newest timer. It looks everything up again at each step.
#[derive(Default)]
struct Model {
    made: Vec<StatusUpdate>,
    over: usize,
    paused: bool,
    timer: u64,
    retry: Duration,
}

impl Model {
    fn finished(&self) -> bool {
        let over = self.made.iter().take(self.over);
        over.into_iter()
            .any(|update| update.status.state.is_terminal())
    }

    fn send(&mut self, retry: Duration) -> Vec<Effect> {
        let Some(mut head) = self.made.get(self.over).cloned() else {
            return Vec::new();
        };
        head.latest_state = self.made.last().map(|last| last.status.state);
        self.timer += 1;
        self.retry = retry;
        let (after, number) = (retry, self.timer);
        vec![
            Effect::Forward(Box::new(head)),
            Effect::Arm { after, number },
        ]
    }

    fn step(&mut self, input: Input) -> Vec<Effect> {
        if self.finished() {
            return Vec::new();
        }
        let mut effects = Vec::new();
        match input {
            Input::Updated(update) => {
                if !self.made.iter().any(|made| made.uuid == update.uuid) {
                    self.made.push((*update).clone());
                    effects.push(Effect::Checkpoint(Record::Updated(update)));
                    if !self.paused && self.made.len() == self.over + 1 {
                        effects.extend(self.send(FIRST_RETRY));
                    }
                }
            }
            Input::Acknowledged(uuid) => {
                if self
                    .made
                    .get(self.over)
                    .is_some_and(|head| head.uuid == Some(uuid))
                {
                    self.over += 1;
                    if self.finished() {
                        effects.push(Effect::Finished);
                    } else {
                        let update = Box::new(self.made[self.over - 1].clone());
                        let forgotten = None;
                        let record = Record::Acknowledged { update, forgotten };
                        effects.push(Effect::Checkpoint(record));
                        if !self.paused {
                            effects.extend(self.send(FIRST_RETRY));
                        }
                    }
                }
            }
            Input::RetryDue(number) => {
                if number == self.timer && !self.paused {
                    effects = self.send(LONGEST_RETRY.min(self.retry * 2));
                }
            }
            Input::Pause => self.paused = true,
            Input::Resume => {
                self.paused = false;
                effects = self.send(FIRST_RETRY);
            }
        }
        effects
    }
}

proptest! {
    /// Whatever comes in whatever order, the stream does what the model does.
    #[test]
    fn any_mix_of_events_does_what_a_plain_model_does(
        start in any::<bool>(),
        steps in proptest::collection::vec((0u8..8, any::<u8>()), 0..150),
    ) {
        let mut stream = Stream::new(start);
        let mut model = Model { paused: start, ..Model::default() };
        for (kind, n) in steps {
            let head = model.made.get(model.over).map_or(n, number);
            let input = match kind {
                0 | 1 => updated(n % 60),
                2 => acknowledged(n % 60),
                3 | 4 => acknowledged(head),
                5 => Input::RetryDue(model.timer.saturating_sub(u64::from(n % 3))),
                6 => Input::Pause,
                _ => Input::Resume,
            };
            let expected = model.step(input.clone());
            prop_assert_eq!(stream.step(input), expected);
            let waiting = if model.finished() { 0 } else { model.made.len() - model.over };
            prop_assert_eq!(stream.len(), waiting);
        }
    }

    /// With a master and a framework that never answers, the head is sent again and again, after 10 minutes at most,
    /// for ever.
    #[test]
    fn an_update_that_nobody_acknowledges_is_never_given_up(times in 1u64..200) {
        let mut stream = Stream::new(false);
        stream.step(updated(1));
        for n in 1..=times {
            let seconds = 10u64.saturating_mul(1 << n.min(10)).min(600);
            prop_assert_eq!(shown(&stream.step(Input::RetryDue(n))), format!("1 ({seconds})"));
        }
    }
}
