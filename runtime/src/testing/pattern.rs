//! Which messages a filter is about: their kind, from whom, to whom, and what is in them.

use std::marker::PhantomData;

use super::Testing;
use super::filters::{Action, Event, Matcher, What};
use super::handles::{Dropping, Expected, Handle, Held, Never};
use crate::links::ExitReason;
use crate::message::{Kind, Message};
use crate::pid::Pid;

/// Any actor, as sender or receiver in a filter.
pub const ANY: Who = Who::Anybody;

/// Sender or receiver in a filter. A `&Pid` is that actor, a `&str` the actor of this id on any node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// Any actor.
    Anybody,
    /// One actor.
    Actor(Pid),
    /// Actors of this id, on whatever node.
    Id(String),
}

impl Who {
    fn is(&self, pid: &Pid) -> bool {
        match self {
            Self::Anybody => true,
            Self::Actor(actor) => actor == pid,
            Self::Id(id) => id == pid.id(),
        }
    }
}

impl From<&Pid> for Who {
    fn from(pid: &Pid) -> Self {
        Self::Actor(pid.clone())
    }
}
impl From<&str> for Who {
    fn from(id: &str) -> Self {
        Self::Id(id.to_owned())
    }
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Anybody => f.write_str("anybody"),
            Self::Actor(pid) => write!(f, "{pid}"),
            Self::Id(id) => f.write_str(id),
        }
    }
}

/// What a filter can be about: every [`Message`], [`Anything`], or [`Exited`].
pub trait Observed: Sized + Send + 'static {
    /// The event as this, when it is one.
    fn read(event: &Event) -> Option<Self>;
    /// How a failure's text calls it.
    fn name() -> String;
}

impl<M: Message> Observed for M {
    fn read(event: &Event) -> Option<Self> {
        match &event.what {
            What::Message { kind, body, .. } if *kind == Kind::of::<M>() => M::read_body(body).ok(),
            What::Message { .. } | What::Exited(_) => None,
        }
    }

    fn name() -> String {
        M::NAME.to_owned()
    }
}

/// A message of any kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anything {
    /// Its kind.
    pub kind: Kind,
    /// Its wire name, or its number where nobody here knows the name.
    pub name: String,
}

impl Observed for Anything {
    fn read(event: &Event) -> Option<Self> {
        match &event.what {
            What::Message { kind, name, .. } => Some(Self {
                kind: *kind,
                name: name.clone(),
            }),
            What::Exited(_) => None,
        }
    }

    fn name() -> String {
        "any message".to_owned()
    }
}

/// The notice of an end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exited {
    /// Why it ended.
    pub reason: ExitReason,
}

impl Observed for Exited {
    fn read(event: &Event) -> Option<Self> {
        match &event.what {
            What::Exited(reason) => Some(Self {
                reason: reason.clone(),
            }),
            What::Message { .. } => None,
        }
    }

    fn name() -> String {
        "an exit notice".to_owned()
    }
}

type Condition<M> = Box<dyn FnMut(&M) -> bool + Send>;

/// Messages that a filter is about; made by [`Testing::on`].
#[must_use = "say what is to happen to such messages"]
pub struct Pattern<M> {
    testing: Testing,
    from: Who,
    to: Who,
    condition: Option<Condition<M>>,
    kind: PhantomData<fn() -> M>,
}

impl<M: Observed> Pattern<M> {
    pub(super) fn new(testing: Testing, from: Who, to: Who) -> Self {
        Self {
            testing,
            from,
            to,
            condition: None,
            kind: PhantomData,
        }
    }

    /// Only messages that satisfy this too.
    pub fn when(mut self, condition: impl FnMut(&M) -> bool + Send + 'static) -> Self {
        self.condition = Some(match self.condition.take() {
            None => Box::new(condition),
            Some(mut first) => {
                let mut condition = condition;
                Box::new(move |message| first(message) && condition(message))
            }
        });
        self
    }

    /// Awaits one such message, which goes on to its actor. The test fails if none has come by the time the handle is
    /// dropped.
    pub fn expect(self) -> Expected<M> {
        Expected::new(self.set(Action::Watch, true, false))
    }

    /// Drops the next such message; the actor never sees it. The test fails if none has come by the time the handle
    /// is dropped.
    pub fn drop_next(self) -> Expected<M> {
        Expected::new(self.set(Action::Drop, true, false))
    }

    /// Drops all such messages for as long as the handle lives.
    pub fn drop_all(self) -> Dropping<M> {
        Dropping::new(self.set(Action::Drop, false, false))
    }

    /// Holds back all such messages until they are released or dropped.
    pub fn hold(self) -> Held<M> {
        Held::new(self.set(Action::Hold, false, false))
    }

    /// Fails the test when the handle is dropped after such a message has come. It looks on: whether another filter
    /// drops or holds the message makes no difference.
    pub fn never(self) -> Never<M> {
        Never::new(self.set(Action::Watch, false, true))
    }

    fn set(self, action: Action, once: bool, aside: bool) -> Handle {
        let condition = if self.condition.is_some() {
            " as described"
        } else {
            ""
        };
        let what = format!("{}{condition} from {} to {}", M::name(), self.from, self.to);
        let (from, to, mut condition) = (self.from, self.to, self.condition);
        let matches: Matcher = Box::new(move |event| {
            from.is(&event.from)
                && to.is(&event.to)
                && M::read(event).is_some_and(|message| {
                    condition
                        .as_mut()
                        .is_none_or(|condition| condition(&message))
                })
        });
        let (id, since) = self
            .testing
            .node()
            .filters()
            .set(matches, action, once, aside);
        Handle {
            testing: self.testing,
            id,
            since,
            what,
        }
    }
}

impl<M: Message> Pattern<M> {
    /// Lets the actor see the next such message twice, the second time right after the first. The runtime itself
    /// never does that; protocols that send again do. The test fails if none has come by the time the handle is
    /// dropped.
    pub fn duplicate_next(self) -> Expected<M> {
        Expected::new(self.set(Action::Duplicate, true, false))
    }
}
