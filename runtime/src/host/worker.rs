//! The run queue of one thread: which of its processes have something to do.
//!
//! A thread of a node hosts many processes and is woken once for all of them. Entries posted from the thread itself
//! go to a queue that only it touches; entries from elsewhere go to one under a lock, and wake the thread when it
//! sleeps. The invariant: a thread falls asleep only while it holds that lock and the queue under it is empty, and
//! who posts to a sleeping thread takes its waker along; so no entry waits for a sleeper.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Waker;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::driver::Start;
use crate::clock::Time;

/// One thing for a thread to do.
pub(crate) enum Entry {
    /// Serve both lanes of the process in this slot.
    Ready(u32),
    /// Serve its control lane.
    Urgent(u32),
    /// Start a process.
    Start(Box<Start>),
    /// End all processes, say so, and take no more entries.
    Stop(oneshot::Sender<()>),
}

/// Run queue of one thread, as others see it.
pub(crate) struct RunQueue {
    /// The node it belongs to.
    node: u64,
    /// Number of the thread within its node; 0 is the one with the network.
    pub(crate) number: usize,
    /// Whether the thread is there for one process and ends with it.
    pub(crate) own: bool,
    posted: Mutex<Posted>,
    /// Whether `posted` has entries: looked at without the lock.
    waits: AtomicBool,
    /// Whether processes of other threads of the node may post here.
    company: AtomicBool,
    /// Processes placed here.
    pub(crate) processes: AtomicUsize,
    /// Processes that had something to do at the last look.
    pub(crate) queued: AtomicUsize,
}

#[derive(Default)]
struct Posted {
    entries: VecDeque<Entry>,
    /// Wakes the thread; there while it sleeps.
    asleep: Option<Waker>,
    ended: bool,
}

/// What the thread itself has to do, and the time as it read it last.
struct Here {
    node: Cell<u64>,
    number: Cell<usize>,
    /// The time of the last reading, while processes are being served.
    now: Cell<Option<Time>>,
    asleep: Cell<bool>,
    urgent: RefCell<VecDeque<u32>>,
    ready: RefCell<VecDeque<u32>>,
    other: RefCell<VecDeque<Entry>>,
}

thread_local! {
    static HERE: Here = const {
        Here {
            // Nodes are numbered from 1.
            node: Cell::new(0),
            number: Cell::new(0),
            now: Cell::new(None),
            asleep: Cell::new(false),
            urgent: RefCell::new(VecDeque::new()),
            ready: RefCell::new(VecDeque::new()),
            other: RefCell::new(VecDeque::new()),
        }
    };
}

impl Here {
    fn push(&self, entry: Entry) {
        match entry {
            Entry::Ready(slot) => self.ready.borrow_mut().push_back(slot),
            Entry::Urgent(slot) => self.urgent.borrow_mut().push_back(slot),
            Entry::Start(_) | Entry::Stop(_) => self.other.borrow_mut().push_back(entry),
        }
    }

    fn len(&self) -> usize {
        self.urgent.borrow().len() + self.ready.borrow().len() + self.other.borrow().len()
    }
}

/// The time as the thread that calls this read it last, when it is serving processes of this node.
pub(crate) fn about_now(node: u64) -> Option<Time> {
    HERE.try_with(|here| here.now.get().filter(|_| here.node.get() == node))
        .ok()
        .flatten()
}

/// Number of the thread that calls this, when it is one of this node's.
pub(crate) fn number_here(node: u64) -> Option<usize> {
    HERE.try_with(|here| (here.node.get() == node).then(|| here.number.get()))
        .ok()
        .flatten()
}

impl RunQueue {
    pub(crate) fn new(node: u64, number: usize, own: bool) -> Arc<Self> {
        Arc::new(Self {
            node,
            number,
            own,
            posted: Mutex::default(),
            waits: AtomicBool::new(false),
            company: AtomicBool::new(false),
            processes: AtomicUsize::new(0),
            queued: AtomicUsize::new(0),
        })
    }

    /// Posts an entry; handed back when the thread has ended.
    pub(crate) fn post(&self, entry: Entry) -> Result<(), Entry> {
        if number_here(self.node) == Some(self.number) {
            self.post_here(entry);
            Ok(())
        } else {
            self.post_from_elsewhere(entry)
        }
    }

    fn post_here(&self, entry: Entry) {
        let asleep = HERE.with(|here| {
            here.push(entry);
            here.asleep.replace(false)
        });
        // A task of the network runs on this thread too, and posts while the processes sleep.
        if asleep {
            let waker = self.posted.lock().asleep.take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    fn post_from_elsewhere(&self, entry: Entry) -> Result<(), Entry> {
        let mut posted = self.posted.lock();
        if posted.ended {
            return Err(entry);
        }
        posted.entries.push_back(entry);
        self.waits.store(true, Ordering::Release);
        let asleep = posted.asleep.take();
        drop(posted);
        if let Some(waker) = asleep {
            waker.wake();
        }
        Ok(())
    }

    /// From now on other threads may post here often: it is worth a moment's look before falling asleep.
    pub(crate) fn expect_company(&self) {
        self.company.store(true, Ordering::Relaxed);
    }

    pub(crate) fn has_company(&self) -> bool {
        self.company.load(Ordering::Relaxed)
    }

    /// Whether others have posted something.
    pub(crate) fn waits(&self) -> bool {
        self.waits.load(Ordering::Acquire)
    }

    /// Makes the calling thread the one that serves this queue.
    pub(crate) fn settle_here(&self) {
        HERE.with(|here| {
            here.node.set(self.node);
            here.number.set(self.number);
        });
    }

    /// Takes over what others have posted. The calling thread serves this queue.
    pub(crate) fn collect(&self) {
        if self.waits() {
            let entries = {
                let mut posted = self.posted.lock();
                self.waits.store(false, Ordering::Release);
                std::mem::take(&mut posted.entries)
            };
            HERE.with(|here| entries.into_iter().for_each(|entry| here.push(entry)));
        }
        self.queued.store(HERE.with(Here::len), Ordering::Relaxed);
    }

    /// Whether the calling thread, which serves this queue, has something to do.
    pub(crate) fn is_due(&self) -> bool {
        self.waits() || HERE.with(Here::len) > 0
    }

    /// Falls asleep until something is posted; `false` when something is there already.
    pub(crate) fn sleep(&self, waker: &Waker) -> bool {
        let mut posted = self.posted.lock();
        if !posted.entries.is_empty() || HERE.with(Here::len) > 0 {
            return false;
        }
        posted.asleep = Some(waker.clone());
        HERE.with(|here| here.asleep.set(true));
        true
    }

    /// Whether the thread serves no more.
    pub(crate) fn has_ended(&self) -> bool {
        self.posted.lock().ended
    }

    /// What others have posted; for tests, which serve without a thread.
    #[cfg(test)]
    pub(crate) fn taken(&self) -> VecDeque<Entry> {
        std::mem::take(&mut self.posted.lock().entries)
    }

    /// As [`RunQueue::end`], for a thread that never began.
    pub(crate) fn end_elsewhere(&self) -> VecDeque<Entry> {
        let mut posted = self.posted.lock();
        posted.ended = true;
        std::mem::take(&mut posted.entries)
    }

    /// The thread serves no more: what is posted from now on is handed back. What was posted is handed out.
    pub(crate) fn end(&self) -> Vec<Entry> {
        let posted = self.end_elsewhere();
        let here = HERE.try_with(|here| {
            here.node.set(0);
            here.urgent.borrow_mut().clear();
            here.ready.borrow_mut().clear();
            std::mem::take(&mut *here.other.borrow_mut())
        });
        here.unwrap_or_default().into_iter().chain(posted).collect()
    }
}

/// The next things to do on this thread, each from its own line, so that none waits for another's line to empty.
pub(crate) fn next_urgent() -> Option<u32> {
    HERE.with(|here| here.urgent.borrow_mut().pop_front())
}

pub(crate) fn next_ready() -> Option<u32> {
    HERE.with(|here| here.ready.borrow_mut().pop_front())
}

pub(crate) fn next_other() -> Option<Entry> {
    HERE.with(|here| here.other.borrow_mut().pop_front())
}

/// Notes the time for what is posted from this thread; `None` when it stops serving processes.
pub(crate) fn note_time(now: Option<Time>) {
    HERE.with(|here| here.now.set(now));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{self, SyncSender};
    use std::task::Wake;
    use std::thread;
    use std::time::Duration;

    /// A waker that leaves a word each time: who waits for it misses none, and is not woken by an older one's echo.
    struct Bell(SyncSender<()>);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.send(()).expect("the sleeper listens");
        }
    }

    /// One thread posts, each second time after the other has caught up and is about to fall asleep; the other must
    /// be woken for each entry that it did not find by itself.
    #[test]
    fn no_entry_waits_for_a_thread_that_has_fallen_asleep() {
        const ENTRIES: u32 = 200_000;
        let queue = RunQueue::new(u64::MAX - 1, 0, false);
        let served = Arc::new(AtomicUsize::new(0));
        let (posting, seen) = (Arc::clone(&queue), Arc::clone(&served));
        let poster = thread::spawn(move || {
            for entry in 0..ENTRIES {
                while entry % 2 == 0 && seen.load(Ordering::SeqCst) < entry as usize {
                    std::hint::spin_loop();
                }
                assert!(posting.post(Entry::Ready(entry)).is_ok());
            }
        });
        queue.settle_here();
        // A waker is taken once for each time that the thread falls asleep.
        let (bell, wakes) = mpsc::sync_channel(1);
        let waker = Waker::from(Arc::new(Bell(bell)));
        let mut next = 0;
        while next < ENTRIES {
            queue.collect();
            while let Some(entry) = next_ready() {
                assert_eq!(entry, next, "in the order posted");
                next += 1;
            }
            served.store(next as usize, Ordering::SeqCst);
            if next < ENTRIES && queue.sleep(&waker) {
                let woken = wakes.recv_timeout(Duration::from_secs(60));
                assert!(woken.is_ok(), "asleep over entry {next}");
            }
        }
        poster.join().unwrap();
        let _nothing_left = queue.end();
    }
}
