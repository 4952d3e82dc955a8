//! PIDs: the name by which any actor, here or on another machine, is addressed.
//!
//! Pure: text and comparison only. A PID prints as `id@host:port`, for example `slave(1)@10.0.0.7:5051` or
//! `[::1]`-style hosts in brackets (`master@[::1]:5050`). The id is what a node's router looks up, the address is
//! what the transport dials. Two PIDs are equal exactly when their texts are equal; which run of the node behind
//! the address is meant is known to routing and links only, never to equality.
//!
//! A PID is one shared record, so that passing it on costs one count. The record has room for a `Shortcut`: what a
//! router found when it first looked the name up. It is a hint of no meaning to anybody else: not part of the text,
//! of equality, of the order or of the wire, and whoever uses it checks that it still holds.

use std::any::Any;
use std::cmp::Ordering;
use std::fmt;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest id a PID may have, in bytes.
pub const MAX_ID_BYTES: usize = 512;

/// `host:port` of a node: the host is an IP address or a name without a port, the port serves HTTP on TCP and
/// actor messages on UDP.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// IP address or host name, without brackets.
    pub host: Arc<str>,
    /// Port, the same number for TCP and UDP.
    pub port: u16,
}

/// Address of an actor: `id@host:port`. A clone is the same record.
#[derive(Clone)]
pub struct Pid(Arc<Record>);

/// What a router found for a PID.
pub(crate) type Shortcut = Arc<dyn Any + Send + Sync>;

struct Record {
    id: Arc<str>,
    address: Address,
    shortcut: OnceLock<Shortcut>,
}

/// Why a text is not a PID or an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParsePidError {
    /// No `@` between id and address.
    #[error("PID `{0}` has no `@`: write it as id@host:port")]
    NoAt(String),
    /// The id is empty, too long, or has a character that would make the text ambiguous.
    #[error(
        "PID id `{0}` must have 1 to {MAX_ID_BYTES} bytes and no `@`, `/`, space or control character"
    )]
    BadId(String),
    /// The part after the `@` is not `host:port`.
    #[error(
        "address `{0}` is not host:port with a port up to 65535: write for example 127.0.0.1:5050 or [::1]:5050"
    )]
    BadAddress(String),
}

impl Address {
    /// Address of `host` and `port`. Brackets round an IPv6 host are dropped.
    pub fn new(host: &str, port: u16) -> Self {
        let bare = host
            .strip_prefix('[')
            .and_then(|h| h.strip_suffix(']'))
            .unwrap_or(host);
        Self {
            host: Arc::from(bare),
            port,
        }
    }

    /// Whether the host is a loopback address or `localhost`.
    pub fn is_loopback(&self) -> bool {
        &*self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// IP address to bind to for a node of this host that only dials: loopback for loopback, else any address of the
    /// same family.
    pub fn dialling_ip(&self) -> IpAddr {
        let is_v6 = matches!(self.host.parse(), Ok(IpAddr::V6(_)));
        match (self.is_loopback(), is_v6) {
            (true, false) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            (true, true) => IpAddr::V6(Ipv6Addr::LOCALHOST),
            (false, false) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            (false, true) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Address {
    type Err = ParsePidError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParsePidError::BadAddress(text.to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
        let bracketed = host.starts_with('[') && host.ends_with(']');
        let host_ok = !matches!(host, "" | "[]")
            && host.len() <= 255
            && (bracketed || !host.contains(':'))
            && host
                .chars()
                .all(|c| !c.is_control() && !c.is_whitespace() && c != '@' && c != '/');
        // `u16::from_str` takes a leading `+`, which no address has.
        if !host_ok || !port.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad());
        }
        Ok(Self::new(host, port.parse().map_err(|_| bad())?))
    }
}

impl Pid {
    /// PID of `id` on the node at `address`.
    ///
    /// # Errors
    /// [`ParsePidError::BadId`] when the id is empty, longer than [`MAX_ID_BYTES`], or holds `@`, `/`, white space
    /// or a control character.
    pub fn new(id: &str, address: Address) -> Result<Self, ParsePidError> {
        let ok = !id.is_empty()
            && id.len() <= MAX_ID_BYTES
            && id
                .chars()
                .all(|c| !c.is_control() && !c.is_whitespace() && c != '@' && c != '/');
        if !ok {
            return Err(ParsePidError::BadId(id.to_owned()));
        }
        Ok(Self::known(Arc::from(id), address))
    }

    /// PID of an id that is known to be one.
    pub(crate) fn known(id: Arc<str>, address: Address) -> Self {
        Self(Arc::new(Record {
            id,
            address,
            shortcut: OnceLock::new(),
        }))
    }

    /// The same PID in a record of its own, with what was remembered of it.
    pub(crate) fn copied(&self) -> Self {
        Self(Arc::new(Record {
            id: Arc::clone(&self.0.id),
            address: self.0.address.clone(),
            shortcut: self.0.shortcut.clone(),
        }))
    }

    /// The part before the `@`, for example `slave(1)`.
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// The part after the `@`.
    pub fn address(&self) -> &Address {
        &self.0.address
    }

    /// The id as it is shared.
    pub(crate) fn id_shared(&self) -> &Arc<str> {
        &self.0.id
    }

    /// Whether both are clones of one record. Equal PIDs need not be.
    pub(crate) fn is_clone_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The id without copying its text.
    pub(crate) fn shared_id(&self) -> Arc<str> {
        Arc::clone(&self.0.id)
    }

    /// What a router remembered with [`Pid::remember`], if it is of this type.
    pub(crate) fn shortcut<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.0.shortcut.get()?.downcast_ref()
    }

    /// Remembers what a router found, for all clones of this PID. The first thing remembered stays: one that holds no
    /// more is looked up again each time.
    pub(crate) fn remember(&self, shortcut: Shortcut) {
        let _first_stays = self.0.shortcut.set(shortcut);
    }
}

impl PartialEq for Pid {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || (self.0.id == other.0.id && self.0.address == other.0.address)
    }
}
impl Eq for Pid {}

impl std::hash::Hash for Pid {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.id.hash(state);
        self.0.address.hash(state);
    }
}

impl PartialOrd for Pid {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Pid {
    fn cmp(&self, other: &Self) -> Ordering {
        (&self.0.address, &self.0.id).cmp(&(&other.0.address, &other.0.id))
    }
}

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.0.id, self.0.address)
    }
}

impl fmt::Debug for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Pid {
    type Err = ParsePidError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (id, address) = text
            .split_once('@')
            .ok_or_else(|| ParsePidError::NoAt(text.to_owned()))?;
        Self::new(id, address.parse()?)
    }
}

/// On the wire a PID is its text.
impl Serialize for Pid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Pid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_it_prints() {
        for text in [
            "master@127.0.0.1:5050",
            "slave(1)@host-7.example:5051",
            "master@[::1]:0",
        ] {
            let pid: Pid = text.parse().unwrap();
            assert_eq!(pid.to_string(), text);
        }
        let six: Pid = "master@[::1]:5050".parse().unwrap();
        assert_eq!(&*six.address().host, "::1");
        assert!(six.address().is_loopback());
        let dialling = |host: &str| Address::new(host, 0).dialling_ip().to_string();
        assert_eq!(
            ["localhost", "::1", "host.example", "10.0.0.7", "fd00::7"].map(dialling),
            ["127.0.0.1", "::1", "0.0.0.0", "0.0.0.0", "::"]
        );
    }

    #[test]
    fn names_what_is_wrong() {
        assert_eq!(
            "master".parse::<Pid>(),
            Err(ParsePidError::NoAt("master".into()))
        );
        for bad in [
            "a@[]:50",
            "m@h",
            "m@:1",
            "m@h:70000",
            "m@::1:5",
            "m@h:+5",
            "m@a@b:1",
        ] {
            assert!(
                matches!(bad.parse::<Pid>(), Err(ParsePidError::BadAddress(_))),
                "{bad}"
            );
        }
        for bad in ["@h:1", "a b@h:1", "a/b@h:1", "a\n@h:1"] {
            assert!(
                matches!(bad.parse::<Pid>(), Err(ParsePidError::BadId(_))),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_shortcut_is_shared_by_clones_and_means_nothing_to_equality() {
        let one: Pid = "a@h:1".parse().unwrap();
        let (clone, twin) = (one.clone(), "a@h:1".parse::<Pid>().unwrap());
        one.remember(Arc::new(7_u32));
        one.remember(Arc::new(8_u32));
        assert_eq!(clone.shortcut::<u32>(), Some(&7));
        assert_eq!(clone.shortcut::<u64>(), None);
        assert_eq!(twin.shortcut::<u32>(), None);
        assert_eq!(one, twin);
    }

    #[test]
    fn orders_by_address_then_id() {
        let a: Pid = "z@h:1".parse().unwrap();
        let b: Pid = "a@h:2".parse().unwrap();
        assert!(a < b);
    }
}
