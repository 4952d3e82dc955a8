//! T-9: after word of a framework's end, or of its own, has reached an agent, nothing of it is alive past the grace time.
//!
//! Pure. What counts is the time of an agent that runs: one that has crashed ends everything when it starts again.

use std::collections::BTreeMap;
use std::time::Duration;

use meseta_runtime::Time;

/// Grace periods, and as many attempts to end what does not end as a machine that often fails may need.
pub const AT_MOST: Duration = Duration::from_secs(5 * 60);

/// Containers that have to end, and by when.
#[derive(Debug, Default)]
pub struct EndedInTime {
    by: BTreeMap<String, Time>,
}

impl EndedInTime {
    /// This container has to end, as its agent hears now.
    pub fn must_end(&mut self, container: String, now: Time) {
        self.by.entry(container).or_insert(now + AT_MOST);
    }

    /// The agent runs now, and `is_alive` says which containers do.
    ///
    /// # Errors
    /// What is alive past its time.
    pub fn check(&mut self, now: Time, is_alive: impl Fn(&str) -> bool) -> Result<(), String> {
        self.by.retain(|container, _| is_alive(container));
        match self.by.iter().find(|(_, by)| **by < now) {
            Some((container, _)) => Err(format!(
                "container {container} is alive {AT_MOST:?} after its agent heard that it has to end"
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_to_end_has_ended_in_time() {
        let mut law = EndedInTime::default();
        let late = Time::ZERO + AT_MOST + Duration::from_secs(1);
        law.must_end("ends".to_owned(), Time::ZERO);
        law.must_end("stays".to_owned(), Time::ZERO);
        // Said again, which gives it no more time.
        law.must_end("stays".to_owned(), late);
        let alive = |container: &str| container == "stays";
        assert_eq!(law.check(Time::ZERO, alive), Ok(()));
        assert_eq!(law.check(late, |_| false), Ok(()));
        law.must_end("stays".to_owned(), Time::ZERO);
        assert!(law.check(late, alive).is_err());
    }
}
