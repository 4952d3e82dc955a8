//! an agent id is in at most one of admitted, unreachable and gone.
//!
//! Pure.

use meseta_master::registry::Registry;

/// # Errors
/// The agent that is in two places.
pub fn check(registry: &Registry) -> Result<(), String> {
    let Registry {
        admitted,
        unreachable,
        gone,
        ..
    } = registry;
    let twice = unreachable.keys().find(|id| admitted.contains_key(*id));
    let gone_too = |id: &&_| admitted.contains_key(*id) || unreachable.contains_key(*id);
    match twice.or_else(|| gone.keys().find(gone_too)) {
        Some(id) => Err(format!("the registry has {id} in two places")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meseta_master::registry::{Admitted, Unreachable};

    #[test]
    fn refuses_an_agent_in_two_places() {
        let mut registry = Registry::default();
        registry.gone.insert("a".into(), 1);
        registry
            .unreachable
            .insert("a".into(), Unreachable::default());
        assert!(check(&registry).is_err());
        registry.gone.clear();
        registry.admitted.insert("a".into(), Admitted::default());
        assert!(check(&registry).is_err());
    }

    #[test]
    fn accepts_each_in_one() {
        let mut registry = Registry::default();
        registry.admitted.insert("a".into(), Admitted::default());
        registry.gone.insert("b".into(), 1);
        assert_eq!(check(&registry), Ok(()));
    }
}
