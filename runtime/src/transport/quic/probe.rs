//! The probe: an idle TCP connection beside a QUIC one, which the kernel closes when either process ends.
//!
//! QUIC ends with its process without a word, and the other side would wait for the idle time-out. So a node that has
//! linked to a peer's process holds one TCP connection to the peer's HTTP port, which has the same number. One that only
//! dials holds it as soon as either side has linked, since nobody can open one to it. The request on it names the UDP
//! port of the prober; with the address that it comes from this tells the other side which peer it is of. When the
//! probe ends, each side pings the other on the control stream, and gives the connection up when no answer comes: soon,
//! when the port that was open refuses another connection too, for then the process has most probably ended. The end of a
//! probe thus closes nothing by itself, and a stranger that opens and closes some causes a ping at most.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tracing::debug;

use super::slot::Live;
use super::{Shared, pause};

/// Path of the request that keeps a probe open.
pub(crate) const PATH: &str = "/__probe__";
/// How long a peer's TCP port may take to answer.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Wait before another probe, after one that ended while the peer lived on.
const AGAIN: Duration = Duration::from_secs(1);
/// The same for one that could not be opened, such as to a node that serves no HTTP.
const AGAIN_REFUSED: Duration = Duration::from_secs(30);

/// Holds a probe to the peer as long as the connection stands.
pub(super) async fn hold(shared: Arc<Shared>, live: Arc<Live>) {
    let ended = live.connection.closed();
    let holding = async {
        loop {
            let wait = if open(&shared, &live).await {
                AGAIN
            } else {
                AGAIN_REFUSED
            };
            pause(wait).await;
        }
    };
    tokio::select! {
        _ = ended => {}
        () = holding => {}
    }
}

/// Opens one probe and waits for its end; `false` when it did not come about.
async fn open(shared: &Shared, live: &Live) -> bool {
    let remote = live.connection.remote_address();
    let connecting = tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(remote));
    let Ok(Ok(mut stream)) = connecting.await else {
        // It serves no HTTP. Had it ended just now, its silence would tell.
        return false;
    };
    let port = shared.local.port();
    let request = format!("GET {PATH}?udp={port} HTTP/1.1\r\nHost: {remote}\r\n\r\n");
    if stream.write_all(request.as_bytes()).await.is_err() {
        return false;
    }
    let mut answer = [0; 256];
    // No answer comes as long as the other side holds it open.
    let ended = stream.read(&mut answer).await;
    debug!(peer = %live.peer.key, ?ended, "probe ended");
    shared.config.metrics.count("runtime/probes_ended");
    live.suspect();
    if let Ok(Err(error)) = tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(remote)).await
        && error.kind() == std::io::ErrorKind::ConnectionRefused
    {
        live.suspect_more();
    }
    true
}

/// Tells the connection when it is dropped that its peer's end of a probe was closed.
pub(super) struct Guard(pub(super) std::sync::Weak<Live>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(live) = self.0.upgrade() {
            live.suspect();
        }
    }
}
