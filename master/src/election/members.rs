//! The masters of a cluster as `--masters` names them.
//!
//! Pure.

use std::collections::BTreeSet;

use meseta_runtime::Address;
use meseta_runtime::detector::candidates::{CandidatesError, addresses};

/// Who elects, and how many are enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    /// All masters, this one among them.
    pub all: BTreeSet<Address>,
    /// More than half of them.
    pub quorum: usize,
}

/// Why masters cannot elect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembersError {
    /// The list cannot be read.
    #[error("--masters")]
    List(#[from] CandidatesError),
    /// This master is not in it.
    #[error(
        "--masters={given} does not name this master, {me}: add it, or set --advertise_ip and --port to an address in the list"
    )]
    NotAmong {
        /// What was given.
        given: String,
        /// Where this master is.
        me: Address,
    },
    /// A quorum that two halves of the cluster could have at once, or that fewer failures would break than need be.
    #[error(
        "--quorum={given} does not agree with {masters} masters, of which {right} are a quorum: leave --quorum out, or name as many masters as you mean"
    )]
    Quorum {
        /// What was given.
        given: usize,
        /// How many masters there are.
        masters: usize,
        /// What it must be.
        right: usize,
    },
}

impl Members {
    /// The members that `--masters` lists, for the master at `me`; `--quorum`, if given, must agree.
    ///
    /// # Errors
    /// [`MembersError`], which names the flag and the way out.
    pub fn parse(list: &str, quorum: Option<usize>, me: &Address) -> Result<Self, MembersError> {
        let all: BTreeSet<Address> = addresses(list)?.into_iter().collect();
        if !all.contains(me) {
            return Err(MembersError::NotAmong {
                given: list.to_owned(),
                me: me.clone(),
            });
        }
        let right = all.len() / 2 + 1;
        match quorum {
            Some(given) if given != right => Err(MembersError::Quorum {
                given,
                masters: all.len(),
                right,
            }),
            Some(_) | None => Ok(Self { all, quorum: right }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(list: &str, quorum: Option<usize>) -> Result<usize, String> {
        let me = "10.0.0.1:5050".parse().unwrap();
        let members = Members::parse(list, quorum, &me);
        members
            .map(|members| members.quorum)
            .map_err(|error| meseta_runtime::error_chain(&error))
    }

    #[test]
    fn a_quorum_is_more_than_half_and_an_own_one_must_agree() {
        assert_eq!(parse("10.0.0.1:5050", None), Ok(1));
        let three = "10.0.0.1:5050,10.0.0.2:5050,10.0.0.3:5050";
        assert_eq!(parse(three, None), Ok(2));
        assert_eq!(parse(three, Some(2)), Ok(2));
        assert_eq!(parse(&format!("{three},10.0.0.4:5050"), None), Ok(3));
        let error = parse(three, Some(1)).unwrap_err();
        assert!(
            error.starts_with("--quorum=1 does not agree with 3 masters"),
            "{error}"
        );
    }

    #[test]
    fn errors_name_the_flag_and_the_way_out() {
        for (list, text) in [
            (
                "10.0.0.2:5050,10.0.0.3:5050",
                "--masters=10.0.0.2:5050,10.0.0.3:5050 does not name this master, 10.0.0.1:5050: add it",
            ),
            (
                "zk://10.0.0.1:2181/mesos",
                "--masters: zk://10.0.0.1:2181/mesos is for ZooKeeper",
            ),
            (
                "10.0.0.1:5050,10.0.0.1:5050",
                "--masters: 10.0.0.1:5050 is named twice",
            ),
        ] {
            let error = parse(list, None).unwrap_err();
            assert!(error.starts_with(text), "{error}");
        }
    }
}
