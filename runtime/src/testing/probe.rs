//! A probe: a process that a test plays itself. It takes messages of every kind and does nothing on its own.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::LIMIT;
use super::filters::{Event, What};
use super::pattern::{Exited, Observed};
use crate::clock::Time;
use crate::context::{Effect, Reserved};
use crate::host::{Factory, Hosted, Turn};
use crate::http::Response;
use crate::links::ExitReason;
use crate::message::{Ask, Correlation, Envelope, Kind, Message, Parcel, Payload};
use crate::node::{NodeHandle, Placement, SpawnError};
use crate::pid::Pid;
use crate::process::Profile;

/// What came to a probe and has not been looked at.
#[derive(Default)]
struct Desk {
    events: Mutex<VecDeque<Event>>,
    arrived: Condvar,
}

struct ProbeCell {
    me: Pid,
    desk: Arc<Desk>,
}

impl Hosted for ProbeCell {
    fn turn(&mut self, turn: Turn, _: Time, effects: &mut Vec<Effect>) {
        let (from, what) = match turn {
            Turn::Message(mail) => {
                let what = What::of(&mail, None);
                (mail.from, what)
            }
            Turn::Exited(pid, reason) => (pid, Some(What::Exited(reason))),
            Turn::Http(_, responder) => {
                let missing = Response::text(404, "404 Not Found.");
                effects.push(Effect::Respond(responder, missing));
                return;
            }
            Turn::Start | Turn::Timer(_) | Turn::OpDone(..) | Turn::AskFailed(..) => return,
        };
        if let Some(what) = what {
            let to = self.me.clone();
            let mut events = self.desk.events.lock();
            events.push_back(Event { from, to, what });
            self.desk.arrived.notify_all();
        }
    }

    // What a probe asks has no deadline here: the test waits for it itself.
    fn waits_for(&self, _: u64) -> bool {
        false
    }

    fn open_asks(&self) -> usize {
        0
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A process that the test plays itself: it sends, asks, answers and links in its name, and looks at what came, in
/// the order in which it came. Clones are the same probe.
///
/// Calls that await something settle a paused clock first, and on a live one block for up to [`LIMIT`]; they fail the
/// test when it does not come. None may be made on a node's own thread.
#[derive(Clone)]
pub struct Probe {
    node: NodeHandle,
    pid: Pid,
    desk: Arc<Desk>,
    /// Names of the kinds that the test has spoken of, for a failure's text.
    names: Arc<Mutex<BTreeMap<Kind, &'static str>>>,
}

/// A message that came to a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received<M> {
    /// Who sent it.
    pub from: Pid,
    /// The message.
    pub message: M,
}

/// A request that came to a probe and wants an answer.
#[must_use = "the asker waits for an answer"]
pub struct Asked<M> {
    /// Who asks.
    pub from: Pid,
    /// The request.
    pub message: M,
    probe: Probe,
    number: u64,
}

impl<M: Ask> Asked<M> {
    /// Answers it.
    pub fn reply(self, answer: M::Reply) {
        let number = Correlation::Answer(self.number);
        self.probe.deliver(&self.from, answer, number);
    }
}

/// The answer to what a probe has asked.
#[must_use = "wait for the answer, or for its absence"]
pub struct Answer<R> {
    probe: Probe,
    number: u64,
    reply: PhantomData<fn() -> R>,
}

impl<R: Message> Answer<R> {
    /// Waits for the answer.
    ///
    /// # Panics
    /// When none comes, or one that does not decode.
    #[track_caller]
    pub fn wait(self) -> R {
        let number = Correlation::Answer(self.number);
        let mine = |event: &Event| match &event.what {
            What::Message { correlation, .. } => *correlation == number,
            What::Exited(_) => false,
        };
        let find = |events: &VecDeque<Event>| events.iter().position(mine);
        let what = || format!("the answer {}", R::NAME);
        let event = self.probe.take(Duration::ZERO, &what, find);
        self.probe.read(&event)
    }
}

impl Probe {
    pub(super) fn start(node: &NodeHandle, id: &str) -> Result<Self, SpawnError> {
        let home = node.home();
        let reserved = Reserved::take(&home, id, Profile::of_a_probe(), Placement::Near)?;
        let pid = reserved.pid().clone();
        let desk = Arc::new(Desk::default());
        let (me, its_desk) = (pid.clone(), Arc::clone(&desk));
        let cell = move || Box::new(ProbeCell { me, desk: its_desk }) as Box<dyn Hosted>;
        if !node.start(reserved, Factory::hosting(cell)) {
            return Err(SpawnError::NodeDown);
        }
        Ok(Self {
            node: node.clone(),
            pid,
            desk,
            names: Arc::default(),
        })
    }

    /// Its PID.
    pub fn pid(&self) -> &Pid {
        &self.pid
    }

    /// Sends a message in its name.
    pub fn send<M: Message>(&self, to: &Pid, message: M) {
        self.deliver(to, message, Correlation::None);
    }

    /// Asks in its name. There is no time limit but that of [`Answer::wait`].
    pub fn ask<M: Ask>(&self, to: &Pid, message: M) -> Answer<M::Reply> {
        let number = self.node.home().next_ask();
        self.deliver(to, message, Correlation::Request(number));
        Answer {
            probe: self.clone(),
            number,
            reply: PhantomData,
        }
    }

    /// Answers a request in its name, also one that another probe got or that was answered before; what the asker makes
    /// of that is for the test to see.
    pub fn answer<M: Ask>(&self, question: &Asked<M>, answer: M::Reply) {
        let number = Correlation::Answer(question.number);
        self.deliver(&question.from, answer, number);
    }

    /// Links it to another process: the notice comes to [`Probe::expect_exited`].
    pub fn link(&self, pid: &Pid) {
        self.node.link(&self.pid, pid.clone());
    }

    /// Takes a link back.
    pub fn unlink(&self, pid: &Pid) {
        self.node.unlink(&self.pid, pid.clone());
    }

    /// Ends it with this reason, after what is under way to it, so that those linked to it hear of it. Settles a paused
    /// clock before and after.
    pub fn end(&self, reason: ExitReason) {
        self.node.clock().settle();
        self.node.terminate(&self.pid, reason);
        self.node.clock().settle();
    }

    /// The next thing that came, which must be an `M`.
    ///
    /// # Panics
    /// When nothing comes, or something else.
    #[track_caller]
    pub fn expect<M: Message>(&self) -> Received<M> {
        self.expect_within(Duration::ZERO)
    }

    /// As [`Probe::expect`]; a paused clock is advanced from timer to timer until something comes, at most by `by`.
    ///
    /// # Panics
    /// As [`Probe::expect`].
    #[track_caller]
    pub fn expect_within<M: Message>(&self, by: Duration) -> Received<M> {
        let event = self.next(by, &M::name);
        let message = self.read(&event);
        let from = event.from;
        Received { from, message }
    }

    /// The next thing that came, which must be a request `M`, to be answered.
    ///
    /// # Panics
    /// When nothing comes, or something else, or an `M` that wants no answer.
    #[track_caller]
    pub fn expect_asked<M: Ask>(&self) -> Asked<M> {
        let event = self.next(Duration::ZERO, &M::name);
        let message = self.read(&event);
        let number = match &event.what {
            What::Message {
                correlation: Correlation::Request(number),
                ..
            } => *number,
            What::Message { .. } | What::Exited(_) => {
                self.fail(&format!("awaited a request, but {event} wants no answer"))
            }
        };
        Asked {
            from: event.from,
            message,
            probe: self.clone(),
            number,
        }
    }

    /// The next thing that came, which must be the notice that `pid` has ended; returns the reason.
    ///
    /// # Panics
    /// When nothing comes, or something else.
    #[track_caller]
    pub fn expect_exited(&self, pid: &Pid) -> ExitReason {
        self.expect_exited_within(pid, Duration::ZERO)
    }

    /// As [`Probe::expect_exited`]; a paused clock is advanced from timer to timer until something comes, at most by
    /// `by`.
    ///
    /// # Panics
    /// As [`Probe::expect_exited`].
    #[track_caller]
    pub fn expect_exited_within(&self, pid: &Pid, by: Duration) -> ExitReason {
        let event = self.next(by, &|| format!("the exit of {pid}"));
        match Exited::read(&event) {
            Some(exited) if event.from == *pid => exited.reason,
            _ => self.fail(&format!("awaited the exit of {pid}, but got {event}")),
        }
    }

    /// The first `M` among what came; what came before it stays.
    ///
    /// # Panics
    /// When none comes.
    #[track_caller]
    pub fn find<M: Message>(&self) -> Received<M> {
        self.find_within(Duration::ZERO)
    }

    /// As [`Probe::find`]; a paused clock is advanced from timer to timer until one comes, at most by `by`.
    ///
    /// # Panics
    /// As [`Probe::find`].
    #[track_caller]
    pub fn find_within<M: Message>(&self, by: Duration) -> Received<M> {
        let find = |events: &VecDeque<Event>| events.iter().position(is::<M>);
        let event = self.take(by, &M::name, find);
        let message = self.read(&event);
        let from = event.from;
        Received { from, message }
    }

    /// All `M` that came so far, taken out in order; everything else stays. Settles a paused clock and never blocks
    /// on a live one.
    pub fn all<M: Message>(&self) -> Vec<Received<M>> {
        self.node.clock().settle();
        let mut events = self.desk.events.lock();
        let (mine, others): (Vec<Event>, Vec<Event>) = events.drain(..).partition(is::<M>);
        events.extend(others);
        drop(events);
        mine.into_iter()
            .map(|event| Received {
                message: self.read(&event),
                from: event.from,
            })
            .collect()
    }

    /// Everything that came so far, taken out in order. Settles a paused clock and never blocks on a live one.
    pub fn everything(&self) -> Vec<Event> {
        self.node.clock().settle();
        self.desk.events.lock().drain(..).collect()
    }

    /// Makes sure that nothing has come that was not looked at. Settles a paused clock; on a live one it cannot know
    /// what is under way.
    ///
    /// # Panics
    /// When something has come.
    #[track_caller]
    pub fn expect_nothing(&self) {
        self.node.clock().settle();
        let events = self.desk.events.lock().clone();
        if !events.is_empty() {
            self.fail(&format!("awaited nothing, but got{}", self.list(&events)));
        }
    }

    fn deliver<M: Message>(&self, to: &Pid, message: M, correlation: Correlation) {
        let envelope = Envelope {
            to: to.clone(),
            from: self.pid.clone(),
            kind: Kind::of::<M>(),
            correlation,
            payload: Payload::Local(Parcel::new(message)),
        };
        // What is dropped is counted and logged by the node, as for any process.
        let _dropped_is_fine = self.node.deliver(envelope);
    }

    #[track_caller]
    fn next(&self, by: Duration, what: &dyn Fn() -> String) -> Event {
        self.take(by, what, |events| (!events.is_empty()).then_some(0))
    }

    /// Takes out the event that `find` points at, and waits until it points at one.
    #[track_caller]
    fn take(
        &self,
        by: Duration,
        what: &dyn Fn() -> String,
        find: impl Fn(&VecDeque<Event>) -> Option<usize>,
    ) -> Event {
        let clock = self.node.clock();
        if clock.is_paused() {
            clock.advance_until(by, || find(&self.desk.events.lock()).is_some());
        }
        let mut events = self.desk.events.lock();
        if !clock.is_paused() {
            // Whether it timed out shows in what follows.
            let _outcome = self.desk.arrived.wait_while_for(
                &mut events,
                |events| find(events).is_none(),
                LIMIT,
            );
        }
        match find(&events).and_then(|at| events.remove(at)) {
            Some(event) => event,
            None => {
                let rest = events.clone();
                drop(events);
                self.fail(&format!("awaited {}; has{}", what(), self.list(&rest)))
            }
        }
    }

    #[track_caller]
    fn read<M: Message>(&self, event: &Event) -> M {
        self.names.lock().insert(Kind::of::<M>(), M::NAME);
        M::read(event).unwrap_or_else(|| {
            self.fail(&format!("awaited {}, but got {}", M::NAME, self.say(event)))
        })
    }

    fn say(&self, event: &Event) -> String {
        match &event.what {
            What::Message { kind, .. } => match self.names.lock().get(kind) {
                Some(name) => event.to_string().replacen(event.what.name(), name, 1),
                None => event.to_string(),
            },
            What::Exited(_) => event.to_string(),
        }
    }

    fn list(&self, events: &VecDeque<Event>) -> String {
        if events.is_empty() {
            return " nothing".to_owned();
        }
        let lines = events
            .iter()
            .map(|event| format!("\n  {}", self.say(event)));
        lines.collect()
    }

    #[expect(
        clippy::panic,
        reason = "a broken expectation fails the test that set it"
    )]
    #[track_caller]
    fn fail(&self, text: &str) -> ! {
        panic!("probe {}: {text}", self.pid)
    }
}

fn is<M: Message>(event: &Event) -> bool {
    match &event.what {
        What::Message { kind, .. } => *kind == Kind::of::<M>(),
        What::Exited(_) => false,
    }
}
