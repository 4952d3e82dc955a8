//! The operations one by one as the table in log.md §8 has them, and all together against a naive model.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meseta_protocol::agent::{AgentInfo, DrainState, MasterCapability, MasterInfo};
use meseta_protocol::common::{DurationInfo, TimeInfo};
use meseta_protocol::maintenance::{MachineId, MachineMode, Schedule, Unavailability, Window};
use meseta_protocol::quota::{QuotaConfig, QuotaInfo};
use meseta_protocol::resources::{ResourceLimits, ResourceQuantities, Resources, Scalar};
use meseta_protocol::{AgentId, MasterId, ResourceProviderId, Role};
use proptest::prelude::*;
use serde_json::json;

use super::RegistryOperation as Op;
use super::{
    AgentRejection, Change, MaintenanceRejection, Registry, RegistryRejection, RoleRejection,
};

fn id(n: u8) -> AgentId {
    AgentId::new(format!("M-S{n}"))
}

fn info(n: u8, port: u16) -> Arc<AgentInfo> {
    let mut info = AgentInfo::new("host", Resources::new());
    info.id = Some(id(n));
    info.port = port;
    Arc::new(info)
}

fn apply(registry: &mut Registry, operation: Op) -> Result<Change, RegistryRejection> {
    let before = registry.clone();
    let result = registry.apply(&operation);
    if !matches!(result, Ok(Change::Changed)) {
        assert_eq!(
            *registry, before,
            "{operation:?} gave {result:?} but changed something"
        );
    }
    assert_eq!(registry.check(), Ok(()), "after {operation:?}");
    result
}

fn changed(registry: &mut Registry, operation: Op) {
    assert_eq!(apply(registry, operation), Ok(Change::Changed));
}

fn window(machines: &[MachineId], start: i64) -> Window {
    Window {
        machine_ids: machines.to_vec(),
        unavailability: Unavailability {
            start: TimeInfo { nanoseconds: start },
            duration: Some(DurationInfo { nanoseconds: 10 }),
        },
    }
}

fn quota(role: &str, guarantee: i64, limit: i64) -> QuotaConfig {
    QuotaConfig {
        role: Role::new(role),
        guarantees: ResourceQuantities::new().with("cpus", Scalar::whole(guarantee)),
        limits: ResourceLimits::new().with("cpus", Scalar::whole(limit)),
    }
}

#[test]
fn an_agent_is_in_one_set_at_most() {
    let mut registry = Registry::default();
    changed(&mut registry, Op::AdmitAgent { info: info(1, 1) });
    assert_eq!(
        apply(&mut registry, Op::AdmitAgent { info: info(1, 1) }),
        Err(AgentRejection::AlreadyAdmitted(id(1)).into())
    );
    let mark = Op::MarkAgentUnreachable {
        agent_id: id(1),
        at: 7,
    };
    changed(&mut registry, mark.clone());
    assert_eq!(
        apply(&mut registry, mark),
        Err(AgentRejection::NotAdmitted(id(1)).into())
    );
    assert_eq!(registry.unreachable[&id(1)].at, 7);
    assert!(registry.admitted.is_empty());
    changed(&mut registry, Op::MarkAgentReachable { info: info(1, 1) });
    assert!(registry.unreachable.is_empty());
}

#[test]
fn a_gone_agent_comes_back_only_when_its_entry_is_forgotten() {
    let mut registry = Registry::default();
    changed(&mut registry, Op::AdmitAgent { info: info(1, 1) });
    let gone = Op::MarkAgentGone {
        agent_id: id(1),
        at: 3,
    };
    changed(&mut registry, gone.clone());
    for operation in [
        gone,
        Op::AdmitAgent { info: info(1, 1) },
        Op::MarkAgentReachable { info: info(1, 1) },
        Op::UpdateAgent { info: info(1, 1) },
    ] {
        assert_eq!(
            apply(&mut registry, operation),
            Err(AgentRejection::Gone(id(1)).into())
        );
    }
    let prune = Op::Prune {
        unreachable: BTreeSet::new(),
        gone: BTreeSet::from([id(1), id(2)]),
    };
    changed(&mut registry, prune.clone());
    assert_eq!(apply(&mut registry, prune), Ok(Change::Unchanged));
    changed(&mut registry, Op::MarkAgentReachable { info: info(1, 1) });
}

#[test]
fn an_agent_that_is_back_although_it_was_forgotten_is_let_in() {
    let mut registry = Registry::default();
    changed(&mut registry, Op::MarkAgentReachable { info: info(1, 1) });
    assert_eq!(
        apply(&mut registry, Op::MarkAgentReachable { info: info(1, 2) }),
        Ok(Change::Unchanged)
    );
    assert_eq!(registry.admitted[&id(1)].info.port, 1);
    assert_eq!(
        apply(&mut registry, Op::UpdateAgent { info: info(1, 1) }),
        Ok(Change::Unchanged)
    );
    changed(&mut registry, Op::UpdateAgent { info: info(1, 2) });
    assert_eq!(registry.admitted[&id(1)].info.port, 2);
}

#[test]
fn draining_outlives_silence() {
    let mut registry = Registry::default();
    let draining = || MasterCapability::AgentDraining.name();
    let grace = Some(DurationInfo { nanoseconds: 5 });
    let drain = |n| Op::DrainAgent {
        agent_id: id(n),
        max_grace_period: grace,
        mark_gone: true,
    };
    assert_eq!(
        apply(&mut registry, drain(1)),
        Err(AgentRejection::Unknown(id(1)).into())
    );
    changed(&mut registry, Op::AdmitAgent { info: info(1, 1) });
    let drained = Op::MarkAgentDrained { agent_id: id(1) };
    assert_eq!(
        apply(&mut registry, drained.clone()),
        Err(AgentRejection::NotDraining(id(1)).into())
    );
    changed(&mut registry, drain(1));
    assert!(registry.minimum_capabilities.contains(draining()));
    changed(
        &mut registry,
        Op::MarkAgentUnreachable {
            agent_id: id(1),
            at: 1,
        },
    );
    changed(&mut registry, drained.clone());
    assert!(apply(&mut registry, drained).is_err());
    changed(&mut registry, Op::MarkAgentReachable { info: info(1, 1) });
    let agent = &registry.admitted[&id(1)];
    let drain_info = agent.drain_info.unwrap();
    assert!(agent.deactivated && drain_info.state == DrainState::Drained);
    assert_eq!(drain_info.config.max_grace_period, grace);

    changed(&mut registry, Op::AdmitAgent { info: info(2, 1) });
    changed(&mut registry, Op::DeactivateAgent { agent_id: id(2) });
    changed(&mut registry, Op::ReactivateAgent { agent_id: id(1) });
    assert!(registry.minimum_capabilities.contains(draining()));
    changed(&mut registry, Op::ReactivateAgent { agent_id: id(2) });
    assert!(registry.minimum_capabilities.is_empty());
    assert_eq!(registry.admitted[&id(1)].drain_info, None);
}

#[test]
fn quotas_are_set_all_or_none_and_replace_the_older_form() {
    let mut registry = Registry::default();
    let role = Role::new("old");
    registry.quotas.insert(
        role.clone(),
        QuotaInfo {
            role: Some(role),
            ..QuotaInfo::default()
        },
    );
    let above = vec![quota("a", 1, 2), quota("old", 3, 2)];
    assert!(matches!(
        apply(&mut registry, Op::UpdateQuota { configs: above }),
        Err(RegistryRejection::Role(RoleRejection::AboveLimits { .. }))
    ));
    let configs = vec![quota("a", 1, 2), quota("old", 1, 2)];
    changed(&mut registry, Op::UpdateQuota { configs });
    assert!(registry.quotas.is_empty() && registry.quota_configs.len() == 2);
    assert_eq!(
        registry.missing_capabilities(&[MasterCapability::AgentUpdate]),
        ["QUOTA_V2"]
    );
    let nothing = |role: &str| QuotaConfig {
        role: Role::new(role),
        ..QuotaConfig::default()
    };
    let configs = vec![nothing("a"), nothing("old")];
    changed(&mut registry, Op::UpdateQuota { configs });
    assert!(registry.quota_configs.is_empty() && registry.minimum_capabilities.is_empty());
    for (bad, text) in [
        (quota("a//b", 0, 1), "bad role `a//b`"),
        (quota("a", 0, -1), "quota of role a: cpus:-1 must be"),
        (quota("a", 0, 1_000_000_000_001), "quota of role a: cpus:"),
    ] {
        let error = apply(&mut registry, Op::UpdateQuota { configs: vec![bad] }).unwrap_err();
        assert!(error.to_string().starts_with(text), "{error}");
    }
}

#[test]
fn weights_are_finite_and_above_nothing() {
    let mut registry = Registry::default();
    let weights = |weight| Op::UpdateWeights {
        weights: BTreeMap::from([(Role::new("a"), weight)]),
    };
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(apply(&mut registry, weights(bad)).is_err());
    }
    changed(&mut registry, weights(2.5));
    assert_eq!(apply(&mut registry, weights(2.5)), Ok(Change::Unchanged));
    changed(&mut registry, weights(1.0));
}

#[test]
fn machines_go_down_and_up_by_the_schedule() {
    let mut registry = Registry::default();
    let (h1, h2) = (
        MachineId::new("H1", "10.0.0.1"),
        MachineId::new("h2", "10.0.0.2"),
    );
    let lower = MachineId::new("h1", "10.0.0.1");
    let down = |id: &MachineId| Op::StartMaintenance {
        machines: vec![id.clone()],
    };
    let up = |id: &MachineId| Op::StopMaintenance {
        machines: vec![id.clone()],
    };
    let schedule = |windows: Vec<Window>| Op::UpdateSchedule {
        schedule: Schedule { windows },
    };
    let text = r#"{"hostname":"h1","ip":"10.0.0.1"}"#.to_owned();
    assert_eq!(
        apply(&mut registry, down(&h1)),
        Err(MaintenanceRejection::NotScheduled(text.clone()).into())
    );
    changed(
        &mut registry,
        schedule(vec![window(&[h1.clone(), h2.clone()], 1)]),
    );
    assert_eq!(
        apply(&mut registry, up(&h1)),
        Err(MaintenanceRejection::NotDown(text.clone()).into())
    );
    changed(&mut registry, down(&lower));
    assert_eq!(registry.machines[&lower].mode, MachineMode::Down);
    assert_eq!(registry.machines[&lower].id, h1);
    assert_eq!(
        apply(&mut registry, down(&h1)),
        Err(MaintenanceRejection::NotDraining(text.clone()).into())
    );
    assert_eq!(
        apply(
            &mut registry,
            schedule(vec![window(std::slice::from_ref(&h2), 1)])
        ),
        Err(MaintenanceRejection::DroppedWhileDown(text).into())
    );
    // A new time for a machine that is down leaves it down; one that drains may leave the schedule.
    changed(
        &mut registry,
        schedule(vec![window(std::slice::from_ref(&lower), 2)]),
    );
    assert_eq!(registry.machines[&lower].mode, MachineMode::Down);
    assert_eq!(registry.machines.len(), 1);
    changed(&mut registry, up(&h1));
    assert_eq!((registry.machines.len(), &registry.schedule), (0, &None));
}

#[test]
fn a_schedule_that_makes_no_sense_is_refused_in_the_words_of_mesos() {
    let mut registry = Registry::default();
    let machine = MachineId::new("H9", "10.0.0.9");
    let mut negative = window(std::slice::from_ref(&machine), 1);
    negative.unavailability.duration = Some(DurationInfo { nanoseconds: -1 });
    for (window, text) in [
        (
            window(&[], 1),
            "List of machines in the maintenance window is empty",
        ),
        (negative, "Unavailability 'duration' is negative"),
        (
            window(&[machine.clone(), machine.clone()], 1),
            r#"Machine '{"hostname":"h9","ip":"10.0.0.9"}' appears more than once in the schedule"#,
        ),
        (
            window(&[MachineId::new("", "")], 1),
            "Both 'hostname' and 'ip' for a machine are empty",
        ),
        (
            window(&[MachineId::new("h", "zz")], 1),
            "Failed to parse IPv4: zz",
        ),
    ] {
        let schedule = Schedule {
            windows: vec![window],
        };
        let error = apply(&mut registry, Op::UpdateSchedule { schedule }).unwrap_err();
        assert_eq!(error.to_string(), text);
    }
    let none = Op::StartMaintenance {
        machines: Vec::new(),
    };
    let error = apply(&mut registry, none).unwrap_err();
    assert_eq!(error.to_string(), "List of machines is empty");
}

#[test]
fn a_removed_resource_provider_stays_removed() {
    let mut registry = Registry::default();
    let id = ResourceProviderId::new("p");
    let admit = Op::AdmitResourceProvider { id: id.clone() };
    let remove = Op::RemoveResourceProvider { id: id.clone() };
    assert!(apply(&mut registry, remove.clone()).is_err());
    changed(&mut registry, admit.clone());
    assert!(apply(&mut registry, admit.clone()).is_err());
    changed(&mut registry, remove);
    assert_eq!(
        apply(&mut registry, admit),
        Err(RegistryRejection::ProviderRemoved(id))
    );
}

#[test]
fn a_cluster_keeps_its_first_id() {
    let mut registry = Registry::default();
    for (master, cluster) in [("m1", "first"), ("m2", "second")] {
        let master = MasterInfo {
            id: MasterId::new(master),
            ..MasterInfo::default()
        };
        let cluster_id = cluster.to_owned();
        changed(&mut registry, Op::Recover { master, cluster_id });
    }
    assert_eq!(registry.cluster_id.as_deref(), Some("first"));
    assert_eq!(registry.master.unwrap().id, MasterId::new("m2"));
}

#[test]
fn is_shown_with_the_names_of_mesos() {
    let mut registry = Registry::default();
    for operation in [
        Op::AdmitAgent { info: info(1, 1) },
        Op::AdmitAgent { info: info(2, 1) },
        Op::AdmitAgent { info: info(3, 1) },
        Op::DrainAgent {
            agent_id: id(2),
            max_grace_period: None,
            mark_gone: false,
        },
        Op::MarkAgentUnreachable {
            agent_id: id(2),
            at: 7,
        },
        Op::MarkAgentGone {
            agent_id: id(3),
            at: 9,
        },
        Op::UpdateQuota {
            configs: vec![quota("a", 1, 2)],
        },
        Op::UpdateWeights {
            weights: BTreeMap::from([(Role::new("a"), 2.0)]),
        },
        Op::UpdateSchedule {
            schedule: Schedule {
                windows: vec![window(&[MachineId::new("H1", "10.0.0.1")], 1)],
            },
        },
        Op::AdmitResourceProvider {
            id: ResourceProviderId::new("p"),
        },
    ] {
        changed(&mut registry, operation);
    }
    let master = MasterInfo {
        id: MasterId::new("m"),
        capabilities: vec![MasterCapability::AgentUpdate],
        ..MasterInfo::default()
    };
    let cluster_id = "c".to_owned();
    changed(&mut registry, Op::Recover { master, cluster_id });
    let shown = registry.to_json();
    let unavailability =
        json!({ "start": { "nanoseconds": 1 }, "duration": { "nanoseconds": 10 } });
    let machine = json!({ "hostname": "H1", "ip": "10.0.0.1" });
    assert_eq!(
        shown,
        json!({
            "master": { "info": {
                "id": "m", "ip": 0, "port": 0, "capabilities": [{ "type": "AGENT_UPDATE" }],
            } },
            "cluster_id": "c",
            "slaves": { "slaves": [{
                "info": {
                    "id": { "value": "M-S1" }, "hostname": "host", "port": 1, "checkpoint": true,
                },
                "deactivated": false,
            }] },
            "unreachable": { "slaves": [{
                "id": { "value": "M-S2" },
                "timestamp": { "nanoseconds": 7 },
                "drain_info": { "state": "DRAINING", "config": { "mark_gone": false } },
                "deactivated": true,
            }] },
            "gone": { "slaves": [{ "id": { "value": "M-S3" }, "timestamp": { "nanoseconds": 9 } }] },
            "machines": { "machines": [{ "info": {
                "id": machine, "mode": "DRAINING", "unavailability": unavailability,
            } }] },
            "schedules": [{
                "windows": [{ "machine_ids": [machine], "unavailability": unavailability }],
            }],
            "quota_configs": [{
                "role": "a",
                "guarantees": { "cpus": { "value": 1.0 } },
                "limits": { "cpus": { "value": 2.0 } },
            }],
            "weights": [{ "info": { "role": "a", "weight": 2.0 } }],
            "resource_provider_registry": { "resource_providers": [{ "id": { "value": "p" } }] },
            "minimum_capabilities": [
                { "capability": "AGENT_DRAINING" }, { "capability": "QUOTA_V2" },
            ],
        })
    );
    assert_eq!(Registry::default().to_json(), json!({}));
}

/// What a naive reader of the table believes of one agent.
#[derive(Debug, Clone, PartialEq)]
enum Standing {
    Admitted { port: u16, marks: Marks },
    Unreachable { at: u64, marks: Marks },
    Gone { at: u64 },
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Marks {
    drained: Option<bool>,
    deactivated: bool,
}

#[derive(Debug, Default)]
struct Model(BTreeMap<AgentId, Standing>);

impl Model {
    fn marks(&mut self, id: &AgentId) -> Option<&mut Marks> {
        match self.0.get_mut(id)? {
            Standing::Admitted { marks, .. } | Standing::Unreachable { marks, .. } => Some(marks),
            Standing::Gone { .. } => None,
        }
    }

    /// Whether the operation applies.
    fn apply(&mut self, operation: &Op) -> bool {
        use Standing::{Admitted, Gone, Unreachable};
        let known = |info: &AgentInfo| info.id.clone().unwrap();
        match operation {
            Op::AdmitAgent { info } => {
                let (id, port) = (known(info), info.port);
                let new = !self.0.contains_key(&id);
                if new {
                    let marks = Marks::default();
                    self.0.insert(id, Admitted { port, marks });
                }
                new
            }
            Op::UpdateAgent { info } => match self.0.get_mut(&known(info)) {
                Some(Admitted { port, .. }) => {
                    *port = info.port;
                    true
                }
                _ => false,
            },
            Op::MarkAgentUnreachable { agent_id, at } => match self.0.get(agent_id) {
                Some(Admitted { marks, .. }) => {
                    let (at, marks) = (*at, *marks);
                    self.0.insert(agent_id.clone(), Unreachable { at, marks });
                    true
                }
                _ => false,
            },
            Op::MarkAgentReachable { info } => {
                let (id, port) = (known(info), info.port);
                let marks = match self.0.get(&id) {
                    Some(Gone { .. }) => return false,
                    Some(Admitted { .. }) => return true,
                    Some(Unreachable { marks, .. }) => *marks,
                    None => Marks::default(),
                };
                self.0.insert(id, Admitted { port, marks });
                true
            }
            Op::RemoveAgent { agent_id } => {
                let admitted = matches!(self.0.get(agent_id), Some(Admitted { .. }));
                if admitted {
                    self.0.remove(agent_id);
                }
                admitted
            }
            Op::MarkAgentGone { agent_id, at } => match self.0.get_mut(agent_id) {
                Some(Gone { .. }) | None => false,
                Some(standing) => {
                    *standing = Gone { at: *at };
                    true
                }
            },
            Op::Prune { unreachable, gone } => {
                self.0.retain(|id, standing| match standing {
                    Admitted { .. } => true,
                    Unreachable { .. } => !unreachable.contains(id),
                    Gone { .. } => !gone.contains(id),
                });
                true
            }
            Op::DrainAgent { agent_id, .. } => self.marks(agent_id).is_some_and(|marks| {
                marks.drained = Some(false);
                marks.deactivated = true;
                true
            }),
            Op::MarkAgentDrained { agent_id } => self.marks(agent_id).is_some_and(|marks| {
                let draining = marks.drained == Some(false);
                if draining {
                    marks.drained = Some(true);
                }
                draining
            }),
            Op::DeactivateAgent { agent_id } => self.marks(agent_id).is_some_and(|marks| {
                marks.deactivated = true;
                true
            }),
            Op::ReactivateAgent { agent_id } => self.marks(agent_id).is_some_and(|marks| {
                *marks = Marks::default();
                true
            }),
            Op::Recover { .. }
            | Op::UpdateQuota { .. }
            | Op::UpdateWeights { .. }
            | Op::UpdateSchedule { .. }
            | Op::StartMaintenance { .. }
            | Op::StopMaintenance { .. }
            | Op::AdmitResourceProvider { .. }
            | Op::RemoveResourceProvider { .. } => panic!("{operation:?} is not about agents"),
        }
    }

    /// What the registry must look like.
    fn of(registry: &Registry) -> BTreeMap<AgentId, Standing> {
        let drained = |info: Option<meseta_protocol::agent::DrainInfo>| {
            info.map(|info| info.state == DrainState::Drained)
        };
        let mut all = BTreeMap::new();
        for (id, agent) in &registry.admitted {
            let marks = Marks {
                drained: drained(agent.drain_info),
                deactivated: agent.deactivated,
            };
            let port = agent.info.port;
            assert_eq!(
                all.insert(id.clone(), Standing::Admitted { port, marks }),
                None
            );
        }
        for (id, agent) in &registry.unreachable {
            let marks = Marks {
                drained: drained(agent.drain_info),
                deactivated: agent.deactivated,
            };
            let at = agent.at;
            let twice = all.insert(id.clone(), Standing::Unreachable { at, marks });
            assert_eq!(twice, None);
        }
        for (id, at) in &registry.gone {
            assert_eq!(all.insert(id.clone(), Standing::Gone { at: *at }), None);
        }
        all
    }
}

fn on_agents() -> impl Strategy<Value = Op> {
    let n = 0..4_u8;
    let ids = || proptest::collection::btree_set((0..4_u8).prop_map(id), 0..3);
    prop_oneof![
        (n.clone(), 0..3_u16).prop_map(|(n, port)| Op::AdmitAgent {
            info: info(n, port)
        }),
        (n.clone(), 0..3_u16).prop_map(|(n, port)| Op::UpdateAgent {
            info: info(n, port)
        }),
        (n.clone(), any::<u64>()).prop_map(|(n, at)| Op::MarkAgentUnreachable {
            agent_id: id(n),
            at
        }),
        (n.clone(), 0..3_u16).prop_map(|(n, port)| Op::MarkAgentReachable {
            info: info(n, port)
        }),
        n.clone().prop_map(|n| Op::RemoveAgent { agent_id: id(n) }),
        (n.clone(), any::<u64>()).prop_map(|(n, at)| Op::MarkAgentGone {
            agent_id: id(n),
            at
        }),
        (ids(), ids()).prop_map(|(unreachable, gone)| Op::Prune { unreachable, gone }),
        (n.clone(), any::<bool>()).prop_map(|(n, mark_gone)| Op::DrainAgent {
            agent_id: id(n),
            max_grace_period: None,
            mark_gone
        }),
        n.clone()
            .prop_map(|n| Op::MarkAgentDrained { agent_id: id(n) }),
        n.clone()
            .prop_map(|n| Op::DeactivateAgent { agent_id: id(n) }),
        n.prop_map(|n| Op::ReactivateAgent { agent_id: id(n) }),
    ]
}

fn machine() -> impl Strategy<Value = MachineId> {
    prop_oneof![Just("h1"), Just("H1"), Just("h2"), Just("h3")]
        .prop_map(|name| MachineId::new(name, ""))
}

/// Any operation at all.
pub(crate) fn operation() -> impl Strategy<Value = Op> {
    let machines = || proptest::collection::vec(machine(), 0..3);
    let role = || prop_oneof![Just("a"), Just("b"), Just("b/c"), Just("/")];
    let windows = proptest::collection::vec((machines(), 0..3_i64), 0..3);
    let provider = || prop_oneof![Just("p"), Just("q")].prop_map(ResourceProviderId::new);
    prop_oneof![
        6 => on_agents(),
        1 => (role(), 0..3_i64, 0..3_i64).prop_map(|(role, guarantee, limit)| Op::UpdateQuota {
            configs: vec![quota(role, guarantee, limit)]
        }),
        1 => role().prop_map(|role| Op::UpdateQuota {
            configs: vec![QuotaConfig { role: Role::new(role), ..QuotaConfig::default() }]
        }),
        1 => (role(), 0..3_u8).prop_map(|(role, weight)| Op::UpdateWeights {
            weights: BTreeMap::from([(Role::new(role), f64::from(weight))])
        }),
        2 => windows.prop_map(|windows| Op::UpdateSchedule {
            schedule: Schedule {
                windows: windows.iter().map(|(ids, start)| window(ids, *start)).collect()
            }
        }),
        1 => machines().prop_map(|machines| Op::StartMaintenance { machines }),
        1 => machines().prop_map(|machines| Op::StopMaintenance { machines }),
        1 => provider().prop_map(|id| Op::AdmitResourceProvider { id }),
        1 => provider().prop_map(|id| Op::RemoveResourceProvider { id }),
        1 => Just(Op::Recover {
            master: MasterInfo::default(),
            cluster_id: "c".to_owned()
        }),
    ]
}

proptest! {
    /// R-3 and R-4: whatever comes, the sets are those of a model in which an agent has one standing at most, and an
    /// agent that is gone stays so until it is forgotten.
    #[test]
    fn agents_stand_as_a_naive_reader_of_the_table_believes(
        operations in proptest::collection::vec(on_agents(), 1..60),
    ) {
        let (mut registry, mut model) = (Registry::default(), Model::default());
        for operation in operations {
            let gone = registry.gone.clone();
            let applies = model.apply(&operation);
            let result = apply(&mut registry, operation.clone());
            prop_assert_eq!(result.is_ok(), applies, "{:?}: {:?}", operation, result);
            prop_assert_eq!(Model::of(&registry), model.0.clone());
            if !matches!(operation, Op::Prune { .. }) {
                prop_assert!(gone.keys().all(|id| registry.gone.contains_key(id)));
            }
        }
    }

    /// The same operations give the same registry, also when they went through the log's form; a refused or idle one
    /// changes nothing; the invariants hold after each.
    #[test]
    fn operations_are_deterministic(operations in proptest::collection::vec(operation(), 1..60)) {
        let (mut one, mut other) = (Registry::default(), Registry::default());
        for operation in operations {
            let mut bytes = Vec::new();
            meseta_runtime::message::write_named(&operation, &mut bytes).unwrap();
            let again: Op = meseta_runtime::message::read_named(&bytes).unwrap();
            let result = apply(&mut one, operation);
            prop_assert_eq!(result, apply(&mut other, again));
        }
        let mut bytes = Vec::new();
        meseta_runtime::message::write_named(&other, &mut bytes).unwrap();
        let read: Registry = meseta_runtime::message::read_named(&bytes).unwrap();
        prop_assert_eq!(&one, &read);
    }
}
