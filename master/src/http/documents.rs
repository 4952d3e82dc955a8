//! Documents about the cluster, which are written beside the master's own work.
//!
//! The master takes a [`View`] in the turn a request comes in and goes on; a process with a thread of its own writes what
//! was asked for and answers. Who asks while it writes waits for the next view, which all who wait share, so that however many
//! ask, no more than one document of each kind is written at a time, and none is older than the question. As long as nothing
//! changes in the cluster, what was written is sent again as it is.
//!
//! ```text
//!   HTTP ──▶ master: same revision as last time? ── yes ──▶ the same bytes, or 304
//!              │ no: waits, until the scribe is free
//!              ▼ view, with all who wait
//!            documents (own thread) ──▶ answers them; Written ──▶ master
//! ```

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use bytes::Bytes;
use meseta_runtime::http::Later;
use meseta_runtime::{
    Context, ExitReason, Message, Metrics, OWN_NODE, Pid, Placement, Process, Receive, Request,
    Response, Routes,
};
use serde::{Deserialize, Serialize};
use tracing::{debug, error};

use super::explain::{self, Ledger, Question, Records};
use super::texts::Texts;
use super::view::{Document, View};
use crate::allocator::explain::{Explain, FrameworkExplained};
use crate::master::{Master, Transition};

/// Id of the process.
const ID: &str = "documents";

/// How long the allocator may take to say what it knows.
const ALLOCATOR_LIMIT: Duration = Duration::from_secs(10);

/// Explanations that are being made at a time; one more is refused.
const MOST_EXPLAINED: usize = 8;

/// Documents that are kept while nothing changes, and bytes that all of them may have together.
const KEPT: usize = 16;
const KEPT_BYTES: usize = 256 << 20;
/// Counts requests that are answered with what was written for another.
const CACHE_HITS: &str = "master/http_cache_hits";

/// From the master: there is something to write.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Write {}

impl Message for Write {
    const NAME: &'static str = "meseta.master.documents.Write";
    const SENDERS: &'static [&'static str] = OWN_NODE;
}

/// To the master: it is written, and who asked has it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Written {}

impl Message for Written {
    const NAME: &'static str = "meseta.master.documents.Written";
    const SENDERS: &'static [&'static str] = OWN_NODE;
}

/// Somebody who has asked for a document.
#[derive(Debug)]
struct Asker {
    document: Document,
    request: Request,
    later: Later,
}

/// A document that is written.
#[derive(Debug, Clone)]
struct Made {
    document: Document,
    content_type: &'static str,
    body: Bytes,
}

impl Made {
    fn answer(&self, request: &Request, state: &str) -> Response {
        let response = Response::body(self.content_type, self.body.clone());
        // What is called for by POST is not named by its path: it would have the tag of whatever else is called for so.
        match request.method.as_str() {
            "GET" | "HEAD" => response.tagged(request.tag(state)),
            _ => response,
        }
    }
}

/// Somebody who wants something explained.
#[derive(Debug)]
struct Puzzled {
    wanted: explain::Wanted,
    later: Later,
}

/// All who have asked since the last view was taken, with the next one.
#[derive(Debug)]
struct Job {
    /// Names the revision that the view shows.
    state: String,
    view: View,
    askers: Vec<Asker>,
    /// What explanations are made from besides, for those who want one.
    ledger: Ledger,
    puzzled: Vec<Puzzled>,
}

/// What was written of one revision.
#[derive(Debug, Default)]
struct Shelf {
    state: String,
    all: Vec<Made>,
}

impl Shelf {
    fn find(&self, state: &str, document: &Document) -> Option<&Made> {
        let mut all = self.all.iter().filter(|_| self.state == state);
        all.find(|made| made.document == *document)
    }

    /// Keeps what was written of the newest revision, as far as there is room.
    fn put(&mut self, state: String, made: Vec<Made>) {
        if self.state != state {
            self.all.clear();
            self.state = state;
        }
        for one in made {
            let bytes: usize = self.all.iter().map(|made| made.body.len()).sum();
            if self.all.len() < KEPT && bytes + one.body.len() <= KEPT_BYTES {
                self.all.push(one);
            }
        }
    }
}

/// The master's end.
#[derive(Debug)]
pub(crate) struct Documents {
    scribe: Pid,
    jobs: Sender<Job>,
    made: Receiver<(String, Vec<Made>)>,
    shelf: Shelf,
    texts: Arc<Texts>,
    /// Whether something is being written.
    busy: bool,
    /// Those who ask meanwhile.
    waiting: Vec<Asker>,
    puzzled: Vec<Puzzled>,
}

impl Documents {
    fn open(cx: &mut Context<'_, Master>) -> Option<Self> {
        let (jobs, orders) = channel();
        let (tell, made) = channel();
        let master = cx.me().clone();
        let build = move || Scribe {
            master,
            orders,
            tell,
        };
        match cx.spawn_placed(ID, Placement::OwnThread, build) {
            Ok(scribe) => {
                cx.link(&scribe);
                Some(Self {
                    scribe,
                    jobs,
                    made,
                    shelf: Shelf::default(),
                    texts: Arc::default(),
                    busy: false,
                    waiting: Vec::new(),
                    puzzled: Vec::new(),
                })
            }
            Err(why) => {
                error!(%why, "no process that writes documents");
                None
            }
        }
    }
}

impl Master {
    /// Names what the documents show: all that is in these, and what stays while a master leads. Each number only
    /// rises.
    fn shown_state(&self) -> String {
        let revision =
            self.state.revision() + self.unreachable.revision() + self.awaited.revision();
        format!("{}-{}-{revision}", self.info.id, self.epoch())
    }

    /// What there is to show now.
    pub(super) fn view(&self, me: &Pid) -> View {
        View {
            me: me.clone(),
            info: self.info.clone(),
            epoch: self.epoch(),
            started: self.started,
            elected: self.leadership.map(|one| one.since),
            flags: self.config.flags.clone(),
            cluster: self.config.cluster.clone(),
            texts: (self.documents.as_ref())
                .map_or_else(Arc::default, |all| Arc::clone(&all.texts)),
            weights: self.weights.clone(),
            state: self.state.snapshot(),
            awaited: self.awaited.clone(),
            unreachable: self.unreachable.len(),
        }
    }

    /// Answers with a document, or with its tag alone to a client that has it already.
    pub(super) fn show(
        &mut self,
        cx: &mut Context<'_, Self>,
        request: &Request,
        document: Document,
    ) -> Response {
        let state = self.shown_state();
        let tag = request.tag(&state);
        if request.knows(&tag) {
            return Response::not_modified(tag);
        }
        if self.documents.is_none() {
            self.documents = Documents::open(cx);
        }
        let Some(documents) = &mut self.documents else {
            return Response::text(500, "500 Internal Server Error.");
        };
        if let Some(made) = documents.shelf.find(&state, &document) {
            cx.metrics().count(CACHE_HITS);
            return made.answer(request, &state);
        }
        let (later, response) = Response::later();
        documents.waiting.push(Asker {
            document,
            request: Request {
                body: Bytes::new(),
                ..request.clone()
            },
            later,
        });
        if !documents.busy {
            self.have_written(cx);
        }
        response
    }

    /// Has everything written that is asked for, as it is now, but for what has just been written.
    fn have_written(&mut self, cx: &mut Context<'_, Self>) {
        let state = self.shown_state();
        let Some(documents) = &mut self.documents else {
            return;
        };
        let mut askers = Vec::new();
        for asker in std::mem::take(&mut documents.waiting) {
            match documents.shelf.find(&state, &asker.document) {
                Some(made) => {
                    cx.metrics().count(CACHE_HITS);
                    asker.later.answer(made.answer(&asker.request, &state));
                }
                None => askers.push(asker),
            }
        }
        let puzzled = std::mem::take(&mut documents.puzzled);
        if askers.is_empty() && puzzled.is_empty() {
            return;
        }
        let view = self.view(cx.me());
        let ledger = if puzzled.is_empty() {
            Ledger::default()
        } else {
            self.ledger(cx)
        };
        let Some(documents) = &mut self.documents else {
            return;
        };
        let job = Job {
            state,
            view,
            askers,
            ledger,
            puzzled,
        };
        // Whoever waits for one that has ended is told that there is no answer.
        documents.busy = documents.jobs.send(job).is_ok();
        cx.send(&documents.scribe, Write {});
    }

    /// What explanations are made from and documents are not.
    fn ledger(&self, cx: &Context<'_, Self>) -> Ledger {
        let unsettled = self.transitions.iter().map(|(id, what)| {
            let what = match what {
                Transition::Reregistering => "its registration is being stored",
                Transition::MarkingUnreachable => "that it is unreachable is being stored",
                Transition::MarkingGone => "that it is gone is being stored",
                Transition::Removing => "its removal is being stored",
            };
            (id.clone(), what)
        });
        let doomed = self.doomed.keys().map(|id| {
            let what = "it is marked unreachable when --agent_removal_rate_limit allows it";
            (id.clone(), what)
        });
        Ledger {
            now: cx.wall(),
            unreachable: self.unreachable.clone(),
            gone: self.gone.clone(),
            unsettled: doomed.chain(unsettled).collect(),
            patience: self.config.agent_reregister_timeout,
        }
    }

    /// `/explain/framework/ID`.
    pub(super) fn explain_framework(
        &mut self,
        cx: &mut Context<'_, Self>,
        request: &Request,
    ) -> Response {
        match Question::of_framework(request) {
            Ok(question) => self.explain(cx, request, question),
            Err(why) => Response::text(400, why),
        }
    }

    /// `/explain/task/ID`.
    pub(super) fn explain_task(
        &mut self,
        cx: &mut Context<'_, Self>,
        request: &Request,
    ) -> Response {
        match Question::of_task(request) {
            Ok(question) => self.explain(cx, request, question),
            Err(why) => Response::text(400, why),
        }
    }

    fn explain(
        &mut self,
        cx: &mut Context<'_, Self>,
        request: &Request,
        question: Question,
    ) -> Response {
        let documents = self.documents.as_ref();
        let waiting = documents.map_or(0, |documents| documents.puzzled.len());
        if self.explaining + waiting >= MOST_EXPLAINED {
            return Response::text(503, "Too many explanations are being made: try again.\n");
        }
        self.explaining += 1;
        let (later, response) = Response::later();
        let is_text = explain::wants_text(request);
        let asked = match &question {
            Question::Framework {
                id,
                agent,
                offset,
                limit,
            } => Some(Explain {
                framework_id: id.clone(),
                agent_id: agent.clone(),
                offset: *offset,
                limit: *limit,
            }),
            Question::Task { .. } => None,
        };
        match (asked, self.allocator.clone()) {
            (Some(asked), Some(allocator)) => {
                cx.ask(&allocator, asked, ALLOCATOR_LIMIT, move |me, cx, told| {
                    let told = told.ok().and_then(|told| told.framework);
                    me.have_explained(cx, (question, is_text, told), later);
                });
            }
            _ => self.have_explained(cx, (question, is_text, None), later),
        }
        response
    }

    /// Has an explanation written, now that the allocator has said what it knows.
    fn have_explained(
        &mut self,
        cx: &mut Context<'_, Self>,
        (question, is_text, allocator): (Question, bool, Option<FrameworkExplained>),
        later: Later,
    ) {
        self.explaining -= 1;
        if self.documents.is_none() {
            self.documents = Documents::open(cx);
        }
        let Some(documents) = &mut self.documents else {
            return;
        };
        documents.puzzled.push(Puzzled {
            wanted: explain::Wanted {
                question,
                is_text,
                allocator,
            },
            later,
        });
        if !documents.busy {
            self.have_written(cx);
        }
    }

    /// The process that writes has ended; those who wait for it are told so by that.
    pub(crate) fn scribe_ended(&mut self, pid: &Pid) -> bool {
        let ended = self
            .documents
            .as_ref()
            .is_some_and(|one| one.scribe == *pid);
        if ended {
            self.documents = None;
        }
        ended
    }
}

impl Receive<Written> for Master {
    fn receive(&mut self, cx: &mut Context<'_, Self>, from: &Pid, _: Written) {
        let Some(documents) = &mut self.documents else {
            return;
        };
        if documents.scribe != *from {
            return;
        }
        documents.busy = false;
        while let Ok((state, made)) = documents.made.try_recv() {
            documents.shelf.put(state, made);
        }
        if !(documents.waiting.is_empty() && documents.puzzled.is_empty()) {
            self.have_written(cx);
        }
    }
}

/// Writes documents.
struct Scribe {
    master: Pid,
    orders: Receiver<Job>,
    tell: Sender<(String, Vec<Made>)>,
}

impl Scribe {
    fn work(&self, metrics: &Metrics, job: Job) {
        let Job {
            state,
            view,
            askers,
            ledger,
            puzzled,
        } = job;
        let texts = Arc::clone(&view.texts);
        let records = Records {
            view: &view,
            ledger: &ledger,
        };
        for one in puzzled {
            if !one.later.is_abandoned() {
                one.later.answer(explain::answer(&one.wanted, &records));
            }
        }
        let mut all: Vec<Made> = Vec::new();
        for asker in askers {
            if asker.later.is_abandoned() {
                continue;
            }
            let made = match all.iter().find(|made| made.document == asker.document) {
                Some(made) => {
                    metrics.count(CACHE_HITS);
                    Ok(made)
                }
                None => view.write(&asker.document).map(|(content_type, body)| {
                    let bytes: usize = all.iter().map(|made| made.body.len()).sum();
                    if all.len() >= KEPT || bytes > KEPT_BYTES {
                        all.remove(0);
                    }
                    all.push(Made {
                        document: asker.document,
                        content_type,
                        body: body.into(),
                    });
                    &all[all.len() - 1]
                }),
            };
            asker.later.answer(match made {
                Ok(made) => made.answer(&asker.request, &state),
                Err(why) => {
                    error!(%why, "a document cannot be written");
                    Response::text(500, why)
                }
            });
        }
        // What only this view held is gone with it.
        drop(view);
        texts.forget_what_is_gone();
        // When nobody listens the master has ended.
        if self.tell.send((state, all)).is_err() {
            debug!("the master has ended: nobody keeps its documents");
        }
    }
}

impl Process for Scribe {
    fn routes(routes: &mut Routes<Self>) {
        routes.on::<Write>();
    }

    fn start(&mut self, cx: &mut Context<'_, Self>) {
        let master = self.master.clone();
        cx.link(&master);
    }

    fn exited(&mut self, cx: &mut Context<'_, Self>, _: &Pid, _: ExitReason) {
        cx.stop();
    }
}

impl Receive<Write> for Scribe {
    fn receive(&mut self, cx: &mut Context<'_, Self>, from: &Pid, _: Write) {
        while let Ok(job) = self.orders.try_recv() {
            self.work(cx.metrics(), job);
            cx.send(from, Written {});
        }
    }
}
