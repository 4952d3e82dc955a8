//! Z-1: when faults stop, the cluster converges in bounded time: all healthy agents are in, all frameworks subscribed,
//! all updates acknowledged, all views equal.
//!
//! Pure. [`missing`] says what keeps a cluster from having converged; whoever runs it waits until that is nothing, and
//! not longer than the bound.

use std::collections::{BTreeMap, BTreeSet};

use meseta_protocol::{AgentId, FrameworkId, TaskId};

/// Names a task.
pub type Key = (FrameworkId, TaskId);

/// The cluster as its parts see it.
#[derive(Debug, Clone, Default)]
pub struct Views {
    /// Agents that the master has, with whether they are connected and which tasks it believes there.
    pub master: BTreeMap<AgentId, (bool, BTreeSet<Key>)>,
    /// Agents that live, by the id they have, if they have one, with the tasks that are there.
    pub agents: Vec<(Option<AgentId>, BTreeSet<Key>)>,
    /// Updates that wait for an acknowledgement, on all agents.
    pub unacknowledged: usize,
    /// Frameworks whose scheduler lives, with whether they are subscribed.
    pub frameworks: BTreeMap<usize, bool>,
}

/// What is missing; nothing when the cluster has converged.
pub fn missing(views: &Views) -> Vec<String> {
    let mut missing = Vec::new();
    let mut present = BTreeSet::new();
    for (id, tasks) in &views.agents {
        let Some(id) = id else {
            missing.push("an agent has no id".to_owned());
            continue;
        };
        present.insert(id);
        match views.master.get(id) {
            Some((true, believed)) if believed == tasks => {}
            Some((true, believed)) => missing.push(format!(
                "the master believes {believed:?} on {id}, where there is {tasks:?}"
            )),
            Some((false, _)) => missing.push(format!("the master has lost {id}")),
            None => missing.push(format!("the master does not have {id}")),
        }
    }
    for (id, (connected, _)) in &views.master {
        if *connected && !present.contains(id) {
            missing.push(format!("the master has {id}, which is no more"));
        }
    }
    if views.unacknowledged > 0 {
        missing.push(format!(
            "{} updates are not acknowledged",
            views.unacknowledged
        ));
    }
    for (framework, subscribed) in &views.frameworks {
        if !subscribed {
            missing.push(format!("framework {framework} is not subscribed"));
        }
    }
    missing
}

/// # Errors
/// What is missing when the time is over.
pub fn check(missing: &[String]) -> Result<(), String> {
    match missing {
        [] => Ok(()),
        some => Err(format!("not converged in time: {}", some.join("; "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(task: &str) -> BTreeSet<Key> {
        BTreeSet::from([("f".into(), task.into())])
    }

    fn good() -> Views {
        Views {
            master: BTreeMap::from([
                ("S0".into(), (true, one("t"))),
                ("S1".into(), (false, one("old"))),
            ]),
            agents: vec![(Some("S0".into()), one("t"))],
            unacknowledged: 0,
            frameworks: BTreeMap::from([(0, true)]),
        }
    }

    #[test]
    fn refuses_each_thing_that_is_missing() {
        type Spoil = fn(&mut Views);
        let spoils: [Spoil; 6] = [
            |views| views.agents.push((None, BTreeSet::new())),
            |views| views.agents.push((Some("S1".into()), one("old"))),
            |views| views.agents.clear(),
            |views| views.agents[0].1 = one("other"),
            |views| views.unacknowledged = 1,
            |views| {
                views.frameworks.insert(1, false);
            },
        ];
        for spoil in spoils {
            let mut views = good();
            spoil(&mut views);
            assert!(check(&missing(&views)).is_err(), "{views:?}");
        }
    }

    #[test]
    fn accepts_equal_views() {
        assert_eq!(check(&missing(&good())), Ok(()));
    }
}
