//! a resource that cannot be shared is in one outstanding offer at most, and in none while it is used.
//!
//! Pure. Amounts are law A-1's; this is about what has an identity, such as a port: sums of ranges would hide that one
//! is there twice.

use std::collections::BTreeMap;

use meseta_protocol::resources::Resources;

/// `holders` are the offers, tasks and executors of one agent, each with a name for the evidence.
///
/// # Errors
/// Which port is held twice, and by whom.
pub fn check<'a>(
    agent: &str,
    holders: impl IntoIterator<Item = (&'a str, &'a Resources)>,
) -> Result<(), String> {
    let mut owner: BTreeMap<u64, &str> = BTreeMap::new();
    for (holder, resources) in holders {
        for port in resources.ports().iter().flat_map(|ports| ports.numbers()) {
            if let Some(first) = owner.insert(port, holder) {
                return Err(format!(
                    "port {port} of {agent} is held by {first} and by {holder}"
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_a_port_in_two_offers() {
        let (one, other): (Resources, Resources) = (
            "ports:[1-5]".parse().unwrap(),
            "ports:[5-9]".parse().unwrap(),
        );
        let verdict = check("S0", [("O1", &one), ("O2", &other)]);
        assert_eq!(
            verdict,
            Err("port 5 of S0 is held by O1 and by O2".to_owned())
        );
    }

    #[test]
    fn accepts_what_is_apart() {
        let (one, other): (Resources, Resources) = (
            "cpus:1;ports:[1-4]".parse().unwrap(),
            "cpus:1;ports:[5-9]".parse().unwrap(),
        );
        assert_eq!(check("S0", [("O1", &one), ("t", &other)]), Ok(()));
    }
}
