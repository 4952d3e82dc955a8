//! what an agent has is what is free and what is held, exact to the thousandth; and when everything was given
//! back, all of it is free again.
//!
//! Pure. About the allocator's books (`master/src/allocator/core/`).

use meseta_protocol::resources::Resources;

/// # Errors
/// The sum that is wrong.
pub fn check<'a>(
    agent: &str,
    total: &Resources,
    free: &Resources,
    held: impl IntoIterator<Item = &'a Resources>,
) -> Result<(), String> {
    let mut sum = free.clone();
    for part in held {
        sum += &part.unallocated();
    }
    if sum == *total {
        Ok(())
    } else {
        Err(format!(
            "{agent} has {total}, but {free} is free and with what is held that makes {sum}"
        ))
    }
}

/// When nobody holds anything any more.
///
/// # Errors
/// What is missing.
pub fn all_is_back(agent: &str, total: &Resources, free: &Resources) -> Result<(), String> {
    if total == free {
        Ok(())
    } else {
        Err(format!(
            "nobody holds anything of {agent}, yet of {total} only {free} is free"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources(text: &str) -> Resources {
        text.parse().unwrap()
    }

    #[test]
    fn refuses_what_got_lost_and_what_came_from_nowhere() {
        let total = resources("cpus:4");
        let held = resources("cpus:1.5");
        assert!(check("S0", &total, &resources("cpus:2.499"), [&held]).is_err());
        assert!(check("S0", &total, &resources("cpus:2.501"), [&held]).is_err());
        assert!(all_is_back("S0", &total, &resources("cpus:3.999")).is_err());
    }

    #[test]
    fn accepts_exact_sums() {
        let total = resources("cpus:4;ports:[1-9]");
        let held = resources("cpus:1.5;ports:[3-4]");
        let free = resources("cpus:2.5;ports:[1-2,5-9]");
        assert_eq!(check("S0", &total, &free, [&held]), Ok(()));
        assert_eq!(all_is_back("S0", &total, &total), Ok(()));
    }
}
