use meseta_protocol::executor::ExecutorInfo;
use meseta_protocol::resources::Scalar;
use meseta_protocol::status::TaskState;
use meseta_protocol::task::TaskInfo;
use meseta_protocol::{AgentId, ContainerId};

use super::*;
use crate::checkpoint::records::{ProcessRecord, ProofRecord};
use crate::executors::{Executor, Phase};

/// What was written down when the agent ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Recorded {
    Nothing,
    Agent,
    IdleFramework,
    Launched,
    Running,
    Given,
    Told,
    Acknowledged,
    Ended,
    EndedAcknowledged,
    Over,
    UsedAgain,
    OverAndNobodyThere,
    Unowned,
    Superseded,
}

const RECORDED: [Recorded; 15] = [
    Recorded::Nothing,
    Recorded::Agent,
    Recorded::IdleFramework,
    Recorded::Launched,
    Recorded::Running,
    Recorded::Given,
    Recorded::Told,
    Recorded::Acknowledged,
    Recorded::Ended,
    Recorded::EndedAcknowledged,
    Recorded::Over,
    Recorded::UsedAgain,
    Recorded::OverAndNobodyThere,
    Recorded::Unowned,
    Recorded::Superseded,
];

/// What has happened by the next start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Happened {
    Restart,
    Reboot,
    TakenAway,
    LinkMissing,
    Swapped,
    Damaged,
    MoreResources,
    LessResources,
    LessResourcesAndReboot,
    MoreFound,
    LessFoundAndReboot,
}

const HAPPENED: [Happened; 11] = [
    Happened::Restart,
    Happened::Reboot,
    Happened::TakenAway,
    Happened::LinkMissing,
    Happened::Swapped,
    Happened::Damaged,
    Happened::MoreResources,
    Happened::LessResources,
    Happened::LessResourcesAndReboot,
    Happened::MoreFound,
    Happened::LessFoundAndReboot,
];

fn info(resources: &str) -> AgentInfo {
    AgentInfo::new("host", resources.parse().unwrap())
}

/// Memory is what was found out.
fn leeway() -> Leeway {
    [("mem".to_owned(), Scalar::whole(10))].into()
}

fn agent() -> Record {
    let mut info = info("cpus:4;mem:100");
    info.id = Some("S0".into());
    Record::Agent(Box::new(AgentRecord {
        info,
        boot_id: "boot".into(),
    }))
}

fn framework() -> Record {
    let mut info = FrameworkInfo::new("u", "f");
    info.id = Some("f".into());
    Record::Framework(Box::new(FrameworkRecord { info }))
}

fn executor(container: &str, process: Option<u32>) -> Record {
    Record::Executor(Box::new(ExecutorRecord {
        framework_id: "f".into(),
        info: ExecutorInfo {
            executor_id: "e".into(),
            ..ExecutorInfo::default()
        },
        generated: true,
        container_id: ContainerId::top(container),
        proof: Some(ProofRecord::Token(vec![1; 32].into(), 0)),
        process: process.map(|process| ProcessRecord {
            process,
            started: 5,
        }),
        ..ExecutorRecord::default()
    }))
}

fn task(container: &str) -> Record {
    Record::Task(Box::new(TaskRecord {
        framework_id: "f".into(),
        executor_id: "e".into(),
        container_id: ContainerId::top(container),
        info: TaskInfo::new("t", "S0", "cpus:1".parse().unwrap(), "true"),
        launch_uuid: UpdateId::from_bytes([9; 16]),
        ..TaskRecord::default()
    }))
}

/// The same of a task of whose earlier namesake the executor has said this, or which is over itself.
fn task_with_past(past: &[u8], is_over: bool) -> Record {
    let mut record = task("c");
    if let Record::Task(task) = &mut record {
        let past = past.iter().map(|n| UpdateId::from_bytes([*n; 16]));
        task.past = past.collect();
        task.is_over = is_over;
    }
    record
}

fn update(number: u8, state: TaskState, acknowledged: bool) -> Record {
    let uuid = Some(UpdateId::from_bytes([number; 16]));
    let mut status = TaskStatus::new("t", state);
    status.uuid = uuid;
    Record::Update(Box::new(UpdateRecord {
        number: number.into(),
        update: StatusUpdate {
            framework_id: "f".into(),
            uuid,
            status,
            ..StatusUpdate::default()
        },
        acknowledged,
    }))
}

fn records(recorded: Recorded) -> Vec<Record> {
    use Recorded::*;
    let mut all = Vec::new();
    if recorded == Nothing {
        return all;
    }
    all.push(agent());
    if recorded == Unowned {
        all.push(update(1, TaskState::Lost, false));
        return all;
    }
    if recorded == OverAndNobodyThere {
        all.push(task_with_past(&[3], true));
        return all;
    }
    if recorded >= IdleFramework {
        all.push(framework());
    }
    if recorded >= Launched {
        let process = (recorded > Launched).then_some(77);
        all.push(executor("c", process));
    }
    if recorded == Over || recorded == UsedAgain {
        all.push(task_with_past(&[3, 4], recorded == Over));
    } else if recorded >= Given {
        all.push(task("c"));
    }
    let updates: &[(u8, TaskState, bool)] = match recorded {
        Told => &[(1, TaskState::Running, false)],
        Acknowledged => &[(1, TaskState::Running, true)],
        Ended => &[
            (1, TaskState::Running, true),
            (3, TaskState::Finished, false),
        ],
        EndedAcknowledged => &[(3, TaskState::Finished, true)],
        Nothing | Agent | IdleFramework | Launched | Running | Given | Over | UsedAgain
        | OverAndNobodyThere | Unowned | Superseded => &[],
    };
    all.extend(
        updates
            .iter()
            .map(|(n, state, done)| update(*n, *state, *done)),
    );
    if recorded == Superseded {
        all.push(executor("a", Some(66)));
    }
    // However they come.
    all.reverse();
    all
}

fn start(recorded: Recorded, happened: Happened, strict: bool, policy: Policy) -> Plan {
    use Happened::*;
    let latest = match happened {
        TakenAway => Latest::TakenAway,
        Swapped => Latest::Is("S9".into()),
        LinkMissing => Latest::Never,
        _ if recorded == Recorded::Nothing => Latest::Never,
        Restart
        | Reboot
        | Damaged
        | MoreResources
        | LessResources
        | LessResourcesAndReboot
        | MoreFound
        | LessFoundAndReboot => Latest::Is("S0".into()),
    };
    let faults = match happened {
        Damaged => vec![Fault {
            file: "/w/meta/agent.mdb".into(),
            what: "page 7 is damaged".into(),
        }],
        Restart
        | Reboot
        | TakenAway
        | LinkMissing
        | Swapped
        | MoreResources
        | LessResources
        | LessResourcesAndReboot
        | MoreFound
        | LessFoundAndReboot => Vec::new(),
    };
    let here = Here {
        info: &info(match happened {
            MoreResources => "cpus:8;mem:100",
            LessResources | LessResourcesAndReboot => "cpus:2;mem:100",
            MoreFound => "cpus:4;mem:101",
            LessFoundAndReboot => "cpus:4;mem:91",
            Restart | Reboot | TakenAway | LinkMissing | Swapped | Damaged => "cpus:4;mem:100",
        }),
        boot_id: match happened {
            Reboot | LessResourcesAndReboot | LessFoundAndReboot => "another",
            Restart | TakenAway | LinkMissing | Swapped | Damaged | MoreResources
            | LessResources | MoreFound => "boot",
        },
        strict,
        policy,
        leeway: &leeway(),
        work_dir: "/w",
    };
    let loaded = Loaded {
        records: records(recorded),
        faults,
        latest,
        file: "/w/meta/agent.mdb".into(),
    };
    plan(loaded, &here)
}

fn is_new(recovered: &Recovered) -> bool {
    recovered.info.is_none()
        && recovered.executors.is_empty()
        && recovered.streams.is_empty()
        && recovered.frameworks.is_empty()
}

/// Executors kept, with the tables their tasks come into and what they have said of tasks that are over; updates that wait;
/// what is forgotten.
fn kept(recovered: &Recovered) -> (Vec<String>, Vec<u8>, usize) {
    let executors = recovered.executors.iter().map(|found| {
        let executor = Executor::recovered(found.clone(), "/box".into(), "u");
        assert_eq!(executor.phase, Phase::Registering);
        let process = executor.container.process();
        let past = executor.said_before(&"t".into());
        let past: Vec<String> = past
            .iter()
            .map(|uuid| format!(" past {}", uuid.as_bytes()[0]))
            .collect();
        format!(
            "{} {process:?} queued {} launched {} ended {}{}",
            executor.container_id.value,
            executor.queued.len(),
            executor.launched.len(),
            executor.terminated.len(),
            past.concat()
        )
    });
    let waiting = recovered.streams.iter().flat_map(|stream| &stream.waiting);
    let waiting = waiting.map(|update| update.uuid.unwrap().as_bytes()[0]);
    (
        executors.collect(),
        waiting.collect(),
        recovered.forget.len(),
    )
}

fn expected(recorded: Recorded) -> (Vec<String>, Vec<u8>, usize) {
    use Recorded::*;
    let one = |text: &str| vec![format!("c {text}")];
    match recorded {
        Nothing | Agent => (vec![], vec![], 0),
        IdleFramework => (vec![], vec![], 1),
        Launched => (one("None queued 0 launched 0 ended 0"), vec![], 0),
        Running => (one("Some(77) queued 0 launched 0 ended 0"), vec![], 0),
        Given => (one("Some(77) queued 1 launched 0 ended 0"), vec![], 0),
        Told => (one("Some(77) queued 0 launched 1 ended 0"), vec![1], 0),
        Acknowledged => (one("Some(77) queued 0 launched 1 ended 0"), vec![], 0),
        Ended => (one("Some(77) queued 0 launched 0 ended 1"), vec![3], 0),
        EndedAcknowledged => (
            one("Some(77) queued 0 launched 0 ended 0 past 3"),
            vec![],
            2,
        ),
        Over => (
            one("Some(77) queued 0 launched 0 ended 0 past 3 past 4"),
            vec![],
            0,
        ),
        UsedAgain => (
            one("Some(77) queued 1 launched 0 ended 0 past 3 past 4"),
            vec![],
            0,
        ),
        OverAndNobodyThere => (vec![], vec![], 2),
        Unowned => (vec![], vec![1], 0),
        Superseded => (one("Some(77) queued 1 launched 0 ended 0"), vec![], 2),
    }
}

#[test]
fn every_recorded_state_meets_every_event() {
    for recorded in RECORDED {
        for happened in HAPPENED {
            for strict in [true, false] {
                for policy in [Policy::Equal, Policy::Additive] {
                    let plan = start(recorded, happened, strict, policy);
                    verdict(recorded, happened, strict, policy, plan);
                }
            }
        }
    }
}

fn verdict(recorded: Recorded, happened: Happened, strict: bool, policy: Policy, plan: Plan) {
    use Happened::*;
    let case = format!("{recorded:?} {happened:?} strict {strict} {policy:?}: {plan:?}");
    let nothing = recorded == Recorded::Nothing;
    let stops_for = |named: &str| match &plan {
        Plan::Stop(why) => {
            assert!(
                why.contains(named) && why.contains("/w/meta/slaves/latest"),
                "{case}"
            );
        }
        Plan::Go(_) => panic!("{case}"),
    };
    let goes = || match &plan {
        Plan::Go(recovered) => recovered,
        Plan::Stop(_) => panic!("{case}"),
    };
    match happened {
        TakenAway => {
            let is_forgotten = goes().forget.contains(&Change::DeleteBelow(String::new()));
            assert!(is_new(goes()) && is_forgotten, "{case}");
        }
        // Nothing was there to be changed.
        Restart
        | Reboot
        | MoreResources
        | LessResources
        | LessResourcesAndReboot
        | MoreFound
        | LessFoundAndReboot
        | LinkMissing
            if nothing =>
        {
            assert!(is_new(goes()) && goes().forget.is_empty(), "{case}");
        }
        Swapped | Damaged if strict => {
            stops_for("/w/meta/agent.mdb");
            stops_for("--strict=false");
        }
        Swapped => assert!(is_new(goes()), "{case}"),
        Damaged if nothing => assert!(is_new(goes()), "{case}"),
        LessResources => stops_for("--resources"),
        MoreResources if policy == Policy::Equal => stops_for("--resources"),
        LessResourcesAndReboot => assert!(is_new(goes()), "{case}"),
        Restart | Reboot | LinkMissing | Damaged | MoreResources | MoreFound
        | LessFoundAndReboot => {
            let recovered = goes();
            let id = recovered.info.as_ref().and_then(|info| info.id.clone());
            assert_eq!(id, Some(AgentId::new("S0")), "{case}");
            let rebooted = matches!(happened, Reboot | LessFoundAndReboot);
            assert_eq!(recovered.rebooted, rebooted, "{case}");
            let offers = match (happened, policy) {
                (MoreResources, _) => "cpus:8;mem:100",
                (MoreFound, Policy::Additive) => "cpus:4;mem:101",
                _ => "cpus:4;mem:100",
            };
            let in_force = &recovered.in_force;
            assert_eq!(in_force.resources, offers.parse().unwrap(), "{case}");
            let changed = matches!(
                (happened, policy),
                (MoreFound, Policy::Equal) | (LessFoundAndReboot, _)
            );
            assert_eq!(in_force.notices.len(), usize::from(changed), "{case}");
            assert_eq!(kept(recovered), expected(recorded), "{case}");
            assert_eq!(recovered.complaints.len(), usize::from(happened == Damaged));
        }
    }
}

#[test]
fn what_misses_what_it_belongs_to_is_passed_over_or_stops_a_strict_agent() {
    for (missing, named) in [
        ("framework", "framework's record is missing"),
        ("executor", "executor's record is missing"),
    ] {
        let all = records(Recorded::Told);
        let left = all
            .into_iter()
            .filter(|record| !record.key().starts_with(missing));
        let loaded = Loaded {
            records: left.collect(),
            latest: Latest::Is("S0".into()),
            file: "/w/meta/agent.mdb".into(),
            ..Loaded::default()
        };
        let mut here = Here {
            info: &info("cpus:4;mem:100"),
            boot_id: "boot",
            strict: true,
            policy: Policy::Equal,
            leeway: &leeway(),
            work_dir: "/w",
        };
        let Plan::Stop(why) = plan(loaded.clone(), &here) else {
            panic!("{missing}");
        };
        assert!(
            why.contains(named) && why.contains("agent inspect /w"),
            "{why}"
        );
        here.strict = false;
        let Plan::Go(recovered) = plan(loaded, &here) else {
            panic!("{missing}");
        };
        assert!(recovered.executors.is_empty() && recovered.complaints.len() == 1);
        // The update is still somebody's.
        assert_eq!(recovered.streams.len(), 1);
        assert!(recovered.info.is_some());
    }
}

#[test]
fn a_missing_record_of_the_agent_makes_it_a_new_one_only_when_that_is_allowed() {
    let mut all = records(Recorded::Told);
    all.retain(|record| record.key() != crate::checkpoint::records::AGENT);
    let loaded = Loaded {
        records: all,
        latest: Latest::Is("S0".into()),
        file: "/w/meta/agent.mdb".into(),
        ..Loaded::default()
    };
    let info = info("cpus:4;mem:100");
    let mut here = Here {
        info: &info,
        boot_id: "boot",
        strict: true,
        policy: Policy::Equal,
        leeway: &leeway(),
        work_dir: "/w",
    };
    assert!(matches!(plan(loaded.clone(), &here), Plan::Stop(_)));
    here.strict = false;
    let Plan::Go(recovered) = plan(loaded, &here) else {
        panic!("not strict");
    };
    assert!(is_new(&recovered));
}

#[test]
fn additive_changes_add_and_never_take_away() {
    let mut was = info("cpus:2;ports:[1-5]");
    was.attributes = meseta_protocol::attributes::parse_attributes("rack:a;ports:[1-3]").unwrap();
    let fits = |is: &AgentInfo| differences(&was, is, Policy::Additive).is_empty();
    let mut is = was.clone();
    is.resources = "cpus:3;ports:[1-6];mem:5".parse().unwrap();
    is.attributes =
        meseta_protocol::attributes::parse_attributes("new:1;ports:[1-9];rack:a").unwrap();
    assert!(fits(&is));
    assert_eq!(differences(&was, &is, Policy::Equal).len(), 2);
    is.attributes = meseta_protocol::attributes::parse_attributes("rack:b;ports:[1-3]").unwrap();
    assert!(!fits(&is));
    let mut other = was.clone();
    other.hostname = "other".into();
    other.port = 1;
    assert_eq!(differences(&was, &other, Policy::Additive).len(), 2);
}

#[test]
fn what_is_found_to_be_over_is_known_after_the_next_restart_too() {
    let Plan::Go(recovered) = start(
        Recorded::EndedAcknowledged,
        Happened::Restart,
        true,
        Policy::Equal,
    ) else {
        panic!("the agent starts");
    };
    let written: Vec<Record> = (recovered.forget.into_iter())
        .filter_map(|change| match change {
            Change::Put(key, bytes) => Some(Record::read(&key, &bytes).unwrap()),
            Change::Delete(_) | Change::DeleteBelow(_) | Change::Name(_) => None,
        })
        .collect();
    let [Record::Task(task)] = &*written else {
        panic!("{written:?}");
    };
    assert!(task.is_over);
    assert_eq!(task.past, [UpdateId::from_bytes([3; 16])]);
    assert_eq!(Record::Task(task.clone()).key(), self::task("c").key());
}
