//! What clients may take of a node over HTTP. Pure.

use std::time::Duration;

use super::framing::HeadLimits;

/// Connections that a node takes at most unless it is told otherwise.
const CONNECTIONS: usize = 10_000;

/// The same at least.
const FEW_CONNECTIONS: usize = 512;

/// What clients may take of a node over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpLimits {
    /// Connections at a time, besides the probes of peers.
    pub connections: usize,
    /// Answers that go on at a time, such as subscriptions.
    pub streams: usize,
    /// Bytes of a body.
    pub body: usize,
    /// Levels that a body may nest, at most 100.
    pub nesting: usize,
    /// Bytes of the head of a request.
    pub head: usize,
    /// Headers of a request.
    pub headers: usize,
    /// How long the head of a request may take from its first byte on, and then its body. Between requests a connection
    /// may be silent for as long as it likes.
    pub patience: Duration,
}

impl Default for HttpLimits {
    /// For a program that may open few files.
    fn default() -> Self {
        Self::for_files(0)
    }
}

impl HttpLimits {
    /// For a program that may open so many files: half of them are connections.
    pub fn for_files(files: u64) -> Self {
        let half = usize::try_from(files / 2).unwrap_or(usize::MAX);
        let connections = half.clamp(FEW_CONNECTIONS, CONNECTIONS);
        Self {
            connections,
            streams: Self::streams_of(connections),
            body: 32 << 20,
            nesting: 100,
            head: 64 << 10,
            headers: 100,
            patience: Duration::from_secs(30),
        }
    }

    /// Streams among so many connections: some are left for those who only ask.
    pub fn streams_of(connections: usize) -> usize {
        (connections - connections / 4).max(1)
    }

    pub(crate) fn head(&self) -> HeadLimits {
        HeadLimits {
            bytes: self.head,
            headers: self.headers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_half_of_the_files_and_streams_leave_some_of_them() {
        let of = |files| {
            let limits = HttpLimits::for_files(files);
            (limits.connections, limits.streams)
        };
        assert_eq!(of(0), (512, 384));
        assert_eq!(of(4096), (2048, 1536));
        assert_eq!(of(u64::MAX), (10_000, 7500));
        assert_eq!(HttpLimits::streams_of(1), 1);
    }
}
