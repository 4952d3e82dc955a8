//! What a node tells of its processes: what waits, what was done, who watches whom, what is held.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::mpsc::{Receiver, Sender, channel};

use meseta_runtime::node::ProcessStatus;
use meseta_runtime::transport::memory::MemoryNetwork;
use meseta_runtime::{Clock, Context, Gate, Message, Node, Op, Pid, Process, Receive, Routes};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

#[derive(Serialize, Deserialize)]
struct Note;
impl Message for Note {
    const NAME: &'static str = "test.status.Note";
}
#[derive(Serialize, Deserialize)]
struct Watch(Pid);
impl Message for Watch {
    const NAME: &'static str = "test.status.Watch";
}
#[derive(Serialize, Deserialize)]
struct Save;
impl Message for Save {
    const NAME: &'static str = "test.status.Save";
}

/// Says when it begins, and lasts until somebody lets it end.
struct Write {
    begun: Sender<()>,
    end: oneshot::Receiver<()>,
}
impl Op for Write {
    type Out = ();
}

struct Worker {
    write: Option<Write>,
}
impl Process for Worker {
    fn routes(routes: &mut Routes<Self>) {
        routes.on::<Note>().on::<Watch>().on::<Save>();
    }
}
impl Receive<Note> for Worker {
    fn receive(&mut self, _: &mut Context<'_, Self>, _: &Pid, _: Note) {}
}
impl Receive<Watch> for Worker {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, Watch(pid): Watch) {
        cx.link(&pid);
    }
}
impl Receive<Save> for Worker {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, _: Save) {
        if let Some(write) = self.write.take() {
            cx.run(write, Gate::HoldUser, |_, _, ()| {});
        }
    }
}

struct World {
    clock: Clock,
    node: Node,
}
impl World {
    fn new() -> Self {
        let clock = Clock::paused();
        let node = Node::builder()
            .memory(&MemoryNetwork::new(7))
            .clock(clock.clone())
            .mailbox(3)
            .op(|write: Write| async move {
                write.begun.send(()).unwrap();
                // Whether it was let go or forgotten is all one.
                let _either = write.end.await;
            })
            .start()
            .unwrap();
        Self { clock, node }
    }
    fn worker(&self, id: &str) -> (Pid, oneshot::Sender<()>, Receiver<()>) {
        let (release, end) = oneshot::channel();
        let (begun, begins) = channel();
        let write = Some(Write { begun, end });
        let pid = self.node.spawn(id, move || Worker { write });
        (pid.unwrap(), release, begins)
    }
    fn status(&self, pid: &Pid) -> ProcessStatus {
        let all = self.node.processes();
        all.into_iter().find(|one| one.id == pid.id()).unwrap()
    }
}

#[test]
fn a_process_tells_what_it_handled_and_who_watches_whom() {
    let world = World::new();
    let (one, _, _) = world.worker("one");
    let (two, _, _) = world.worker("two");
    for _ in 0..2 {
        world.node.send(&one, Note);
        world.clock.settle();
    }
    world.node.send(&one, Watch(two.clone()));
    world.clock.settle();
    let status = world.status(&one);
    assert_eq!(status.messages_handled, 3);
    assert_eq!((status.links, status.watchers), (1, 0));
    assert_eq!(world.status(&two).watchers, 1);
    let mut counts: Vec<(&str, u64)> = status
        .handlers
        .iter()
        .map(|one| (&*one.message, one.count))
        .collect();
    counts.sort_unstable();
    assert_eq!(counts, [("test.status.Note", 2), ("test.status.Watch", 1)]);
    world.node.shutdown();
}

#[test]
fn a_process_that_holds_its_messages_says_for_what_and_how_many_wait() {
    let world = World::new();
    let (one, release, begins) = world.worker("one");
    world.node.send(&one, Save);
    begins.recv().unwrap();
    for _ in 0..3 * 16 + 1 {
        world.node.send(&one, Note);
    }
    let status = world.status(&one);
    assert!(status.holding.as_deref().unwrap().ends_with("Write"));
    assert_eq!(status.messages_dropped, status.drops.reserve_full);
    release.send(()).unwrap();
    world.clock.settle();
    let status = world.status(&one);
    assert_eq!((status.holding, status.mailbox_depth), (None, 0));
    assert_eq!(status.messages_handled + status.messages_dropped, 50);
    world.node.shutdown();
}
