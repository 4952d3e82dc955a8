//! K-1: after all work has ended, nothing of it is left: no containers, processes, tasks, streams or offers in use.
//!
//! Pure. Looked at when a run has converged and every framework has ended.

use std::collections::BTreeMap;

/// What may be left, by its kind, such as `containers of host 2`; each with how many.
pub type Leftovers = BTreeMap<String, usize>;

/// # Errors
/// What is left.
pub fn check(leftovers: &Leftovers) -> Result<(), String> {
    let left: Vec<String> = leftovers
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(what, count)| format!("{count} {what}"))
        .collect();
    if left.is_empty() {
        Ok(())
    } else {
        Err(format!("left behind: {}", left.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_left() {
        let left = Leftovers::from([("containers".to_owned(), 0), ("streams".to_owned(), 2)]);
        assert_eq!(check(&left), Err("left behind: 2 streams".to_owned()));
    }

    #[test]
    fn accepts_nothing() {
        assert_eq!(check(&Leftovers::new()), Ok(()));
        let none = Leftovers::from([("containers".to_owned(), 0)]);
        assert_eq!(check(&none), Ok(()));
    }
}
