//! Fuzz targets: every decoder of bytes that come from outside or from a disk, and the rules it must keep whatever it is
//! given. docs/fuzzing.md says which decoder has which target.
//!
//! 1. It does not panic.
//! 2. At any time it holds at most [`Target::factor`] times the input and [`ALLOWANCE`] bytes of memory. So no announced
//!    length is believed.
//! 3. What it has read, written and read again is the same.
//!
//! The targets are plain functions. `tests/targets.rs` runs each over its corpus (`corpus/<name>/`) and over random
//! mutations of it, with an allocator that counts, on an ordinary toolchain. `scripts/fuzz` runs one for as long as one
//! likes under libFuzzer, which finds what random mutations do not.

mod api;
mod checkpoint;
mod messages;
mod stored;
mod text;
mod wire;

pub use messages::MESSAGES;

/// What a decoder may hold besides a multiple of its input, in bytes.
pub const ALLOWANCE: usize = 64 << 10;

/// Looks at what was decoded: is it the same when it is written and read again?
pub type Check = Box<dyn FnOnce()>;

/// Decodes; `None` when the bytes are refused.
pub type Decode = fn(&[u8]) -> Option<Check>;

/// One family of decoders that share a corpus.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, which is that of its corpus and its libFuzzer program.
    pub name: &'static str,
    /// The decoders. Each is given every input.
    pub decoders: &'static [Decode],
    /// How many times the input a decoder may hold in memory, besides [`ALLOWANCE`].
    pub factor: usize,
}

/// Of decoders that keep the text or bytes they are given.
const PLAIN: usize = 8;
/// Of records, which have fields that are not on the wire or in the text: for message bodies the budget of
/// [`meseta_runtime::codec::frugal`], and what growing lists hold in vain.
const RECORDS: usize = 80;

/// All targets.
pub const TARGETS: &[Target] = &[
    plain("frames", &[wire::frames]),
    plain("lane", &[wire::lane]),
    plain(
        "hello",
        &[wire::hello, wire::guest_hello, wire::host_answer],
    ),
    plain("control", &[wire::control]),
    plain("exit_reason", &[wire::exit_reason]),
    plain("pid", &[text::pid, text::address]),
    records("scheduler_messages", messages::SCHEDULER),
    records("agent_messages", messages::AGENT),
    records("executor_messages", messages::EXECUTOR),
    records("master_messages", messages::MASTER),
    records("logging_messages", messages::LOGGING),
    records(
        "launch_plan",
        &[messages::launch_plan, messages::credential],
    ),
    plain("http_target", &[wire::http_target]),
    plain("http_requests", &[wire::http_requests]),
    records(
        "api_json",
        &[
            api::scheduler_in_json,
            api::executor_in_json,
            api::operator_in_json,
            api::scheduler_call_in_json,
            api::executor_call_in_json,
            api::master_call_in_json,
        ],
    ),
    records(
        "api_protobuf",
        &[
            api::scheduler_in_protobuf,
            api::executor_in_protobuf,
            api::operator_in_protobuf,
            api::scheduler_call_in_protobuf,
            api::executor_call_in_protobuf,
            api::agent_call_in_protobuf,
        ],
    ),
    plain("api_records", &[api::records]),
    records("http_authorization", &[wire::http_authorization]),
    plain("certificate", &[wire::certificate]),
    plain("log_directives", &[text::log_directives]),
    records("resources", &[text::resources, text::quantities]),
    plain("attributes", &[text::attributes]),
    plain(
        "ids",
        &[text::ids, text::roles, text::containers, text::updates],
    ),
    records(
        "log_records",
        &[stored::metadata, stored::action, stored::applied],
    ),
    records("log_batches", &[stored::batch]),
    plain("log_journal", &[stored::journal, stored::sealed_journal]),
    records("log_table", &[stored::table]),
    records("registry", &[stored::entry, stored::snapshot, stored::diff]),
    records(
        "checkpoint",
        &[
            checkpoint::agent,
            checkpoint::framework,
            checkpoint::executor,
            checkpoint::task,
            checkpoint::update,
        ],
    ),
];

const fn plain(name: &'static str, decoders: &'static [Decode]) -> Target {
    Target {
        name,
        decoders,
        factor: PLAIN,
    }
}

const fn records(name: &'static str, decoders: &'static [Decode]) -> Target {
    Target {
        name,
        decoders,
        factor: RECORDS,
    }
}

/// Gives an input to all decoders of a target, as libFuzzer does.
///
/// # Panics
/// When one breaks a rule, or there is no such target.
#[expect(clippy::expect_used, reason = "a fuzz target fails by panicking")]
pub fn run(target: &str, data: &[u8]) {
    let mut targets = TARGETS.iter();
    let target = targets
        .find(|known| known.name == target)
        .expect("a target of this name");
    for decode in target.decoders {
        if let Some(check) = decode(data) {
            check();
        }
    }
}
