//! One subscription of an HTTP executor: it takes what the agent says to an executor and writes it as events.
//!
//! It lives as long as its connection, and ends with the agent.

use std::time::Duration;

use meseta_api::executor::{self as api, Happening};
use meseta_api::negotiation::Format;
use meseta_api::style::Style;
use meseta_api::{Event, recordio};
use meseta_protocol::messages::executor::{
    ExecutorRefused, ExecutorSubscribed, KillExecutorTask, LaunchTask, LaunchTaskGroup,
    MessageToExecutor, ShutdownExecutorNow, UpdateAcknowledged,
};
use meseta_runtime::http::{StreamClosed, StreamEnd, StreamSender};
use meseta_runtime::{Context, ExitReason, Message, Pid, Process, Receive, Routes};
use serde::Serialize;
use tracing::{debug, warn};

/// Time between two heartbeats. Mesos sends one each 30 minutes; a shorter time does no harm.
const HEARTBEAT: Duration = Duration::from_secs(15 * 60);

/// An executor at the other end of a stream.
pub(super) struct HttpExecutor {
    agent: Pid,
    records: StreamSender,
    format: Format,
    style: Style,
}

impl HttpExecutor {
    pub(super) fn new(agent: Pid, records: StreamSender, format: Format, style: Style) -> Self {
        Self {
            agent,
            records,
            format,
            style,
        }
    }

    fn write<T: Serialize>(&self, cx: &mut Context<'_, Self>, event: &Event<T>) {
        let event = event.write(self.format, self.style);
        match self.records.send(recordio::record(&event)) {
            Ok(()) => {}
            Err(StreamEnd::Gone) => cx.stop(),
            Err(StreamEnd::TooSlow) => {
                warn!(executor = %cx.me().id(), "an HTTP executor does not read its events and is given up");
                cx.metrics().count("slave/http_executors_too_slow");
                cx.stop();
            }
        }
    }

    fn heartbeat(&mut self, cx: &mut Context<'_, Self>) {
        cx.after(HEARTBEAT, |executor, cx| {
            executor.write(cx, &api::heartbeat());
            executor.heartbeat(cx);
        });
    }
}

impl Process for HttpExecutor {
    fn routes(routes: &mut Routes<Self>) {
        routes
            .on::<ExecutorSubscribed>()
            .on::<LaunchTask>()
            .on::<LaunchTaskGroup>()
            .on::<KillExecutorTask>()
            .on::<UpdateAcknowledged>()
            .on::<MessageToExecutor>()
            .on::<ShutdownExecutorNow>()
            .on::<ExecutorRefused>()
            .on::<StreamClosed>();
    }

    fn start(&mut self, cx: &mut Context<'_, Self>) {
        let agent = self.agent.clone();
        cx.link(&agent);
    }

    fn exited(&mut self, cx: &mut Context<'_, Self>, _: &Pid, reason: ExitReason) {
        debug!(executor = %cx.me().id(), ?reason, "the agent has ended: its streams end");
        cx.stop();
    }
}

impl Receive<StreamClosed> for HttpExecutor {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: &Pid, _: StreamClosed) {
        cx.stop();
    }
}

impl Receive<ExecutorSubscribed> for HttpExecutor {
    fn receive(&mut self, cx: &mut Context<'_, Self>, from: &Pid, message: ExecutorSubscribed) {
        if *from == self.agent {
            self.write(cx, &api::subscribed(&message));
            self.heartbeat(cx);
        }
    }
}

impl Receive<ExecutorRefused> for HttpExecutor {
    /// The last event.
    fn receive(&mut self, cx: &mut Context<'_, Self>, from: &Pid, message: ExecutorRefused) {
        self.tell(cx, from, &message);
        cx.stop();
    }
}

impl HttpExecutor {
    fn tell<M: Message + Happening>(&self, cx: &mut Context<'_, Self>, from: &Pid, message: &M) {
        if *from == self.agent {
            self.write(cx, &api::event(message));
        }
    }
}

/// Those that need nothing more.
macro_rules! told_as_they_are {
    ($( $message:ty ),*) => { $(
        impl Receive<$message> for HttpExecutor {
            fn receive(&mut self, cx: &mut Context<'_, Self>, from: &Pid, message: $message) {
                self.tell(cx, from, &message);
            }
        }
    )* };
}

told_as_they_are!(
    LaunchTask,
    LaunchTaskGroup,
    KillExecutorTask,
    UpdateAcknowledged,
    MessageToExecutor,
    ShutdownExecutorNow
);
