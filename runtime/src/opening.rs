//! When a node begins to take connections.

use tokio::sync::watch;

/// Whether a node takes connections: from its start on, or from the moment on that one of its processes says so.
///
/// Who comes earlier waits in the queues of its sockets and is not refused; that holds for all of HTTP too: to
/// whoever asks for `/health` or `/metrics`, a node that is not open yet is silent.
#[derive(Debug, Clone)]
pub(crate) struct Opening(watch::Sender<bool>);

impl Opening {
    pub(crate) fn new(is_open: bool) -> Self {
        Self(watch::Sender::new(is_open))
    }

    /// From now on connections are taken.
    pub(crate) fn open(&self) {
        self.0.send_replace(true);
    }

    /// Returns as soon as connections may be taken.
    pub(crate) async fn opened(&self) {
        let waited = self.0.subscribe().wait_for(|open| *open).await.is_ok();
        debug_assert!(waited, "this value is a sender itself");
    }
}

impl Default for Opening {
    fn default() -> Self {
        Self::new(true)
    }
}
