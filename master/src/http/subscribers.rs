//! Those who hear of everything that happens in the cluster: the SUBSCRIBE call of the operator API.
//!
//! One process writes to all of them: it encodes each event once for each encoding, on a thread of the node's choice. The
//! master hands it what has changed at the end of each turn, through a queue of their own, since nothing of it is for
//! any other node. It notes changes only while there is somebody to hear them.
//! A subscriber that reads too slowly is given up. One more than there may be takes the place of the oldest.
//! Source: http.md §5.1.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use bytes::Bytes;
use meseta_api::negotiation::Format;
use meseta_api::operator::event_type;
use meseta_api::{Mismatch, Refusal, Tree, recordio};
use meseta_runtime::http::{self, StreamClosed, StreamEnd, StreamSender};
use meseta_runtime::{
    Context, ExitReason, Message, OWN_NODE, Pid, Placement, Process, Receive, Request, Response,
    Routes,
};
use serde::{Deserialize, Serialize};
use tracing::{debug, error, info, warn};

use super::events;
use crate::master::Master;
use crate::state::Change;

/// Id of the process.
const ID: &str = "subscribers";

/// Time between two heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Bytes that may wait for a subscriber that does not read; then it is given up. Subscribers share what waits for them,
/// so that this is also what all of them together cost, but for their first records.
const MAX_WAITING: usize = 64 << 20;

/// From the master: there is something in the queue.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Look {}

impl Message for Look {
    const NAME: &'static str = "meseta.master.subscribers.Look";
    const SENDERS: &'static [&'static str] = OWN_NODE;
}

/// One more to write to.
#[derive(Debug)]
struct Subscriber {
    number: u64,
    records: StreamSender,
    format: Format,
}

/// Makes what a subscriber is told first.
type First = Box<dyn FnOnce() -> Result<Tree, Mismatch> + Send>;

/// What the master has for the process.
enum Item {
    /// A change whose event needs nothing else.
    Change(Change),
    /// An event that has been made from the tables.
    Event(Tree),
    /// Somebody subscribes, and is told first what there is.
    Comes(Subscriber, First),
}

/// The master's end.
#[derive(Debug)]
pub(crate) struct Audience {
    process: Pid,
    queue: Sender<Item>,
    /// How many hear what is put into the queue.
    listeners: Arc<AtomicUsize>,
    next: u64,
}

impl Audience {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.listeners.load(Ordering::Relaxed)
    }

    fn tell(&self, item: Item) {
        // When the process has ended, so has the master, or nearly.
        if self.queue.send(item).is_err() {
            debug!("nobody writes to subscribers any more");
        }
    }
}

impl Master {
    /// SUBSCRIBE: the state as it is now, and every change from now on.
    pub(super) fn subscribe_operator(
        &mut self,
        cx: &mut Context<'_, Self>,
        request: &Request,
        format: Format,
    ) -> Result<Response, Refusal> {
        if request.has_no_stream_left {
            return Err(Refusal::new(503, Request::NO_STREAM_LEFT));
        }
        let view = self.view(cx.me());
        if self.audience.is_none() {
            self.audience = Some(self.open_audience(cx)?);
        }
        let Some(audience) = &mut self.audience else {
            return Err(Refusal::new(500, "500 Internal Server Error."));
        };
        if audience.listeners.fetch_add(1, Ordering::Relaxed) == 0 {
            self.state.unseen().listen(true);
        }
        info!(by = %request.caller, "an operator subscribes");
        let (records, body) = http::stream(MAX_WAITING);
        let number = audience.next;
        audience.next += 1;
        let subscriber = Subscriber {
            number,
            records,
            format,
        };
        let first = move || Ok(events::subscribed(view.tree()?, HEARTBEAT));
        audience.tell(Item::Comes(subscriber, Box::new(first)));
        let body = body.telling(cx.outside(), audience.process.clone());
        cx.send(&audience.process, Look {});
        Ok(Response::stream(format.content_type(), body))
    }

    fn open_audience(&self, cx: &mut Context<'_, Self>) -> Result<Audience, Refusal> {
        let (queue, items) = channel();
        let listeners = Arc::new(AtomicUsize::new(0));
        let (master, counted) = (cx.me().clone(), Arc::clone(&listeners));
        let most = self.config.max_operator_event_stream_subscribers;
        let build = move || Subscribers::new(master, items, counted, most);
        let spawned = cx.spawn_placed(ID, Placement::LeastLoaded, build);
        let process = spawned.map_err(|error| {
            error!(%error, "no process for subscribers");
            Refusal::new(500, error.to_string())
        })?;
        Ok(Audience {
            process,
            queue,
            listeners,
            next: 0,
        })
    }

    /// Hands on what has changed in this turn.
    pub(crate) fn tell_subscribers(&mut self, cx: &mut Context<'_, Self>) {
        let Some(audience) = &self.audience else {
            return;
        };
        let changes = self.state.unseen().take_changes();
        if changes.is_empty() {
            return;
        }
        if audience.len() == 0 {
            self.state.unseen().listen(false);
            return;
        }
        for change in changes {
            match events::standing(&self.state, &change) {
                Ok(Some(event)) => audience.tell(Item::Event(event)),
                Ok(None) => audience.tell(Item::Change(change)),
                Err(why) => unshown(&why),
            }
        }
        cx.send(&audience.process, Look {});
    }
}

/// Writes to all subscribers.
struct Subscribers {
    master: Pid,
    items: Receiver<Item>,
    /// The oldest first.
    all: VecDeque<Subscriber>,
    listeners: Arc<AtomicUsize>,
    /// How many there may be.
    most: usize,
}

impl Subscribers {
    fn new(master: Pid, items: Receiver<Item>, listeners: Arc<AtomicUsize>, most: usize) -> Self {
        Self {
            master,
            items,
            all: VecDeque::new(),
            listeners,
            most,
        }
    }

    fn welcome(&mut self, cx: &mut Context<'_, Self>, subscriber: Subscriber, first: First) {
        let first = match first() {
            Ok(first) => first,
            Err(why) => {
                self.listeners.fetch_sub(1, Ordering::Relaxed);
                return unshown(&why);
            }
        };
        while self.all.len() >= self.most {
            info!("a subscriber gives way to another");
            self.all.pop_front();
            self.listeners.fetch_sub(1, Ordering::Relaxed);
        }
        let number = subscriber.number;
        let first = record(subscriber.format, &first);
        self.all.push_back(subscriber);
        self.write(cx, number, first);
        self.heartbeat(cx, number);
    }

    /// Writes a heartbeat to one, now and again and again while it is here.
    fn heartbeat(&mut self, cx: &mut Context<'_, Self>, number: u64) {
        let Some(one) = self.all.iter().find(|one| one.number == number) else {
            return;
        };
        let beat = record(one.format, &events::heartbeat());
        self.write(cx, number, beat);
        cx.after(HEARTBEAT, move |me, cx| me.heartbeat(cx, number));
    }

    /// Writes to one.
    fn write(&mut self, cx: &Context<'_, Self>, number: u64, record: Bytes) {
        self.keep(|one| one.number != number || takes(cx, one, record.clone()));
    }

    /// Writes an event to all.
    fn publish(&mut self, cx: &Context<'_, Self>, event: &Tree) {
        let mut encoded: [Option<Bytes>; 2] = [None, None];
        self.keep(|one| {
            let place = &mut encoded[usize::from(one.format == Format::Protobuf)];
            let bytes = place.get_or_insert_with(|| record(one.format, event));
            takes(cx, one, bytes.clone())
        });
    }

    fn keep(&mut self, stays: impl FnMut(&Subscriber) -> bool) {
        let before = self.all.len();
        self.all.retain(stays);
        let left = before - self.all.len();
        self.listeners.fetch_sub(left, Ordering::Relaxed);
    }
}

/// Whether a subscriber is there to take a record, and quick enough.
fn takes(cx: &Context<'_, Subscribers>, to: &Subscriber, record: Bytes) -> bool {
    match to.records.send(record) {
        Ok(()) => true,
        Err(StreamEnd::Gone) => false,
        Err(StreamEnd::TooSlow) => {
            warn!("a subscriber does not read its events and is given up");
            cx.metrics()
                .count("master/operator_event_stream_subscribers_too_slow");
            false
        }
    }
}

/// A mistake of this program: one event is missing.
fn unshown(why: &Mismatch) {
    error!(%why, "an event cannot be shown");
}

/// An event as it is written.
fn record(format: Format, event: &Tree) -> Bytes {
    recordio::record(&format.write(event, event_type())).into()
}

impl Process for Subscribers {
    fn routes(routes: &mut Routes<Self>) {
        routes.on::<Look>().on::<StreamClosed>();
    }

    fn start(&mut self, cx: &mut Context<'_, Self>) {
        let master = self.master.clone();
        cx.link(&master);
    }

    fn exited(&mut self, cx: &mut Context<'_, Self>, _: &Pid, reason: ExitReason) {
        debug!(
            ?reason,
            "the master has ended: its subscribers' streams end"
        );
        cx.stop();
    }
}

impl Receive<Look> for Subscribers {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, _: Look) {
        while let Ok(item) = self.items.try_recv() {
            match item {
                Item::Comes(subscriber, first) => self.welcome(cx, subscriber, first),
                Item::Event(event) => self.publish(cx, &event),
                Item::Change(change) => match events::complete(&change) {
                    Ok(Some(event)) => self.publish(cx, &event),
                    Ok(None) => {}
                    Err(why) => unshown(&why),
                },
            }
        }
    }
}

impl Receive<StreamClosed> for Subscribers {
    fn receive(&mut self, _: &mut Context<'_, Self>, _: &Pid, _: StreamClosed) {
        self.keep(|one| !one.records.is_closed());
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;
    use meseta_protocol::AgentId;
    use meseta_runtime::testing::Probe;
    use meseta_runtime::transport::memory::MemoryNetwork;
    use meseta_runtime::{Clock, Node};

    use super::*;

    /// A node with the process on it, and the master's end of its queue.
    struct World {
        clock: Clock,
        node: Node,
        master: Probe,
        audience: Audience,
    }

    impl World {
        fn new(most: usize) -> Self {
            let (clock, network) = (Clock::paused(), MemoryNetwork::new(1));
            let node = Node::builder().memory(&network).clock(clock.clone());
            let node = node.role("master").seed(1).start().unwrap();
            let master = node.testing().probe("master").unwrap();
            let (queue, items) = channel();
            let listeners = Arc::new(AtomicUsize::new(0));
            let (me, counted) = (master.pid().clone(), Arc::clone(&listeners));
            let build = move || Subscribers::new(me, items, counted, most);
            let process = node.spawn(ID, build).unwrap();
            let audience = Audience {
                process,
                queue,
                listeners,
                next: 0,
            };
            Self {
                clock,
                node,
                master,
                audience,
            }
        }

        fn look(&self) {
            self.master.send(&self.audience.process, Look {});
            self.clock.settle();
        }

        fn subscribe(&mut self, limit: usize) -> http::Stream {
            let (records, body) = http::stream(limit);
            let number = self.audience.next;
            self.audience.next += 1;
            self.audience.listeners.fetch_add(1, Ordering::Relaxed);
            let subscriber = Subscriber {
                number,
                records,
                format: Format::Json,
            };
            let first = Box::new(|| Ok(events::heartbeat()));
            self.audience.tell(Item::Comes(subscriber, first));
            self.look();
            body.telling(self.node.outside(), self.audience.process.clone())
        }

        fn happens(&self) {
            let id = AgentId::from("a");
            self.audience.tell(Item::Change(Change::AgentRemoved(id)));
            self.look();
        }
    }

    /// What has been written so far; none when the stream has ended behind it.
    fn written(stream: &mut http::Stream) -> (Vec<String>, bool) {
        let mut all = Vec::new();
        loop {
            match futures::FutureExt::now_or_never(stream.next()) {
                None => return (all, true),
                Some(None) => return (all, false),
                Some(Some(record)) => {
                    let record = String::from_utf8(record.unwrap().to_vec()).unwrap();
                    all.push(record);
                }
            }
        }
    }

    const BEAT: &str = "20\n{\"type\":\"HEARTBEAT\"}";

    #[test]
    fn each_hears_in_order_and_one_that_does_not_read_is_given_up_alone() {
        let mut world = World::new(10);
        let mut quick = world.subscribe(1000);
        let mut slow = world.subscribe(60);
        assert_eq!(written(&mut quick), (vec![BEAT.to_owned(); 2], true));
        world.happens();
        assert_eq!(world.audience.len(), 1);
        let (heard, goes_on) = written(&mut quick);
        assert!(goes_on && heard.len() == 1 && heard[0].contains("AGENT_REMOVED"));
        // What it has not read is still there, and nothing after it.
        assert_eq!(written(&mut slow), (vec![BEAT.to_owned(); 2], false));
        let snapshot = world.node.metrics().snapshot();
        assert_eq!(
            snapshot["master/operator_event_stream_subscribers_too_slow"],
            1.0
        );
    }

    #[test]
    fn heartbeats_come_every_15_seconds_while_somebody_is_there() {
        let mut world = World::new(10);
        let mut stream = world.subscribe(1000);
        written(&mut stream);
        world.clock.advance(HEARTBEAT);
        world.clock.settle();
        assert_eq!(written(&mut stream), (vec![BEAT.to_owned()], true));
        drop(stream);
        world.clock.settle();
        assert_eq!(world.audience.len(), 0);
    }

    #[test]
    fn the_oldest_gives_way_and_all_end_with_the_master() {
        let mut world = World::new(2);
        let mut all = [1000, 1000, 1000].map(|limit| world.subscribe(limit));
        assert_eq!(world.audience.len(), 2);
        assert!(!written(&mut all[0]).1);
        assert!(written(&mut all[1]).1 && written(&mut all[2]).1);
        world.master.end(ExitReason::Normal);
        world.clock.settle();
        assert!(!written(&mut all[1]).1);
    }
}
