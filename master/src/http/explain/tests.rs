//! What is told of frameworks, agents and tasks in every state they can be in.

use std::sync::Arc;

use meseta_protocol::agent::{AgentInfo, MasterInfo};
use meseta_protocol::framework::FrameworkInfo;
use meseta_protocol::offer::Offer;
use meseta_protocol::status::{StatusReason, StatusSource, TaskState, TaskStatus};
use meseta_protocol::task::Task;
use meseta_protocol::{OfferId, UpdateId};
use meseta_runtime::Pid;

use super::*;
use crate::allocator::explain::{AgentExplained, Before, Reason, RefusalExplained, RoleExplained};
use crate::failover::Awaited;
use crate::registry::{Registry, RegistryOperation};
use crate::state::{Agent, Limits, State};

const NOW: Duration = Duration::from_secs(1_000_000);

fn pid(text: &str) -> Pid {
    text.parse().unwrap()
}

struct World {
    state: State,
    ledger: Ledger,
    awaited: Awaited,
}

impl World {
    /// Framework `f` with agent `s`.
    fn new() -> Self {
        let mut state = State::new(Limits::default());
        let mut info = FrameworkInfo::new("user", "name").in_roles(["a"]);
        info.id = Some("f".into());
        info.failover_timeout = 60.0;
        let at = Some(pid("scheduler-1@127.0.0.1:1"));
        state.add_framework(Framework::new(info, at, NOW));
        let mut world = Self {
            state,
            ledger: Ledger {
                now: NOW,
                patience: Duration::from_secs(600),
                ..Ledger::default()
            },
            awaited: Awaited::default(),
        };
        world.add_agent("s");
        world
    }

    fn add_agent(&mut self, id: &str) {
        let mut info = AgentInfo::new(format!("host-{id}"), "cpus:8;mem:800".parse().unwrap());
        info.id = Some(id.into());
        let at = pid(&format!("slave({id})@127.0.0.2:2"));
        let agent = Agent::new(info, at, "1".to_owned(), Vec::new(), NOW);
        self.state.add_agent(agent, Vec::new(), Vec::new());
    }

    fn launch(&mut self, id: &str) {
        self.state.add_task(Task {
            task_id: id.into(),
            framework_id: "f".into(),
            agent_id: "s".into(),
            resources: "cpus(allocated: a):1".parse().unwrap_or_default(),
            ..Task::default()
        });
    }

    /// An update that came from the agent, and was sent on if `uuid` is given.
    fn update(&mut self, id: &str, state: TaskState, latest: TaskState, uuid: Option<u8>) {
        let mut status = TaskStatus::new(id, state);
        status.source = Some(StatusSource::Executor);
        status.timestamp = Some(NOW.as_secs_f64());
        status.uuid = uuid.map(|n| UpdateId::from_bytes([n; 16]));
        if uuid.is_some() {
            self.state.forwarded(&"f".into(), &id.into(), &status);
        }
        self.state
            .update_task(&"f".into(), &id.into(), latest, &status);
    }

    fn view(&self) -> View {
        View {
            me: pid("master@127.0.0.1:5050"),
            info: MasterInfo::default(),
            epoch: 1,
            started: NOW,
            elected: Some(NOW),
            flags: BTreeMap::new(),
            cluster: None,
            texts: Arc::default(),
            weights: BTreeMap::new(),
            state: self.state.snapshot(),
            awaited: self.awaited.clone(),
            unreachable: 0,
        }
    }

    fn answer(
        &self,
        question: Question,
        allocator: Option<FrameworkExplained>,
    ) -> (u16, serde_json::Value, String) {
        let view = self.view();
        let records = Records {
            view: &view,
            ledger: &self.ledger,
        };
        let mut wanted = Wanted {
            question,
            is_text: false,
            allocator,
        };
        let json = answer(&wanted, &records);
        wanted.is_text = true;
        let text = answer(&wanted, &records);
        assert_eq!(text.content_type, Some(TEXT));
        assert_eq!(text.status, json.status);
        let text = String::from_utf8(text.body.to_vec()).unwrap();
        (
            json.status,
            serde_json::from_slice(&json.body).unwrap(),
            text,
        )
    }

    fn task(&self, id: &str) -> (u16, serde_json::Value, String) {
        let id = id.into();
        self.answer(
            Question::Task {
                id,
                framework: None,
            },
            None,
        )
    }

    /// What is waited for: message, sender, and state it is about.
    fn waits(&self, id: &str) -> Vec<String> {
        let (status, json, text) = self.task(id);
        assert_eq!(status, 200, "{text}");
        let waits = json["found"][0]["waits_for"].as_array().unwrap().clone();
        let word = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let one = |wait: &serde_json::Value| {
            format!(
                "{} {} {}",
                word(&wait["message"]),
                word(&wait["from"]),
                word(&wait["state"])
            )
        };
        assert_eq!(
            text.contains("waits for  nothing"),
            waits.is_empty(),
            "{text}"
        );
        waits
            .iter()
            .map(|wait| one(wait).trim_end().to_owned())
            .collect()
    }

    fn framework(&self, allocator: Option<FrameworkExplained>) -> (u16, serde_json::Value, String) {
        let question = Question::Framework {
            id: "f".into(),
            agent: None,
            offset: 0,
            limit: 10,
        };
        self.answer(question, allocator)
    }
}

#[test]
fn a_task_that_was_launched_waits_for_its_agent_s_word() {
    let mut world = World::new();
    world.launch("t");
    assert_eq!(world.waits("t"), ["UpdateStatus agent"]);
    let (_, json, text) = world.task("t");
    assert!(text.contains("in answer to RunTask"), "{text}");
    assert_eq!(json["found"][0]["kept_as"], "live");
    assert_eq!(json["found"][0]["agent"]["standing"], "registered");
}

#[test]
fn an_update_that_others_wait_behind_is_to_be_acknowledged() {
    let mut world = World::new();
    world.launch("t");
    world.update("t", TaskState::Running, TaskState::Running, Some(1));
    assert_eq!(world.waits("t"), ["UpdateStatus agent"]);
    let (_, json, _) = world.task("t");
    let unknown = json["found"][0]["unknown"].to_string();
    assert!(
        unknown.contains("has acknowledged TASK_RUNNING"),
        "{unknown}"
    );
    // The agent says that it has ended meanwhile.
    world.update("t", TaskState::Running, TaskState::Finished, Some(1));
    assert_eq!(
        world.waits("t"),
        ["AcknowledgeStatus framework TASK_RUNNING"]
    );
    world.update("t", TaskState::Finished, TaskState::Finished, Some(2));
    assert_eq!(
        world.waits("t"),
        ["AcknowledgeStatus framework TASK_FINISHED"]
    );
    let (_, json, text) = world.task("t");
    let uuid = UpdateId::from_bytes([2; 16]).to_string();
    assert_eq!(json["found"][0]["waits_for"][0]["uuid"], uuid.as_str());
    assert!(
        text.contains(&uuid) && text.contains("has not acknowledged"),
        "{text}"
    );
    let uuid = UpdateId::from_bytes([2; 16]);
    world
        .state
        .acknowledge(&"f".into(), &"s".into(), &"t".into(), uuid);
    assert_eq!(world.waits("t"), [""; 0]);
    let (_, json, text) = world.task("t");
    assert_eq!(json["found"][0]["kept_as"], "completed");
    assert!(text.contains("has acknowledged its end"), "{text}");
}

#[test]
fn a_kill_waits_for_the_end() {
    let mut world = World::new();
    world.launch("t");
    world.update("t", TaskState::Running, TaskState::Running, Some(1));
    let killed = ("f".into(), "t".into());
    world
        .state
        .agent_mut(&"s".into())
        .unwrap()
        .killed_tasks
        .insert(killed);
    assert_eq!(world.waits("t"), ["UpdateStatus agent"]);
    assert!(world.task("t").2.contains("in answer to KillAgentTask"));
    world.state.disconnect_agent(&"s".into());
    assert_eq!(
        world.waits("t"),
        ["ReregisterAgent agent", "UpdateStatus agent"]
    );
}

#[test]
fn an_agent_that_is_away_is_waited_for() {
    let mut world = World::new();
    world.launch("t");
    world.update("t", TaskState::Running, TaskState::Running, Some(1));
    world.state.disconnect_agent(&"s".into());
    assert_eq!(world.waits("t"), ["ReregisterAgent agent"]);
    assert!(
        world
            .task("t")
            .2
            .contains("10m after that, it is marked unreachable")
    );
    world
        .state
        .remove_agent(&"s".into(), true, |_| TaskState::Unreachable);
    let at = Duration::from_secs(999_000);
    world.ledger.unreachable.insert("s".into(), at);
    assert_eq!(world.waits("t"), ["ReregisterAgent agent"]);
    let (_, json, _) = world.task("t");
    let found = &json["found"][0];
    assert_eq!(found["kept_as"], "unreachable");
    assert_eq!(
        (&found["agent"]["standing"], &found["agent"]["since"]),
        (&"unreachable".into(), &999_000.0.into())
    );
}

#[test]
fn a_framework_that_is_away_gets_nothing_and_acknowledges_nothing() {
    let mut world = World::new();
    world.launch("t");
    world
        .state
        .set_standing(&"f".into(), Standing::Disconnected);
    world.update("t", TaskState::Finished, TaskState::Finished, None);
    assert_eq!(
        world.waits("t"),
        ["UpdateStatus agent", "SubscribeFramework framework"]
    );
    let (_, json, text) = world.task("t");
    assert!(text.contains("failover_timeout of 1m"), "{text}");
    assert_eq!(json["found"][0]["framework_standing"], "disconnected");
}

#[test]
fn a_task_that_the_master_has_declared_ended_may_linger() {
    let mut world = World::new();
    world.launch("t");
    world
        .state
        .remove_agent(&"s".into(), false, |_| TaskState::Lost);
    assert_eq!(world.waits("t"), [""; 0]);
    let text = world.task("t").2;
    assert!(
        text.contains("the master's own word") && text.contains("not known  how it has ended"),
        "{text}"
    );
    world.add_agent("s");
    let held = BTreeMap::from([(("f".into(), "t".into()), "cpus:1".parse().unwrap())]);
    world.state.set_lingering(&"s".into(), held);
    assert_eq!(world.waits("t"), ["UpdateStatus agent"]);
}

#[test]
fn tasks_of_a_framework_that_is_over_and_several_of_one_id_are_found() {
    let mut world = World::new();
    world.launch("t");
    world.update("t", TaskState::Failed, TaskState::Failed, Some(1));
    world.state.complete_task(&"f".into(), &"t".into());
    world.launch("t");
    let (_, json, _) = world.task("t");
    let kept: Vec<_> = json["found"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["kept_as"].clone())
        .collect();
    assert_eq!(kept, ["live", "completed"]);
    world.state.remove_framework(&"f".into(), NOW);
    let (_, json, _) = world.task("t");
    let states: Vec<_> = json["found"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["state"].clone())
        .collect();
    assert_eq!(states, ["TASK_KILLED", "TASK_FAILED"]);
    assert_eq!(json["found"][0]["framework_standing"], "completed");
    let last = &json["found"][0]["statuses"][0];
    assert_eq!(last["reason"], StatusReason::FrameworkRemoved.name());
    let other = Question::Task {
        id: "t".into(),
        framework: Some("g".into()),
    };
    assert_eq!(world.answer(other, None).0, 404);
}

#[test]
fn of_an_unknown_task_is_told_why_it_may_not_be_known() {
    let mut world = World::new();
    let mut registry = Registry::default();
    let mut info = AgentInfo::new("host-x", "cpus:1".parse().unwrap());
    info.id = Some("x".into());
    let admit = RegistryOperation::AdmitAgent {
        info: Arc::new(info),
    };
    registry.apply(&admit).unwrap();
    world.awaited = Awaited::of(&registry);
    let (status, json, text) = world.task("nobody\u{1b}[2J");
    assert_eq!((status, json["found"].as_array().unwrap().len()), (404, 0));
    assert!(
        text.contains("1 agents of the registry") && !text.contains('\u{1b}'),
        "{text}"
    );
    assert!(text.contains("1000 completed"), "{text}");
    let stands = |id: &str, world: &World| {
        let view = world.view();
        let records = Records {
            view: &view,
            ledger: &world.ledger,
        };
        records.agent(&id.into()).standing
    };
    assert_eq!(
        (stands("x", &world), stands("y", &world)),
        ("awaited", "unknown")
    );
    world.ledger.gone.insert("y".into(), NOW);
    assert_eq!(stands("y", &world), "gone");
}

fn told_by_the_allocator(reasons: Vec<Reason>) -> FrameworkExplained {
    let count = reasons.len();
    FrameworkExplained {
        active: true,
        interval_seconds: 1.0,
        roles: vec![RoleExplained {
            role: "a".into(),
            subscribed: true,
            suppressed: false,
            weight: 2.0,
            dominant_share: 0.5,
            smallest_offer: "cpus:0.01|mem:32".to_owned(),
            smallest_is_its_own: false,
            roles_before: Before {
                count: 12,
                first: vec![("b".into(), 0.25)],
            },
            frameworks_before: Before::default(),
            framework_share: 0.5,
        }],
        refusals: vec![RefusalExplained {
            role: "a".into(),
            agent_id: "s".into(),
            resources: "cpus:1".to_owned(),
            left: Duration::from_secs(5),
        }],
        refusals_in_all: 1,
        agents_in_all: count + 3,
        agents: reasons
            .into_iter()
            .map(|reason| AgentExplained {
                agent_id: "s".into(),
                free: "cpus:1".to_owned(),
                held: String::new(),
                roles: vec![("a".into(), reason)],
            })
            .collect(),
        reasons: BTreeMap::from([("refused".to_owned(), 1)]),
    }
}

#[test]
fn every_reason_is_told_in_words_of_its_own() {
    let mut world = World::new();
    let resources: meseta_protocol::resources::Resources = "cpus:1".parse().unwrap();
    let offer = Offer {
        id: OfferId::new("o"),
        framework_id: "f".into(),
        agent_id: "s".into(),
        resources: resources.allocated(&"a".into()),
        ..Offer::default()
    };
    world.state.add_offer(offer, "a".into());
    let offer = "cpus:1".to_owned();
    let reasons = vec![
        Reason::FrameworkInactive,
        Reason::NotSubscribed,
        Reason::Suppressed,
        Reason::AgentDisconnected,
        Reason::NothingFree,
        Reason::AgentLacksHierarchicalRole,
        Reason::FrameworkLacksGpuResources,
        Reason::OtherRegion,
        Reason::AgentLacksMultiRole,
        Reason::NothingForTheRole,
        Reason::TooLittle {
            offer: offer.clone(),
        },
        Reason::Refused {
            offer,
            left: Duration::from_secs(5),
        },
        Reason::After {
            role: "b".into(),
            framework_id: "g".into(),
        },
        Reason::Waiting,
        Reason::NextRun,
    ];
    let count = reasons.len();
    let names: Vec<&str> = reasons.iter().map(Reason::name).collect();
    let (status, json, text) = world.framework(Some(told_by_the_allocator(reasons.clone())));
    assert_eq!(status, 200);
    let agents = json["agents"].as_array().unwrap();
    let told: Vec<_> = agents
        .iter()
        .map(|one| one["roles"][0]["reason"].clone())
        .collect();
    assert_eq!(told, names);
    let texts: std::collections::BTreeSet<_> = agents
        .iter()
        .map(|one| one["roles"][0]["text"].as_str().unwrap())
        .collect();
    assert_eq!(texts.len(), count, "{text}");
    assert_eq!(agents[0]["offers"], serde_json::json!(["o"]));
    assert_eq!(agents[11]["roles"][0]["until"], NOW.as_secs_f64() + 5.0);
    assert_eq!(json["filters"][0]["seconds_left"], 5.0);
    assert_eq!(json["summary"][0], "1 offers wait for its answer");
    assert!(text.contains("until 1970-01-12T13:46:45"), "{text}");
    assert!(
        text.contains("served before: 12 roles: b (0.250) …"),
        "{text}"
    );
    assert!(text.contains("of 18 agents 15 were looked at"), "{text}");
    // What the allocator writes is what is read.
    let told = told_by_the_allocator(reasons);
    let bytes = rmp_serde::to_vec_named(&told).unwrap();
    assert_eq!(
        rmp_serde::from_slice::<FrameworkExplained>(&bytes).unwrap(),
        told
    );
}

#[test]
fn frameworks_of_every_standing_are_told_of() {
    let mut world = World::new();
    for (as_it_stands, told) in [
        (Standing::Active, "active"),
        (Standing::Inactive, "inactive"),
        (Standing::Disconnected, "disconnected"),
        (Standing::Recovered, "recovered"),
    ] {
        world.state.set_standing(&"f".into(), as_it_stands);
        let (status, json, text) = world.framework(None);
        assert_eq!((status, json["standing"].as_str()), (200, Some(told)));
        assert!(text.contains("Ask again"), "{text}");
    }
    let empty = FrameworkExplained {
        active: true,
        ..FrameworkExplained::default()
    };
    let (_, _, text) = world.framework(Some(empty));
    assert!(text.contains("no agent is registered"), "{text}");
    world.state.remove_framework(&"f".into(), NOW);
    assert_eq!(world.framework(None).1["standing"], "completed");
    let question = Question::Framework {
        id: "g".into(),
        agent: Some("s".into()),
        offset: 0,
        limit: 10,
    };
    let (status, json, _) = world.answer(question, None);
    assert_eq!((status, json["standing"].as_str()), (404, Some("unknown")));
    assert_eq!(json["agents"][0]["standing"], "registered");
}

#[test]
fn questions_are_read_from_paths_and_parameters() {
    let request = |target: &str| {
        let (_, query) = target.split_once('?').unwrap_or((target, ""));
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        Request {
            target: target.to_owned(),
            query: pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
            ..Request::default()
        }
    };
    let task = |target: &str| Question::of_task(&request(target)).ok();
    let wanted = |id: &str, framework: Option<&str>| {
        Some(Question::Task {
            id: id.into(),
            framework: framework.map(Into::into),
        })
    };
    assert_eq!(task("/explain/task/a%3Ab+c"), wanted("a:b+c", None));
    assert_eq!(
        task("/master/explain/task?id=x.json&framework_id=f"),
        wanted("x.json", Some("f"))
    );
    assert_eq!(task("/explain/task"), None);
    assert_eq!(task("/explain/task/"), None);
    let asked = Question::of_framework(&request(
        "/explain/framework/f?slave_id=s&offset=7&limit=5000",
    ))
    .ok();
    let expected = Question::Framework {
        id: "f".into(),
        agent: Some("s".into()),
        offset: 7,
        limit: MOST_AGENTS,
    };
    assert_eq!(asked, Some(expected));
    for (odd, named) in [("limit=-1", "'limit'"), ("offset=many", "'many'")] {
        let refused = Question::of_framework(&request(&format!("/explain/framework/f?{odd}")));
        assert!(refused.unwrap_err().contains(named), "{odd}");
    }
    let accepts = |accept: &str, target: &str| {
        let mut request = request(target);
        request
            .headers
            .insert("accept".to_owned(), accept.to_owned());
        wants_text(&request)
    };
    assert!(accepts("text/plain", "/x") && accepts("*/*", "/x?format=text"));
    assert!(!accepts("*/*", "/x") && !accepts("text/plain", "/x?format=json"));
    assert!(!accepts("text/html,application/xhtml+xml", "/x"));
}

#[test]
fn a_moment_that_no_date_can_tell_is_shown_in_seconds() {
    assert_eq!(date(0.5), "1970-01-01T00:00:00.500Z");
    for odd in [-1.0, 1e12, f64::MAX, f64::NAN, f64::INFINITY] {
        assert_eq!(date(odd), format!("{odd} s"));
    }
}
