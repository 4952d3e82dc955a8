//! The checkpoint on a real disk: what is committed is found again, and a damaged directory never leads to a wrong
//! adoption. The cases are made from the directory of one agent: each file cut, flipped, zeroed, taken away, put back in
//! an older form, or another agent's. `MESETA_CORRUPT_CASES` says how many, 1,000 unless set.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

use std::fs;
use std::path::Path;
use std::sync::mpsc::channel;

use meseta_agent::checkpoint::records::{
    AgentRecord, ExecutorRecord, FrameworkRecord, ProcessRecord, ProofRecord, Record, TaskRecord,
    UpdateRecord, executor_key, tasks_of,
};
use meseta_agent::checkpoint::{Change, Latest, Loaded, Room, Store, look};
use meseta_agent::recovery::{Here, Leeway, Plan, Policy, Recovered, plan};
use meseta_protocol::agent::AgentInfo;
use meseta_protocol::executor::ExecutorInfo;
use meseta_protocol::framework::FrameworkInfo;
use meseta_protocol::status::{StatusUpdate, TaskState, TaskStatus};
use meseta_protocol::task::TaskInfo;
use meseta_protocol::{ContainerId, UpdateId};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const FILE: &str = "meta/agent.mdb";

fn commit(store: &Store, changes: Vec<Change>) -> Room {
    let (tell, told) = channel();
    store.commit(changes, move |outcome| tell.send(outcome).unwrap());
    told.recv().unwrap().unwrap()
}

fn info() -> AgentInfo {
    AgentInfo::new("host", "cpus:4".parse().unwrap())
}

fn agent(id: &str) -> Vec<Change> {
    let mut info = info();
    info.id = Some(id.into());
    let record = AgentRecord {
        info,
        boot_id: "boot".into(),
    };
    vec![
        Change::put(&Record::Agent(Box::new(record))).unwrap(),
        Change::Name(Some(id.into())),
    ]
}

/// An executor with a task and an update, of an agent's prefix so that agents differ.
fn work(prefix: &str, number: u8) -> Vec<Change> {
    let framework = format!("{prefix}-f{}", number % 3);
    let container = format!("{prefix}-c{number}");
    let task = format!("{prefix}-t{number}");
    let mut info = FrameworkInfo::new("u", "f");
    info.id = Some(framework.as_str().into());
    let uuid = Some(UpdateId::from_bytes([number; 16]));
    let mut status = TaskStatus::new(task.as_str(), TaskState::Running);
    status.uuid = uuid;
    status.data = Some(vec![number; usize::from(number) * 100].into());
    let records = [
        Record::Framework(Box::new(FrameworkRecord { info })),
        Record::Executor(Box::new(ExecutorRecord {
            framework_id: framework.as_str().into(),
            info: ExecutorInfo {
                executor_id: task.as_str().into(),
                ..ExecutorInfo::default()
            },
            generated: true,
            container_id: ContainerId::top(&*container),
            proof: Some(ProofRecord::Token(vec![number; 32].into(), 0)),
            process: Some(ProcessRecord {
                process: 1000 + u32::from(number),
                started: 5,
            }),
            ..ExecutorRecord::default()
        })),
        Record::Task(Box::new(TaskRecord {
            framework_id: framework.as_str().into(),
            executor_id: task.as_str().into(),
            container_id: ContainerId::top(&*container),
            info: TaskInfo::new(task.as_str(), "S0", "cpus:1".parse().unwrap(), "true"),
            launch_uuid: UpdateId::from_bytes([number; 16]),
            ..TaskRecord::default()
        })),
        Record::Update(Box::new(UpdateRecord {
            number: number.into(),
            update: StatusUpdate {
                framework_id: framework.as_str().into(),
                uuid,
                status,
                ..StatusUpdate::default()
            },
            acknowledged: false,
        })),
    ];
    records
        .iter()
        .map(|record| Change::put(record).unwrap())
        .collect()
}

fn decide(loaded: Loaded, strict: bool) -> Plan {
    let here = Here {
        info: &info(),
        boot_id: "boot",
        strict,
        policy: Policy::Equal,
        leeway: &Leeway::new(),
        work_dir: "/w",
    };
    plan(loaded, &here)
}

fn go(loaded: Loaded) -> Recovered {
    match decide(loaded, false) {
        Plan::Go(recovered) => *recovered,
        Plan::Stop(why) => panic!("{why}"),
    }
}

/// An agent's directory with work, and its file as it was in between.
fn filled(id: &str, prefix: &str) -> (tempfile::TempDir, Vec<u8>) {
    let directory = tempfile::tempdir().unwrap();
    let (store, found) = Store::open(directory.path()).unwrap();
    assert_eq!(found.records, []);
    commit(&store, agent(id));
    let mut older = Vec::new();
    for number in 0..12 {
        if number == 6 {
            older = fs::read(directory.path().join(FILE)).unwrap();
        }
        commit(&store, work(prefix, number));
    }
    for number in [2, 3] {
        let container = format!("{prefix}-c{number}");
        let gone = vec![
            Change::Delete(executor_key(&container)),
            Change::DeleteBelow(tasks_of(&container)),
        ];
        commit(&store, gone);
    }
    drop(store);
    (directory, older)
}

/// A file without the room behind its last page.
fn trimmed(mut bytes: Vec<u8>) -> Vec<u8> {
    let here = tempfile::tempdir().unwrap();
    fs::create_dir_all(here.path().join("meta")).unwrap();
    let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    let mut length = (last / 4096 + 1) * 4096;
    loop {
        fs::write(here.path().join(FILE), &bytes[..length]).unwrap();
        if look(here.path()).unwrap().faults.is_empty() {
            bytes.truncate(length);
            return bytes;
        }
        length += 4096;
    }
}

#[test]
fn what_is_committed_is_found_again_in_its_order() {
    let (directory, _) = filled("S0", "a");
    let found = look(directory.path()).unwrap();
    assert_eq!(
        (found.faults.len(), &found.latest),
        (0, &Latest::Is("S0".into()))
    );
    let recovered = go(found);
    assert_eq!(
        (recovered.executors.len(), recovered.streams.len()),
        (10, 12)
    );
    assert!(recovered.executors.iter().all(|one| one.tasks.len() == 1));
    let link = directory.path().join("meta/slaves/latest");
    assert_eq!(fs::read_link(&link).unwrap(), Path::new("S0"));
    fs::remove_file(&link).unwrap();
    let recovered = go(look(directory.path()).unwrap());
    assert!(recovered.info.is_none() && recovered.executors.is_empty());
    // The plan says what to forget, and then nothing is left.
    let (store, _) = Store::open(directory.path()).unwrap();
    assert_eq!(commit(&store, recovered.forget), Room::Enough);
    drop(store);
    let found = look(directory.path()).unwrap();
    assert_eq!((found.records.len(), found.latest), (0, Latest::Never));
}

#[test]
fn a_directory_of_a_later_version_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(directory.path()).unwrap();
    let Change::Put(key, mut bytes) = agent("S0").remove(0) else {
        panic!("a record");
    };
    bytes[3] = 2;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key.as_bytes());
    hasher.update(&[2]);
    hasher.update(&bytes[8..]);
    bytes[4..8].copy_from_slice(&hasher.finalize().to_le_bytes());
    commit(&store, vec![Change::Put(key, bytes)]);
    drop(store);
    let error = Store::open(directory.path()).unwrap_err().to_string();
    assert!(error.contains("later version"), "{error}");
}

#[derive(Debug)]
enum Damage {
    Cut(usize),
    Flip(usize),
    Zero(usize, usize),
    Missing,
    Older,
    OfAnother,
    LinkMissing,
    LinkToAnother,
    LinkIsAFile,
    Extra,
}

impl Damage {
    fn draw(random: &mut StdRng, length: usize) -> Self {
        match random.random_range(0..20) {
            0..4 => Self::Cut(random.random_range(0..length)),
            4..11 => Self::Flip(random.random_range(0..length * 8)),
            11..14 => {
                let from = random.random_range(0..length);
                Self::Zero(from, random.random_range(1..=8192))
            }
            14 => Self::Missing,
            15 => Self::Older,
            16 => Self::OfAnother,
            17 => Self::LinkMissing,
            18 => [Self::LinkToAnother, Self::LinkIsAFile]
                .into_iter()
                .nth(random.random_range(0..2))
                .unwrap(),
            _ => Self::Extra,
        }
    }

    fn apply(&self, meta: &Path, whole: &[u8], older: &[u8], another: &[u8]) {
        let (file, link) = (meta.join("agent.mdb"), meta.join("slaves/latest"));
        let mut bytes = whole.to_vec();
        match self {
            Self::Cut(at) => bytes.truncate(*at),
            Self::Flip(at) => bytes[at / 8] ^= 1 << (at % 8),
            Self::Zero(from, length) => {
                let to = (from + length).min(bytes.len());
                bytes[*from..to].fill(0);
            }
            Self::Older => bytes = older.to_vec(),
            Self::OfAnother => bytes = another.to_vec(),
            Self::Extra => fs::write(meta.join("extra"), "?").unwrap(),
            Self::Missing | Self::LinkMissing | Self::LinkToAnother | Self::LinkIsAFile => {}
        }
        fs::write(&file, bytes).unwrap();
        match self {
            Self::Missing => fs::remove_file(&file).unwrap(),
            Self::LinkMissing => fs::remove_file(&link).unwrap(),
            Self::LinkToAnother => {
                fs::remove_file(&link).unwrap();
                std::os::unix::fs::symlink("S7", &link).unwrap();
            }
            Self::LinkIsAFile => {
                fs::remove_file(&link).unwrap();
                fs::write(&link, "S0").unwrap();
            }
            Self::Cut(_)
            | Self::Flip(_)
            | Self::Zero(..)
            | Self::Older
            | Self::OfAnother
            | Self::Extra => {}
        }
    }
}

#[test]
fn no_damage_leads_to_a_wrong_adoption() {
    let cases: u64 =
        std::env::var("MESETA_CORRUPT_CASES").map_or(1_000, |text| text.parse().unwrap());
    let (directory, older) = filled("S0", "a");
    let (other, _) = filled("S1", "b");
    let whole = trimmed(fs::read(directory.path().join(FILE)).unwrap());
    let another = trimmed(fs::read(other.path().join(FILE)).unwrap());
    let older = trimmed(older);
    let sound = go(look(directory.path()).unwrap());
    let length = whole.len();
    let (mut stopped, mut kept) = (0, 0);
    for case in 0..cases {
        let random = &mut StdRng::seed_from_u64(case);
        let damage = Damage::draw(random, length);
        let here = tempfile::tempdir().unwrap();
        let meta = here.path().join("meta");
        fs::create_dir_all(meta.join("slaves/S0")).unwrap();
        std::os::unix::fs::symlink("S0", meta.join("slaves/latest")).unwrap();
        damage.apply(&meta, &whole, &older, &another);
        let found = look(here.path()).unwrap();
        let case = format!("case {case}, {damage:?}");
        match decide(found.clone(), true) {
            Plan::Stop(why) => {
                stopped += 1;
                let remedies = ["agent.mdb", "--strict=false", "/w/meta/slaves/latest"];
                assert!(
                    remedies.iter().all(|text| why.contains(text)),
                    "{case}: {why}"
                );
            }
            // It is as if nothing had happened, or the agent was told to begin anew, or an older file is sound.
            Plan::Go(recovered) => assert!(
                *recovered == sound
                    || recovered.info.is_none()
                    || matches!(damage, Damage::Older | Damage::Flip(_) | Damage::Zero(..)),
                "{case}"
            ),
        }
        let recovered = go(found);
        kept += recovered.executors.len();
        for executor in &recovered.executors {
            let is_one_of_ours = sound.executors.contains(executor)
                || matches!(
                    damage,
                    Damage::Older | Damage::Flip(_) | Damage::Zero(..) | Damage::Cut(_)
                );
            assert!(is_one_of_ours, "{case}: {executor:?}");
            assert!(
                executor.record.container_id.value.starts_with("a-"),
                "{case}"
            );
        }
        // Whoever goes on with it can write again, and finds what it has written.
        if stopped % 10 == 0 {
            let (store, _) = Store::open(here.path()).unwrap();
            commit(&store, recovered.forget);
            commit(&store, agent("S0"));
            drop(store);
            let again = look(here.path()).unwrap();
            assert_eq!(again.faults, [], "{case}");
            assert_eq!(
                go(again).executors.len(),
                recovered.executors.len(),
                "{case}"
            );
        }
    }
    assert!(
        cases < 1_000 || stopped > 100 && kept > 1_000,
        "{stopped} {kept}"
    );
}

/// Records as version 1 wrote them, a line each: key, and bytes as hexadecimal digits. `MESETA_RECORD_FIXTURES=1` writes
/// the file; what is in it stays readable for good.
#[test]
fn records_of_version_1_are_read_as_they_were_written() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoint-1.txt");
    let mut expected = agent("S0");
    expected.extend(work("a", 1));
    let expected: Vec<(String, Vec<u8>)> = expected
        .into_iter()
        .filter_map(|change| match change {
            Change::Put(key, bytes) => Some((key, bytes)),
            Change::Delete(_) | Change::DeleteBelow(_) | Change::Name(_) => None,
        })
        .collect();
    if std::env::var("MESETA_RECORD_FIXTURES").is_ok() {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let lines = expected
            .iter()
            .map(|(key, bytes)| format!("{key} {}\n", hex(bytes)));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, lines.collect::<String>()).unwrap();
    }
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), expected.len());
    for (line, (key, bytes)) in text.lines().zip(&expected) {
        let (written, digits) = line.split_once(' ').unwrap();
        let old: Vec<u8> = (0..digits.len() / 2)
            .map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap())
            .collect();
        assert_eq!(written, key);
        assert_eq!(
            Record::read(written, &old).unwrap(),
            Record::read(key, bytes).unwrap()
        );
    }
}
