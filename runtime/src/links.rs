//! Links: who watches whom, and who hears of an end.
//!
//! Pure: no clock, no network. One table per node, for links in both directions. The invariant: for each link asked
//! for, exactly one `Notify` comes out, whatever ends first: the watched process, its node, or the connection to
//! it; and none comes after `Unlink`.
//!
//! ```text
//!   Watch(local target)  ── target alive ──> kept ── Ended ──> Notify(reason)
//!        └── target gone ─────────────────────────────────────> Notify(NoProcess)
//!   Watch(remote target) ──> SendLink ── RemoteExited / PeerLost ──> Notify(reason), forgotten
//!   RemoteWatch(target)  ── alive ──> kept ── Ended ──> SendExited;  gone ──> SendExited(NoProcess)
//! ```

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::pid::Pid;
use crate::transport::PeerKey;

/// Links that the processes behind one peer may hold here. Beyond it a link ends at once with
/// [`ExitReason::ConnectionLost`]: a peer is trusted to be itself, not with this node's memory. An agent or a scheduler
/// holds a few; this allows a node with a process for each of its tasks.
pub const MAX_REMOTE_WATCHERS: usize = 65_536;

/// Why a process or the link to it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitReason {
    /// It stopped by itself.
    Normal,
    /// Somebody terminated it, or its node shut down.
    Terminated,
    /// A handler panicked; the text is the panic's message.
    Panic(String),
    /// It ended itself because it could not go on; the text says why.
    Failed(String),
    /// There was no such process when the link was made.
    NoProcess,
    /// The connection to its node broke or could not be made. The process may live on.
    ConnectionLost,
    /// Another run of its node answers at its address.
    NodeRestarted,
    /// A reason that a newer node knows and this one does not.
    #[serde(other)]
    Unknown,
}

/// What happens to the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A local process links to a local one.
    WatchLocal {
        /// Who wants to hear.
        watcher: Pid,
        /// Whose end.
        target: Pid,
        /// Whether the target lives.
        alive: bool,
    },
    /// A local process links to one behind a peer.
    WatchRemote {
        /// Who wants to hear.
        watcher: Pid,
        /// Whose end.
        target: Pid,
        /// The peer that hosts the target.
        peer: PeerKey,
    },
    /// A local process takes its link back.
    Unwatch {
        /// Who no longer wants to hear.
        watcher: Pid,
        /// Whose end.
        target: Pid,
    },
    /// A process behind a peer links to a local one.
    RemoteWatch {
        /// Who wants to hear.
        watcher: Pid,
        /// The peer that hosts the watcher.
        peer: PeerKey,
        /// Whose end.
        target: Pid,
        /// Whether the target lives.
        alive: bool,
    },
    /// A process behind a peer takes its link back.
    RemoteUnwatch {
        /// Who no longer wants to hear.
        watcher: Pid,
        /// Whose end.
        target: Pid,
    },
    /// A local process ended.
    Ended {
        /// Which.
        pid: Pid,
        /// Why.
        reason: ExitReason,
    },
    /// A peer says that a process it hosts has ended.
    RemoteExited {
        /// Who had linked to it.
        watcher: Pid,
        /// Which.
        target: Pid,
        /// Why.
        reason: ExitReason,
    },
    /// A peer is lost.
    PeerLost {
        /// Which.
        peer: PeerKey,
        /// Why.
        reason: ExitReason,
    },
}

/// What the node has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Tell a local process.
    Notify {
        /// Whom.
        watcher: Pid,
        /// Who ended.
        target: Pid,
        /// Why.
        reason: ExitReason,
    },
    /// Ask a peer to tell us.
    SendLink {
        /// The peer.
        peer: PeerKey,
        /// Who wants to hear.
        watcher: Pid,
        /// Whose end.
        target: Pid,
    },
    /// Tell a peer that we no longer want to hear.
    SendUnlink {
        /// The peer.
        peer: PeerKey,
        /// Who no longer wants to hear.
        watcher: Pid,
        /// Whose end.
        target: Pid,
    },
    /// Tell a watcher behind a peer.
    SendExited {
        /// The peer.
        peer: PeerKey,
        /// Whom.
        watcher: Pid,
        /// Who ended.
        target: Pid,
        /// Why.
        reason: ExitReason,
    },
}

/// The table of one node.
#[derive(Debug, Default)]
pub struct Links {
    /// Links of local processes: watcher to target, with the peer of a remote target.
    watching: BTreeMap<Pid, BTreeMap<Pid, Option<PeerKey>>>,
    /// The same by target, to find the watchers of one that ends.
    watched: BTreeMap<Pid, BTreeSet<Pid>>,
    /// Watchers behind peers, by local target.
    remote_watchers: BTreeMap<Pid, BTreeMap<Pid, PeerKey>>,
    /// How many of them each peer has; none is 0.
    remote_counts: BTreeMap<PeerKey, usize>,
}

impl Links {
    /// Applies one input; the effects are to be carried out in order.
    pub fn step(&mut self, input: Input) -> Vec<Effect> {
        match input {
            Input::WatchLocal {
                watcher,
                target,
                alive,
            } => {
                if alive {
                    self.keep(watcher, target, None);
                    Vec::new()
                } else {
                    vec![Effect::Notify {
                        watcher,
                        target,
                        reason: ExitReason::NoProcess,
                    }]
                }
            }
            Input::WatchRemote {
                watcher,
                target,
                peer,
            } => {
                let new = self.keep(watcher.clone(), target.clone(), Some(peer.clone()));
                if new {
                    vec![Effect::SendLink {
                        peer,
                        watcher,
                        target,
                    }]
                } else {
                    Vec::new()
                }
            }
            Input::Unwatch { watcher, target } => match self.forget(&watcher, &target) {
                Some(Some(peer)) => vec![Effect::SendUnlink {
                    peer,
                    watcher,
                    target,
                }],
                Some(None) | None => Vec::new(),
            },
            Input::RemoteWatch {
                watcher,
                peer,
                target,
                alive,
            } => {
                let reason = if !alive {
                    ExitReason::NoProcess
                } else if self.keep_remote(&watcher, &peer, &target) {
                    return Vec::new();
                } else {
                    ExitReason::ConnectionLost
                };
                vec![Effect::SendExited {
                    peer,
                    watcher,
                    target,
                    reason,
                }]
            }
            Input::RemoteUnwatch { watcher, target } => {
                if let Some(watchers) = self.remote_watchers.get_mut(&target) {
                    if let Some(peer) = watchers.remove(&watcher) {
                        uncount(&mut self.remote_counts, &peer);
                    }
                    if watchers.is_empty() {
                        self.remote_watchers.remove(&target);
                    }
                }
                Vec::new()
            }
            Input::Ended { pid, reason } => self.ended(&pid, &reason),
            Input::RemoteExited {
                watcher,
                target,
                reason,
            } => match self.forget(&watcher, &target) {
                Some(_) => vec![Effect::Notify {
                    watcher,
                    target,
                    reason,
                }],
                None => Vec::new(),
            },
            Input::PeerLost { peer, reason } => self.peer_lost(&peer, &reason),
        }
    }

    /// Whether a link to or from this peer stands.
    pub fn concern(&self, peer: &PeerKey) -> bool {
        self.remote_counts.contains_key(peer)
            || self.watching.values().any(|targets| {
                let mut peers = targets.values().flatten();
                peers.any(|other| other == peer)
            })
    }

    /// How many links local processes hold.
    pub fn len(&self) -> usize {
        self.watching.values().map(BTreeMap::len).sum()
    }

    /// How many links this process of the node holds, and how many it is watched by.
    pub fn of(&self, pid: &Pid) -> (usize, usize) {
        let watchers = self.watched.get(pid).map_or(0, BTreeSet::len);
        let remote = self.remote_watchers.get(pid).map_or(0, BTreeMap::len);
        (
            self.watching.get(pid).map_or(0, BTreeMap::len),
            watchers + remote,
        )
    }

    /// Whether no local process holds a link.
    pub fn is_empty(&self) -> bool {
        self.watching.is_empty()
    }

    fn keep(&mut self, watcher: Pid, target: Pid, peer: Option<PeerKey>) -> bool {
        self.watched
            .entry(target.clone())
            .or_default()
            .insert(watcher.clone());
        self.watching
            .entry(watcher)
            .or_default()
            .insert(target, peer)
            .is_none()
    }

    /// Notes a watcher behind a peer; `false` when the peer has too many.
    fn keep_remote(&mut self, watcher: &Pid, peer: &PeerKey, target: &Pid) -> bool {
        let known = self.remote_watchers.get(target);
        if known.is_some_and(|watchers| watchers.get(watcher) == Some(peer)) {
            return true;
        }
        let count = self.remote_counts.entry(peer.clone()).or_default();
        if *count >= MAX_REMOTE_WATCHERS {
            return false;
        }
        *count += 1;
        let watchers = self.remote_watchers.entry(target.clone()).or_default();
        if let Some(before) = watchers.insert(watcher.clone(), peer.clone()) {
            uncount(&mut self.remote_counts, &before);
        }
        true
    }

    /// Removes one link; the outer `None` when there was none.
    fn forget(&mut self, watcher: &Pid, target: &Pid) -> Option<Option<PeerKey>> {
        let targets = self.watching.get_mut(watcher)?;
        let peer = targets.remove(target)?;
        if targets.is_empty() {
            self.watching.remove(watcher);
        }
        if let Some(watchers) = self.watched.get_mut(target) {
            watchers.remove(watcher);
            if watchers.is_empty() {
                self.watched.remove(target);
            }
        }
        Some(peer)
    }

    fn ended(&mut self, pid: &Pid, reason: &ExitReason) -> Vec<Effect> {
        let mut effects = Vec::new();
        // The links that the ended process held itself.
        for (target, peer) in self.watching.remove(pid).unwrap_or_default() {
            if let Some(watchers) = self.watched.get_mut(&target) {
                watchers.remove(pid);
                if watchers.is_empty() {
                    self.watched.remove(&target);
                }
            }
            if let Some(peer) = peer {
                effects.push(Effect::SendUnlink {
                    peer,
                    watcher: pid.clone(),
                    target,
                });
            }
        }
        for watcher in self.watched.get(pid).cloned().unwrap_or_default() {
            self.forget(&watcher, pid);
            effects.push(Effect::Notify {
                watcher,
                target: pid.clone(),
                reason: reason.clone(),
            });
        }
        for (watcher, peer) in self.remote_watchers.remove(pid).unwrap_or_default() {
            uncount(&mut self.remote_counts, &peer);
            effects.push(Effect::SendExited {
                peer,
                watcher,
                target: pid.clone(),
                reason: reason.clone(),
            });
        }
        effects
    }

    fn peer_lost(&mut self, lost: &PeerKey, reason: &ExitReason) -> Vec<Effect> {
        let gone: Vec<(Pid, Pid)> = self
            .watching
            .iter()
            .flat_map(|(watcher, targets)| {
                targets
                    .iter()
                    .filter(|(_, peer)| peer.as_ref() == Some(lost))
                    .map(|(target, _)| (watcher.clone(), target.clone()))
            })
            .collect();
        self.remote_counts.remove(lost);
        self.remote_watchers.retain(|_, watchers| {
            watchers.retain(|_, peer| peer != lost);
            !watchers.is_empty()
        });
        gone.into_iter()
            .map(|(watcher, target)| {
                self.forget(&watcher, &target);
                Effect::Notify {
                    watcher,
                    target,
                    reason: reason.clone(),
                }
            })
            .collect()
    }
}

fn uncount(counts: &mut BTreeMap<PeerKey, usize>, peer: &PeerKey) {
    if let Some(count) = counts.get_mut(peer) {
        *count -= 1;
        if *count == 0 {
            counts.remove(peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pid(text: &str) -> Pid {
        text.parse().unwrap()
    }
    fn peer() -> PeerKey {
        PeerKey::Node("h:2".parse().unwrap())
    }
    fn lost() -> Input {
        Input::PeerLost {
            peer: peer(),
            reason: ExitReason::ConnectionLost,
        }
    }

    #[test]
    fn a_local_end_is_told_once() {
        let mut links = Links::default();
        let (a, b) = (pid("a@h:1"), pid("b@h:1"));
        for _ in 0..2 {
            let watch = Input::WatchLocal {
                watcher: a.clone(),
                target: b.clone(),
                alive: true,
            };
            assert_eq!(links.step(watch), []);
        }
        let ended = Input::Ended {
            pid: b.clone(),
            reason: ExitReason::Normal,
        };
        let notify = Effect::Notify {
            watcher: a,
            target: b,
            reason: ExitReason::Normal,
        };
        assert_eq!(links.step(ended.clone()), [notify]);
        assert_eq!(links.step(ended), []);
        assert!(links.is_empty());
    }

    #[test]
    fn a_link_to_a_missing_process_fires_at_once() {
        let (a, b) = (pid("a@h:1"), pid("b@h:1"));
        let effects = Links::default().step(Input::WatchLocal {
            watcher: a.clone(),
            target: b.clone(),
            alive: false,
        });
        assert_eq!(
            effects,
            [Effect::Notify {
                watcher: a,
                target: b,
                reason: ExitReason::NoProcess
            }]
        );
    }

    #[test]
    fn of_exit_and_lost_connection_only_the_first_is_told() {
        let (a, b) = (pid("a@h:1"), pid("b@h:2"));
        let watch = Input::WatchRemote {
            watcher: a.clone(),
            target: b.clone(),
            peer: peer(),
        };
        let exited = Input::RemoteExited {
            watcher: a.clone(),
            target: b.clone(),
            reason: ExitReason::Normal,
        };
        let mut links = Links::default();
        assert_eq!(links.step(watch.clone()).len(), 1);
        assert_eq!(links.step(exited.clone()).len(), 1);
        assert_eq!(links.step(lost()), []);
        assert_eq!(links.step(watch).len(), 1);
        assert_eq!(links.step(lost()).len(), 1);
        assert_eq!(links.step(exited), []);
    }

    #[test]
    fn a_peer_may_name_so_many_watchers_and_no_more() {
        let target = pid("a@h:1");
        let watch = |n: usize| Input::RemoteWatch {
            watcher: pid(&format!("w{n}@h:2")),
            peer: peer(),
            target: pid("a@h:1"),
            alive: true,
        };
        let mut links = Links::default();
        for n in 0..MAX_REMOTE_WATCHERS {
            assert_eq!(links.step(watch(n)), []);
        }
        assert_eq!(links.step(watch(0)), [], "known already");
        let refused = Effect::SendExited {
            peer: peer(),
            watcher: pid(&format!("w{MAX_REMOTE_WATCHERS}@h:2")),
            target: target.clone(),
            reason: ExitReason::ConnectionLost,
        };
        assert_eq!(links.step(watch(MAX_REMOTE_WATCHERS)), [refused]);
        links.step(Input::RemoteUnwatch {
            watcher: pid("w0@h:2"),
            target: target.clone(),
        });
        assert_eq!(links.step(watch(MAX_REMOTE_WATCHERS)), []);
        let ended = Input::Ended {
            pid: target,
            reason: ExitReason::Normal,
        };
        assert_eq!(links.step(ended).len(), MAX_REMOTE_WATCHERS);
        assert_eq!(links.step(watch(1)), []);
        links.step(lost());
        assert!(links.remote_counts.is_empty());
    }

    #[test]
    fn a_remote_watcher_is_told_unless_it_unlinked_or_its_node_is_lost() {
        let (a, b) = (pid("a@h:1"), pid("b@h:2"));
        let watch = Input::RemoteWatch {
            watcher: b.clone(),
            peer: peer(),
            target: a.clone(),
            alive: true,
        };
        let ended = Input::Ended {
            pid: a.clone(),
            reason: ExitReason::Terminated,
        };
        let mut links = Links::default();
        links.step(watch.clone());
        assert_eq!(links.step(ended.clone()).len(), 1);
        links.step(watch.clone());
        links.step(lost());
        assert_eq!(links.step(ended.clone()), []);
        links.step(watch);
        links.step(Input::RemoteUnwatch {
            watcher: b,
            target: a,
        });
        assert_eq!(links.step(ended), []);
    }
}
