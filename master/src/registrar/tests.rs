//! The registrar's rules against a log of its own, entry by entry; bytes that later versions must read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use meseta_protocol::agent::{AgentInfo, MasterCapability, MasterInfo};
use meseta_protocol::resources::Resources;
use meseta_protocol::{AgentId, MasterId, Role};
use proptest::prelude::*;

use super::core::{Answer, Core, Effect, Input, LogError, MAX_DIFFS, Ticket};
use super::entry::{self, Diff, Entry, EntryError, Snapshot};
use super::replay::{Replay, ReplayError};
use crate::registry::{Change, Registry, RegistryOperation as Op};

fn info(n: u32) -> Arc<AgentInfo> {
    let mut info = AgentInfo::new("host", "cpus:4;mem:1024".parse().unwrap());
    info.id = Some(id(n));
    Arc::new(info)
}

fn id(n: u32) -> AgentId {
    AgentId::new(format!("M-S{n}"))
}

fn admit(n: u32) -> Op {
    Op::AdmitAgent { info: info(n) }
}

fn remove(n: u32) -> Op {
    Op::RemoveAgent { agent_id: id(n) }
}

fn master(id: &str) -> MasterInfo {
    MasterInfo {
        id: MasterId::new(id),
        capabilities: vec![MasterCapability::AgentUpdate],
        ..MasterInfo::default()
    }
}

/// The log as one registrar after the other sees it: what was truncated is not there any more.
#[derive(Debug, Default)]
struct Log {
    entries: BTreeMap<u64, Bytes>,
    end: u64,
}

impl Log {
    fn append(&mut self, bytes: Bytes) -> u64 {
        self.end += 1;
        self.entries.insert(self.end, bytes);
        self.end
    }

    fn truncate(&mut self, to: u64) {
        // The truncation has a position of its own.
        self.end += 1;
        self.entries.retain(|position, _| *position >= to);
    }

    fn read(&self) -> Vec<(u64, Bytes)> {
        let entries = self.entries.iter();
        entries
            .map(|(position, bytes)| (*position, bytes.clone()))
            .collect()
    }

    fn bytes(&self) -> usize {
        self.entries.values().map(Bytes::len).sum()
    }

    /// Does what the effects want until there is nothing more to do; the answers on the way.
    fn carry_out(&mut self, core: &mut Core, effects: Vec<Effect>) -> Vec<(Ticket, Answer)> {
        let mut answers = Vec::new();
        let mut todo = std::collections::VecDeque::from(effects);
        while let Some(effect) = todo.pop_front() {
            let input = match effect {
                Effect::Read => Input::Read(Ok(self.read())),
                Effect::Append(bytes) => Input::Stored(Ok(self.append(bytes))),
                Effect::Truncate(to) => {
                    self.truncate(to);
                    Input::Truncated(Ok(()))
                }
                Effect::Answer(ticket, answer) => {
                    answers.push((ticket, answer));
                    continue;
                }
                Effect::Fail(why) => panic!("{why}"),
            };
            todo.extend(core.step(input));
        }
        answers
    }

    fn lead(&mut self, id: &str) -> Core {
        let mut core = Core::new(true);
        let effects = core.step(recover(0, id));
        let answers = self.carry_out(&mut core, effects);
        assert_eq!(answers, [(0, Answer::Applied(Change::Changed))]);
        assert_eq!(
            core.registry().master.as_ref().unwrap().id,
            MasterId::new(id)
        );
        core
    }

    fn apply(&mut self, core: &mut Core, operation: Op) -> Answer {
        let effects = core.step(Input::Apply {
            ticket: 1,
            operation,
        });
        let mut answers = self.carry_out(core, effects);
        assert_eq!(answers.len(), 1);
        answers.remove(0).1
    }
}

fn recover(ticket: Ticket, id: &str) -> Input {
    let able = MasterInfo {
        capabilities: MasterCapability::ALL.to_vec(),
        ..master(id)
    };
    Input::Recover {
        ticket,
        master: able,
        cluster_id: format!("cluster of {id}"),
    }
}

fn apply(core: &mut Core, ticket: Ticket, operation: Op) -> Vec<Effect> {
    core.step(Input::Apply { ticket, operation })
}

fn appended(effects: &[Effect]) -> Entry {
    let [Effect::Append(bytes)] = effects else {
        panic!("not one entry: {effects:?}");
    };
    entry::decode(bytes).unwrap()
}

#[test]
fn nothing_is_visible_or_answered_before_it_is_durable() {
    let mut log = Log::default();
    let mut core = log.lead("m");
    let effects = apply(&mut core, 1, admit(1));
    appended(&effects);
    assert!(core.registry().admitted.is_empty());
    let answers = core.step(Input::Stored(Ok(2)));
    assert_eq!(
        answers,
        [Effect::Answer(1, Answer::Applied(Change::Changed))]
    );
    assert!(core.registry().admitted.contains_key(&id(1)));
}

#[test]
fn what_comes_while_an_entry_is_on_its_way_is_one_entry() {
    let mut log = Log::default();
    let mut core = log.lead("m");
    apply(&mut core, 1, admit(1));
    for (ticket, operation) in [
        (2, admit(2)),
        (3, admit(2)),
        (4, remove(1)),
        (5, remove(1)),
        (6, Op::UpdateAgent { info: info(2) }),
    ] {
        assert_eq!(apply(&mut core, ticket, operation), []);
    }
    assert_eq!(core.queued(), 5);
    let mut effects = core.step(Input::Stored(Ok(2)));
    assert_eq!(
        effects.remove(0),
        Effect::Answer(1, Answer::Applied(Change::Changed))
    );
    let Entry::Diff(diff) = appended(&effects) else {
        panic!("{effects:?}");
    };
    // Only what changes something is written; what is refused still waits for what it was refused for.
    assert_eq!(
        (diff.based_on, diff.operations),
        (2, vec![admit(2), remove(1)])
    );
    let answers = core.step(Input::Stored(Ok(3)));
    let applied: Vec<_> = answers
        .iter()
        .map(|effect| match effect {
            Effect::Answer(ticket, Answer::Applied(change)) => (*ticket, Some(*change)),
            Effect::Answer(ticket, Answer::Rejected(_)) => (*ticket, None),
            Effect::Answer(..)
            | Effect::Read
            | Effect::Append(_)
            | Effect::Truncate(_)
            | Effect::Fail(_) => panic!("{effect:?}"),
        })
        .collect();
    let (changed, unchanged) = (Some(Change::Changed), Some(Change::Unchanged));
    assert_eq!(
        applied,
        [
            (2, changed),
            (3, None),
            (4, changed),
            (5, None),
            (6, unchanged)
        ]
    );
}

#[test]
fn what_changes_nothing_is_answered_without_an_entry() {
    let mut log = Log::default();
    let mut core = log.lead("m");
    let effects = apply(&mut core, 1, remove(1));
    assert!(matches!(
        effects[..],
        [Effect::Answer(1, Answer::Rejected(_))]
    ));
}

#[test]
fn a_master_is_in_the_registry_before_anything_else_happens() {
    let mut core = Core::new(true);
    assert_eq!(apply(&mut core, 1, admit(1)), []);
    assert_eq!(core.step(recover(0, "m")), [Effect::Read]);
    let effects = core.step(Input::Read(Ok(Vec::new())));
    let Entry::Snapshot(snapshot) = appended(&effects) else {
        panic!("{effects:?}");
    };
    assert_eq!(snapshot.registry.master.unwrap().id, MasterId::new("m"));
    let effects = core.step(Input::Stored(Ok(1)));
    assert_eq!(
        effects,
        [
            Effect::Answer(0, Answer::Applied(Change::Changed)),
            Effect::Answer(1, Answer::Applied(Change::Changed)),
            Effect::Truncate(1),
        ]
    );
    assert_eq!(core.step(Input::Truncated(Ok(()))), []);
}

#[test]
fn a_failed_store_fails_everything_for_good() {
    let mut log = Log::default();
    let mut core = log.lead("m");
    apply(&mut core, 1, admit(1));
    apply(&mut core, 2, admit(2));
    let limit = Duration::from_secs(20);
    let error = LogError::TimedOut(limit, "registry_store_timeout");
    let effects = core.step(Input::Stored(Err(error)));
    let why = "the registry could not be stored: the log did not do it within 20s; --registry_store_timeout sets the \
               limit";
    let failed = Answer::Failed(why.to_owned());
    assert_eq!(
        effects,
        [
            Effect::Answer(1, failed.clone()),
            Effect::Answer(2, failed.clone()),
            Effect::Fail(why.to_owned()),
        ]
    );
    // Late word of the store changes nothing any more.
    assert_eq!(core.step(Input::Stored(Ok(2))), []);
    assert_eq!(apply(&mut core, 3, admit(3)), [Effect::Answer(3, failed)]);
    assert!(core.registry().admitted.is_empty());
}

#[test]
fn a_log_that_cannot_be_read_fails_the_recovery() {
    let mut core = Core::new(true);
    core.step(recover(7, "m"));
    let error = LogError::TimedOut(Duration::from_secs(60), "registry_fetch_timeout");
    let effects = core.step(Input::Read(Err(error)));
    assert!(matches!(
        &effects[..],
        [Effect::Answer(7, Answer::Failed(why)), Effect::Fail(_)] if why.contains("registry_fetch_timeout")
    ));
}

#[test]
fn a_truncation_that_fails_is_tried_again_after_the_next_entry() {
    let mut core = Core::new(true);
    core.step(recover(0, "m"));
    core.step(Input::Read(Ok(Vec::new())));
    assert!(
        core.step(Input::Stored(Ok(1)))
            .contains(&Effect::Truncate(1))
    );
    let error = LogError::Broken("no answer".to_owned());
    assert_eq!(core.step(Input::Truncated(Err(error))), []);
    apply(&mut core, 1, admit(1));
    assert!(
        core.step(Input::Stored(Ok(2)))
            .contains(&Effect::Truncate(1))
    );
    // What has waited for it is written.
    assert_eq!(apply(&mut core, 2, admit(2)), []);
    let effects = core.step(Input::Truncated(Err(LogError::Broken("busy".to_owned()))));
    assert!(matches!(&effects[..], [Effect::Append(_)]), "{effects:?}");
    assert!(
        core.step(Input::Stored(Ok(3)))
            .contains(&Effect::Truncate(1))
    );
    let effects = core.step(Input::Truncated(Err(LogError::Demoted)));
    assert!(matches!(&effects[..], [Effect::Fail(_)]));
}

#[test]
fn nothing_is_written_behind_a_truncation_that_may_not_be_in_the_log() {
    let truncating = || {
        let mut core = Core::new(true);
        core.step(recover(0, "m"));
        core.step(Input::Read(Ok(Vec::new())));
        core.step(Input::Stored(Ok(1)));
        assert_eq!(apply(&mut core, 1, admit(1)), []);
        core
    };
    let effects = truncating().step(Input::Truncated(Ok(())));
    assert!(matches!(&effects[..], [Effect::Append(_)]), "{effects:?}");
    let late = LogError::TimedOut(Duration::from_secs(20), "registry_store_timeout");
    let effects = truncating().step(Input::Truncated(Err(late)));
    assert!(
        matches!(
            &effects[..],
            [Effect::Answer(1, Answer::Failed(_)), Effect::Fail(_)]
        ),
        "{effects:?}"
    );
}

#[test]
fn in_memory_everything_is_answered_at_once() {
    let mut core = Core::new(false);
    let applied = Answer::Applied(Change::Changed);
    assert_eq!(
        core.step(recover(0, "m")),
        [Effect::Answer(0, applied.clone())]
    );
    assert_eq!(apply(&mut core, 1, admit(1)), [Effect::Answer(1, applied)]);
    assert!(core.registry().admitted.contains_key(&id(1)));
}

#[test]
fn the_log_stays_bounded_under_100_000_writes() {
    let mut log = Log::default();
    let mut core = log.lead("m");
    for n in 0..100 {
        log.apply(&mut core, admit(n));
    }
    let (mut most, mut most_bytes) = (0, 0);
    for n in 0..50_000 {
        log.apply(&mut core, remove(n % 100));
        log.apply(&mut core, admit(n % 100));
        most = most.max(log.entries.len());
        most_bytes = most_bytes.max(log.bytes());
    }
    assert!(most <= MAX_DIFFS + 2, "{most} entries");
    assert!(most_bytes <= 256 << 10, "{most_bytes} bytes");
    let again = log.lead("n");
    assert_eq!(again.registry().admitted, core.registry().admitted);
}

#[test]
fn a_large_registry_is_not_written_anew_for_every_change() {
    let mut log = Log::default();
    let mut core = log.lead("m");
    for n in 0..2_000 {
        log.apply(&mut core, admit(n));
    }
    let size = entry::encode_snapshot(0, core.registry()).unwrap().len();
    let (mut written, before) = (0, log.end);
    for n in 2_000..4_000 {
        log.apply(&mut core, admit(n));
        written += log.entries.values().next_back().unwrap().len();
    }
    assert!(log.end - before < 2_010, "{} positions", log.end - before);
    assert!(written < 6 * size, "{written} bytes for {size}");
    assert_eq!(log.lead("n").registry().admitted.len(), 4_000);
}

fn entries() -> Vec<(u64, Bytes)> {
    let mut registry = Registry::default();
    registry.apply(&admit(1)).unwrap();
    let diff = |based_on, operation| {
        let operations = vec![operation];
        let diff = Diff {
            based_on,
            operations,
        };
        Bytes::from(entry::encode_diff(&diff).unwrap())
    };
    vec![
        (
            3,
            Bytes::from(entry::encode_snapshot(1, &registry).unwrap()),
        ),
        (5, diff(3, admit(2))),
        (8, diff(5, remove(1))),
    ]
}

fn replayed(entries: &[(u64, Bytes)]) -> Result<Registry, ReplayError> {
    let mut replay = Replay::default();
    for (position, bytes) in entries {
        replay.feed(*position, bytes)?;
    }
    let (registry, _) = replay.finish(&[MasterCapability::AgentUpdate])?;
    Ok(registry)
}

#[test]
fn a_registry_is_rebuilt_from_its_entries() {
    let registry = replayed(&entries()).unwrap();
    let ids: Vec<&AgentId> = registry.admitted.keys().collect();
    assert_eq!(ids, [&id(2)]);
}

#[test]
fn entries_that_do_not_follow_from_each_other_are_refused_by_position() {
    let all = entries();
    let without = |n: usize| {
        let mut some = all.clone();
        some.remove(n);
        replayed(&some).unwrap_err().to_string()
    };
    let text = without(0);
    assert!(text.contains("begins with a diff at position 5"), "{text}");
    let text = without(1);
    assert!(
        text.contains("at position 8 follows the one at 5, but the one before it is at 3"),
        "{text}"
    );
    let mut forked = all.clone();
    forked.push((9, forked[0].1.clone()));
    assert!(matches!(
        replayed(&forked),
        Err(ReplayError::Gap {
            position: 9,
            based_on: 1,
            last: 8
        })
    ));
    let mut twice = all.clone();
    let diff = Diff {
        based_on: 8,
        operations: vec![remove(1)],
    };
    twice.push((9, Bytes::from(entry::encode_diff(&diff).unwrap())));
    assert!(matches!(
        replayed(&twice),
        Err(ReplayError::Refused { position: 9, .. })
    ));
}

#[test]
fn entries_of_a_later_version_and_damaged_ones_are_refused_by_name() {
    let change = |at: usize, to: u8| {
        let mut entries = entries();
        let mut bytes = entries[0].1.to_vec();
        bytes[at] = to;
        entries[0].1 = Bytes::from(bytes);
        replayed(&entries).unwrap_err()
    };
    let newer = change(0, 2).to_string();
    assert!(
        newer.contains(
            "at position 3 cannot be read: it has version 2, and this program reads up to version 1"
        ),
        "{newer}"
    );
    assert!(matches!(
        change(2, 9),
        ReplayError::Entry {
            position: 3,
            source: EntryError::Kind(9)
        }
    ));
    assert!(matches!(
        change(3, 0xC1),
        ReplayError::Entry {
            position: 3,
            source: EntryError::Body(_)
        }
    ));
    let mut replay = Replay::default();
    assert!(replay.feed(1, &[1, 0]).is_err());
}

#[test]
fn a_registry_that_asks_for_more_than_the_master_can_is_refused_by_the_capability() {
    let mut registry = Registry::default();
    registry.minimum_capabilities.insert("TELEPATHY".to_owned());
    let bytes = Bytes::from(entry::encode_snapshot(0, &registry).unwrap());
    let error = replayed(&[(1, bytes)]).unwrap_err().to_string();
    assert!(error.contains("the capability TELEPATHY, which this master does not have"));
}

#[test]
fn a_snapshot_of_very_many_very_small_agents_is_read_back() {
    let mut registry = Registry::default();
    for n in 0..20_000 {
        let info = Arc::new(AgentInfo {
            id: Some(id(n)),
            ..AgentInfo::new("h", Resources::new())
        });
        registry.apply(&Op::AdmitAgent { info }).unwrap();
        if n % 2 == 0 {
            let agent_id = id(n);
            let at = u64::from(n);
            registry
                .apply(&Op::MarkAgentUnreachable { agent_id, at })
                .unwrap();
        }
    }
    let bytes = Bytes::from(entry::encode_snapshot(0, &registry).unwrap());
    let Entry::Snapshot(snapshot) = entry::decode(&bytes).unwrap() else {
        panic!("no snapshot");
    };
    assert_eq!(snapshot.registry, registry);
}

/// One registry with something of everything, and one operation of each kind.
fn everything() -> (Registry, Vec<Op>) {
    use meseta_protocol::ResourceProviderId;
    use meseta_protocol::common::{DurationInfo, TimeInfo};
    use meseta_protocol::maintenance::{MachineId, Schedule, Unavailability, Window};
    use meseta_protocol::quota::QuotaConfig;
    use meseta_protocol::resources::{ResourceLimits, ResourceQuantities, Scalar};

    let machine = MachineId::new("Host", "10.0.0.1");
    let window = Window {
        machine_ids: vec![machine.clone(), MachineId::new("other", "10.0.0.2")],
        unavailability: Unavailability {
            start: TimeInfo { nanoseconds: 1 },
            duration: Some(DurationInfo { nanoseconds: 2 }),
        },
    };
    let provider = |name| ResourceProviderId::new(name);
    let quota = QuotaConfig {
        role: Role::new("r"),
        guarantees: ResourceQuantities::new().with("cpus", Scalar::whole(1)),
        limits: ResourceLimits::new().with("cpus", Scalar::whole(2)),
    };
    let drain = |n| Op::DrainAgent {
        agent_id: id(n),
        max_grace_period: Some(DurationInfo { nanoseconds: 3 }),
        mark_gone: true,
    };
    let down = vec![machine];
    let operations = vec![
        Op::Recover {
            master: master("m"),
            cluster_id: "c".to_owned(),
        },
        admit(1),
        admit(2),
        admit(3),
        admit(4),
        drain(1),
        Op::MarkAgentDrained { agent_id: id(1) },
        drain(2),
        Op::MarkAgentUnreachable {
            agent_id: id(2),
            at: 5,
        },
        Op::MarkAgentGone {
            agent_id: id(3),
            at: 6,
        },
        Op::DeactivateAgent { agent_id: id(4) },
        Op::ReactivateAgent { agent_id: id(4) },
        Op::UpdateAgent {
            info: Arc::new(AgentInfo {
                id: Some(id(4)),
                ..AgentInfo::new("new", Resources::new())
            }),
        },
        Op::MarkAgentReachable { info: info(5) },
        Op::RemoveAgent { agent_id: id(5) },
        Op::UpdateQuota {
            configs: vec![quota],
        },
        Op::UpdateWeights {
            weights: BTreeMap::from([(Role::new("r"), 2.5)]),
        },
        Op::UpdateSchedule {
            schedule: Schedule {
                windows: vec![window],
            },
        },
        Op::StartMaintenance {
            machines: down.clone(),
        },
        Op::StopMaintenance {
            machines: down.clone(),
        },
        Op::StartMaintenance {
            machines: vec![MachineId::new("other", "10.0.0.2")],
        },
        Op::AdmitResourceProvider { id: provider("p") },
        Op::AdmitResourceProvider { id: provider("q") },
        Op::RemoveResourceProvider { id: provider("q") },
        admit(6),
        Op::MarkAgentUnreachable {
            agent_id: id(6),
            at: 8,
        },
        Op::Prune {
            unreachable: BTreeSet::from([id(6)]),
            gone: BTreeSet::new(),
        },
    ];
    let mut registry = Registry::default();
    for operation in &operations {
        assert_eq!(
            registry.apply(operation),
            Ok(Change::Changed),
            "{operation:?}"
        );
    }
    registry.check().unwrap();
    (registry, operations)
}

/// Files `tests/fixtures/registry.<kind>.v<VERSION>` are what earlier versions have written. `MESETA_RECORD_FIXTURES=1`
/// writes those that are missing, and never changes one.
fn recorded(kind: &str, bytes: Vec<u8>) -> Entry {
    let name = format!("tests/fixtures/registry.{kind}.v{}", entry::VERSION);
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name);
    if !path.exists() && std::env::var_os("MESETA_RECORD_FIXTURES").is_some() {
        std::fs::write(&path, bytes).unwrap();
    }
    let bytes = std::fs::read(&path)
        .unwrap_or_else(|error| panic!("{}: {error}: record it first", path.display()));
    entry::decode(&bytes).unwrap()
}

#[test]
fn recorded_entries_mean_what_they_meant() {
    let (registry, operations) = everything();
    let bytes = entry::encode_snapshot(7, &registry).unwrap();
    let snapshot = Snapshot {
        based_on: 7,
        registry: registry.clone(),
    };
    assert_eq!(
        recorded("snapshot", bytes),
        Entry::Snapshot(Box::new(snapshot))
    );
    let diff = Diff {
        based_on: 7,
        operations,
    };
    let bytes = entry::encode_diff(&diff).unwrap();
    let read = recorded("diff", bytes);
    assert_eq!(read, Entry::Diff(diff));
    // What the operations lead to must stay the same as well.
    let Entry::Diff(diff) = read else {
        panic!("{read:?}");
    };
    let mut again = Registry::default();
    for operation in &diff.operations {
        again.apply(operation).unwrap();
    }
    assert_eq!(again, registry);
}

#[derive(Debug, Clone)]
enum Step {
    Apply(Box<Op>),
    /// The log does the next thing that is on its way.
    Log,
    /// The master ends; the entry on its way is durable or not, and another master leads.
    FailOver(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => crate::registry::any_operation().prop_map(|one| Step::Apply(Box::new(one))),
        4 => Just(Step::Log),
        1 => any::<bool>().prop_map(Step::FailOver),
    ]
}

proptest! {
    /// R-1, R-2: what is acknowledged is in the registry of every later master, in the order of the answers; what is
    /// visible is what was acknowledged, and nothing else is.
    #[test]
    fn acknowledged_operations_are_never_lost(steps in proptest::collection::vec(step(), 1..60)) {
        let mut log = Log::default();
        let mut core = log.lead("m0");
        let mut model = core.registry().clone();
        let mut asked: BTreeMap<Ticket, Op> = BTreeMap::new();
        let mut on_its_way: std::collections::VecDeque<Effect> = std::collections::VecDeque::new();
        let (mut ticket, mut masters) = (0, 0);
        for step in steps {
            let effects = match step {
                Step::Apply(operation) if matches!(*operation, Op::Recover { .. }) => Vec::new(),
                Step::Apply(operation) => {
                    ticket += 1;
                    asked.insert(ticket, (*operation).clone());
                    apply(&mut core, ticket, *operation)
                }
                Step::Log => match on_its_way.pop_front() {
                    Some(Effect::Append(bytes)) => core.step(Input::Stored(Ok(log.append(bytes)))),
                    Some(Effect::Truncate(to)) => {
                        log.truncate(to);
                        core.step(Input::Truncated(Ok(())))
                    }
                    _ => Vec::new(),
                },
                Step::FailOver(durable) => {
                    for effect in std::mem::take(&mut on_its_way) {
                        if let Effect::Append(bytes) = effect && durable {
                            log.append(bytes);
                        }
                    }
                    masters += 1;
                    let acknowledged = model.clone();
                    core = log.lead(&format!("m{masters}"));
                    model = core.registry().clone();
                    if !durable || asked.is_empty() {
                        let mut expected = acknowledged;
                        expected.master = model.master.clone();
                        prop_assert_eq!(&model, &expected);
                    }
                    asked.clear();
                    Vec::new()
                }
            };
            for effect in effects {
                match effect {
                    Effect::Answer(ticket, answer) => {
                        let operation = asked.remove(&ticket).unwrap();
                        let expected = model.apply(&operation);
                        let expected = expected.map_or_else(Answer::Rejected, Answer::Applied);
                        prop_assert_eq!(answer, expected);
                    }
                    Effect::Read | Effect::Append(_) | Effect::Truncate(_) | Effect::Fail(_) => {
                        on_its_way.push_back(effect);
                    }
                }
            }
            prop_assert!(on_its_way.len() <= 1, "{:?}", on_its_way);
            prop_assert_eq!(core.registry(), &model);
        }
    }
}
