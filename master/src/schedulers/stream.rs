//! One subscription of an HTTP scheduler: it takes what the master says to a scheduler and writes it as events.
//!
//! It lives as long as its connection, and ends with the master. Encoding happens here, on a thread of the node's choice,
//! and not in the master's turns.

use std::time::Duration;

use meseta_api::negotiation::Format;
use meseta_api::scheduler::{self as api, Happening};
use meseta_api::style::Style;
use meseta_api::{Event, recordio};
use meseta_protocol::messages::scheduler::{
    AgentLost, ExecutorLost, ExecutorMessage, FrameworkError, FrameworkSubscribed, OfferRescinded,
    ResourceOffers, StatusUpdated,
};
use meseta_protocol::messages::{Led, MasterMessage};
use meseta_runtime::http::{StreamClosed, StreamEnd, StreamSender};
use meseta_runtime::{Context, ExitReason, Pid, Process, Receive, Routes};
use serde::Serialize;
use tracing::{debug, warn};

/// Time between two heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// A scheduler at the other end of a stream.
pub(super) struct HttpScheduler {
    master: Pid,
    records: StreamSender,
    format: Format,
    style: Style,
}

impl HttpScheduler {
    pub(super) fn new(master: Pid, records: StreamSender, format: Format, style: Style) -> Self {
        Self {
            master,
            records,
            format,
            style,
        }
    }

    fn write<T: Serialize>(&self, cx: &mut Context<'_, Self>, event: &Event<T>) {
        self.write_in(cx, Style::NEWEST, event);
    }

    fn write_in<T: Serialize>(&self, cx: &mut Context<'_, Self>, style: Style, event: &Event<T>) {
        let event = event.write(self.format, style);
        match self.records.send(recordio::record(&event)) {
            Ok(()) => {}
            Err(StreamEnd::Gone) => cx.stop(),
            Err(StreamEnd::TooSlow) => {
                warn!(stream = %cx.me().id(), "an HTTP scheduler does not read its events and is given up");
                cx.metrics().count("master/http_schedulers_too_slow");
                cx.stop();
            }
        }
    }

    fn heartbeat(&mut self, cx: &mut Context<'_, Self>) {
        self.write(cx, &api::heartbeat());
        cx.after(HEARTBEAT, Self::heartbeat);
    }
}

impl Process for HttpScheduler {
    fn routes(routes: &mut Routes<Self>) {
        routes
            .on::<Led<FrameworkSubscribed>>()
            .on::<Led<ResourceOffers>>()
            .on::<Led<OfferRescinded>>()
            .on::<Led<StatusUpdated>>()
            .on::<Led<ExecutorMessage>>()
            .on::<Led<AgentLost>>()
            .on::<Led<ExecutorLost>>()
            .on::<Led<FrameworkError>>()
            .on::<StreamClosed>();
    }

    fn start(&mut self, cx: &mut Context<'_, Self>) {
        let master = self.master.clone();
        cx.link(&master);
    }

    fn exited(&mut self, cx: &mut Context<'_, Self>, _: &Pid, reason: ExitReason) {
        debug!(stream = %cx.me().id(), ?reason, "the master has ended: its streams end");
        cx.stop();
    }
}

/// What becomes an event.
trait Told: MasterMessage {
    /// Writes it.
    fn told(self, scheduler: &mut HttpScheduler, cx: &mut Context<'_, HttpScheduler>);
}

/// Only the master of the own node knows this process.
impl<M: Told> Receive<Led<M>> for HttpScheduler {
    fn receive(&mut self, cx: &mut Context<'_, Self>, from: &Pid, led: Led<M>) {
        if *from == self.master {
            led.message.told(self, cx);
        }
    }
}

impl Receive<StreamClosed> for HttpScheduler {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, _: StreamClosed) {
        cx.stop();
    }
}

impl Told for FrameworkSubscribed {
    fn told(self, scheduler: &mut HttpScheduler, cx: &mut Context<'_, HttpScheduler>) {
        let event = api::subscribed(&self, HEARTBEAT.as_secs_f64());
        scheduler.write(cx, &event);
        scheduler.heartbeat(cx);
    }
}

impl Told for ResourceOffers {
    fn told(self, scheduler: &mut HttpScheduler, cx: &mut Context<'_, HttpScheduler>) {
        scheduler.write_in(cx, scheduler.style, &api::event(&self));
    }
}

impl Told for StatusUpdated {
    fn told(self, scheduler: &mut HttpScheduler, cx: &mut Context<'_, HttpScheduler>) {
        scheduler.write(cx, &api::update(&self));
    }
}

impl Told for FrameworkError {
    /// The last event.
    fn told(self, scheduler: &mut HttpScheduler, cx: &mut Context<'_, HttpScheduler>) {
        scheduler.write(cx, &api::event(&self));
        cx.stop();
    }
}

/// Those that need nothing more.
macro_rules! told_as_they_are {
    ($( $message:ty ),*) => { $(
        impl Told for $message {
            fn told(self, scheduler: &mut HttpScheduler, cx: &mut Context<'_, HttpScheduler>) {
                write_as_it_is(&self, scheduler, cx);
            }
        }
    )* };
}

fn write_as_it_is<T: Happening>(
    told: &T,
    scheduler: &HttpScheduler,
    cx: &mut Context<'_, HttpScheduler>,
) {
    scheduler.write(cx, &api::event(told));
}

told_as_they_are!(OfferRescinded, ExecutorMessage, AgentLost);

impl Told for ExecutorLost {
    fn told(self, scheduler: &mut HttpScheduler, cx: &mut Context<'_, HttpScheduler>) {
        scheduler.write(cx, &api::executor_lost(&self));
    }
}
