//! on no agent is more offered and used together than it has.
//!
//! Pure. Stated at `master/src/state/mod.rs`; here summed up again from the offers and tasks themselves.

use meseta_protocol::resources::Resources;

/// One agent in the master's tables.
#[derive(Debug, Clone, Default)]
pub struct Held {
    /// All it has, without allocations.
    pub total: Resources,
    /// Each outstanding offer.
    pub offers: Vec<Resources>,
    /// What each live task or executor has.
    pub used: Vec<Resources>,
}

/// # Errors
/// What is held of what there is.
pub fn check(agent: &str, held: &Held) -> Result<(), String> {
    let sum = |parts: &[Resources]| {
        let mut sum = Resources::new();
        for part in parts {
            sum += &part.unallocated();
        }
        sum
    };
    let (offered, used) = (sum(&held.offers), sum(&held.used));
    if held.total.contains(&(offered.clone() + used.clone())) {
        Ok(())
    } else {
        Err(format!(
            "{agent} has {}, but {offered} is offered and {used} used",
            held.total
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(offers: &[&str], used: &[&str]) -> Held {
        let all = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        Held {
            total: "cpus:4;mem:64".parse().unwrap(),
            offers: all(offers),
            used: all(used),
        }
    }

    #[test]
    fn refuses_more_than_there_is() {
        for bad in [
            held(&["cpus:3"], &["cpus:1.001"]),
            held(&["cpus:3;mem:64", "cpus:1;mem:1"], &[]),
            held(&[], &["gpus:1"]),
        ] {
            assert!(check("S0", &bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn accepts_all_there_is() {
        let good = held(&["cpus:1.5;mem:32", "cpus:1"], &["cpus:1.5", "mem:32"]);
        assert_eq!(check("S0", &good), Ok(()));
    }
}
