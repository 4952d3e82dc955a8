//! Ports for nodes whose addresses must be known before they start, as those of the masters of one cluster.
//!
//! A node that may have any port takes port 0 ([`crate::NodeBuilder::port`]) and says afterwards which one it has. Where
//! several must be told of each other first, or where a node keeps its port over its restarts, a port is chosen here.

use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicU32, Ordering};

/// The lowest one; below are those of known services.
const FIRST: u32 = 10_000;
/// Where the system begins with those that it gives to whoever asks for any, when it does not say.
const SYSTEM_FIRST: u32 = 32_768;
/// Fewest ports to choose from.
const FEWEST: u32 = 1_000;

/// Ports of loopback, each free for TCP and UDP, and given to nobody else who asks here, in whatever process of this
/// network namespace, until this is dropped.
///
/// They lie below the ports that the system gives to whoever asks for any, so that no connection of another program has
/// one before the node does. A program that asks for one by its number may still get it: then the node does not start and
/// says so.
#[derive(Debug)]
pub struct FreePorts {
    all: Vec<u16>,
    /// Their names stand for the ports while they are open; the system forgets them with this process.
    _held: Vec<UnixDatagram>,
}

impl FreePorts {
    /// Finds so many.
    ///
    /// # Errors
    /// [`io::ErrorKind::AddrInUse`] if fewer are free.
    pub fn find(count: usize) -> io::Result<Self> {
        static ASKED: AtomicU32 = AtomicU32::new(0);
        let room = room();
        let wanted = |there: usize| {
            let text = format!("{count} free ports are wanted and {there} there");
            Err(io::Error::new(io::ErrorKind::AddrInUse, text))
        };
        // Not even tried, which would take them all for a while.
        if u32::try_from(count).is_ok_and(|count| count > room) {
            return wanted(usize::try_from(room).unwrap_or(usize::MAX));
        }
        let mut found = Self {
            all: Vec::with_capacity(count),
            _held: Vec::with_capacity(count),
        };
        for _ in 0..room {
            if found.all.len() == count {
                break;
            }
            // Processes begin at different places, so that few try the same.
            let number = ASKED.fetch_add(1, Ordering::Relaxed);
            let place = std::process::id().wrapping_mul(131).wrapping_add(number);
            let port = u16::try_from(FIRST + place % room).unwrap_or(u16::MAX);
            if let Some(held) = hold(port) {
                found.all.push(port);
                found._held.push(held);
            }
        }
        if found.all.len() < count {
            return wanted(found.all.len());
        }
        Ok(found)
    }

    /// The ports.
    pub fn all(&self) -> &[u16] {
        &self.all
    }
}

/// How many ports there are to choose from.
fn room() -> u32 {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    let first = range
        .ok()
        .and_then(|range| range.split_whitespace().next()?.parse().ok());
    let first: u32 = first.unwrap_or(SYSTEM_FIRST);
    if first < FIRST + FEWEST {
        // The system gives nearly all: then any will do.
        return u32::from(u16::MAX) - FIRST;
    }
    first.min(u32::from(u16::MAX)) - FIRST
}

/// Holds a port if nobody has it.
fn hold(port: u16) -> Option<UnixDatagram> {
    let name = SocketAddr::from_abstract_name(format!("meseta-port-{port}")).ok()?;
    let held = UnixDatagram::bind_addr(&name).ok()?;
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?;
    UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).ok()?;
    Some(held)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_gets_a_port_that_another_holds() {
        let first = FreePorts::find(20).unwrap();
        let second = FreePorts::find(20).unwrap();
        let mut all = [first.all(), second.all()].concat();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 40);
        assert!(hold(first.all()[0]).is_none());
        let port = first.all()[0];
        drop(first);
        assert!(hold(port).is_some());
    }

    #[test]
    fn a_port_in_use_is_not_given() {
        let port = FreePorts::find(1).unwrap().all()[0];
        let _udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        assert!(hold(port).is_none());
    }

    #[test]
    fn too_many_are_refused() {
        let error = FreePorts::find(70_000).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().starts_with("70000 free ports are wanted"));
    }
}
