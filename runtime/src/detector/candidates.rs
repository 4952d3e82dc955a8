//! Candidates as a flag names them: one address, a list of them, or a file with such a list.
//!
//! Pure: whoever calls reads the file.

use crate::pid::{Address, ParsePidError, Pid};

/// Who may lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Candidates {
    /// This one leads, and nobody is asked.
    Fixed(Pid),
    /// These know who does, each for itself.
    Asked(Vec<Pid>),
}

impl From<Pid> for Candidates {
    fn from(leader: Pid) -> Self {
        Self::Fixed(leader)
    }
}

/// Why a text names no candidates. Each says what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CandidatesError {
    /// A coordination service is not used.
    #[error(
        "{0} is for ZooKeeper, which Meseta does not use: list the masters as host:port,host:port"
    )]
    Zookeeper(String),
    /// Nothing is named.
    #[error("no address is named: write host:port, or host:port,host:port")]
    Empty,
    /// Something is no address.
    #[error(
        "`{0}` is no address: write host:port, or host:port,host:port, or the path of a file with such a list"
    )]
    Address(String, #[source] ParsePidError),
    /// An address stands there twice.
    #[error("{0} is named twice: name each address once")]
    Twice(Address),
    /// The file with the list cannot be read.
    #[error(
        "{path} cannot be read: {why}; write an address as host:port, or name a file with a list of them"
    )]
    File {
        /// The file.
        path: String,
        /// The system's reason.
        why: String,
    },
}

/// The addresses of a list, in its order, separated by commas, white space or both.
///
/// # Errors
/// [`CandidatesError`] when one is none, one comes twice, or there are none.
pub fn addresses(list: &str) -> Result<Vec<Address>, CandidatesError> {
    if list.contains("zk://") {
        return Err(CandidatesError::Zookeeper(list.to_owned()));
    }
    let mut all = Vec::new();
    for text in list.split(|c: char| c == ',' || c.is_whitespace()) {
        if text.is_empty() {
            continue;
        }
        let address: Address = text
            .parse()
            .map_err(|error| CandidatesError::Address(text.to_owned(), error))?;
        if all.contains(&address) {
            return Err(CandidatesError::Twice(address));
        }
        all.push(address);
    }
    if all.is_empty() {
        return Err(CandidatesError::Empty);
    }
    Ok(all)
}

/// As [`addresses`], of the list itself or, when the text holds a `/`, of the file at that path, which `read` reads.
///
/// # Errors
/// As [`addresses`], and [`CandidatesError::File`].
pub fn addresses_or_file(
    text: &str,
    read: impl FnOnce(&str) -> std::io::Result<String>,
) -> Result<Vec<Address>, CandidatesError> {
    let path = text.strip_prefix("file://").unwrap_or(text);
    if text.contains("zk://") || !path.contains('/') {
        return addresses(text);
    }
    let list = read(path).map_err(|error| CandidatesError::File {
        path: path.to_owned(),
        why: error.to_string(),
    })?;
    addresses(&list)
}

impl Candidates {
    /// Those that a flag names: one PID that leads for good (`id@host:port`), or addresses as in
    /// [`addresses_or_file`], where the process `asked` knows who leads.
    ///
    /// # Errors
    /// [`CandidatesError`].
    pub fn parse(
        text: &str,
        asked: &str,
        read: impl FnOnce(&str) -> std::io::Result<String>,
    ) -> Result<Self, CandidatesError> {
        let bad = |error| CandidatesError::Address(text.to_owned(), error);
        if text.contains('@') && !text.contains("zk://") {
            return Ok(Self::Fixed(text.parse().map_err(bad)?));
        }
        let all = addresses_or_file(text, read)?;
        let pids = all.into_iter().map(|address| Pid::new(asked, address));
        Ok(Self::Asked(pids.collect::<Result<_, _>>().map_err(bad)?))
    }
}

impl std::fmt::Display for Candidates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed(leader) => write!(f, "{leader}"),
            Self::Asked(all) => {
                let all: Vec<String> = all.iter().map(|one| one.address().to_string()).collect();
                f.write_str(&all.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<String, String> {
        let read = |path: &str| {
            if path == "/etc/masters" {
                Ok("10.0.0.1:5050\n10.0.0.2:5050,\n".to_owned())
            } else {
                Err(std::io::ErrorKind::NotFound.into())
            }
        };
        Candidates::parse(text, "election(1)", read)
            .map(|candidates| format!("{candidates:?}"))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn one_address_a_list_and_a_file_name_candidates() {
        for (text, candidates) in [
            ("a:1", "Asked([election(1)@a:1])"),
            ("a:1, b:2", "Asked([election(1)@a:1, election(1)@b:2])"),
            (
                "/etc/masters",
                "Asked([election(1)@10.0.0.1:5050, election(1)@10.0.0.2:5050])",
            ),
            (
                "file:///etc/masters",
                "Asked([election(1)@10.0.0.1:5050, election(1)@10.0.0.2:5050])",
            ),
            ("master@a:1", "Fixed(master@a:1)"),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(candidates), "{text}");
        }
    }

    #[test]
    fn errors_say_what_and_what_to_write_instead() {
        for (text, error) in [
            ("zk://a:2181/b", "zk://a:2181/b is for ZooKeeper"),
            ("", "no address is named"),
            ("somewhere", "`somewhere` is no address: write host:port"),
            ("a:1,a:1", "a:1 is named twice"),
            ("/no/such", "/no/such cannot be read: "),
        ] {
            let got = parse(text).unwrap_err();
            assert!(got.starts_with(error), "{got}");
        }
    }
}
