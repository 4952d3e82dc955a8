//! The disk: which sandboxes wait for their removal, looks at how full it is, removals, what is shown of them, and the
//! rotation of logs.
//! Source: agent.md §10.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use meseta_runtime::planted::mistake;
use meseta_runtime::{Context, Gate, Request, Response};
use serde_json::{Value, json};
use tracing::{debug, info, warn};

use crate::agent::Agent;
use crate::gc::{DiskUsage, FindSandboxes, RemoveSandboxes, Schedule, Settings, TouchSandboxes};
use crate::logs::{LOOK, RotateLogs};
use crate::paths;

/// What the agent knows of sandboxes that are to go.
#[derive(Debug, Default)]
pub(crate) struct Collection {
    schedule: Schedule,
    /// Share of the disk that was used at the last look.
    usage: Option<f64>,
    /// Sandboxes that are being removed.
    removing: usize,
    /// Whether logs are being rotated.
    rotating: bool,
}

impl Agent {
    /// Takes up what earlier runs in this work directory have left, and begins to look at the disk.
    pub(crate) fn begin_collection(&mut self, cx: &mut Context<'_, Self>) {
        let Some(settings) = self.config.gc else {
            return;
        };
        let find = FindSandboxes {
            agents: paths::agents(&self.config.work_dir),
        };
        cx.run(find, Gate::Interleave, move |agent, cx, found| {
            let now = agent.age(cx);
            // One of a living executor stays as long as that lives, and has a younger age afterwards.
            for (sandbox, age) in found {
                if mistake("agent forgets sandboxes over its restart") {
                    break;
                }
                agent.collection.schedule.add(sandbox, age, now);
            }
            agent.collect(cx, settings);
        });
    }

    /// Time since the agent began.
    fn age(&self, cx: &Context<'_, Self>) -> Duration {
        cx.now().since(self.began)
    }

    /// The container of a sandbox is gone: it may go too, as soon as no task of its executor waits for anything.
    pub(crate) fn schedule_removal(&mut self, cx: &mut Context<'_, Self>, sandbox: &Path) {
        if self.config.gc.is_none() {
            return;
        }
        let now = self.age(cx);
        self.collection
            .schedule
            .add(sandbox.to_owned(), Duration::ZERO, now);
        self.touch(cx, vec![sandbox.to_owned()]);
    }

    /// Notes on the disk that sandboxes are used until now.
    fn touch(&self, cx: &mut Context<'_, Self>, sandboxes: Vec<PathBuf>) {
        if sandboxes.is_empty() || mistake("agent leaves sandboxes as old as they look") {
            return;
        }
        let touch = TouchSandboxes {
            agents: paths::agents(&self.config.work_dir),
            sandboxes,
        };
        cx.run(touch, Gate::Interleave, |_, _, complaints| {
            for complaint in complaints {
                debug!(complaint, "sandbox not marked as used until now");
            }
        });
    }

    /// Sandboxes in which something may run.
    fn living(&self) -> Vec<PathBuf> {
        let executors = self.tables.executors();
        let living = executors.filter(|(_, _, executor)| !executor.container.is_gone());
        living
            .map(|(_, _, executor)| executor.directory.clone())
            .collect()
    }

    /// Looks at the logs of what runs, and comes back for the next look.
    pub(crate) fn look_at_logs(&mut self, cx: &mut Context<'_, Self>) {
        self.rotate_logs(cx, self.living());
        cx.after(LOOK, Self::look_at_logs);
    }

    /// Rotates the logs in these sandboxes that are too long.
    pub(crate) fn rotate_logs(&mut self, cx: &mut Context<'_, Self>, sandboxes: Vec<PathBuf>) {
        let Some(limits) = self.config.logs.filter(|_| !sandboxes.is_empty()) else {
            return;
        };
        // One at a time for each file: the next look finds what this one does not.
        if self.collection.rotating {
            return;
        }
        self.collection.rotating = true;
        let rotate = RotateLogs {
            agents: paths::agents(&self.config.work_dir),
            sandboxes,
            limits,
        };
        cx.run(rotate, Gate::Interleave, |agent, _, complaints| {
            agent.collection.rotating = false;
            for complaint in complaints {
                warn!(complaint, "log not rotated: tried again");
            }
        });
    }

    /// Looks how full the disk is, removes what is too old for that, and comes back for the next look. Sandboxes of what
    /// runs are marked each time: should the agent not live to see an executor end, its next run counts from here, and not
    /// from whenever a task has last made a file.
    fn collect(&mut self, cx: &mut Context<'_, Self>, settings: Settings) {
        self.touch(cx, self.living());
        let look = DiskUsage {
            work_dir: self.config.work_dir.clone(),
        };
        cx.run(look, Gate::Interleave, move |agent, cx, looked| {
            agent.collection.usage = match looked {
                Ok(usage) => Some(usage),
                Err(reason) => {
                    warn!(
                        reason,
                        "nobody knows how full the disk is: sandboxes go by their age only"
                    );
                    None
                }
            };
            agent.remove_due(cx, settings);
        });
        cx.after(settings.disk_watch_interval, move |agent, cx| {
            agent.collect(cx, settings);
        });
    }

    fn remove_due(&mut self, cx: &mut Context<'_, Self>, settings: Settings) {
        if self.collection.removing > 0 {
            return;
        }
        let now = self.age(cx);
        let usage = if mistake("agent takes every disk for full") {
            Some(1.0)
        } else {
            self.collection.usage
        };
        let max_age = settings.policy.max_age(usage);
        let held = self.tables.sandboxes();
        let is_held = |sandbox: &Path| {
            held.contains(sandbox) && !mistake("agent removes the sandboxes of what runs")
        };
        let due = self.collection.schedule.take_due(now, max_age, is_held);
        if due.is_empty() {
            return;
        }
        self.collection.removing = due.len();
        info!(sandboxes = due.len(), ?max_age, usage = ?self.collection.usage, "old sandboxes are removed");
        let remove = RemoveSandboxes {
            agents: paths::agents(&self.config.work_dir),
            sandboxes: due.iter().map(|(sandbox, _)| sandbox.clone()).collect(),
        };
        cx.run(remove, Gate::Interleave, move |agent, cx, done| {
            agent.collection.removing = 0;
            let mut gone = BTreeSet::new();
            for (sandbox, outcome) in done {
                match outcome {
                    Ok(()) => {
                        cx.metrics().count("gc/path_removals_succeeded");
                        gone.insert(sandbox);
                    }
                    Err(reason) => warn!(reason, "sandbox not removed: tried again"),
                }
            }
            for (sandbox, age) in due {
                if gone.contains(&sandbox) {
                    continue;
                }
                cx.metrics().count("gc/path_removals_failed");
                agent.collection.schedule.add(sandbox, age, now);
            }
        });
    }

    /// How old a sandbox may become while the disk stays as full as it is; 0 when none is removed for its age.
    pub(crate) fn max_sandbox_age(&self) -> Duration {
        let settings = self.config.gc;
        settings.map_or(Duration::ZERO, |settings| {
            settings.policy.max_age(self.collection.usage)
        })
    }

    /// Sandboxes that wait for their removal or are being removed.
    pub(crate) fn removals_pending(&self) -> usize {
        self.collection.schedule.len() + self.collection.removing
    }

    /// What will be removed, and when, if the disk stays as full as it is.
    pub(crate) fn show_collection(&mut self, cx: &mut Context<'_, Self>, _: &Request) -> Response {
        let Some(settings) = self.config.gc else {
            return Response::json(&json!({ "enabled": false }));
        };
        let now = self.age(cx);
        let max_age = settings.policy.max_age(self.collection.usage);
        let held = self.tables.sandboxes();
        let waiting = self.collection.schedule.iter(now);
        let mut sandboxes: Vec<(Duration, Value)> = waiting
            .map(|(path, age)| {
                let shown = json!({
                    "path": path,
                    "age_secs": age.as_secs_f64(),
                    "removed_in_secs": max_age.saturating_sub(age).as_secs_f64(),
                    "held": held.contains(path),
                });
                (age, shown)
            })
            .collect();
        sandboxes.sort_by_key(|(age, _)| std::cmp::Reverse(*age));
        let sandboxes: Vec<Value> = sandboxes.into_iter().map(|(_, shown)| shown).collect();
        Response::json(&json!({
            "enabled": true,
            "gc_delay_secs": settings.policy.delay.as_secs_f64(),
            "gc_disk_headroom": settings.policy.headroom,
            "disk_watch_interval_secs": settings.disk_watch_interval.as_secs_f64(),
            "disk_usage": self.collection.usage,
            "max_age_secs": max_age.as_secs_f64(),
            "removing": self.collection.removing,
            "sandboxes": sandboxes,
        }))
    }
}
