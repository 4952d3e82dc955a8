//! T-1: a task is started at most once, ever.
//!
//! Pure. Promised in `docs/delivery.md`, "At most one start".

use std::collections::BTreeMap;

use meseta_protocol::TaskId;

use super::{Event, Law};

/// Where each task was started.
#[derive(Debug, Default)]
pub struct StartedOnce {
    containers: BTreeMap<TaskId, String>,
}

impl Law for StartedOnce {
    fn number(&self) -> &'static str {
        "T-1"
    }

    fn read(&mut self, event: &Event) -> Result<(), String> {
        let Event::Started { task, container } = event else {
            return Ok(());
        };
        match self.containers.insert(task.clone(), container.clone()) {
            Some(first) => Err(format!(
                "{task} was started in {first}, and is started again in {container}"
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{launched, started, verdict};
    use super::*;

    #[test]
    fn refuses_a_second_start() {
        let bad = [launched("t"), started("t"), started("u"), started("t")];
        assert!(verdict(StartedOnce::default(), &bad).is_err());
    }

    #[test]
    fn accepts_tasks_that_start_once_or_never() {
        let good = [launched("t"), launched("u"), started("u")];
        assert_eq!(verdict(StartedOnce::default(), &good), Ok(()));
    }
}
