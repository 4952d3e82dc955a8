//! What an agent writes down: records with a key, a version and a checksum.
//!
//! Pure. LMDB has no checksums of its own, so each record carries one over all that it says, its key too: a record that
//! stands under another's key is as damaged as one with a flipped bit. Ids of frameworks and tasks are hashed in keys,
//! which have to be short; the record itself has them in full.
//!
//! ```text
//!   key     agent
//!           framework/<hash of its id>
//!           executor/<container>
//!           task/<container>/<hash of its id>
//!           update/<hash of framework's id>/<hash of task's id>/<uuid>
//!   record  magic "mac" | version u8 | crc32 u32 | length u32 | body (MessagePack, named form)
//!           numbers little end first; the checksum covers key, version, length and body
//! ```
//!
//! A version that is not known is not damage: a later program has written here, and this one must not touch it.

use std::fmt::Write as _;

use meseta_protocol::agent::AgentInfo;
use meseta_protocol::executor::ExecutorInfo;
use meseta_protocol::framework::FrameworkInfo;
use meseta_protocol::status::StatusUpdate;
use meseta_protocol::task::TaskInfo;
use meseta_protocol::{ContainerId, ExecutorId, FrameworkId, TaskId, UpdateId};
use meseta_runtime::identity::fingerprint;
use meseta_runtime::message::read_named;
use meseta_runtime::transport::Proof;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// Version of the records written here.
pub const VERSION: u8 = 1;
/// Key of the agent's own record.
pub const AGENT: &str = "agent";

const MAGIC: &[u8; 3] = b"mac";
const HEADER: usize = 3 + 1 + 4 + 4;
/// More than any record can be.
const MAX_BODY: usize = 256 * 1024 * 1024;

/// The agent itself. Written when a master has given it an id, and after each restart.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentRecord {
    /// As it was registered, with its id.
    pub info: AgentInfo,
    /// Run of the machine in which it was written.
    pub boot_id: String,
}

/// A framework that checkpoints and has something here.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FrameworkRecord {
    /// As it describes itself, with its id.
    pub info: FrameworkInfo,
}

/// A process, told apart from later ones with the same id.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessRecord {
    /// Its id.
    pub process: u32,
    /// When it started, in clock ticks since the machine did.
    pub started: u64,
}

/// By what an executor is known again: nothing that opens anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProofRecord {
    /// SHA-256 of its certificate.
    Certificate(ByteBuf),
    /// SHA-256 of its token, and its user's number.
    Token(ByteBuf, u32),
}

impl ProofRecord {
    /// What is written down of a proof.
    pub fn of(proof: &Proof) -> Self {
        match proof {
            Proof::Certificate(hash) => Self::Certificate(ByteBuf::from(hash.to_vec())),
            Proof::Token { hash, uid } => Self::Token(ByteBuf::from(hash.to_vec()), *uid),
        }
    }

    /// The proof; none when its hash is none.
    pub fn proof(&self) -> Option<Proof> {
        Some(match self {
            Self::Certificate(hash) => Proof::Certificate(hash.as_slice().try_into().ok()?),
            Self::Token(hash, uid) => Proof::Token {
                hash: hash.as_slice().try_into().ok()?,
                uid: *uid,
            },
        })
    }
}

/// An executor. Written before its launch, and with its process after it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecutorRecord {
    /// Its framework.
    pub framework_id: FrameworkId,
    /// As it is described.
    pub info: ExecutorInfo,
    /// Whether the agent made it up for a task with a command.
    pub generated: bool,
    /// Its container.
    pub container_id: ContainerId,
    /// By what it is known.
    pub proof: Option<ProofRecord>,
    /// Its first process; none when it was written before the launch had an outcome.
    pub process: Option<ProcessRecord>,
    /// Whether what it has said of tasks that are over is written down with them; earlier versions did not.
    #[serde(skip_serializing_if = "is_false")]
    pub remembers: bool,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_false(value: &bool) -> bool {
    !value
}

/// A task of an executor that is there. Of one that is over only its ids are left, and what the executor may repeat of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskRecord {
    /// Its framework.
    pub framework_id: FrameworkId,
    /// Its executor.
    pub executor_id: ExecutorId,
    /// Container of its executor.
    pub container_id: ContainerId,
    /// The task.
    pub info: TaskInfo,
    /// The launch that brought it; of all tasks of a group the same.
    pub launch_uuid: UpdateId,
    /// How many tasks of its group come before it; none of one that was launched by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<u32>,
    /// Updates that the executor has made of an earlier task with this id; of one that is over, those of itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub past: Vec<UpdateId>,
    /// Whether it is over: its framework has acknowledged its end.
    #[serde(skip_serializing_if = "is_false")]
    pub is_over: bool,
}

impl TaskRecord {
    /// What is left of a task that is over: its ids, and what the executor may repeat of it.
    pub fn over(
        framework_id: FrameworkId,
        executor_id: ExecutorId,
        container_id: ContainerId,
        task_id: TaskId,
        past: Vec<UpdateId>,
    ) -> Self {
        Self {
            framework_id,
            executor_id,
            container_id,
            info: TaskInfo {
                task_id,
                ..TaskInfo::default()
            },
            past,
            is_over: true,
            ..Self::default()
        }
    }
}

/// An update of a task, until the acknowledgement of its last or longer ([`crate::status_updates::stream::REMEMBERED`]).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UpdateRecord {
    /// Counts on with each that is written: their order, apart from those acknowledged and those not.
    pub number: u64,
    /// The update; without data once it is acknowledged.
    pub update: StatusUpdate,
    /// Whether the framework has dealt with it.
    pub acknowledged: bool,
}

/// One record.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// The agent.
    Agent(Box<AgentRecord>),
    /// A framework.
    Framework(Box<FrameworkRecord>),
    /// An executor.
    Executor(Box<ExecutorRecord>),
    /// A task.
    Task(Box<TaskRecord>),
    /// An update.
    Update(Box<UpdateRecord>),
}

/// Why bytes are no record, or cannot become one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Not the bytes that were written.
    #[error("record {key} is damaged: {what}")]
    Damaged {
        /// Which.
        key: String,
        /// What does not fit.
        what: &'static str,
    },
    /// Written by a later version.
    #[error("record {key} has version {version}, and this program knows up to {VERSION}")]
    Later {
        /// Which.
        key: String,
        /// Its version.
        version: u8,
    },
    /// The record cannot be written.
    #[error("record {key} cannot be written: it has {size} bytes, or no serialised form")]
    TooLarge {
        /// Which.
        key: String,
        /// Bytes of its body.
        size: usize,
    },
}

/// Key of a framework's record.
pub fn framework_key(framework: &FrameworkId) -> String {
    format!("framework/{}", hash(framework.as_str()))
}

/// Key of an executor's record.
pub fn executor_key(container: &str) -> String {
    format!("executor/{container}")
}

/// What keys of a container's tasks begin with.
pub fn tasks_of(container: &str) -> String {
    format!("task/{container}/")
}

/// Key of a task's record.
pub fn task_key(container: &str, task: &TaskId) -> String {
    format!("task/{container}/{}", hash(task.as_str()))
}

/// What keys of a task's updates begin with.
pub fn updates_of(framework: &FrameworkId, task: &TaskId) -> String {
    format!(
        "update/{}/{}/",
        hash(framework.as_str()),
        hash(task.as_str())
    )
}

/// What keys of a framework's updates begin with.
pub fn updates_of_framework(framework: &FrameworkId) -> String {
    format!("update/{}/", hash(framework.as_str()))
}

/// Key of an update's record.
pub fn update_key(framework: &FrameworkId, task: &TaskId, uuid: &UpdateId) -> String {
    format!("{}{uuid}", updates_of(framework, task))
}

/// 128 bits of a hash that nobody can aim, as hexadecimal digits.
fn hash(text: &str) -> String {
    let mut digits = String::with_capacity(32);
    for byte in fingerprint(text.as_bytes()).iter().take(16) {
        // Writing to a string does not fail.
        let _written = write!(digits, "{byte:02x}");
    }
    digits
}

impl Record {
    /// Its key.
    pub fn key(&self) -> String {
        match self {
            Self::Agent(_) => AGENT.to_owned(),
            Self::Framework(one) => framework_key(&one.info.id.clone().unwrap_or_default()),
            Self::Executor(one) => executor_key(&one.container_id.value),
            Self::Task(one) => task_key(&one.container_id.value, &one.info.task_id),
            Self::Update(one) => update_key(
                &one.update.framework_id,
                &one.update.status.task_id,
                &one.update.uuid.unwrap_or_default(),
            ),
        }
    }

    /// Key and bytes.
    ///
    /// # Errors
    /// [`RecordError::TooLarge`].
    pub fn write(&self) -> Result<(String, Vec<u8>), RecordError> {
        let key = self.key();
        let bytes = match self {
            Self::Agent(one) => body_of(&key, one),
            Self::Framework(one) => body_of(&key, one),
            Self::Executor(one) => body_of(&key, one),
            Self::Task(one) => body_of(&key, one),
            Self::Update(one) => body_of(&key, one),
        }?;
        let bytes = seal(&key, &bytes)?;
        Ok((key, bytes))
    }

    /// Reads what stands under a key.
    ///
    /// # Errors
    /// [`RecordError::Damaged`] or [`RecordError::Later`].
    pub fn read(key: &str, bytes: &[u8]) -> Result<Self, RecordError> {
        let kind = key.split('/').next().unwrap_or_default();
        let record = match kind {
            AGENT => Self::Agent(open(key, bytes)?),
            "framework" => Self::Framework(open(key, bytes)?),
            "executor" => Self::Executor(open(key, bytes)?),
            "task" => Self::Task(open(key, bytes)?),
            "update" => Self::Update(open(key, bytes)?),
            _ => return Err(damaged(key, "its key is none of a record")),
        };
        if record.key() != key {
            return Err(damaged(key, "it tells of something else"));
        }
        Ok(record)
    }
}

fn damaged(key: &str, what: &'static str) -> RecordError {
    RecordError::Damaged {
        key: key.to_owned(),
        what,
    }
}

fn too_large(key: &str, size: usize) -> RecordError {
    RecordError::TooLarge {
        key: key.to_owned(),
        size,
    }
}

fn body_of(key: &str, content: &impl Serialize) -> Result<Vec<u8>, RecordError> {
    rmp_serde::to_vec_named(content).map_err(|_| too_large(key, 0))
}

/// The bytes of a record with this body: its header and the body.
///
/// # Errors
/// [`RecordError::TooLarge`].
pub fn seal(key: &str, body: &[u8]) -> Result<Vec<u8>, RecordError> {
    let length = u32::try_from(body.len())
        .ok()
        .filter(|_| body.len() <= MAX_BODY)
        .ok_or_else(|| too_large(key, body.len()))?;
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.extend_from_slice(MAGIC);
    bytes.push(VERSION);
    bytes.extend_from_slice(&checksum(key, VERSION, length, body).to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(body);
    Ok(bytes)
}

fn open<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, RecordError> {
    let (header, body) = bytes
        .split_first_chunk::<HEADER>()
        .ok_or_else(|| damaged(key, "it is shorter than its header"))?;
    let [m, a, c, version, c0, c1, c2, c3, l0, l1, l2, l3] = *header;
    if [m, a, c] != *MAGIC {
        return Err(damaged(key, "it does not begin as records do"));
    }
    let length = u32::from_le_bytes([l0, l1, l2, l3]);
    if usize::try_from(length) != Ok(body.len()) {
        return Err(damaged(key, "its length is not the one it names"));
    }
    // The checksum before the version: a flipped bit in the version is damage.
    if checksum(key, version, length, body) != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Err(damaged(key, "its checksum does not fit"));
    }
    if version > VERSION {
        return Err(RecordError::Later {
            key: key.to_owned(),
            version,
        });
    }
    read_named(body).map_err(|_| damaged(key, "its content cannot be read"))
}

fn checksum(key: &str, version: u8, length: u32, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key.as_bytes());
    hasher.update(&[version]);
    hasher.update(&length.to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn task() -> Record {
        Record::Task(Box::new(TaskRecord {
            framework_id: "f".into(),
            executor_id: "e".into(),
            container_id: ContainerId::top("c"),
            info: TaskInfo::new("t", "a", "cpus:1".parse().unwrap(), "true"),
            launch_uuid: UpdateId::from_bytes([1; 16]),
            ..TaskRecord::default()
        }))
    }

    fn over() -> Record {
        let mut record = task();
        if let Record::Task(task) = &mut record {
            task.info = TaskInfo {
                task_id: "over".into(),
                ..TaskInfo::default()
            };
            task.past = vec![UpdateId::from_bytes([2; 16])];
            task.is_over = true;
        }
        record
    }

    fn all() -> Vec<Record> {
        vec![
            Record::Agent(Box::new(AgentRecord {
                boot_id: "b".into(),
                ..AgentRecord::default()
            })),
            Record::Framework(Box::default()),
            Record::Executor(Box::new(ExecutorRecord {
                container_id: ContainerId::top("c"),
                proof: Some(ProofRecord::Token(ByteBuf::from([7; 32].to_vec()), 5)),
                process: Some(ProcessRecord {
                    process: 9,
                    started: 100,
                }),
                ..ExecutorRecord::default()
            })),
            task(),
            over(),
            Record::Update(Box::new(UpdateRecord {
                number: 3,
                ..UpdateRecord::default()
            })),
        ]
    }

    #[test]
    fn every_record_is_read_as_it_was_written_and_under_its_key_only() {
        for record in all() {
            let (key, bytes) = record.write().unwrap();
            assert!(key.len() < 400, "LMDB takes keys of up to 511 bytes: {key}");
            assert_eq!(Record::read(&key, &bytes), Ok(record));
            let other = format!("{key}x");
            assert!(matches!(
                Record::read(&other, &bytes),
                Err(RecordError::Damaged { .. })
            ));
        }
    }

    #[test]
    fn a_proof_is_the_same_afterwards() {
        for proof in [
            Proof::Certificate([3; 32]),
            Proof::Token {
                hash: [4; 32],
                uid: 1000,
            },
        ] {
            assert_eq!(ProofRecord::of(&proof).proof(), Some(proof));
        }
        let short = ProofRecord::Certificate(ByteBuf::from(vec![1]));
        assert_eq!(short.proof(), None);
    }

    #[test]
    fn a_later_version_is_not_taken_for_damage() {
        let (key, mut bytes) = task().write().unwrap();
        let body = bytes[HEADER..].to_vec();
        bytes[3] = VERSION + 1;
        assert!(matches!(
            Record::read(&key, &bytes),
            Err(RecordError::Damaged { .. })
        ));
        let length = u32::try_from(body.len()).unwrap();
        let sum = checksum(&key, VERSION + 1, length, &body);
        bytes[4..8].copy_from_slice(&sum.to_le_bytes());
        let later = RecordError::Later {
            key: key.clone(),
            version: VERSION + 1,
        };
        assert_eq!(Record::read(&key, &bytes), Err(later));
    }

    proptest! {
        #[test]
        fn no_flipped_bit_and_no_cut_goes_unnoticed(at in any::<prop::sample::Index>(), bit in 0..8_u8) {
            let (key, bytes) = task().write().unwrap();
            let at = at.index(bytes.len());
            let mut flipped = bytes.clone();
            flipped[at] ^= 1_u8 << bit;
            prop_assert!(Record::read(&key, &flipped).is_err());
            prop_assert!(Record::read(&key, &bytes[..at]).is_err());
        }
    }
}
