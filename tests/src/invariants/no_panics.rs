//! K-3: no process panics.
//!
//! Pure. Told by exit reasons: a panic ends its process, and links hear its text.

use meseta_runtime::ExitReason;

/// # Errors
/// The panic's text.
pub fn check(process: &str, reason: &ExitReason) -> Result<(), String> {
    match reason {
        ExitReason::Panic(text) => Err(format!("{process} panicked: {text}")),
        ExitReason::Normal
        | ExitReason::Terminated
        | ExitReason::Failed(_)
        | ExitReason::NoProcess
        | ExitReason::ConnectionLost
        | ExitReason::NodeRestarted
        | ExitReason::Unknown => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_a_panic() {
        let reason = ExitReason::Panic("index 3".to_owned());
        let verdict = check("master", &reason);
        assert_eq!(verdict, Err("master panicked: index 3".to_owned()));
    }

    #[test]
    fn accepts_every_other_end() {
        for reason in [ExitReason::Normal, ExitReason::ConnectionLost] {
            assert_eq!(check("master", &reason), Ok(()));
        }
    }
}
