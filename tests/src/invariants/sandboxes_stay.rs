//! S-1: the sandbox of what runs is never removed. S-2: that of what has ended stays as long as the disk has room for
//! it. S-3: it goes at last.
//!
//! Pure: what is told of the machine of one agent. The numbers are this project's own. How long a sandbox has to stay comes
//! from whoever made the world: there a disk is either roomy, with a time for which sandboxes stay on it, or full.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use meseta_runtime::Time;

/// How long sandboxes have to stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promise {
    /// Least time on a roomy disk after something may last have run in the sandbox.
    pub stays: Duration,
    /// How long a look at the disk may be ago when what was due by it is removed.
    pub look_lasts: Duration,
}

/// What is known of the sandboxes on one machine.
#[derive(Debug, Default)]
pub struct SandboxesStay {
    /// Those that are there, each with the last time when something may have run in it as its agent knew.
    used: BTreeMap<PathBuf, Time>,
    /// When the disk was full last.
    full: Option<Time>,
}

/// Why a sandbox could go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It was old enough.
    Age,
    /// The disk had no room for it.
    FullDisk,
}

impl SandboxesStay {
    /// Something may run in this sandbox at this time.
    pub fn used(&mut self, sandbox: &Path, now: Time) {
        match self.used.get_mut(sandbox) {
            Some(used) => *used = now,
            None => {
                self.used.insert(sandbox.to_owned(), now);
            }
        }
    }

    /// The disk is full at this time.
    pub fn is_full(&mut self, now: Time) {
        self.full = Some(now);
    }

    /// A sandbox is removed, while something of its container `is_alive` or not. One that is not there may be removed
    /// again.
    ///
    /// # Errors
    /// What breaks S-1 or S-2, with the number of the law.
    pub fn removed(
        &mut self,
        sandbox: &Path,
        is_alive: bool,
        promise: Promise,
        now: Time,
    ) -> Result<Option<Reason>, (&'static str, String)> {
        let Some(used) = self.used.remove(sandbox) else {
            return Ok(None);
        };
        let shown = sandbox.display();
        if is_alive {
            return Err(("S-1", format!("{shown} is removed and its container runs")));
        }
        let age = now.since(used);
        if age >= promise.stays {
            return Ok(Some(Reason::Age));
        }
        let was_full = |full: Time| now.since(full) <= promise.look_lasts;
        if self.full.is_some_and(was_full) {
            return Ok(Some(Reason::FullDisk));
        }
        let Promise { stays, .. } = promise;
        Err((
            "S-2",
            format!("{shown} is removed {age:?} after its use, on a disk with room for {stays:?}"),
        ))
    }

    /// Those that are there.
    pub fn all(&self) -> impl Iterator<Item = &Path> {
        self.used.keys().map(PathBuf::as_path)
    }
}

/// S-3, when nothing runs any more and there was time enough.
///
/// # Errors
/// What is left.
pub fn all_are_gone<'a>(left: impl Iterator<Item = &'a Path>) -> Result<(), String> {
    let left: Vec<String> = left.map(|path| path.display().to_string()).collect();
    if left.is_empty() {
        Ok(())
    } else {
        Err(format!("sandboxes that do not go: {}", left.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROMISE: Promise = Promise {
        stays: Duration::from_secs(30),
        look_lasts: Duration::from_secs(5),
    };

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    /// A machine with a sandbox that was used at 0 s and at 10 s.
    fn machine() -> SandboxesStay {
        let mut machine = SandboxesStay::default();
        machine.used(Path::new("/s"), at(0));
        machine.used(Path::new("/s"), at(10));
        machine
    }

    fn law(machine: &mut SandboxesStay, is_alive: bool, seconds: u64) -> &'static str {
        let removed = machine.removed(Path::new("/s"), is_alive, PROMISE, at(seconds));
        removed.map_or_else(|(law, _)| law, |_| "none")
    }

    #[test]
    fn what_runs_keeps_its_sandbox_even_on_a_full_disk() {
        let mut machine = machine();
        machine.is_full(at(100));
        assert_eq!(law(&mut machine, true, 100), "S-1");
    }

    #[test]
    fn a_sandbox_stays_for_its_time_and_shorter_only_on_a_full_disk() {
        assert_eq!(law(&mut machine(), false, 39), "S-2");
        assert_eq!(law(&mut machine(), false, 40), "none");
        let mut filled = machine();
        filled.is_full(at(20));
        assert_eq!(law(&mut filled, false, 25), "none");
        let mut filled_before = machine();
        filled_before.is_full(at(20));
        assert_eq!(law(&mut filled_before, false, 26), "S-2");
        // Gone already: there is nothing to remove.
        assert_eq!(law(&mut filled_before, false, 27), "none");
    }

    #[test]
    fn at_last_none_is_left() {
        let mut machine = machine();
        assert!(all_are_gone(machine.all()).is_err());
        assert_eq!(law(&mut machine, false, 50), "none");
        assert_eq!(all_are_gone(machine.all()), Ok(()));
    }
}
