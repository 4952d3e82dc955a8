//! Bodies of calls of the HTTP APIs, and the records of their streams.
#![expect(clippy::expect_used, reason = "a broken rule fails by panicking")]

use meseta_api::operator::Api;
use meseta_api::recordio::{Reader, record};
use meseta_api::schema::MessageType;
use meseta_api::{Format, executor, scheduler};

use crate::Check;

/// How deep a body may nest, as flags have it unless told otherwise.
const NESTING: usize = 100;

/// A body as it is read first of all, which is written and read again. Defaults are written, so that what is read again has
/// them too; it is written the same.
fn body(data: &[u8], format: Format, message: &'static MessageType) -> Option<Check> {
    let read = format.read_within(data, message, NESTING).ok()?;
    Some(Box::new(move || {
        let written = format.write(&read, message);
        let again = format.read(&written, message);
        let again = again.expect("what was written is read");
        assert_eq!(format.write(&again, message), written);
    }))
}

/// A call is read to its end, or refused in words.
fn call<T, E: std::fmt::Debug>(read: Result<T, E>) -> Option<Check> {
    read.ok().map(|_| Box::new(|| {}) as Check)
}

pub(crate) fn scheduler_in_json(data: &[u8]) -> Option<Check> {
    body(data, Format::Json, scheduler::call_type())
}

pub(crate) fn scheduler_in_protobuf(data: &[u8]) -> Option<Check> {
    body(data, Format::Protobuf, scheduler::call_type())
}

pub(crate) fn executor_in_json(data: &[u8]) -> Option<Check> {
    body(data, Format::Json, executor::call_type())
}

pub(crate) fn executor_in_protobuf(data: &[u8]) -> Option<Check> {
    body(data, Format::Protobuf, executor::call_type())
}

pub(crate) fn operator_in_json(data: &[u8]) -> Option<Check> {
    body(data, Format::Json, Api::Master.call_type())
}

pub(crate) fn operator_in_protobuf(data: &[u8]) -> Option<Check> {
    body(data, Format::Protobuf, Api::Master.call_type())
}

pub(crate) fn scheduler_call_in_json(data: &[u8]) -> Option<Check> {
    call(scheduler::read(Format::Json, data, NESTING))
}

pub(crate) fn scheduler_call_in_protobuf(data: &[u8]) -> Option<Check> {
    call(scheduler::read(Format::Protobuf, data, NESTING))
}

pub(crate) fn executor_call_in_json(data: &[u8]) -> Option<Check> {
    call(executor::read(Format::Json, data, NESTING))
}

pub(crate) fn executor_call_in_protobuf(data: &[u8]) -> Option<Check> {
    call(executor::read(Format::Protobuf, data, NESTING))
}

pub(crate) fn master_call_in_json(data: &[u8]) -> Option<Check> {
    call(Api::Master.read(Format::Json, data, NESTING))
}

pub(crate) fn agent_call_in_protobuf(data: &[u8]) -> Option<Check> {
    call(Api::Agent.read(Format::Protobuf, data, NESTING))
}

/// Records, which are the same however their bytes come.
pub(crate) fn records(data: &[u8]) -> Option<Check> {
    let in_pieces = |piece: usize| {
        let mut reader = Reader::new(data.len());
        let mut all = Vec::new();
        for piece in data.chunks(piece.max(1)) {
            all.extend(reader.feed(piece).ok()?);
        }
        Some((all, reader.is_within_a_record()))
    };
    let (all, is_cut) = in_pieces(data.len())?;
    // Bytes by themselves are slow for long ones.
    if data.len() < 4096 {
        for piece in [1, 3] {
            assert_eq!(in_pieces(piece), Some((all.clone(), is_cut)));
        }
    }
    Some(Box::new(move || {
        let written: Vec<u8> = all.iter().flat_map(|one| record(one)).collect();
        let mut reader = Reader::new(written.len());
        let again = reader.feed(&written).expect("what was written is read");
        assert_eq!((again, reader.is_within_a_record()), (all, false));
    }))
}
