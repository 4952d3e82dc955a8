//! What we build on, measured in the same run: a bare tokio channel, and actix.

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use actix::prelude::{Actor, Addr, Handler, Message};
use actix_rt::{Arbiter, System};

use crate::{ASKS, TELLS};

/// Messages sent before the receiver has a turn, when both share a thread.
const BATCH: u64 = 1_024;

/// A task that sends and one that receives, on one thread.
pub fn mpsc_tell() -> Duration {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        let began = Instant::now();
        let receives = tokio::spawn(async move {
            for _ in 0..TELLS {
                receiver.recv().await.unwrap();
            }
        });
        for number in 0..TELLS {
            sender.send(number).unwrap();
            if number % BATCH == BATCH - 1 {
                tokio::task::yield_now().await;
            }
        }
        receives.await.unwrap();
        began.elapsed()
    })
}

struct Number(#[expect(dead_code, reason = "carried, not read")] u64);
impl Message for Number {
    type Result = ();
}
struct Question(u64);
impl Message for Question {
    type Result = u64;
}

struct Sink {
    left: u64,
    done: std::sync::mpsc::Sender<()>,
}
impl Actor for Sink {
    type Context = actix::Context<Self>;
}
impl Handler<Number> for Sink {
    type Result = ();
    fn handle(&mut self, _: Number, _: &mut Self::Context) {
        self.left -= 1;
        if self.left == 0 {
            self.done.send(()).unwrap();
        }
    }
}
impl Handler<Question> for Sink {
    type Result = u64;
    fn handle(&mut self, Question(number): Question, _: &mut Self::Context) -> u64 {
        number + 1
    }
}

/// A sender on one thread, an actor on another.
pub fn actix_tell() -> Duration {
    System::new().block_on(async {
        let (done, end) = channel();
        let arbiter = Arbiter::new();
        let sink = Sink::start_in_arbiter(&arbiter.handle(), |_| Sink { left: TELLS, done });
        let began = Instant::now();
        for number in 0..TELLS {
            sink.do_send(Number(number));
        }
        end.recv().unwrap();
        let took = began.elapsed();
        arbiter.stop();
        took
    })
}

pub fn actix_ask(other_thread: bool) -> Duration {
    System::new().block_on(async move {
        let (done, _) = channel();
        let build = |done| Sink { left: 1, done };
        let arbiter = other_thread.then(Arbiter::new);
        let sink: Addr<Sink> = match &arbiter {
            Some(arbiter) => Sink::start_in_arbiter(&arbiter.handle(), move |_| build(done)),
            None => build(done).start(),
        };
        let began = Instant::now();
        for number in 0..ASKS {
            sink.send(Question(number)).await.unwrap();
        }
        let took = began.elapsed();
        if let Some(arbiter) = arbiter {
            arbiter.stop();
        }
        took
    })
}
