//! A simulated machine: containers and the processes of tasks in them. It answers the operations of agents and command
//! executors as a real machine would.
//!
//! Pure: a table. Whoever runs the world tells it the time, starts an executor's guest node for each container it lists,
//! and tells it when that guest is gone. Invariant: a process is in exactly one container, and a container that is
//! destroyed or swept has none.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use meseta_protocol::TaskId;
use meseta_runtime::Time;

/// Wait status of a process that was killed.
pub const KILLED: i32 = 9;

/// What a task does, once it runs. Written into its command, so that it travels the way a real command does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// The task.
    pub task: TaskId,
    /// How long it runs by itself.
    pub runs: Duration,
    /// Its exit status then.
    pub exits: i32,
    /// Whether it does not listen when it is asked to end, and has to be killed.
    pub stubborn: bool,
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            task,
            runs,
            exits,
            stubborn,
        } = self;
        write!(f, "simulate {task} {} {exits} {stubborn}", runs.as_millis())
    }
}

impl Script {
    /// Reads what [`Script`]'s `Display` writes.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.strip_prefix("simulate ")?.split(' ');
        Some(Self {
            task: TaskId::new(words.next()?),
            runs: Duration::from_millis(words.next()?.parse().ok()?),
            exits: words.next()?.parse().ok()?,
            stubborn: words.next()?.parse().ok()?,
        })
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself, with this status.
    Exited(i32),
    /// By this signal.
    Signalled(i32),
}

#[derive(Debug, Clone)]
struct Process {
    script: Script,
    ends: Time,
    end: End,
}

/// One container.
#[derive(Debug, Clone, Default)]
struct Container {
    processes: BTreeMap<i32, Process>,
    /// Processes that have ended and that nobody has waited for.
    ended: BTreeMap<i32, End>,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    containers: BTreeMap<String, Container>,
    last_process: i32,
}

impl Machine {
    /// Makes a container and returns the number of its first process, the executor.
    pub fn launch(&mut self, container: &str) -> i32 {
        self.containers
            .insert(container.to_owned(), Container::default());
        self.next_process()
    }

    fn next_process(&mut self) -> i32 {
        self.last_process += 1;
        self.last_process
    }

    /// Whether there is such a container.
    pub fn has(&self, container: &str) -> bool {
        self.containers.contains_key(container)
    }

    /// Names of all containers.
    pub fn containers(&self) -> impl Iterator<Item = &String> {
        self.containers.keys()
    }

    /// How many processes of tasks run.
    pub fn processes(&self) -> usize {
        self.containers.values().map(|c| c.processes.len()).sum()
    }

    /// Starts a process in a container; none when that is gone.
    pub fn start(&mut self, container: &str, script: Script, now: Time) -> Option<i32> {
        let number = self.next_process();
        let process = Process {
            ends: now + script.runs,
            end: End::Exited(script.exits),
            script,
        };
        let container = self.containers.get_mut(container)?;
        container.processes.insert(number, process);
        Some(number)
    }

    /// Asks all processes of a container to end, upon which those that listen end a moment later.
    pub fn terminate(&mut self, container: &str, now: Time) {
        let container = self.containers.get_mut(container);
        for process in container.into_iter().flat_map(|c| c.processes.values_mut()) {
            let soon = now + Duration::from_millis(20);
            if !process.script.stubborn && process.ends > soon {
                process.ends = soon;
                process.end = End::Signalled(15);
            }
        }
    }

    /// Kills all processes of a container. Their tasks.
    pub fn kill(&mut self, container: &str) -> Vec<TaskId> {
        let Some(container) = self.containers.get_mut(container) else {
            return Vec::new();
        };
        let killed = std::mem::take(&mut container.processes);
        let numbers = killed.keys().copied();
        container
            .ended
            .extend(numbers.map(|number| (number, End::Signalled(KILLED))));
        killed.into_values().map(|p| p.script.task).collect()
    }

    /// Kills all processes of a container and takes it away. Their tasks.
    pub fn destroy(&mut self, container: &str) -> Vec<TaskId> {
        let killed = self.kill(container);
        self.containers.remove(container);
        killed
    }

    /// When the next process ends by itself.
    pub fn next_end(&self) -> Option<Time> {
        let all = self.containers.values().flat_map(|c| c.processes.values());
        all.map(|process| process.ends).min()
    }

    /// Ends the processes whose time is over. Their tasks.
    pub fn advance(&mut self, now: Time) -> Vec<TaskId> {
        let mut over = Vec::new();
        for container in self.containers.values_mut() {
            let due: Vec<i32> = container
                .processes
                .iter()
                .filter(|(_, process)| process.ends <= now)
                .map(|(number, _)| *number)
                .collect();
            for number in due {
                if let Some(process) = container.processes.remove(&number) {
                    container.ended.insert(number, process.end);
                    over.push(process.script.task);
                }
            }
        }
        over
    }

    /// Ends one process now, as one ends that decides so itself. Its task, if it ran.
    pub fn finish(&mut self, container: &str, number: i32) -> Option<TaskId> {
        let container = self.containers.get_mut(container)?;
        let process = container.processes.remove(&number)?;
        Some(process.script.task)
    }

    /// How a process has ended, told once; none while it runs.
    pub fn wait(&mut self, container: &str, number: i32) -> Option<End> {
        let Some(container) = self.containers.get_mut(container) else {
            return Some(End::Signalled(KILLED));
        };
        container.ended.remove(&number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(task: &str, seconds: u64, stubborn: bool) -> Script {
        Script {
            task: task.into(),
            runs: Duration::from_secs(seconds),
            exits: 3,
            stubborn,
        }
    }

    const fn at(seconds: u64) -> Time {
        Time(seconds * 1_000_000_000)
    }

    #[test]
    fn a_script_travels_as_a_command() {
        let script = script("f0-t3", 12, true);
        assert_eq!(Script::parse(&script.to_string()), Some(script));
        assert_eq!(Script::parse("sleep 5"), None);
    }

    #[test]
    fn a_process_ends_by_itself_when_asked_or_by_force() {
        let mut machine = Machine::default();
        machine.launch("c");
        let own = machine.start("c", script("own", 5, false), at(0)).unwrap();
        assert_eq!(machine.next_end(), Some(at(5)));
        assert_eq!(machine.wait("c", own), None);
        assert_eq!(machine.advance(at(5)), [TaskId::new("own")]);
        assert_eq!(machine.wait("c", own), Some(End::Exited(3)));
        let polite = machine
            .start("c", script("polite", 50, false), at(5))
            .unwrap();
        let deaf = machine.start("c", script("deaf", 50, true), at(5)).unwrap();
        machine.terminate("c", at(6));
        assert_eq!(machine.advance(at(7)), [TaskId::new("polite")]);
        assert_eq!(machine.wait("c", polite), Some(End::Signalled(15)));
        assert_eq!(machine.kill("c"), [TaskId::new("deaf")]);
        assert_eq!(machine.wait("c", deaf), Some(End::Signalled(KILLED)));
    }

    #[test]
    fn nothing_is_left_of_a_container_that_is_destroyed() {
        let mut machine = Machine::default();
        machine.launch("c");
        let number = machine.start("c", script("t", 5, true), at(0)).unwrap();
        assert_eq!(machine.destroy("c"), [TaskId::new("t")]);
        assert!(!machine.has("c"));
        assert_eq!(machine.processes(), 0);
        assert_eq!(machine.wait("c", number), Some(End::Signalled(KILLED)));
        assert_eq!(machine.start("c", script("u", 5, true), at(0)), None);
    }
}
