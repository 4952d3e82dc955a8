//! Every fuzz target keeps its rules on its corpus and on random mutations of it.
//!
//! The seed of the mutations is `MESETA_FUZZ_SEED`, else a fixed one; a failure prints it with the input. A new seed
//! of a corpus gets its file with `MESETA_RECORD_CORPUS=1 cargo test -p meseta-fuzz`, which never overwrites one: an
//! input that once broke a decoder stays.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests: a failure here is the test's failure"
)]

mod counting;
mod mutate;
mod seeds;
mod stored;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use meseta_fuzz::{ALLOWANCE, MESSAGES, TARGETS, Target};
use meseta_master::{election, log, operators};
use meseta_protocol::messages::NAMES;
use meseta_runtime::Message as _;
use meseta_runtime::codec::MAX_DEPTH;
use meseta_runtime::logging::{LogFilter, ResetLogFilter, SetLogFilter};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

/// Mutations of each target in an ordinary run.
const MUTATIONS: u32 = 3_000;

fn folder(target: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.join("corpus").join(target)
}

fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let files = std::fs::read_dir(folder(target)).unwrap_or_else(|error| {
        panic!("corpus of {target}: {error}: record it with MESETA_RECORD_CORPUS=1")
    });
    let mut inputs: Vec<(String, Vec<u8>)> = files
        .map(|file| {
            let file = file.unwrap();
            let name = file.file_name().into_string().unwrap();
            (name, std::fs::read(file.path()).unwrap())
        })
        .collect();
    inputs.sort();
    inputs
}

/// Gives one input to all decoders of a target and holds them to the rules; how many took it.
fn hold(target: &Target, input: &[u8]) -> Result<usize, String> {
    // What is made once for the program is held by nobody's input.
    let _schema = meseta_api::schema::schema();
    let mut taken = 0;
    for (number, decode) in target.decoders.iter().enumerate() {
        let held = catch_unwind(AssertUnwindSafe(|| {
            let (check, peak) = counting::peak(|| decode(input));
            let limit = target.factor * input.len() + ALLOWANCE;
            assert!(
                peak <= limit,
                "{peak} bytes for an input of {}, {limit} are allowed",
                input.len()
            );
            check.map(|check| check())
        }));
        match held {
            Ok(decoded) => taken += usize::from(decoded.is_some()),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
                let mut hex = String::new();
                for byte in input {
                    write!(hex, "{byte:02x}").unwrap();
                }
                let name = target.name;
                let text = text.unwrap_or("a panic without a text");
                return Err(format!("decoder {number} of {name}: {text}\ninput: {hex}"));
            }
        }
    }
    Ok(taken)
}

fn target(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).unwrap()
}

#[test]
fn every_target_has_a_corpus_that_holds_its_seeds() {
    let record = std::env::var_os("MESETA_RECORD_CORPUS").is_some();
    for target in TARGETS {
        let folder = folder(target.name);
        for (name, bytes) in seeds::of(target.name) {
            let path = folder.join(&name);
            if record && !path.exists() {
                std::fs::create_dir_all(&folder).unwrap();
                std::fs::write(&path, bytes).unwrap();
            }
            assert!(
                path.exists(),
                "{}: record it with MESETA_RECORD_CORPUS=1",
                path.display()
            );
        }
        assert!(!corpus(target.name).is_empty(), "{}", target.name);
    }
}

#[test]
fn every_corpus_keeps_the_rules() {
    for target in TARGETS {
        let mut taken = 0;
        for (name, input) in corpus(target.name) {
            let held = hold(target, &input);
            taken += held.unwrap_or_else(|broken| panic!("{}/{name}: {broken}", target.name));
        }
        assert!(taken > 0, "{}: all of its corpus is refused", target.name);
    }
}

#[test]
fn random_mutations_keep_the_rules() {
    let seed = std::env::var("MESETA_FUZZ_SEED").map_or(1, |seed| seed.parse().unwrap());
    for (number, target) in (0_u64..).zip(TARGETS) {
        let mut random = StdRng::seed_from_u64(seed ^ number << 32);
        let corpus = corpus(target.name);
        let mut last: Vec<u8> = Vec::new();
        for round in 0..MUTATIONS {
            let input = &corpus.choose(&mut random).unwrap().1;
            let other = &corpus.choose(&mut random).unwrap().1;
            // Now and then a mutation of a mutation.
            let input = if random.random_bool(0.2) {
                &last
            } else {
                input
            };
            let mutated = mutate::mutate(input, other, &mut random);
            if let Err(broken) = hold(target, &mutated) {
                panic!("MESETA_FUZZ_SEED={seed}, round {round}: {broken}");
            }
            last = if mutated.len() < 20_000 {
                mutated
            } else {
                Vec::new()
            };
        }
    }
}

#[test]
fn every_message_of_the_protocol_has_a_target() {
    let covered = MESSAGES.iter().flat_map(|(_, names)| names.iter().copied());
    let covered: BTreeSet<&str> = covered.collect();
    let logging = [SetLogFilter::NAME, ResetLogFilter::NAME, LogFilter::NAME];
    let catalogues = [
        NAMES,
        log::messages::NAMES,
        election::messages::NAMES,
        operators::NAMES,
    ];
    let all = catalogues.into_iter().flatten().chain(&logging);
    assert_eq!(covered, all.copied().collect());
    for (name, names) in MESSAGES {
        assert_eq!(target(name).decoders.len(), names.len());
        for message in *names {
            let input = std::fs::read(folder(name).join(message)).unwrap();
            assert!(hold(target(name), &input).unwrap() > 0, "{message}");
        }
    }
}

#[test]
fn every_target_has_its_libfuzzer_program() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).unwrap();
    for target in TARGETS {
        let path = format!("fuzz_targets/{}.rs", target.name);
        let program = std::fs::read_to_string(root.join(&path)).unwrap();
        assert!(
            program.contains(&format!("run(\"{}\"", target.name)),
            "{path}"
        );
        assert!(manifest.contains(&format!("path = \"{path}\"")), "{path}");
    }
    let programs = std::fs::read_dir(root.join("fuzz_targets"))
        .unwrap()
        .count();
    assert_eq!(programs, TARGETS.len());
}

#[test]
fn bodies_nested_up_to_the_limit_are_read_and_deeper_ones_refused() {
    // Fields that nobody knows may nest too. A record with one more field than it has:
    let nested = |record: &[u8], depth: usize| {
        let (first, rest) = record.split_first()?;
        let is_short = (0x80..0x8f).contains(first);
        let field = [b"\xa1x", &vec![0x91; depth][..], b"\xc0"].concat();
        is_short.then(|| [&[first + 1][..], &field, rest].concat())
    };
    let bodies = [
        "hello",
        "launch_plan",
        "log_records",
        "registry",
        "checkpoint",
    ];
    let messages = MESSAGES.iter().map(|(name, _)| *name);
    for name in messages.chain(bodies) {
        let mut tried = 0;
        for (seed, record) in corpus(name) {
            let takes = |input: &[u8]| hold(target(name), input).unwrap();
            let Some(deeper) = nested(&record, MAX_DEPTH + 1) else {
                continue;
            };
            assert_eq!(takes(&deeper), 0, "{name}/{seed}");
            if takes(&record) > 0 {
                let within = nested(&record, MAX_DEPTH / 2).unwrap();
                assert!(takes(&within) > 0, "{name}/{seed}");
                tried += 1;
            }
        }
        assert!(tried > 0, "{name}");
    }
}

#[test]
fn every_target_is_in_the_table_of_decoders() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let table = std::fs::read_to_string(root.join("../docs/fuzzing.md")).unwrap();
    let (_, table) = table.split_once("| target |").unwrap();
    let named = |line: &str| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned());
    let named: BTreeSet<String> = table.lines().filter_map(named).collect();
    let all = TARGETS.iter().map(|target| target.name.to_owned());
    assert_eq!(named, all.collect());
}

#[test]
fn the_allocator_sees_what_a_decoder_holds() {
    let (kept, peak) = counting::peak(|| vec![0_u8; 100_000]);
    assert!((100_000..101_000).contains(&peak));
    let (_, peak) = counting::peak(|| drop(kept));
    assert_eq!(peak, 0);
}
