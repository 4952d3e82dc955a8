//! Who may prove over HTTP who they are: names with argon2 hashes of their passwords, from a file.
//! Source: security.md §2; decision 0033.
//!
//! ```text
//!   {"credentials": [{"principal": "ops", "secret": "$argon2id$v=19$m=19456,t=2,p=1$<salt>$<hash>"}]}
//! ```
//!
//! Files of Mesos have the passwords themselves in place of hashes. They are taken, with a warning.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use argon2::password_hash::{Encoding, PasswordHash, PasswordHashString, Salt, SaltString};
use argon2::{Argon2, Params, PasswordHasher as _, PasswordVerifier as _};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use rand::TryRng as _;
use rand::rngs::SysRng;
use serde::{Deserialize, Serialize};

use super::basic::Claimed;

/// What begins a hash.
const HASH: &str = "$argon2";

/// Memory that one look at a hash may take, in KiB.
const MOST_MEMORY: u32 = 256 << 10;

/// Passes over that memory.
const MOST_PASSES: u32 = 64;

/// One entry of the file.
#[derive(Serialize, Deserialize)]
pub struct Entry {
    /// The name.
    pub principal: String,
    /// The hash of the password.
    pub secret: String,
}

#[derive(Deserialize)]
struct File {
    credentials: Vec<Entry>,
}

/// Why a file of credentials cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// It is no JSON of the right form. What it says stays out of the text.
    #[error(
        "{} is not {{\"credentials\": [{{\"principal\": …, \"secret\": …}}]}}: line {line}, column {column}",
        path.display()
    )]
    Form {
        /// The file.
        path: PathBuf,
        /// Where it stops to be so.
        line: usize,
        /// The same.
        column: usize,
    },
    /// Nobody could prove anything.
    #[error("{} must contain at least one credential", .0.display())]
    Empty(PathBuf),
    /// A name that nobody could send.
    #[error("{}: a principal is a name without a colon, but one is {principal:?}", path.display())]
    Name {
        /// The file.
        path: PathBuf,
        /// The name.
        principal: String,
    },
    /// A password that everybody knows.
    #[error(
        "{}: the secret of {principal:?} is empty: make one with `meseta credentials hash`",
        path.display()
    )]
    NoSecret {
        /// The file.
        path: PathBuf,
        /// Whose.
        principal: String,
    },
    /// A hash that is none, or that takes too much to be looked at.
    #[error(
        "{}: the secret of {principal:?} is no argon2 hash with at most {MOST_MEMORY} KiB and {MOST_PASSES} passes: \
         make one with `meseta credentials hash`",
        path.display()
    )]
    Hash {
        /// The file.
        path: PathBuf,
        /// Whose.
        principal: String,
    },
    /// The system has no random bytes, or the password is too long.
    #[error("the password cannot be hashed: {0}")]
    NotHashed(String),
}

enum Secret {
    Hash(PasswordHashString),
    Plain(Vec<u8>),
}

/// All who are known.
pub struct Credentials {
    all: HashMap<String, Secret>,
    /// What is looked at in place of a hash that there is not, so that nobody learns by the time it takes who is known:
    /// the one that takes longest. None when no entry has one.
    dearest: Option<PasswordHashString>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials of {} principals", self.all.len())
    }
}

/// Whether others than its owner may read, or write, a file.
pub fn has_readers(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|data| data.permissions().mode() & 0o077 != 0)
}

/// Warns of a file that everybody may read.
pub(super) fn warn_of_readers(path: &Path) {
    if has_readers(path) {
        tracing::warn!(file = %path.display(), "other users may read this file: chmod 600 it");
    }
}

impl Credentials {
    /// Reads a file.
    ///
    /// # Errors
    /// [`CredentialsError`].
    pub fn read(path: &Path) -> Result<Self, CredentialsError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| CredentialsError::Unreadable {
                path: path.to_owned(),
                source,
            })?;
        warn_of_readers(path);
        let known = Self::parse(path, &text)?;
        let plain: Vec<&str> = (known.all.iter())
            .filter(|(_, secret)| matches!(secret, Secret::Plain(_)))
            .map(|(principal, _)| &**principal)
            .collect();
        if !plain.is_empty() {
            tracing::warn!(
                file = %path.display(),
                principals = ?plain,
                "THE PASSWORDS OF THESE PRINCIPALS STAND IN THE FILE THEMSELVES: put hashes there, which `meseta \
                 credentials hash` makes"
            );
        }
        Ok(known)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, CredentialsError> {
        let file: File = serde_json::from_str(text).map_err(|error| CredentialsError::Form {
            path: path.to_owned(),
            line: error.line(),
            column: error.column(),
        })?;
        if file.credentials.is_empty() {
            return Err(CredentialsError::Empty(path.to_owned()));
        }
        let mut known = Self {
            all: HashMap::new(),
            dearest: None,
        };
        let mut cost = 0;
        // Of one name the last entry counts.
        for Entry { principal, secret } in file.credentials {
            if principal.is_empty() || principal.contains(':') {
                return Err(CredentialsError::Name {
                    path: path.to_owned(),
                    principal,
                });
            }
            if secret.is_empty() {
                return Err(CredentialsError::NoSecret {
                    path: path.to_owned(),
                    principal,
                });
            }
            let secret = if secret.starts_with(HASH) {
                let Some((hash, price)) = hash_of(&secret) else {
                    return Err(CredentialsError::Hash {
                        path: path.to_owned(),
                        principal,
                    });
                };
                if price > cost {
                    cost = price;
                    known.dearest = Some(hash.clone());
                }
                Secret::Hash(hash)
            } else {
                Secret::Plain(secret.into_bytes())
            };
            if known.all.insert(principal.clone(), secret).is_some() {
                tracing::warn!(
                    file = %path.display(),
                    principal,
                    "this principal stands in the file more than once: the last entry counts"
                );
            }
        }
        Ok(known)
    }

    /// Whether the password is that of the name. Takes milliseconds of a processor, and as long for a name that nobody
    /// has.
    pub(super) fn prove(&self, claimed: &Claimed) -> bool {
        match self.all.get(&claimed.principal) {
            Some(Secret::Hash(hash)) => fits(hash, &claimed.secret),
            other => {
                if let Some(hash) = &self.dearest {
                    fits(hash, &claimed.secret);
                }
                let Some(Secret::Plain(secret)) = other else {
                    return false;
                };
                // Equal lengths are told apart by time from unequal ones, as in every comparison of texts.
                verify_slices_are_equal(secret, &claimed.secret).is_ok()
            }
        }
    }
}

fn fits(hash: &PasswordHashString, secret: &[u8]) -> bool {
    (Argon2::default().verify_password(secret, &hash.password_hash())).is_ok()
}

/// A hash with what a look at it costs; none when it is no hash, or costs too much.
fn hash_of(text: &str) -> Option<(PasswordHashString, u64)> {
    let hash = PasswordHash::parse(text, Encoding::B64).ok()?;
    argon2::Algorithm::try_from(hash.algorithm).ok()?;
    hash.salt?;
    hash.hash?;
    let params = Params::try_from(&hash).ok()?;
    let (memory, passes) = (params.m_cost(), params.t_cost());
    (memory <= MOST_MEMORY && passes <= MOST_PASSES)
        .then(|| (hash.serialize(), u64::from(memory) * u64::from(passes)))
}

/// The hash of a password for a file of credentials: argon2id with 19 MiB and two passes, and a salt of 16 random bytes.
///
/// # Errors
/// [`CredentialsError::NotHashed`].
pub fn hash(password: &[u8]) -> Result<String, CredentialsError> {
    let failed = |why: String| CredentialsError::NotHashed(why);
    let mut salt = [0; Salt::RECOMMENDED_LENGTH];
    SysRng
        .try_fill_bytes(&mut salt)
        .map_err(|error| failed(error.to_string()))?;
    let salt = SaltString::encode_b64(&salt).map_err(|error| failed(error.to_string()))?;
    let hash = Argon2::default()
        .hash_password(password, &salt)
        .map_err(|error| failed(error.to_string()))?;
    Ok(hash.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As cheap as a hash can be.
    fn cheap(password: &str) -> String {
        let params = Params::new(Params::MIN_M_COST, 1, 1, None).unwrap();
        let salt = SaltString::encode_b64(b"0123456789abcdef").unwrap();
        Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params)
            .hash_password(password.as_bytes(), &salt)
            .unwrap()
            .to_string()
    }

    fn read(entries: &[(&str, &str)]) -> Result<Credentials, CredentialsError> {
        let entries: Vec<_> = (entries.iter())
            .map(
                |(principal, secret)| serde_json::json!({"principal": principal, "secret": secret}),
            )
            .collect();
        let text = serde_json::json!({ "credentials": entries }).to_string();
        Credentials::parse(Path::new("/c.json"), &text)
    }

    fn proves(known: &Credentials, principal: &str, secret: &str) -> bool {
        known.prove(&Claimed {
            principal: principal.to_owned(),
            secret: secret.as_bytes().to_vec(),
        })
    }

    #[test]
    fn a_password_proves_its_own_name_only() {
        let known = read(&[
            ("ops", &cheap("one")),
            ("old", "plain"),
            ("ops2", &cheap("two")),
        ])
        .unwrap();
        assert!(proves(&known, "ops", "one") && proves(&known, "ops2", "two"));
        assert!(proves(&known, "old", "plain"));
        for (principal, secret) in [
            ("ops", "two"),
            ("ops", ""),
            ("ops", "one "),
            ("old", "plai"),
            ("old", "plain2"),
            ("old", ""),
            ("nobody", "one"),
            ("", "one"),
            // The hash is no password.
            ("ops", &cheap("one")),
        ] {
            assert!(!proves(&known, principal, secret), "{principal} {secret}");
        }
    }

    #[test]
    fn of_a_name_that_stands_there_twice_the_last_entry_counts() {
        let known = read(&[("ops", "one"), ("ops", "two")]).unwrap();
        assert!(!proves(&known, "ops", "one") && proves(&known, "ops", "two"));
    }

    #[test]
    fn whoever_is_unknown_is_looked_up_at_the_dearest_hash() {
        let dear = cheap("one").replace("t=1", "t=2");
        let known = read(&[("a", &cheap("one")), ("b", &dear)]).unwrap();
        assert_eq!(known.dearest.unwrap().to_string(), dear);
        assert!(read(&[("a", "plain")]).unwrap().dearest.is_none());
    }

    #[test]
    fn a_file_that_is_none_is_refused_without_a_word_of_what_is_in_it() {
        let text = |entries: &[(&str, &str)]| read(entries).unwrap_err().to_string();
        assert_eq!(text(&[]), "/c.json must contain at least one credential");
        assert!(text(&[("a:b", "x")]).contains("without a colon"));
        assert!(text(&[("", "x")]).contains("without a colon"));
        assert!(text(&[("ops", "")]).contains("\"ops\" is empty"));
        for bad in [
            "$argon2id$secret",
            "$argon2",
            "$argon2id$v=19$m=19456,t=2,p=1",
            "$argon2id$v=19$m=99999999,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZg$vL0D1yuZtRZ/HPMHzXRSwFHpbgDqtO5gSTbXv2kmyJM",
            "$argon2id$v=19$m=8,t=99999,p=1$MDEyMzQ1Njc4OWFiY2RlZg$vL0D1yuZtRZ/HPMHzXRSwFHpbgDqtO5gSTbXv2kmyJM",
        ] {
            let told = text(&[("ops", bad)]);
            assert!(told.contains("\"ops\"") && !told.contains(bad), "{told}");
        }
        for bad in ["", "[]", "{}", r#"{"credentials":{"s3cret":1}}"#] {
            let told = Credentials::parse(Path::new("/c.json"), bad).unwrap_err();
            let told = told.to_string();
            assert!(
                told.contains("/c.json") && !told.contains("s3cret"),
                "{told}"
            );
        }
    }

    #[test]
    fn what_is_hashed_is_taken_and_never_the_same() {
        let (one, two) = (hash(b"x").unwrap(), hash(b"x").unwrap());
        assert!(one.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{one}");
        assert_ne!(one, two);
        let known = read(&[("ops", &one)]).unwrap();
        assert!(proves(&known, "ops", "x") && !proves(&known, "ops", "y"));
    }
}
