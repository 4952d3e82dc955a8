//! A process that gets ten times what its mailbox holds, each second for half a minute, while its handler does not come
//! back: what waits is bounded, what is dropped is counted by its cause, its timers and outcomes are served first, and
//! nobody else notices. `benches/overload.rs` measures the same with a live clock over QUIC.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use meseta_runtime::node::ProcessStatus;
use meseta_runtime::transport::memory::MemoryNetwork;
use meseta_runtime::{
    Ask, Clock, Context, Gate, Message, Node, Op, Pid, Placement, Process, Receive, Routes, Time,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

const BOUND: usize = 16;
const FLOOD: usize = 10 * BOUND;
const SECOND: Duration = Duration::from_secs(1);
const SECONDS: u32 = 30;

macro_rules! messages {
    ($($name:ident($type:ty)),*) => {$(
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct $name($type);
        impl Message for $name {
            const NAME: &'static str = concat!("test.overload.", stringify!($name));
        }
    )*};
}
messages!(
    Work(usize),
    Errand(()),
    Block(()),
    Question(u32),
    Answer(u32)
);
impl Ask for Question {
    type Reply = Answer;
}

/// An operation that lasts until the test ends it.
struct Run;
impl Op for Run {
    type Out = ();
}

#[derive(Debug, PartialEq)]
enum Seen {
    Tick(Time),
    Blocked,
    ErrandDone,
    Work(usize),
}

struct Victim {
    seen: Sender<Seen>,
    go: Receiver<()>,
}
impl Victim {
    fn tick(cx: &mut Context<'_, Self>) {
        cx.after(SECOND, |me, cx| {
            me.seen.send(Seen::Tick(cx.now())).unwrap();
            Self::tick(cx);
        });
    }
}
impl Process for Victim {
    fn routes(routes: &mut Routes<Self>) {
        routes.on::<Work>().on::<Errand>().on::<Block>();
    }
    fn start(&mut self, cx: &mut Context<'_, Self>) {
        Self::tick(cx);
    }
}
impl Receive<Errand> for Victim {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, _: Errand) {
        cx.run(Run, Gate::Interleave, |me, _, ()| {
            me.seen.send(Seen::ErrandDone).unwrap();
        });
    }
}
impl Receive<Block> for Victim {
    fn receive(&mut self, _: &mut Context<'_, Self>, _: &Pid, _: Block) {
        self.seen.send(Seen::Blocked).unwrap();
        self.go.recv().unwrap();
    }
}
impl Receive<Work> for Victim {
    fn receive(&mut self, _: &mut Context<'_, Self>, _: &Pid, Work(number): Work) {
        self.seen.send(Seen::Work(number)).unwrap();
    }
}

struct Neighbour;
impl Process for Neighbour {
    fn routes(routes: &mut Routes<Self>) {
        routes.on::<Question>();
    }
}
impl Receive<Question> for Neighbour {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, Question(number): Question) {
        cx.reply(Answer(number));
    }
}

fn status(node: &Node, pid: &Pid) -> ProcessStatus {
    let all = node.processes();
    all.into_iter().find(|one| one.id == pid.id()).unwrap()
}

#[test]
fn ten_times_overload_is_bounded_and_counted_and_disturbs_neither_control_nor_others() {
    let (clock, network) = (Clock::paused(), MemoryNetwork::new(11));
    let builder = || {
        let builder = Node::builder().memory(&network).clock(clock.clone());
        builder.mailbox(BOUND)
    };
    let (begun, begins) = channel();
    let end = Arc::new(Notify::new());
    let ended = Arc::clone(&end);
    let operator = move |_: Run| {
        let (begun, ended) = (begun.clone(), Arc::clone(&ended));
        async move {
            begun.send(()).unwrap();
            ended.notified().await;
        }
    };
    let home = builder().op(operator).start().unwrap();
    let (flooding, other) = (builder().start().unwrap(), builder().start().unwrap());
    let ((seen, log), (go, going)) = (channel(), channel());
    let victim = move || Victim { seen, go: going };
    let victim = home
        .spawn_placed("victim", Placement::OwnThread, victim)
        .unwrap();
    let neighbour = home.spawn("neighbour", || Neighbour).unwrap();
    let asked = |node: &Node, number| node.ask(&neighbour, Question(number), SECOND).wait();

    let mut dropped = 0_u32;
    for second in 1..=SECONDS {
        clock.advance(SECOND);
        assert_eq!(log.recv(), Ok(Seen::Tick(Time::ZERO + second * SECOND)));
        flooding.send(&victim, Errand(()));
        begins.recv().unwrap();
        flooding.send(&victim, Block(()));
        assert_eq!(log.recv(), Ok(Seen::Blocked));
        for number in 0..FLOOD {
            flooding.send(&victim, Work(number));
        }

        // What two nodes send each other arrives in the order sent: now all of the flood has come.
        assert_eq!(asked(&flooding, second), Ok(Answer(second)));
        let flooded = status(&home, &victim);
        // The message that it handles has its place still.
        let taken = BOUND - 1;
        dropped += u32::try_from(FLOOD - taken).unwrap();
        assert_eq!(flooded.mailbox_depth, BOUND);
        assert_eq!(flooded.drops.mailbox_full, u64::from(dropped));
        assert_eq!(
            flooded.messages_dropped,
            u64::from(dropped),
            "for no other cause"
        );
        assert_eq!(asked(&other, second), Ok(Answer(second)));

        end.notify_one();
        while status(&home, &victim).control_depth == 0 {
            std::thread::yield_now();
        }
        go.send(()).unwrap();
        clock.settle();
        let after: Vec<Seen> = log.try_iter().collect();
        let expected = std::iter::once(Seen::ErrandDone).chain((0..taken).map(Seen::Work));
        assert_eq!(after, expected.collect::<Vec<_>>());
    }
    let counted = home
        .metrics()
        .value("runtime/messages_dropped/mailbox_full");
    assert_eq!(counted, Some(f64::from(dropped)));
    assert_eq!(status(&home, &neighbour).messages_dropped, 0);
    for node in [other, flooding, home] {
        node.shutdown();
    }
}
