//! Finds out who sends a request: by name and password, or by a token. Source: security.md §3.2; decision 0033.
//!
//! [`basic`] and [`bearer`] read what clients send, [`credentials`] is the file of those who are known; they decide. This
//! shell remembers what it has found out, since a look at a password takes milliseconds: a keyed digest of the header
//! with whom it proves, or that it proves nobody. Passwords are looked at beside the thread of HTTP, a few at a time.

pub mod basic;
pub mod bearer;
pub mod credentials;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::num::NonZero;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::hmac;
use axum::http::{HeaderMap, header};
use parking_lot::Mutex;
use rand::TryRng as _;
use rand::rngs::SysRng;
use tokio::sync::Semaphore;
use tracing::debug;

use super::Response;
use super::access::{Principal, Realm};
use super::cors::Origins;
use crate::metrics::Metrics;
use bearer::TokenKey;
use credentials::{Credentials, warn_of_readers};

/// Headers remembered, of those that prove somebody and of those that do not.
const REMEMBERED: usize = 4096;

/// Requests whose password is being looked at or waits to be; one more is answered with 503.
const MAX_WAITING: usize = 64;

/// Who has to prove what to a node over HTTP, and to whom the node listens.
#[derive(Debug, Clone, Default)]
pub struct Security {
    /// What the names of realms begin with, such as `mesos-master`.
    pub realms: &'static str,
    /// Realms whose every request needs a principal.
    pub guarded: BTreeSet<Realm>,
    /// Those who can prove it with a password.
    pub credentials: Option<Arc<Credentials>>,
    /// Key of tokens.
    pub tokens: Option<TokenKey>,
    /// Whether anybody may do everything in realms that are not guarded.
    pub trusts_anybody: bool,
    /// Sites whose pages may read answers.
    pub origins: Origins,
}

impl Security {
    fn challenge(&self, realm: Realm, error: Option<&str>) -> String {
        let realm = format!("{}-{}", self.realms, realm.name());
        let basic = (self.credentials.is_some()).then(|| basic::challenge(&realm));
        let bearer = (self.tokens.is_some()).then(|| bearer::challenge(&realm, error));
        let all: Vec<String> = basic.into_iter().chain(bearer).collect();
        all.join(",")
    }

    /// Whether anybody can prove anything.
    pub(super) fn knows_credentials(&self) -> bool {
        self.credentials.is_some() || self.tokens.is_some()
    }
}

/// Reads the key of tokens.
///
/// # Errors
/// What is wrong with the file.
pub fn read_token_key(path: &Path) -> Result<TokenKey, String> {
    let key =
        std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    if key.is_empty() {
        return Err(format!("{} is empty", path.display()));
    }
    warn_of_readers(path);
    if key.len() < 32 {
        let bytes = key.len();
        tracing::warn!(file = %path.display(), bytes, "the key of tokens is short: use 32 random bytes or more");
    }
    Ok(TokenKey::new(&key))
}

/// The name in the value of a header `Authorization`.
pub(crate) fn name_in(value: &str) -> Option<String> {
    basic::read(value).map(|claimed| claimed.principal)
}

type Digest = [u8; 32];

/// Digests with what was found out; of more than [`REMEMBERED`] the oldest are forgotten.
#[derive(Default)]
struct Memory {
    known: HashMap<Digest, Option<Principal>>,
    proven: VecDeque<Digest>,
    others: VecDeque<Digest>,
}

impl Memory {
    fn keep(&mut self, digest: Digest, found: Option<Principal>) {
        // Those who guess push out none who know.
        let order = match &found {
            Some(_) => &mut self.proven,
            None => &mut self.others,
        };
        if self.known.insert(digest, found).is_none() {
            order.push_back(digest);
            if order.len() > REMEMBERED
                && let Some(oldest) = order.pop_front()
            {
                self.known.remove(&oldest);
            }
        }
    }
}

/// What a header proves.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Proof {
    Of(Principal),
    /// Nothing, or nobody that is known. For a token, why it is not taken.
    None(Option<String>),
}

/// Finds out who asks.
pub(super) struct Gate {
    pub(super) security: Security,
    key: hmac::Key,
    memory: Mutex<Memory>,
    /// Passwords looked at at a time.
    turns: Arc<Semaphore>,
    /// Places for those who wait for one, so that they cannot take all connections.
    places: Semaphore,
    metrics: Metrics,
}

impl Gate {
    /// # Errors
    /// When the system has no random bytes.
    pub(super) fn new(security: Security, metrics: Metrics) -> std::io::Result<Self> {
        let mut key = [0; 32];
        (SysRng.try_fill_bytes(&mut key)).map_err(std::io::Error::other)?;
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        Ok(Self {
            security,
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            memory: Mutex::default(),
            turns: Arc::new(Semaphore::new(processors.div_ceil(2))),
            places: Semaphore::new(MAX_WAITING),
            metrics,
        })
    }

    /// Who sent these headers. `needed` is whether the request is answered at all without a principal; a header that
    /// proves nobody is an error either way, so that nobody takes a wrong password for a right one.
    ///
    /// # Errors
    /// The answer, 401, or 503 when too many passwords are looked at.
    pub(super) async fn principal(
        &self,
        realm: Realm,
        headers: &HeaderMap,
        needed: bool,
        now: u64,
    ) -> Result<Option<Principal>, Response> {
        let mut given = headers.get_all(header::AUTHORIZATION).iter();
        let (first, second) = (given.next(), given.next());
        let value = match (first, second) {
            (None, _) if !needed => return Ok(None),
            (Some(value), None) => value.to_str().ok(),
            _ => None,
        };
        let proof = match value {
            Some(value) => self.proof(value, now).await?,
            None => Proof::None(None),
        };
        match proof {
            Proof::Of(principal) => Ok(Some(principal)),
            Proof::None(why) => Err(self.refusal(realm, why.as_deref())),
        }
    }

    /// 401 with what a realm asks for.
    pub(super) fn refusal(&self, realm: Realm, why: Option<&str>) -> Response {
        self.metrics.count("runtime/http_unauthorized");
        let text = "401 Unauthorized.";
        let text = match (&self.security.credentials, &self.security.tokens) {
            (Some(_), Some(_)) => {
                let one = |scheme| format!("\"{scheme}\" authenticator returned:\n{text}");
                format!("{}\n\n{}", one("Basic"), one("Bearer"))
            }
            _ => text.to_owned(),
        };
        Response::text(401, text)
            .with_header("www-authenticate", self.security.challenge(realm, why))
    }

    async fn proof(&self, value: &str, now: u64) -> Result<Proof, Response> {
        if let Some(credentials) = &self.security.credentials
            && basic::after("basic", value).is_some()
        {
            let found = self.named(credentials, value).await?;
            return Ok(found.map_or(Proof::None(None), Proof::Of));
        }
        let Some(key) = &self.security.tokens else {
            return Ok(Proof::None(None));
        };
        let Some(token) = basic::after("bearer", value) else {
            return Ok(Proof::None(Some("its scheme is not 'Bearer'".to_owned())));
        };
        Ok(match key.open(token, now) {
            Ok(claims) => Proof::Of(Principal {
                value: None,
                claims,
            }),
            Err(why) => Proof::None(Some(why.to_string())),
        })
    }

    /// Whose name and password this header is.
    async fn named(
        &self,
        credentials: &Arc<Credentials>,
        value: &str,
    ) -> Result<Option<Principal>, Response> {
        let Some(claimed) = basic::read(value) else {
            return Ok(None);
        };
        let mut digest = Digest::default();
        digest.copy_from_slice(hmac::sign(&self.key, value.as_bytes()).as_ref());
        let remembered = || self.memory.lock().known.get(&digest).cloned();
        if let Some(found) = remembered() {
            return Ok(found);
        }
        let busy = || Response::text(503, "Too many passwords are looked at: try again.");
        let _place = self.places.try_acquire().map_err(|_| busy())?;
        let turn = (Arc::clone(&self.turns).acquire_owned().await).map_err(|_| busy())?;
        // Somebody may have sent the same meanwhile.
        if let Some(found) = remembered() {
            return Ok(found);
        }
        let credentials = Arc::clone(credentials);
        let looked = tokio::task::spawn_blocking(move || {
            let is_proven = credentials.prove(&claimed);
            drop(turn);
            (is_proven, claimed.principal)
        });
        let (is_proven, name) = looked.await.map_err(|_| busy())?;
        if !is_proven {
            debug!(principal = %name, "a password is not that of the principal");
        }
        let found = is_proven.then(|| Principal::named(name));
        self.memory.lock().keep(digest, found.clone());
        Ok(found)
    }
}

#[cfg(test)]
mod tests;
