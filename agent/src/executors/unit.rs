//! What is launched together: a task by itself, or a group of tasks of which none runs without the others.
//!
//! Pure: plain data. An executor is given a unit with one message, so it has either all of it or nothing.

use std::collections::BTreeMap;

use meseta_protocol::task::TaskInfo;
use meseta_protocol::{TaskId, UpdateId};

/// Tasks that are launched together.
#[derive(Debug, Clone, PartialEq)]
pub enum Unit {
    /// One by itself.
    Task(Box<TaskInfo>),
    /// A group.
    Group {
        /// The launch that brought it, which is no other's.
        launch: UpdateId,
        /// Its tasks, in their order.
        tasks: Vec<TaskInfo>,
    },
}

impl From<TaskInfo> for Unit {
    fn from(task: TaskInfo) -> Self {
        Self::Task(Box::new(task))
    }
}

impl Unit {
    /// Its tasks.
    pub fn tasks(&self) -> &[TaskInfo] {
        match self {
            Self::Task(task) => std::slice::from_ref(task),
            Self::Group { tasks, .. } => tasks,
        }
    }

    /// Whether it is a group, if only of one task.
    pub fn is_group(&self) -> bool {
        matches!(self, Self::Group { .. })
    }

    /// Where each task of a group stands in it.
    pub fn places(&self) -> impl Iterator<Item = (&TaskInfo, Option<Place>)> {
        let launch = match self {
            Self::Task(_) => None,
            Self::Group { launch, .. } => Some(*launch),
        };
        let place = move |number| {
            Some(Place {
                launch: launch?,
                number,
            })
        };
        (self.tasks().iter().zip(0..)).map(move |(task, number)| (task, place(number)))
    }
}

/// Where a task stands in the group that it was launched with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The group's launch.
    pub launch: UpdateId,
    /// How many of its tasks come before.
    pub number: u32,
}

/// Puts tasks together that were launched together. Units come in the order of their first tasks, tasks of a group in
/// theirs.
pub(super) fn units(tasks: Vec<TaskInfo>, places: &BTreeMap<TaskId, Place>) -> Vec<Unit> {
    let mut units = Vec::new();
    let mut at = BTreeMap::new();
    for task in tasks {
        let Some(place) = places.get(&task.task_id) else {
            units.push(Unit::from(task));
            continue;
        };
        let at = *at.entry(place.launch).or_insert(units.len());
        if at == units.len() {
            units.push(Unit::Group {
                launch: place.launch,
                tasks: Vec::new(),
            });
        }
        if let Some(Unit::Group { tasks, .. }) = units.get_mut(at) {
            tasks.push(task);
        }
    }
    for unit in &mut units {
        if let Unit::Group { tasks, .. } = unit {
            tasks.sort_by_key(|task| places.get(&task.task_id).map(|place| place.number));
        }
    }
    units
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(id: &str) -> TaskInfo {
        TaskInfo {
            task_id: id.into(),
            ..TaskInfo::default()
        }
    }

    #[test]
    fn what_was_launched_together_is_together_again_and_in_its_order() {
        let group = |launch: u8, ids: &[&str]| Unit::Group {
            launch: UpdateId::from_bytes([launch; 16]),
            tasks: ids.iter().map(|id| task(id)).collect(),
        };
        let (one, other) = (group(1, &["b", "a"]), group(2, &["d"]));
        let places = (one.places().chain(other.places()))
            .filter_map(|(task, place)| Some((task.task_id.clone(), place?)))
            .collect();
        // As they stand after a restart: by their ids.
        let all = ["a", "b", "c", "d"].map(task).to_vec();
        assert_eq!(units(all, &places), [one, task("c").into(), other]);
        assert_eq!(Unit::from(task("c")).places().next().unwrap().1, None);
        assert_eq!(units(Vec::new(), &places), []);
    }
}
