//! The whole way: a node with an actor that is stuck and a peer that takes nothing, looked at as `meseta top` does.

use std::net::UdpSocket;
use std::sync::mpsc::{Receiver, Sender, channel};

use meseta_runtime::identity::{CertificateAuthority, Identity};
use meseta_runtime::{
    Context, Credentials, Gate, Message, Node, Op, Pid, Process, Receive, Routes,
};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::diagnosis::{Cause, Finding, diagnose};
use super::sample::View;
use super::view::Sort;
use super::{Sample, look, page};

/// Bytes of one large message.
const LARGE: usize = 64 << 10;

#[derive(Serialize, Deserialize)]
struct Store;
impl Message for Store {
    const NAME: &'static str = "test.top.Store";
}
#[derive(Serialize, Deserialize)]
struct Large(Vec<u8>);
impl Message for Large {
    const NAME: &'static str = "test.top.Large";
}

/// A write to a disk that answers only when it is let.
struct SlowWrite(oneshot::Receiver<()>);
impl Op for SlowWrite {
    type Out = ();
}

#[derive(Serialize, Deserialize)]
struct Grind;
impl Message for Grind {
    const NAME: &'static str = "test.top.Grind";
}

/// Keeps its thread until it is let.
struct Hog {
    grinding: Sender<()>,
    release: Receiver<()>,
}
impl Process for Hog {
    fn routes(routes: &mut Routes<Self>) {
        routes.on::<Grind>();
    }
}
impl Receive<Grind> for Hog {
    fn receive(&mut self, _: &mut Context<'_, Self>, _: &Pid, _: Grind) {
        self.grinding.send(()).unwrap();
        // Err once the test has let go of all.
        let _over = self.release.recv();
    }
}

struct Stuck {
    write: Option<oneshot::Receiver<()>>,
    writing: Sender<()>,
}
impl Process for Stuck {
    fn routes(routes: &mut Routes<Self>) {
        routes.on::<Store>();
    }
}
impl Receive<Store> for Stuck {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, _: Store) {
        if let Some(write) = self.write.take() {
            cx.run(SlowWrite(write), Gate::HoldUser, |_, _, ()| {});
            self.writing.send(()).unwrap();
        }
    }
}

fn node() -> Node {
    let authority = CertificateAuthority::create("top").unwrap();
    let hosts = ["127.0.0.1".to_owned()];
    let identity = Identity::issue(&authority, &hosts, &["node"]).unwrap();
    Node::builder()
        .credentials(Credentials::Given(Box::new(identity)))
        .op(|write: SlowWrite| async move {
            // Let go, or forgotten at the end of the test.
            let _either = write.0.await;
        })
        .start()
        .unwrap()
}

/// Looks again and again, as somebody before the screen does, until one of each kind has been found.
async fn findings(address: &str) -> (Finding, Finding) {
    let (mut before, mut mailbox, mut peer) = (None, None, None);
    loop {
        let view = View::new(before.as_ref(), look(address, false).await.unwrap());
        for finding in diagnose(&view) {
            match finding {
                Finding::Mailbox { .. } => mailbox = mailbox.or(Some(finding)),
                Finding::Peer { .. } => peer = peer.or(Some(finding)),
                Finding::Dropped { .. } => {}
            }
        }
        if let (Some(mailbox), Some(peer)) = (&mailbox, &peer) {
            return (mailbox.clone(), peer.clone());
        }
        // What is stuck shows only over some time.
        if before.is_none() || view.elapsed_ms >= 1_000 {
            before = Some(view.sample);
        }
    }
}

#[tokio::test]
async fn an_actor_in_a_slow_operation_and_a_peer_that_takes_nothing_are_named() {
    let node = node();
    // Takes datagrams and never answers.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap();
    let (release, write) = oneshot::channel();
    let (writing, writes) = channel();
    let stuck = node
        .spawn("stuck", move || Stuck {
            write: Some(write),
            writing,
        })
        .unwrap();
    node.send(&stuck, Store);
    writes.recv().unwrap();
    for _ in 0..1_000 {
        node.send(&stuck, Store);
    }
    let far: Pid = format!("sink@{silent}").parse().unwrap();
    for _ in 0..100 {
        node.send(&far, Large(vec![7; LARGE]));
    }

    match findings(&node.address().to_string()).await {
        (
            Finding::Mailbox {
                pid,
                depth,
                because: Cause::Operation(operation),
                ..
            },
            Finding::Peer {
                peer,
                queued_bytes,
                connected,
                ..
            },
        ) => {
            assert_eq!((pid, depth), (stuck.to_string(), 1_000));
            assert!(operation.ends_with("SlowWrite"), "{operation}");
            assert_eq!((peer, connected), (silent.to_string(), false));
            assert!(queued_bytes > 1 << 20, "{queued_bytes}");
        }
        other => panic!("{other:?}"),
    }

    release.send(()).unwrap();
    tokio::task::spawn_blocking(move || node.shutdown())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_handler_that_does_not_return_is_named_although_it_keeps_the_nodes_thread() {
    let node = node();
    let (grinding, grinds) = channel();
    let (release, wait) = channel();
    let hog = node
        .spawn("hog", move || Hog {
            grinding,
            release: wait,
        })
        .unwrap();
    node.send(&hog, Grind);
    grinds.recv().unwrap();
    node.send(&hog, Grind);
    let address = node.address().to_string();
    let mut before = None;
    let because = loop {
        let view = View::new(before.as_ref(), look(&address, false).await.unwrap());
        let turn = diagnose(&view)
            .into_iter()
            .find_map(|finding| match finding {
                Finding::Mailbox { pid, because, .. } if pid == hog.to_string() => match because {
                    Cause::Turn { message, .. } => Some(message),
                    Cause::Operation(_)
                    | Cause::Handler { .. }
                    | Cause::Thread { .. }
                    | Cause::Overrun { .. }
                    | Cause::Still => None,
                },
                Finding::Mailbox { .. } | Finding::Peer { .. } | Finding::Dropped { .. } => None,
            });
        if let Some(message) = turn {
            break message;
        }
        // How long a turn lasts is added up from look to look, in whole milliseconds.
        if before.is_none() || view.elapsed_ms >= 100 {
            before = Some(view.sample);
        }
    };
    assert_eq!(because, "test.top.Grind");
    drop(release);
    tokio::task::spawn_blocking(move || node.shutdown())
        .await
        .unwrap();
}

#[test]
fn a_node_that_does_not_answer_is_told_above_its_last_state() {
    let sample = Sample {
        address: "h:1".to_owned(),
        ..Sample::default()
    };
    let view = View::new(None, sample);
    let lines = page(Some(&view), Some("cannot connect to h:1"), Sort::Oldest);
    assert_eq!(lines[1], "NO ANSWER: cannot connect to h:1; trying on");
    assert!(lines[2].starts_with("h:1   up "));
    assert_eq!(page(None, None, Sort::Oldest).len(), 1);
}
