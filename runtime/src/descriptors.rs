//! How many files and sockets the program may have open at a time.
//!
//! The system gives a program few unless it asks for more, for the sake of old programs that cannot count further. One
//! that holds a connection for each peer asks; what it starts should get back what was there before.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The limit, in descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Raised {
    /// Before.
    pub before: u64,
    /// Now.
    pub now: u64,
}

/// Raises the program's soft limit to its hard one.
///
/// # Errors
/// When the system does not tell the limits, or does not change the soft one, which then stays.
pub fn raise() -> std::io::Result<Raised> {
    let (before, now) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if before < now {
        setrlimit(Resource::RLIMIT_NOFILE, now, now)?;
    }
    Ok(Raised { before, now })
}

/// How many the program may have now; 0 when the system does not tell.
pub fn limit() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft)
}

/// As [`raise`]; a failure is logged. The soft limit from before, for those whom the program starts; none when nothing
/// has changed.
pub fn raise_or_warn() -> Option<u64> {
    match raise() {
        Ok(Raised { before, now }) => {
            tracing::debug!(before, now, "limit of open files");
            (before < now).then_some(before)
        }
        Err(error) => {
            tracing::warn!(%error, "the limit of open files cannot be raised: see `ulimit -n`");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let raised = raise().unwrap();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!((soft, raised.now), (hard, hard));
        assert!(raised.before <= raised.now);
        assert_eq!(limit(), soft);
        let again = raise().unwrap();
        assert_eq!(again.before, again.now);
    }
}
