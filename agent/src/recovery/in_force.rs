//! What an agent offers that has found out what its machine has, and had found out something else when it registered.
//!
//! Pure. What an operator has said (`--resources`) is compared as it is. What the agent itself has found out changes with a
//! new kernel, a firmware or a larger file system, and nobody has decided that: it does not keep the agent from coming
//! back. Source: decision 0026.

use std::collections::BTreeMap;

use meseta_protocol::resources::{Resource, Resources, Scalar, Value};

use super::Policy;

/// By how much less may be found of each resource than before, of those that are found out at all. Names as in the
/// resources.
pub type Leeway = BTreeMap<String, Scalar>;

/// What is in force, and for each resource that is not as it was found, why.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct InForce {
    /// All the agent offers.
    pub resources: Resources,
    /// What an operator should know.
    pub notices: Vec<String>,
}

/// Decides. `was` is what the agent registered with, `is` what it has now.
pub fn in_force(was: &Resources, is: &Resources, leeway: &Leeway, policy: Policy) -> InForce {
    let mut all = InForce::default();
    for found in is.iter() {
        match earlier(was, found).filter(|old| stays(old, found, leeway, policy)) {
            Some(old) => {
                all.notices.push(notice(old, found));
                all.resources += old;
            }
            None => all.resources += found,
        }
    }
    all
}

/// The resource that this one was: the only one of its name, and like it in everything but the amount.
fn earlier<'a>(was: &'a Resources, found: &Resource) -> Option<&'a Resource> {
    let mut named = was.iter().filter(|old| old.name == found.name);
    let old = named.next().filter(|_| named.next().is_none())?;
    let same = Resource {
        value: old.value.clone(),
        ..found.clone()
    };
    (same == *old).then_some(old)
}

fn stays(old: &Resource, found: &Resource, leeway: &Leeway, policy: Policy) -> bool {
    let (Value::Scalar(old), Value::Scalar(found), Some(leeway)) =
        (&old.value, &found.value, leeway.get(&*found.name))
    else {
        return false;
    };
    match policy {
        Policy::Equal if found > old => true,
        Policy::Equal | Policy::Additive => found < old && *old - *found <= *leeway,
    }
}

fn notice(old: &Resource, found: &Resource) -> String {
    let remedy = if found.amount() > old.amount() {
        "start with --reconfiguration_policy=additive to offer what is found"
    } else {
        "only a new agent can offer less"
    };
    format!("the agent still offers {old}, though {found} is found now: {remedy}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn leeway() -> Leeway {
        let all = [("cpus", 0), ("mem", 512)].into_iter();
        all.map(|(name, n)| (name.to_owned(), Scalar::whole(n)))
            .collect()
    }

    fn settled(was: &str, is: &str, policy: Policy) -> (String, usize) {
        let (was, is) = (was.parse().unwrap(), is.parse().unwrap());
        let all = in_force(&was, &is, &leeway(), policy);
        (all.resources.to_string(), all.notices.len())
    }

    fn text(resources: &str) -> String {
        resources.parse::<Resources>().unwrap().to_string()
    }

    #[test]
    fn what_was_found_stays_as_it_was() {
        for (was, is, equal, additive) in [
            ("mem:7168", "mem:7168", ("mem:7168", 0), ("mem:7168", 0)),
            ("mem:7168", "mem:9000", ("mem:7168", 1), ("mem:9000", 0)),
            ("mem:7168", "mem:7160", ("mem:7168", 1), ("mem:7168", 1)),
            ("mem:7168", "mem:6656", ("mem:7168", 1), ("mem:7168", 1)),
            ("mem:7168", "mem:6655", ("mem:6655", 0), ("mem:6655", 0)),
            ("cpus:4", "cpus:8", ("cpus:4", 1), ("cpus:8", 0)),
            ("cpus:4", "cpus:3", ("cpus:3", 0), ("cpus:3", 0)),
        ] {
            for (policy, (kept, notices)) in [(Policy::Equal, equal), (Policy::Additive, additive)]
            {
                assert_eq!(
                    settled(was, is, policy),
                    (text(kept), notices),
                    "{was} {is}"
                );
            }
        }
    }

    #[test]
    fn what_was_given_or_is_another_counts_as_it_is() {
        for (was, is) in [
            ("disk:10", "disk:11"),
            ("disk:10", "disk:9"),
            ("mem(ops):7168", "mem:7169"),
            ("mem:7000;mem(ops):168", "mem:7169"),
            ("disk:7", "mem:7"),
            ("mem:[1-2]", "mem:7"),
        ] {
            assert_eq!(settled(was, is, Policy::Equal), (text(is), 0), "{was} {is}");
        }
    }

    #[test]
    fn a_notice_names_both_and_what_to_do() {
        let (was, more) = ("mem:7168".parse().unwrap(), "mem:7200".parse().unwrap());
        let all = in_force(&was, &more, &leeway(), Policy::Equal);
        let [notice] = &*all.notices else {
            panic!("{all:?}");
        };
        for word in ["mem:7168", "mem:7200", "additive"] {
            assert!(notice.contains(word), "{notice}");
        }
    }

    proptest! {
        #[test]
        fn nothing_else_changes_and_all_that_was_is_there_or_is_refused(
            was in (1_i64..9, 1_i64..2000, 1_i64..9), is in (1_i64..9, 1_i64..2000, 1_i64..9), additive: bool
        ) {
            let policy = if additive { Policy::Additive } else { Policy::Equal };
            let all = |(cpus, mem, disk)| -> Resources {
                format!("cpus:{cpus};mem:{mem};disk:{disk};ports:[1-2]").parse().unwrap()
            };
            let now = in_force(&all(was), &all(is), &leeway(), policy).resources;
            prop_assert_eq!(now.disk(), Some(Scalar::whole(is.2)));
            prop_assert_eq!(now.ports(), all(is).ports());
            let expected = |was: i64, is: i64, leeway: i64| match is {
                _ if is < was - leeway => is,
                _ if is > was && additive => is,
                _ => was,
            };
            prop_assert_eq!(now.cpus(), Some(Scalar::whole(expected(was.0, is.0, 0))));
            prop_assert_eq!(now.mem(), Some(Scalar::whole(expected(was.1, is.1, 512))));
        }
    }
}
