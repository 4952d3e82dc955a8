//! Filters: what a test does to the events of a node before its actors see them.
//!
//! They stand where an event has left its mailbox and its handler has not run yet, so they see what the actor would
//! have seen, in its order. Filters are asked in the order in which they were set; the first that matches takes the
//! event, and whatever it lets through goes on to those set after it. The invariant that keeps mailboxes consistent:
//! for each event that waits here for its turn (released or doubled) one `Nudge` waits in the mailbox of its process.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::Notify;
use tracing::warn;

use crate::inbox::{Inbox, User};
use crate::links::ExitReason;
use crate::message::{Correlation, Kind, Mail, Payload};
use crate::pid::Pid;

/// How many of the latest events are remembered, to say what came instead of what was awaited.
const REMEMBERED: usize = 32;

/// What the filters of a node look at: one message or one exit notice that an actor is about to get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Sender; of an exit notice the process that has ended.
    pub from: Pid,
    /// The actor that would handle it.
    pub to: Pid,
    /// What it is.
    pub what: What,
}

/// Content of an [`Event`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A message.
    Message {
        /// Its kind.
        kind: Kind,
        /// Its wire name, where the receiver or the value knows it, else the kind's number.
        name: String,
        /// Whether it asks or answers.
        correlation: Correlation,
        /// Its body in wire form, as MessagePack.
        body: Bytes,
    },
    /// An exit notice.
    Exited(ExitReason),
}

impl What {
    /// A message in a mailbox. `name` is for one that came in wire form. `None` when it does not encode.
    pub(super) fn of(mail: &Mail, name: Option<&'static str>) -> Option<Self> {
        let (name, body) = match &mail.payload {
            Payload::Local(parcel) => match parcel.encode() {
                Ok(body) => (parcel.name().to_owned(), Bytes::from(body)),
                Err(error) => {
                    warn!(message = parcel.name(), %error, "no test sees a message that does not encode");
                    return None;
                }
            },
            Payload::Wire(body) => {
                let number = || format!("kind {:#010x}", mail.kind.0);
                (name.map_or_else(number, str::to_owned), body.clone())
            }
        };
        Some(Self::Message {
            kind: mail.kind,
            name,
            correlation: mail.correlation,
            body,
        })
    }

    /// Wire name of a message; empty for an exit notice.
    pub fn name(&self) -> &str {
        match self {
            Self::Message { name, .. } => name,
            Self::Exited(_) => "",
        }
    }
}

impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.what {
            What::Message {
                name, correlation, ..
            } => {
                let form = match correlation {
                    Correlation::None => "",
                    Correlation::Request(_) => " (asked)",
                    Correlation::Answer(_) => " (answer)",
                };
                write!(f, "{name}{form} from {} to {}", self.from, self.to)
            }
            What::Exited(reason) => {
                write!(f, "exit of {} ({reason:?}) to {}", self.from, self.to)
            }
        }
    }
}

/// What a filter does with an event that it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Watch,
    Drop,
    Hold,
    Duplicate,
}

pub(super) type Matcher = Box<dyn FnMut(&Event) -> bool + Send>;

/// Names a filter; later ones are greater.
pub(super) type FilterId = u64;

struct Filter {
    id: FilterId,
    matches: Matcher,
    action: Action,
    /// Takes one event only.
    once: bool,
    /// Looks at every event without taking it.
    aside: bool,
    taken: Vec<Event>,
    held: Vec<(Arc<Inbox>, User)>,
}

/// An event that waits for its turn at an actor: released, doubled, or come after such a one.
struct Waiting {
    inbox: Arc<Inbox>,
    event: User,
    /// Only filters set after this one are asked.
    after: FilterId,
}

#[derive(Default)]
pub(super) struct State {
    filters: Vec<Filter>,
    next: FilterId,
    waiting: VecDeque<Waiting>,
    /// The latest events with their numbers and what became of them.
    seen: VecDeque<(u64, Event, &'static str)>,
    count: u64,
}

/// The filters of one node. Without any, an event costs one relaxed load.
#[derive(Default)]
pub(crate) struct Filters {
    active: AtomicBool,
    state: Mutex<State>,
    /// Told when a filter has taken an event.
    pub(super) taken: Condvar,
    pub(super) notify: Notify,
}

impl Filters {
    /// Whether events may have to be dropped, held or seen: without that, [`Filters::pass`] passes each as it is.
    ///
    /// The load may be relaxed: who sets a filter and then sends has stored the flag before the push, and the pop of
    /// what was pushed came before this load.
    #[inline]
    pub(crate) fn look_on(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    /// The event that the actor is to handle in place of this one, if any.
    pub(crate) fn pass(&self, inbox: &Arc<Inbox>, event: User) -> Option<User> {
        if self.look_on() {
            self.filter(inbox, event)
        } else {
            Some(event)
        }
    }

    #[cold]
    fn filter(&self, inbox: &Arc<Inbox>, event: User) -> Option<User> {
        let mut state = self.state.lock();
        let (event, after) = state.next_for(inbox, event)?;
        let passed = match describe(inbox, &event) {
            Some(described) => {
                let passed = state.judge(inbox, event, described, after);
                self.taken.notify_all();
                self.notify.notify_waiters();
                passed
            }
            None => Some(event),
        };
        self.refresh(&state);
        passed
    }

    fn refresh(&self, state: &State) {
        let active = !state.filters.is_empty() || !state.waiting.is_empty();
        self.active.store(active, Ordering::Relaxed);
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Sets a filter. `aside`: it sees all events and takes none.
    pub(super) fn set(
        &self,
        matches: Matcher,
        action: Action,
        once: bool,
        aside: bool,
    ) -> (FilterId, u64) {
        let mut state = self.state.lock();
        state.next += 1;
        let id = state.next;
        state.filters.push(Filter {
            id,
            matches,
            action,
            once,
            aside,
            taken: Vec::new(),
            held: Vec::new(),
        });
        self.refresh(&state);
        (id, state.count)
    }

    /// Removes a filter; what it holds is dropped.
    pub(super) fn remove(&self, id: FilterId) {
        let mut state = self.state.lock();
        state.filters.retain(|filter| filter.id != id);
        self.refresh(&state);
    }

    /// Removes a filter and lets what it holds go on to its actors, in the order in which it was taken.
    pub(super) fn release(&self, id: FilterId) {
        let mut state = self.state.lock();
        let Some(at) = state.filters.iter().position(|filter| filter.id == id) else {
            return;
        };
        for (inbox, event) in state.filters.remove(at).held {
            // Refused only when the process has ended, and then nobody is there to get it.
            if inbox.push(User::Nudge).is_ok() {
                let after = id;
                state.waiting.push_back(Waiting {
                    inbox,
                    event,
                    after,
                });
            }
        }
        self.refresh(&state);
    }
}

impl State {
    /// The event whose turn it is: what waits for this actor comes before what has just left its mailbox.
    fn next_for(&mut self, inbox: &Arc<Inbox>, event: User) -> Option<(User, FilterId)> {
        self.waiting.retain(|waiting| !waiting.inbox.is_closed());
        let mine = |waiting: &Waiting| Arc::ptr_eq(&waiting.inbox, inbox);
        let Some(first) = self.waiting.iter().position(mine) else {
            return Some((event, 0));
        };
        if !matches!(event, User::Nudge) {
            let inbox = Arc::clone(inbox);
            let after = 0;
            self.waiting.push_back(Waiting {
                inbox,
                event,
                after,
            });
        }
        let waiting = self.waiting.remove(first)?;
        Some((waiting.event, waiting.after))
    }

    fn judge(
        &mut self,
        inbox: &Arc<Inbox>,
        event: User,
        described: Event,
        after: FilterId,
    ) -> Option<User> {
        for filter in &mut self.filters {
            if filter.aside && after == 0 && (filter.matches)(&described) {
                filter.taken.push(described.clone());
            }
        }
        let taker = self.filters.iter_mut().position(|filter| {
            let open = !filter.aside && (!filter.once || filter.taken.is_empty());
            open && filter.id > after && (filter.matches)(&described)
        });
        let Some(filter) = taker.and_then(|at| self.filters.get_mut(at)) else {
            self.remember(described, "handled");
            return Some(event);
        };
        filter.taken.push(described.clone());
        let (id, action) = (filter.id, filter.action);
        match action {
            Action::Watch => {
                self.remember(described, "handled, awaited");
                Some(event)
            }
            Action::Drop => {
                self.remember(described, "dropped");
                None
            }
            Action::Hold => {
                filter.held.push((Arc::clone(inbox), event));
                self.remember(described, "held");
                None
            }
            Action::Duplicate => {
                // Both go on to the filters set after this one: the first now, the second as the next event.
                if let Some(copy) = copy_of(&event, &described)
                    && inbox.push(User::Nudge).is_ok()
                {
                    let inbox = Arc::clone(inbox);
                    let after = id;
                    self.waiting.push_front(Waiting {
                        inbox,
                        event: copy,
                        after,
                    });
                }
                self.judge(inbox, event, described, id)
            }
        }
    }

    fn remember(&mut self, event: Event, fate: &'static str) {
        self.count += 1;
        if self.seen.len() == REMEMBERED {
            self.seen.pop_front();
        }
        self.seen.push_back((self.count, event, fate));
    }

    /// What a filter has taken so far, in order.
    pub(super) fn taken(&self, id: FilterId) -> &[Event] {
        self.filters
            .iter()
            .find(|filter| filter.id == id)
            .map_or(&[], |filter| &filter.taken)
    }

    /// How many events a filter holds.
    pub(super) fn held(&self, id: FilterId) -> usize {
        let filter = self.filters.iter().find(|filter| filter.id == id);
        filter.map_or(0, |filter| filter.held.len())
    }

    /// The events since the one of this number, one a line, for a failure's text.
    pub(super) fn story(&self, since: u64) -> String {
        let lines: Vec<String> = self
            .seen
            .iter()
            .filter(|(number, _, _)| *number > since)
            .map(|(_, event, fate)| format!("\n  {event}: {fate}"))
            .collect();
        match lines.is_empty() {
            true => " nothing".to_owned(),
            false => lines.concat(),
        }
    }
}

/// What an event says, in a form that outlives it; `None` for what no filter looks at.
fn describe(inbox: &Inbox, event: &User) -> Option<Event> {
    let (from, what) = match event {
        User::Message(mail) => {
            let accepted = inbox.profile().accepts(mail.kind);
            let name = accepted.map(|known| known.name);
            (mail.from.clone(), What::of(mail, name)?)
        }
        User::Exited { pid, reason } => (pid.clone(), What::Exited(reason.clone())),
        User::Terminate(_) | User::Nudge => return None,
    };
    let to = inbox.pid();
    Some(Event { from, to, what })
}

/// The same event once more, in wire form.
fn copy_of(event: &User, described: &Event) -> Option<User> {
    match (event, &described.what) {
        (User::Message(mail), What::Message { body, .. }) => Some(User::Message(Mail {
            from: mail.from.clone(),
            kind: mail.kind,
            correlation: mail.correlation,
            payload: Payload::Wire(body.clone()),
        })),
        // An exit notice comes once: nothing else would be a test of this runtime.
        _ => None,
    }
}
