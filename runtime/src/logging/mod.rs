//! What a program logs, and how that is changed while it runs.
//!
//! [`init`] sends what is logged to standard error through a filter that can be exchanged. The filter belongs to the
//! program, as its standard error does: the nodes of one program share it. It is changed through the process
//! [`LOGGING`] of a node, for a time only, and only by who shows a certificate of role `operator`; afterwards what the
//! program was started with is in force again.

pub mod directives;
mod process;
pub(crate) mod seldom;

use std::io::IsTerminal;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

use crate::context::{AskError, Context};
use crate::http::Response;
use crate::process::Process;

pub use directives::BadDirectives;
pub use process::{LOGGING, LogFilter, Logging, ResetLogFilter, SetLogFilter};

/// Longest time for which a filter may be changed.
pub const MAX_CHANGE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How long the answer to a change may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// In force while a change is told that nobody would see else.
const ANNOUNCEMENTS: &str = "off,meseta_runtime::logging=info";

/// The filter of this program, once [`init`] has set it up.
static PROGRAM: OnceLock<Filter> = OnceLock::new();

/// Why the filter was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The text is no filter.
    #[error(transparent)]
    Directives(#[from] BadDirectives),
    /// The duration is zero or too long.
    #[error(
        "a filter can be set for 1 second to 7 days, not for {0:?}: name the time it is needed"
    )]
    Duration(Duration),
    /// The program logs by other means.
    #[error(
        "this program has set up its logging by itself: only one that calls `meseta_runtime::logging::init` can change \
         it while it runs"
    )]
    NotOurs,
    /// The filter could not be exchanged.
    #[error("the filter cannot be exchanged: {0}")]
    Exchange(String),
}

/// What is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InForce {
    /// The filter, such as `info,meseta_master=debug`.
    pub directives: String,
    /// The filter that the program was started with.
    pub base: String,
    /// Who has changed it; none when it is the base.
    pub by: Option<String>,
    /// Until when, as wall-clock time since the Unix epoch; none when it is the base.
    pub until: Option<Duration>,
}

/// Names one change, so that its end does not take back a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change(u64);

/// How much this program logs, as a number: 0 is what it was started with.
///
/// # Errors
/// [`LogError::NotOurs`].
pub fn level() -> Result<u32, LogError> {
    let in_force = Filter::of_program().ok_or(LogError::NotOurs)?.in_force();
    Ok(directives::as_verbosity(
        &in_force.base,
        &in_force.directives,
    ))
}

/// What to send to [`LOGGING`] so that the program logs at this level for a time, of which whole seconds count.
fn at_level(level: u32, limit: Duration) -> Result<SetLogFilter, LogError> {
    let base = Filter::of_program()
        .ok_or(LogError::NotOurs)?
        .in_force()
        .base;
    Ok(SetLogFilter {
        directives: directives::verbosity(&base, level),
        seconds: limit.as_secs() + u64::from(limit.subsec_nanos() > 0 || limit.is_zero()),
    })
}

/// Answers a request over HTTP to log at this level for a time, of which whole seconds count; level 0 is what the program
/// was started with. 200 once it is in force, 400 with the reason when it cannot be.
pub fn answer_level<P: Process>(cx: &mut Context<'_, P>, level: u32, limit: Duration) -> Response {
    let logging = match cx.local(LOGGING) {
        Ok(logging) => logging,
        Err(why) => return Response::text(400, why.to_string()),
    };
    let (later, response) = Response::later();
    let done = move |_: &mut P, _: &mut Context<'_, P>, answer: Result<LogFilter, AskError>| {
        later.answer(match answer {
            Ok(LogFilter { refused: None, .. }) => Response::empty(),
            Ok(LogFilter {
                refused: Some(why), ..
            }) => Response::text(400, why),
            Err(error) => Response::text(503, error.to_string()),
        });
    };
    if level == 0 {
        cx.ask(&logging, ResetLogFilter {}, ANSWER_LIMIT, done);
        return response;
    }
    match at_level(level, limit) {
        Ok(wanted) => cx.ask(&logging, wanted, ANSWER_LIMIT, done),
        Err(why) => return Response::text(400, why.to_string()),
    };
    response
}

type Exchange = Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>;

struct State {
    in_force: InForce,
    changes: u64,
}

/// A filter that can be exchanged. Clones are the same one.
#[derive(Clone)]
pub struct Filter {
    exchange: Arc<Exchange>,
    state: Arc<Mutex<State>>,
}

impl Filter {
    /// A filter of which `base` is in force now, and which `exchange` replaces.
    pub fn new(
        base: &str,
        exchange: impl Fn(EnvFilter) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        Self {
            exchange: Arc::new(Box::new(exchange)),
            state: Arc::new(Mutex::new(State {
                in_force: InForce {
                    directives: base.to_owned(),
                    base: base.to_owned(),
                    by: None,
                    until: None,
                },
                changes: 0,
            })),
        }
    }

    /// The filter of this program; none when [`init`] did not set up its logging.
    pub fn of_program() -> Option<Self> {
        PROGRAM.get().cloned()
    }

    /// What is in force.
    pub fn in_force(&self) -> InForce {
        self.state.lock().in_force.clone()
    }

    /// Puts `directives` into force until they are replaced or taken back with the number returned. `by` and `until`
    /// are shown to whoever asks.
    ///
    /// # Errors
    /// [`LogError::Directives`] when they cannot be read; nothing has changed then.
    pub fn set(&self, directives: &str, by: &str, until: Duration) -> Result<Change, LogError> {
        let filter = directives::parse(directives)?;
        let mut state = self.state.lock();
        (self.exchange)(filter).map_err(LogError::Exchange)?;
        state.changes += 1;
        state.in_force.directives = directives.to_owned();
        state.in_force.by = Some(by.to_owned());
        state.in_force.until = Some(until);
        Ok(Change(state.changes))
    }

    /// Logs `what` although nothing is logged at present, as who changes what is logged must be.
    pub(crate) fn announce(&self, what: impl FnOnce()) -> Result<(), LogError> {
        let state = self.state.lock();
        let own = directives::parse(ANNOUNCEMENTS)?;
        (self.exchange)(own).map_err(LogError::Exchange)?;
        what();
        let back = directives::parse(&state.in_force.directives)?;
        (self.exchange)(back).map_err(LogError::Exchange)
    }

    /// Puts the base into force again; with a number, only when no later change has come. `false` when nothing was to
    /// be done.
    ///
    /// # Errors
    /// [`LogError::Exchange`].
    pub fn reset(&self, change: Option<Change>) -> Result<bool, LogError> {
        let mut state = self.state.lock();
        let superseded = change.is_some_and(|change| change.0 != state.changes);
        if superseded || state.in_force.by.is_none() {
            return Ok(false);
        }
        let base = state.in_force.base.clone();
        (self.exchange)(directives::parse(&base)?).map_err(LogError::Exchange)?;
        state.changes += 1;
        state.in_force = InForce {
            directives: base.clone(),
            base,
            by: None,
            until: None,
        };
        Ok(true)
    }
}

/// Sends what is logged to standard error, filtered by `level`, which can be changed while the program runs. One that
/// cannot be read is complained about there and becomes `info`.
pub fn init(level: &str) {
    let (base, filter) = match directives::parse(level) {
        Ok(filter) => (level, filter),
        Err(reason) => {
            eprintln!("--logging_level={level}: {reason}: logging at `info`");
            ("info", EnvFilter::new("info"))
        }
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        // A log that cannot be written, as on a full disk, must not end the program.
        .log_internal_errors(false)
        .with_writer(std::io::stderr)
        .with_filter_reloading();
    let handle = builder.reload_handle();
    if builder.try_init().is_err() {
        tracing::debug!("logging was set up before: it stays");
        return;
    }
    let filter = Filter::new(base, move |filter| {
        handle.reload(filter).map_err(|error| error.to_string())
    });
    let set = PROGRAM.set(filter);
    debug_assert!(
        set.is_ok(),
        "the subscriber was set just now, so this is the first time"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded() -> (Filter, Arc<Mutex<Vec<String>>>) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let filter = Filter::new("info", move |filter| {
            log.lock().push(filter.to_string());
            Ok(())
        });
        (filter, seen)
    }

    #[test]
    fn a_change_is_in_force_until_it_is_taken_back() {
        let (filter, seen) = recorded();
        let until = Duration::from_secs(100);
        let change = filter.set("warn,meseta_master=debug", "me", until).unwrap();
        let in_force = filter.in_force();
        assert_eq!(
            (in_force.directives.as_str(), in_force.base.as_str()),
            ("warn,meseta_master=debug", "info")
        );
        assert_eq!(
            (in_force.by.as_deref(), in_force.until),
            (Some("me"), Some(until))
        );
        assert_eq!(filter.reset(Some(change)), Ok(true));
        assert_eq!(
            (filter.in_force().directives, filter.in_force().by),
            ("info".to_owned(), None)
        );
        assert_eq!(seen.lock().last().map(String::as_str), Some("info"));
        assert_eq!(filter.reset(None), Ok(false), "it is the base already");
    }

    #[test]
    fn the_end_of_a_change_does_not_take_back_a_later_one() {
        let (filter, _) = recorded();
        let first = filter.set("debug", "me", Duration::ZERO).unwrap();
        filter.set("trace", "you", Duration::ZERO).unwrap();
        assert_eq!(filter.reset(Some(first)), Ok(false));
        assert_eq!(filter.in_force().directives, "trace");
    }

    #[test]
    fn what_cannot_be_read_or_exchanged_changes_nothing() {
        let (filter, seen) = recorded();
        assert!(filter.set("loud", "me", Duration::ZERO).is_err());
        assert!(seen.lock().is_empty());
        let broken = Filter::new("info", |_| Err("gone".to_owned()));
        assert_eq!(
            broken.set("debug", "me", Duration::ZERO),
            Err(LogError::Exchange("gone".to_owned()))
        );
        for filter in [filter, broken] {
            assert_eq!(filter.in_force().directives, "info");
        }
    }

    #[test]
    fn an_announcement_is_let_through_and_then_what_was_in_force_is_again() {
        let (filter, seen) = recorded();
        filter.set("off", "me", Duration::ZERO).unwrap();
        let mut announced = false;
        filter.announce(|| announced = true).unwrap();
        assert!(announced);
        let seen = seen.lock();
        assert_eq!(seen.len(), 3, "{seen:?}");
        assert!(seen[1].contains("meseta_runtime::logging=info"), "{seen:?}");
        assert_eq!(seen[2], "off");
    }

    #[test]
    fn an_exchanged_filter_lets_other_events_through() {
        use tracing_subscriber::layer::SubscriberExt as _;

        #[derive(Clone, Default)]
        struct Written(Arc<Mutex<Vec<u8>>>);
        impl std::io::Write for Written {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let written = Written::default();
        let writer = written.clone();
        let (layer, handle) =
            tracing_subscriber::reload::Layer::new(directives::parse("info").unwrap());
        let subscriber = tracing_subscriber::registry()
            .with(layer)
            .with(tracing_subscriber::fmt::layer().with_writer(move || writer.clone()));
        let filter = Filter::new("info", move |filter| {
            handle.reload(filter).map_err(|error| error.to_string())
        });
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!("one");
            let set = filter.set("info,meseta_runtime=debug", "me", Duration::ZERO);
            tracing::debug!("two");
            tracing::debug!(target: "elsewhere", "three");
            filter.reset(Some(set.unwrap())).unwrap();
            tracing::debug!("four");
        });
        let text = String::from_utf8(written.0.lock().clone()).unwrap();
        assert!(text.contains("two"), "{text}");
        for none in ["one", "three", "four"] {
            assert!(!text.contains(none), "{text}");
        }
    }
}
