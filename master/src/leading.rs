//! When a master leads: only then is it heard, and only then does it answer for the cluster.
//!
//! A master on its own leads from its first turn on. One of several waits for `election(1)` of its node to say that it
//! is elected; then it recovers, and says so, and only from then on does it act. Until then whatever agents and
//! schedulers send is dropped and counted, and HTTP requests about the cluster are sent to the leader. A master that
//! leads no more does not go back to waiting: it is ended, and another one is started in its place.

use std::time::Duration;

use meseta_protocol::messages::election::{Detect, ELECTION, Leader};
use meseta_runtime::{Context, Message, Pid, Process, Receive, Request, Response};
use tracing::{debug, error, info};

use crate::election::messages::{Contend, Elected, Recovered};
use crate::master::Master;
use crate::registrar::{Recover, RegistryRecovered, Storage};

/// A leadership of this master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Leadership {
    /// Its number.
    pub(crate) epoch: u64,
    /// When it was elected, since the Unix epoch.
    pub(crate) since: Duration,
    /// Whether it knows all that its predecessors have stored.
    pub(crate) recovered: bool,
}

/// What the leader does with a message.
pub(crate) trait Serve<M: Message>: Process {
    /// Handles one message. The master leads and has recovered.
    fn serve(&mut self, cx: &mut Context<'_, Self>, from: &Pid, message: M);
}

/// The one place where messages to a master that does not lead are dropped.
impl<M: Message> Receive<M> for Master
where
    Master: Serve<M>,
{
    fn receive(&mut self, cx: &mut Context<'_, Self>, from: &Pid, message: M) {
        if self.is_leading() {
            self.serve(cx, from, message);
        } else {
            cx.metrics().count("master/dropped_messages");
            debug!(%from, message = M::NAME, "message dropped: this master does not lead");
        }
    }
}

impl Receive<Elected> for Master {
    fn receive(&mut self, cx: &mut Context<'_, Self>, from: &Pid, elected: Elected) {
        if self.election.as_ref() == Some(from) && self.leadership.is_none() {
            self.take_over(cx, elected.epoch);
        }
    }
}

impl Receive<Leader> for Master {
    fn receive(&mut self, _: &mut Context<'_, Self>, from: &Pid, leader: Leader) {
        if self.election.as_ref() == Some(from) {
            self.leader = leader.info;
        }
    }
}

impl Master {
    /// Whether it leads and has recovered.
    pub fn is_leading(&self) -> bool {
        self.leadership
            .is_some_and(|leadership| leadership.recovered)
    }

    /// Number of its leadership; 0 while it has none.
    pub fn epoch(&self) -> u64 {
        self.leadership.map_or(0, |leadership| leadership.epoch)
    }

    /// Tells the election that it could lead, and wants to hear who does.
    pub(crate) fn contend(&mut self, cx: &mut Context<'_, Self>) {
        let election = match cx.local(ELECTION) {
            Ok(election) => election,
            Err(error) => {
                cx.fail(error.to_string());
                return;
            }
        };
        cx.link(&election);
        let info = self.info.clone();
        cx.send(&election, Contend { info });
        cx.send(&election, Detect {});
        self.election = Some(election);
    }

    /// A master on its own needs no election. With a registry in memory it leads at once: there is nothing that others
    /// could have stored.
    pub(crate) fn lead_alone(&mut self, cx: &mut Context<'_, Self>) {
        let recovered = matches!(self.config.registry, Storage::Memory);
        self.begin(cx, self.config.leader_epoch, recovered);
    }

    fn take_over(&mut self, cx: &mut Context<'_, Self>, epoch: u64) {
        self.begin(cx, epoch, false);
    }

    /// Begins a leadership, with the registry that earlier ones have stored.
    fn begin(&mut self, cx: &mut Context<'_, Self>, epoch: u64, recovered: bool) {
        self.leadership = Some(Leadership {
            epoch,
            since: cx.wall(),
            recovered,
        });
        info!(id = %self.info.id, epoch, "master is elected");
        if recovered {
            self.leader = Some(self.info.clone());
        }
        self.spawn_helpers(cx);
        let Some(registrar) = self.registrar.clone() else {
            return;
        };
        let recover = Recover {
            epoch,
            master: self.info.clone(),
        };
        let limit = self.config.registry_fetch_timeout + self.config.registry_store_timeout * 2;
        cx.ask(&registrar, recover, limit, move |master, cx, answer| {
            let why = match answer {
                Ok(RegistryRecovered {
                    registry: Ok(registry),
                }) => {
                    master.adopt(cx, &registry);
                    master.recovered(cx);
                    return;
                }
                Ok(RegistryRecovered { registry: Err(why) }) => why,
                Err(error) => format!("the registrar does not answer: {error}"),
            };
            error!(%why, "this master gives the leadership up");
            cx.fail(why);
        });
    }

    fn recovered(&mut self, cx: &mut Context<'_, Self>) {
        let Some(leadership) = &mut self.leadership else {
            return;
        };
        leadership.recovered = true;
        let epoch = leadership.epoch;
        info!(id = %self.info.id, epoch, "master leads");
        match &self.election {
            Some(election) => cx.send(election, Recovered { epoch }),
            None => self.leader = Some(self.info.clone()),
        }
    }

    /// Answers a request about the cluster, if this master leads; else says who does.
    pub(crate) fn as_leader(
        &mut self,
        cx: &mut Context<'_, Self>,
        request: &Request,
        answer: fn(&mut Self, &mut Context<'_, Self>, &Request) -> Response,
    ) -> Response {
        if self.is_leading() {
            answer(self, cx, request)
        } else {
            self.redirect(&request.target)
        }
    }

    /// Where the leader answers, without the scheme, which is the client's.
    pub(crate) fn redirect(&self, target: &str) -> Response {
        match &self.leader {
            Some(leader) => {
                let host = leader.hostname.as_deref().unwrap_or_default();
                let host = if host.contains(':') {
                    format!("[{host}]")
                } else {
                    host.to_owned()
                };
                Response::redirect(format!("//{host}:{}{target}", leader.port))
            }
            None => Response::text(503, "No master leads at the moment: try again."),
        }
    }
}
