//! The life of one container, from the order to launch it to the end of its last process.
//!
//! Pure: no processes, no clock; the shell is `handlers/executors.rs`, which runs [`super::Launch`] and [`super::Destroy`]. Invariant:
//! exactly one [`Effect::Gone`] comes out, and only when no process of the container is left. It does not hang on the
//! report of the first process's end: when nothing is left and that has not come after a while, it is not waited for.
//!
//! ```text
//! launching ── Launched ──> up ── Ended (its first process) or Destroy ──> ending ── Destroyed and Ended ──> Gone
//!     └── LaunchFailed ──────────────────────────────────────────────────────────────────────────────────────> Gone
//! ```

use meseta_runtime::planted::mistake;

/// Stands for the wait status of a first process that is gone and whose end was not reported.
pub const UNREPORTED: i32 = -2;

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// Wait status of its first process, as the operating system gives it; -1 when there was none, -2 when it is
    /// not known.
    pub status: i32,
    /// What the launcher said when it could not start the program.
    pub complaint: Option<String>,
}

impl Exit {
    /// The status in words.
    pub fn text(&self) -> String {
        let (signal, code) = (self.status & 0x7f, (self.status >> 8) & 0xff);
        if self.status == UNREPORTED {
            "ended in an unknown way".to_owned()
        } else if self.status < 0 {
            "never started".to_owned()
        } else if signal == 0 {
            format!("exited with status {code}")
        } else {
            match nix::sys::signal::Signal::try_from(signal) {
                Ok(signal) => format!("terminated by signal {signal}"),
                Err(_) => format!("terminated by signal {signal}"),
            }
        }
    }
}

/// What happens to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Its first process runs.
    Launched(u32),
    /// It could not be started, and nothing of it is left.
    LaunchFailed(String),
    /// Its first process has ended.
    Ended(Exit),
    /// It is to end.
    Destroy,
    /// No process of it is left, apart perhaps from a first one whose end is about to be reported.
    Destroyed,
    /// Something of it is left and cannot be ended for now.
    DestroyFailed,
    /// Another attempt is due, or the report of the first process's end is overdue.
    RetryDue,
}

/// What the shell has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// End all processes.
    Destroy,
    /// Come back with [`Input::RetryDue`] after a while.
    ArmRetry,
    /// The container is gone.
    Gone(Exit),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Launching { doomed: bool },
    Up,
    Ending,
    Emptied,
    Gone,
}

/// One container.
#[derive(Debug, Clone)]
pub struct Container {
    phase: Phase,
    process: Option<u32>,
    exit: Option<Exit>,
}

impl Default for Container {
    fn default() -> Self {
        Self {
            phase: Phase::Launching { doomed: false },
            process: None,
            exit: None,
        }
    }
}

impl Container {
    /// One that an earlier run of the agent has launched, with its first process when that is known.
    pub fn recovered(process: Option<u32>) -> Self {
        Self {
            phase: Phase::Up,
            process,
            exit: None,
        }
    }

    /// Process id of its first process, once it runs.
    pub fn process(&self) -> Option<u32> {
        self.process
    }

    /// Whether its first process is known to have ended.
    pub fn has_ended(&self) -> bool {
        self.exit.is_some()
    }

    /// Whether nothing of it is left.
    pub fn is_gone(&self) -> bool {
        self.phase == Phase::Gone
    }

    /// Applies one input; effects are carried out in order.
    pub fn step(&mut self, input: Input) -> Vec<Effect> {
        match (input, self.phase) {
            (Input::Launched(process), Phase::Launching { doomed }) => {
                self.process = Some(process);
                self.phase = Phase::Up;
                // The end of a short-lived process may be reported before its start.
                if doomed || self.exit.is_some() {
                    self.end()
                } else {
                    Vec::new()
                }
            }
            (Input::LaunchFailed(why), Phase::Launching { .. }) => {
                self.phase = Phase::Gone;
                vec![Effect::Gone(Exit {
                    status: -1,
                    complaint: Some(why),
                })]
            }
            (Input::Ended(exit), phase) => {
                if self.exit.is_none() {
                    self.exit = Some(exit);
                }
                match phase {
                    Phase::Up if mistake("agent leaves a container behind") => self.gone(),
                    Phase::Up => self.end(),
                    Phase::Emptied => self.gone(),
                    Phase::Launching { .. } | Phase::Ending | Phase::Gone => Vec::new(),
                }
            }
            (Input::Destroy, Phase::Launching { .. }) => {
                self.phase = Phase::Launching { doomed: true };
                Vec::new()
            }
            (Input::Destroy, Phase::Up) => self.end(),
            (Input::Destroyed, Phase::Ending) => {
                self.phase = Phase::Emptied;
                if self.has_ended() {
                    self.gone()
                } else {
                    vec![Effect::ArmRetry]
                }
            }
            (Input::RetryDue, Phase::Emptied) => {
                self.exit = Some(Exit {
                    status: UNREPORTED,
                    complaint: None,
                });
                self.gone()
            }
            (Input::DestroyFailed, Phase::Ending) => vec![Effect::ArmRetry],
            (Input::RetryDue, Phase::Ending) => vec![Effect::Destroy],
            (
                Input::Launched(_)
                | Input::LaunchFailed(_)
                | Input::Destroy
                | Input::Destroyed
                | Input::DestroyFailed
                | Input::RetryDue,
                _,
            ) => Vec::new(),
        }
    }

    fn end(&mut self) -> Vec<Effect> {
        self.phase = Phase::Ending;
        vec![Effect::Destroy]
    }

    fn gone(&mut self) -> Vec<Effect> {
        let Some(exit) = self.exit.clone() else {
            return Vec::new();
        };
        self.phase = Phase::Gone;
        vec![Effect::Gone(exit)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(status: i32) -> Exit {
        Exit {
            status,
            complaint: None,
        }
    }

    #[test]
    fn every_order_of_events_ends_in_exactly_one_end() {
        use Effect::{Destroy, Gone};
        let launched = Input::Launched(7);
        let ended = Input::Ended(exit(256));
        let table: [(&[Input], &[Effect]); 6] = [
            (
                &[launched.clone(), ended.clone(), Input::Destroyed],
                &[Destroy, Gone(exit(256))],
            ),
            (
                &[ended.clone(), launched.clone(), Input::Destroyed],
                &[Destroy, Gone(exit(256))],
            ),
            (
                &[
                    launched.clone(),
                    Input::Destroy,
                    Input::Destroyed,
                    ended.clone(),
                ],
                &[Destroy, Gone(exit(256))],
            ),
            (
                &[
                    launched.clone(),
                    Input::Destroy,
                    ended.clone(),
                    Input::Destroyed,
                ],
                &[Destroy, Gone(exit(256))],
            ),
            (
                &[
                    Input::Destroy,
                    launched.clone(),
                    Input::Destroyed,
                    ended.clone(),
                ],
                &[Destroy, Gone(exit(256))],
            ),
            (
                &[Input::Destroy, Input::LaunchFailed("no".into())],
                &[Gone(Exit {
                    status: -1,
                    complaint: Some("no".into()),
                })],
            ),
        ];
        for (inputs, expected) in table {
            let mut container = Container::default();
            let mut effects = Vec::new();
            for input in inputs {
                // Each event may be repeated, and an order to destroy may come at any time.
                effects.extend(container.step(input.clone()));
                effects.extend(container.step(input.clone()));
            }
            effects.extend(container.step(Input::Destroy));
            effects.extend(container.step(Input::RetryDue));
            effects.retain(|effect| *effect != Effect::ArmRetry);
            assert_eq!(effects, expected, "{inputs:?}");
            assert!(container.is_gone());
        }
    }

    #[test]
    fn a_destroy_that_fails_is_tried_again() {
        let mut container = Container::default();
        container.step(Input::Launched(7));
        assert_eq!(container.step(Input::Destroy), [Effect::Destroy]);
        assert_eq!(container.step(Input::DestroyFailed), [Effect::ArmRetry]);
        assert_eq!(container.step(Input::RetryDue), [Effect::Destroy]);
        assert_eq!(container.step(Input::Destroyed), [Effect::ArmRetry]);
        assert_eq!(
            container.step(Input::Ended(exit(9))),
            [Effect::Gone(exit(9))]
        );
        assert_eq!(container.step(Input::RetryDue), []);
    }

    #[test]
    fn a_container_of_which_nothing_is_left_is_gone_though_its_end_is_never_reported() {
        let mut container = Container::default();
        container.step(Input::Launched(7));
        container.step(Input::Destroy);
        assert_eq!(container.step(Input::Destroyed), [Effect::ArmRetry]);
        assert_eq!(
            container.step(Input::RetryDue),
            [Effect::Gone(exit(UNREPORTED))]
        );
        assert_eq!(container.step(Input::Ended(exit(9))), []);
        assert_eq!(exit(UNREPORTED).text(), "ended in an unknown way");
    }

    #[test]
    fn a_recovered_container_ends_as_any_other() {
        let mut container = Container::recovered(Some(7));
        assert_eq!(container.process(), Some(7));
        assert_eq!(container.step(Input::Launched(8)), []);
        assert_eq!(
            container.step(Input::Ended(exit(UNREPORTED))),
            [Effect::Destroy]
        );
        assert_eq!(
            container.step(Input::Destroyed),
            [Effect::Gone(exit(UNREPORTED))]
        );
    }

    #[test]
    fn ends_read_well() {
        assert_eq!(exit(768).text(), "exited with status 3");
        assert_eq!(exit(9).text(), "terminated by signal SIGKILL");
        assert_eq!(exit(-1).text(), "never started");
    }
}
