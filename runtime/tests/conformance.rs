//! The live host and the simulated one keep the same rules: each scenario of a table runs on both, and what its
//! processes see is the same, and what the table says. In simulation each runs under many seeds.
//!
//! A process's own sight of things is compared, in order; between processes there is no order. No faults: what may go
//! wrong differs, and is held to `docs/delivery.md` by the tests of each host.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, and processes panic when told to"
)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use meseta_runtime::sim::{NodeSettings, Sim};
use meseta_runtime::transport::memory::MemoryNetwork;
use meseta_runtime::{
    Ask, Clock, Context, ExitReason, Gate, Message, Node, Op, Pid, Process, Receive, Routes,
};
use serde::{Deserialize, Serialize};

const SECOND: Duration = Duration::from_secs(1);
/// Asks that one process may have open.
const MAX_ASKS: usize = 3;
const SEEDS: u64 = 30;

/// What a process is told to do, in one turn and in this order. Others are named by their ids.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Act {
    Note {
        to: String,
        text: String,
    },
    /// Has another process do something.
    Tell {
        to: String,
        acts: Vec<Act>,
    },
    Wake {
        ms: u64,
        text: String,
    },
    /// A timer that is taken back in the same turn.
    Doze,
    Ask {
        to: String,
        number: u64,
        ms: u64,
    },
    Link {
        to: String,
    },
    Unlink {
        to: String,
    },
    Spawn {
        id: String,
        panics: bool,
    },
    Terminate {
        id: String,
    },
    /// An operation that takes a while; with its outcome `then` is done.
    Run {
        text: String,
        held: bool,
        then: Vec<Act>,
    },
    Stop,
    Fail {
        text: String,
    },
    Panic {
        text: String,
    },
}
use Act::{Doze, Stop};

fn note(to: &str, text: &str) -> Act {
    let (to, text) = (to.to_owned(), text.to_owned());
    Act::Note { to, text }
}
fn tell(to: &str, acts: Vec<Act>) -> Act {
    Act::Tell {
        to: to.to_owned(),
        acts,
    }
}
fn wake(ms: u64, text: &str) -> Act {
    Act::Wake {
        ms,
        text: text.to_owned(),
    }
}
fn ask(to: &str, number: u64, ms: u64) -> Act {
    Act::Ask {
        to: to.to_owned(),
        number,
        ms,
    }
}
fn link(to: &str) -> Act {
    Act::Link { to: to.to_owned() }
}
fn unlink(to: &str) -> Act {
    Act::Unlink { to: to.to_owned() }
}
fn spawn(id: &str) -> Act {
    Act::Spawn {
        id: id.to_owned(),
        panics: false,
    }
}
fn spawn_panicking(id: &str) -> Act {
    Act::Spawn {
        id: id.to_owned(),
        panics: true,
    }
}
fn terminate(id: &str) -> Act {
    Act::Terminate { id: id.to_owned() }
}
fn run(text: &str, then: Vec<Act>) -> Act {
    Act::Run {
        text: text.to_owned(),
        held: false,
        then,
    }
}
fn run_held(text: &str, then: Vec<Act>) -> Act {
    Act::Run {
        text: text.to_owned(),
        held: true,
        then,
    }
}
fn fail(text: &str) -> Act {
    Act::Fail {
        text: text.to_owned(),
    }
}
fn panic(text: &str) -> Act {
    Act::Panic {
        text: text.to_owned(),
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Do {
    acts: Vec<Act>,
}
impl Message for Do {
    const NAME: &'static str = "test.Do";
}
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Note {
    text: String,
}
impl Message for Note {
    const NAME: &'static str = "test.Note";
}
/// Even numbers are answered.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Question {
    number: u64,
}
impl Message for Question {
    const NAME: &'static str = "test.Question";
}
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Answer {
    number: u64,
}
impl Message for Answer {
    const NAME: &'static str = "test.Answer";
}
impl Ask for Question {
    type Reply = Answer;
}

struct Slow(String);
impl Op for Slow {
    type Out = String;
}

/// What each process has seen, by its id.
type Sight = BTreeMap<String, Vec<String>>;

/// What all processes of a run share: where others are, and what was seen.
#[derive(Clone, Default)]
struct World {
    pids: Arc<Mutex<BTreeMap<String, Pid>>>,
    sight: Arc<Mutex<Sight>>,
}

struct Subject {
    id: String,
    world: World,
}

impl Subject {
    fn see(&self, what: &str) {
        let mut sight = self.world.sight.lock().unwrap();
        sight
            .entry(self.id.clone())
            .or_default()
            .push(what.to_owned());
    }

    fn pid(&self, id: &str) -> Pid {
        self.world.pids.lock().unwrap()[id].clone()
    }

    fn act(&self, cx: &mut Context<'_, Self>, act: Act) {
        match act {
            Act::Note { to, text } => cx.send(&self.pid(&to), Note { text }),
            Act::Tell { to, acts } => cx.send(&self.pid(&to), Do { acts }),
            Act::Wake { ms, text } => {
                let since = cx.now();
                cx.after(Duration::from_millis(ms), move |subject, cx| {
                    let took = cx.now().since(since);
                    subject.see(&format!("{text} after {took:?}"));
                });
            }
            Doze => {
                let timer = cx.after(Duration::from_millis(1), |subject, _| subject.see("never"));
                cx.cancel(timer);
            }
            Act::Ask { to, number, ms } => {
                let limit = Duration::from_millis(ms);
                cx.ask(
                    &self.pid(&to),
                    Question { number },
                    limit,
                    move |subject, _, answer| {
                        subject.see(&match answer {
                            Ok(answer) => format!("{number} is answered {}", answer.number),
                            Err(error) => format!("{number} is not answered: {error:?}"),
                        });
                    },
                );
            }
            Act::Link { to } => cx.link(&self.pid(&to)),
            Act::Unlink { to } => cx.unlink(&self.pid(&to)),
            Act::Spawn { id, panics } => {
                let (named, world) = (id.clone(), self.world.clone());
                let spawned = cx.spawn(&id, move || {
                    assert!(!panics, "not made");
                    Self { id: named, world }
                });
                match spawned {
                    Ok(pid) => drop(self.world.pids.lock().unwrap().insert(id, pid)),
                    Err(_) => self.see(&format!("{id} is taken")),
                }
            }
            Act::Terminate { id } => cx.terminate(&self.pid(&id)),
            Act::Run { text, held, then } => {
                let gate = if held {
                    Gate::HoldUser
                } else {
                    Gate::Interleave
                };
                cx.run(Slow(text), gate, move |subject, cx, text| {
                    subject.see(&format!("did {text}"));
                    subject.all(cx, then);
                });
            }
            Stop => cx.stop(),
            Act::Fail { text } => cx.fail(text),
            Act::Panic { text } => panic!("{text}"),
        }
    }

    fn all(&self, cx: &mut Context<'_, Self>, acts: Vec<Act>) {
        for act in acts {
            self.act(cx, act);
        }
    }
}

impl Process for Subject {
    fn routes(routes: &mut Routes<Self>) {
        routes.on::<Do>().on::<Note>().on::<Question>();
    }
    fn start(&mut self, _: &mut Context<'_, Self>) {
        self.see("start");
    }
    fn exited(&mut self, _: &mut Context<'_, Self>, pid: &Pid, reason: ExitReason) {
        self.see(&format!("{} ended: {reason:?}", pid.id()));
    }
}
impl Receive<Do> for Subject {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, told: Do) {
        self.all(cx, told.acts);
    }
}
impl Receive<Note> for Subject {
    fn receive(&mut self, _: &mut Context<'_, Self>, from: &Pid, note: Note) {
        self.see(&format!("{} from {}", note.text, from.id()));
    }
}
impl Receive<Question> for Subject {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, question: Question) {
        if question.number.is_multiple_of(2) {
            let number = question.number / 2;
            cx.reply(Answer { number });
        }
    }
}

/// One thing after the other: who is told what, each a second after the last.
type Script = Vec<(&'static str, Vec<Act>)>;

/// Processes at the start: `one` and `two` on one node, `far` on another. Nobody is `nobody`.
const THERE: [(&str, usize); 3] = [("one", 0), ("two", 0), ("far", 1)];

fn live(script: &Script) -> Sight {
    let (clock, network, world) = (Clock::paused(), MemoryNetwork::new(7), World::default());
    let node = || {
        let builder = Node::builder().memory(&network).clock(clock.clone());
        let builder = builder.max_asks(MAX_ASKS).op(|slow: Slow| async move {
            // As long as others have something to do.
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            slow.0
        });
        builder.start().unwrap()
    };
    let nodes = [node(), node()];
    for (id, at) in THERE {
        let subject = Subject {
            id: id.to_owned(),
            world: world.clone(),
        };
        let pid = nodes[at].spawn(id, move || subject).unwrap();
        world.pids.lock().unwrap().insert(id.to_owned(), pid);
    }
    let nobody = nodes[0].pid("nobody").unwrap();
    world
        .pids
        .lock()
        .unwrap()
        .insert("nobody".to_owned(), nobody);
    clock.advance(SECOND);
    for (who, acts) in script {
        let pid = world.pids.lock().unwrap()[*who].clone();
        nodes[0].send(&pid, Do { acts: acts.clone() });
        clock.settle();
        clock.advance(SECOND);
    }
    // Before the nodes are shut down, which processes may see too.
    let sight = world.sight.lock().unwrap().clone();
    for node in nodes {
        node.shutdown();
    }
    sight
}

fn simulated(script: &Script, seed: u64) -> Sight {
    let (mut sim, world) = (Sim::new(seed), World::default());
    sim.model(|sim, _, slow: Slow, reply| {
        sim.answer(reply, Duration::from_millis(50), slow.0);
    });
    let nodes = [0, 1].map(|at| {
        let (name, world) = (format!("node{at}"), world.clone());
        let settings = NodeSettings::new(&name, "node").max_asks(MAX_ASKS);
        sim.add(settings, move |boot| {
            for (id, _) in THERE.iter().filter(|(_, of)| *of == at) {
                let subject = Subject {
                    id: (*id).to_owned(),
                    world: world.clone(),
                };
                boot.spawn(id, subject);
                let pid = boot.pid(id);
                world.pids.lock().unwrap().insert((*id).to_owned(), pid);
            }
        })
    });
    let nobody = sim.pid(nodes[0], "nobody");
    world
        .pids
        .lock()
        .unwrap()
        .insert("nobody".to_owned(), nobody);
    sim.run_for(SECOND).unwrap();
    for (who, acts) in script {
        let pid = world.pids.lock().unwrap()[*who].clone();
        sim.send(nodes[0], &pid, Do { acts: acts.clone() });
        sim.run_for(SECOND).unwrap();
    }
    world.sight.lock().unwrap().clone()
}

/// What `who` sees on both hosts, without its start.
#[track_caller]
fn both(script: &Script, who: &str, sees: &[&str]) {
    let on_live = live(script);
    let of = |sight: &Sight| {
        let all = sight.get(who).map(Vec::as_slice).unwrap_or_default();
        all.iter()
            .filter(|what| *what != "start")
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(of(&on_live), sees, "{who} on the live host");
    for seed in 0..SEEDS {
        let sight = simulated(script, seed);
        assert_eq!(of(&sight), sees, "{who} in simulation, seed {seed}");
        assert_eq!(
            sight, on_live,
            "simulation and live host differ, seed {seed}"
        );
    }
}

#[test]
fn a_spawned_process_starts_under_a_free_name_and_can_be_terminated() {
    let script = vec![
        (
            "one",
            vec![
                spawn("child"),
                link("child"),
                spawn("child"),
                note("child", "a"),
            ],
        ),
        ("one", vec![terminate("child"), note("child", "b")]),
        ("one", vec![spawn("child"), note("child", "c")]),
    ];
    both(
        &script,
        "one",
        &["child is taken", "child ended: Terminated"],
    );
    both(&script, "child", &["a from one", "c from one"]);
}

#[test]
fn a_constructor_that_panics_ends_its_process_only() {
    let script = vec![
        ("one", vec![spawn_panicking("child"), note("two", "a")]),
        ("one", vec![link("child"), note("two", "b")]),
        ("one", vec![spawn("child")]),
        ("child", vec![note("two", "c")]),
    ];
    both(&script, "one", &["child ended: NoProcess"]);
    both(
        &script,
        "two",
        &["a from one", "b from one", "c from child"],
    );
}

#[test]
fn messages_of_a_pair_arrive_in_the_order_sent() {
    for to in ["two", "far"] {
        let texts: Vec<String> = (0..50).map(|n| n.to_string()).collect();
        let notes = texts.iter().map(|text| note(to, text)).collect();
        let seen: Vec<String> = texts
            .iter()
            .map(|text| format!("{text} from one"))
            .collect();
        let seen: Vec<&str> = seen.iter().map(String::as_str).collect();
        both(&vec![("one", notes)], to, &seen);
    }
}

#[test]
fn timers_run_at_their_times_unless_taken_back() {
    let script = vec![(
        "one",
        vec![
            wake(300, "third"),
            wake(100, "first"),
            Doze,
            wake(200, "second"),
        ],
    )];
    let seen = [
        "first after 100ms",
        "second after 200ms",
        "third after 300ms",
    ];
    both(&script, "one", &seen);
}

#[test]
fn an_ask_ends_once_with_an_answer_or_with_why_there_is_none() {
    let script = vec![
        ("one", vec![ask("two", 2, 500), wake(100, "later")]),
        ("one", vec![ask("far", 4, 500)]),
        ("one", vec![ask("two", 1, 500)]),
        ("one", vec![ask("nobody", 6, 500)]),
        ("one", vec![ask("two", 3, 500), tell("two", vec![Stop])]),
    ];
    let seen = [
        "2 is answered 1",
        "later after 100ms",
        "4 is answered 2",
        "1 is not answered: TimedOut",
        "6 is not answered: Undelivered",
        "3 is not answered: TimedOut",
    ];
    both(&script, "one", &seen);
}

#[test]
fn one_ask_more_than_may_be_open_fails_at_once() {
    let asks = (1..=5).map(|n| ask("two", 2 * n - 1, 500 + n)).collect();
    let script = vec![("one", asks), ("one", vec![ask("two", 8, 500)])];
    let seen = [
        "7 is not answered: TooMany",
        "9 is not answered: TooMany",
        "1 is not answered: TimedOut",
        "3 is not answered: TimedOut",
        "5 is not answered: TimedOut",
        "8 is answered 4",
    ];
    both(&script, "one", &seen);
}

#[test]
fn a_link_tells_once_why_the_other_ended_and_after_its_last_message() {
    for other in ["two", "far"] {
        for (end, reason) in [(Stop, "Normal"), (fail("why"), "Failed(\"why\")")] {
            let script = vec![
                ("one", vec![link(other), link(other)]),
                (other, vec![note("one", "last"), end]),
                ("one", vec![link(other)]),
            ];
            let seen = [
                format!("last from {other}"),
                format!("{other} ended: {reason}"),
                format!("{other} ended: NoProcess"),
            ];
            both(&script, "one", &seen.each_ref().map(String::as_str));
        }
    }
}

#[test]
fn a_panic_ends_its_process_and_takes_back_what_its_turn_has_sent() {
    for other in ["two", "far"] {
        let script = vec![
            ("one", vec![link(other)]),
            (other, vec![note("one", "lost"), panic("oh")]),
        ];
        let seen = format!("{other} ended: Panic(\"oh\")");
        both(&script, "one", &[&seen]);
    }
}

#[test]
fn after_an_unlink_nothing_is_told() {
    for other in ["two", "far"] {
        let script = vec![
            ("one", vec![link(other), unlink(other)]),
            (other, vec![Stop]),
        ];
        both(&script, "one", &[]);
    }
}

#[test]
fn a_stop_drops_what_is_left_of_its_turn_and_of_the_mailbox() {
    let script = vec![(
        "one",
        vec![
            tell(
                "two",
                vec![note("one", "before"), Stop, note("one", "after")],
            ),
            tell("two", vec![note("one", "too late")]),
        ],
    )];
    both(&script, "one", &["before from two"]);
}

#[test]
fn an_operation_under_the_gate_holds_messages_and_effects_until_its_outcome() {
    let script = vec![(
        "two",
        vec![
            tell(
                "one",
                vec![
                    note("far", "before"),
                    run_held("work", vec![note("far", "with the outcome")]),
                    note("far", "after"),
                    ask("two", 2, 500),
                ],
            ),
            note("one", "a"),
            note("one", "b"),
        ],
    )];
    let seen = ["did work", "a from two", "b from two", "2 is answered 1"];
    both(&script, "one", &seen);
    let seen = [
        "before from one",
        "after from one",
        "with the outcome from one",
    ];
    both(&script, "far", &seen);
}

#[test]
fn control_events_go_on_under_the_gate_but_their_effects_wait() {
    let script = vec![(
        "two",
        vec![
            tell(
                "one",
                vec![ask("nobody", 2, 500), run_held("work", Vec::new())],
            ),
            note("one", "a"),
        ],
    )];
    let seen = ["2 is not answered: Undelivered", "did work", "a from two"];
    both(&script, "one", &seen);
}

#[test]
fn one_gate_follows_another_in_the_order_begun() {
    let script = vec![(
        "two",
        vec![
            tell(
                "one",
                vec![
                    run_held("first", vec![run_held("third", Vec::new())]),
                    run_held("second", Vec::new()),
                    note("far", "end"),
                ],
            ),
            note("one", "a"),
        ],
    )];
    both(
        &script,
        "one",
        &["did first", "did second", "did third", "a from two"],
    );
    both(&script, "far", &["end from one"]);
}

#[test]
fn a_stop_with_the_outcome_drops_what_waited_for_it() {
    let script = vec![(
        "two",
        vec![
            link("one"),
            tell(
                "one",
                vec![
                    run_held("work", vec![note("far", "last"), Stop]),
                    note("far", "never"),
                ],
            ),
        ],
    )];
    both(&script, "far", &["last from one"]);
    both(&script, "two", &["one ended: Normal"]);
}

#[test]
fn an_operation_without_a_gate_lets_messages_pass() {
    let script = vec![(
        "two",
        vec![
            tell("one", vec![run("work", Vec::new()), note("far", "at once")]),
            note("one", "a"),
        ],
    )];
    both(&script, "one", &["a from two", "did work"]);
    both(&script, "far", &["at once from one"]);
}
