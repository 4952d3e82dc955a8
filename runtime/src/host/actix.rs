//! The host in production: one small actix actor per process, which drains the process's inbox.
//!
//! actix schedules and owns the thread; messages never pass through its mailbox. The actor gets one `Drain` for each
//! time its inbox turns from empty to full, and posts itself another when its budget is used up, so that a flooded
//! process leaves turns to timers and neighbours.

use actix::{Actor, AsyncContext, Context, Handler};
use actix_rt::ArbiterHandle;

use super::{Drained, Driver};

struct HostActor(Driver);

struct Drain;

impl actix::Message for Drain {
    type Result = ();
}

impl Actor for HostActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let address = ctx.address();
        self.0.inbox.set_wake(move || address.do_send(Drain));
        ctx.notify(Drain);
    }
}

impl Handler<Drain> for HostActor {
    type Result = ();

    fn handle(&mut self, _: Drain, ctx: &mut Self::Context) {
        match self.0.drain() {
            Drained::Idle => {}
            Drained::More => {
                // A task of its own, because what an actor notifies itself of runs in the same poll: nobody else on
                // the thread would have a turn.
                let address = ctx.address();
                actix_rt::spawn(async move { address.do_send(Drain) });
            }
            Drained::Ended => actix::ActorContext::stop(ctx),
        }
    }
}

/// Runs a process on an arbiter's thread; `false` when that thread has ended.
pub(crate) fn host(
    arbiter: &ArbiterHandle,
    driver: impl FnOnce() -> Driver + Send + 'static,
) -> bool {
    arbiter.spawn_fn(move || {
        HostActor(driver()).start();
    })
}
