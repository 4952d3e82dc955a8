//! Resources as masters and agents show them over HTTP.
//!
//! Pure.

use std::borrow::{Borrow, Cow};
use std::collections::BTreeMap;

use serde::ser::{Serialize, SerializeMap as _, Serializer};

use super::{Ranges, Resources, Scalar, Set, Value};
use crate::ids::Role;

/// Sums by name: scalars as numbers, ranges and sets as text. The four that monitoring reads are always there, and what
/// may be taken back stands apart under names that end in `_revocable`.
#[derive(Debug, Clone, Copy)]
pub struct Sums<R>(pub R);

/// What is reserved to each role, as [`Sums`].
#[derive(Debug, Clone, Copy)]
pub struct ReservedSums<R>(pub R);

/// Names that are always shown.
const ALWAYS: [&str; 4] = ["cpus", "gpus", "mem", "disk"];

enum Sum {
    Scalar(Scalar),
    Ranges(Ranges),
    Set(Set),
}

fn add(sums: &mut [(Cow<'_, str>, Sum)], at: usize, value: &Value) {
    match (&mut sums[at].1, value) {
        (Sum::Scalar(sum), Value::Scalar(amount)) => *sum += *amount,
        (Sum::Ranges(sum), Value::Ranges(ranges)) => sum.add(ranges),
        (Sum::Set(sum), Value::Set(set)) => sum.add(set),
        // One name with two kinds of values: amounts are what is counted.
        (other, Value::Scalar(amount)) => *other = Sum::Scalar(*amount),
        (_, Value::Ranges(_) | Value::Set(_) | Value::Malformed(_)) => {}
    }
}

impl<R: Borrow<Resources>> Serialize for Sums<R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut sums: Vec<(Cow<'_, str>, Sum)> = ALWAYS
            .map(|name| (Cow::Borrowed(name), Sum::Scalar(Scalar::ZERO)))
            .into();
        for resource in self.0.borrow().iter() {
            let name = if resource.revocable {
                Cow::Owned(format!("{}_revocable", resource.name))
            } else {
                Cow::Borrowed(&*resource.name)
            };
            if let Some(at) = sums.iter().position(|(known, _)| *known == name) {
                add(&mut sums, at, &resource.value);
                continue;
            }
            let sum = match &resource.value {
                Value::Scalar(amount) => Sum::Scalar(*amount),
                Value::Ranges(ranges) => Sum::Ranges(ranges.clone()),
                Value::Set(set) => Sum::Set(set.clone()),
                Value::Malformed(_) => continue,
            };
            sums.push((name, sum));
        }
        let mut map = serializer.serialize_map(Some(sums.len()))?;
        for (name, sum) in &sums {
            match sum {
                Sum::Scalar(amount) => map.serialize_entry(name, &amount.as_f64())?,
                Sum::Ranges(ranges) => map.serialize_entry(name, &ranges.to_string())?,
                Sum::Set(set) => map.serialize_entry(name, &set.to_string())?,
            }
        }
        map.end()
    }
}

impl<R: Borrow<Resources>> Serialize for ReservedSums<R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let all: BTreeMap<Role, Resources> = self.0.borrow().reservations();
        let reserved = all.iter().filter(|(role, _)| !role.is_star());
        serializer.collect_map(reserved.map(|(role, resources)| (role, Sums(resources))))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sums_are_shown_by_name_and_the_four_that_monitoring_reads_always() {
        let text = "cpus:1;cpus(ops):0.5;ports:[1-3,5-6];kinds:{b,a};cpus(ops):1";
        let resources: Resources = text.parse().unwrap();
        let shown = json!({
            "cpus": 2.5, "gpus": 0.0, "mem": 0.0, "disk": 0.0, "ports": "[1-3, 5-6]", "kinds": "{a, b}",
        });
        assert_eq!(serde_json::to_value(Sums(&resources)).unwrap(), shown);
        let reserved = json!({ "ops": { "cpus": 1.5, "gpus": 0.0, "mem": 0.0, "disk": 0.0 } });
        assert_eq!(
            serde_json::to_value(ReservedSums(&resources)).unwrap(),
            reserved
        );
        let cpus = resources.iter().next().unwrap().clone().as_revocable();
        let shown = serde_json::to_value(Sums(Resources::from(cpus))).unwrap();
        assert_eq!(
            (&shown["cpus"], &shown["cpus_revocable"]),
            (&json!(0.0), &json!(1.0))
        );
    }
}
