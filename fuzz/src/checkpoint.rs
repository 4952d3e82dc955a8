//! What agents keep: the bodies of their records, each sealed under the key that it names, so that the checksum does not
//! keep mutations away from what lies below it.
#![expect(clippy::expect_used, reason = "a broken rule fails by panicking")]

use meseta_agent::checkpoint::records::{Record, seal};
use meseta_runtime::codec::decode_body;
use serde::de::DeserializeOwned;

use crate::Check;
use crate::messages::affordable;

/// Bytes of a record before its body.
const HEADER: usize = 12;

pub(crate) fn agent(data: &[u8]) -> Option<Check> {
    record(data, Record::Agent)
}

pub(crate) fn framework(data: &[u8]) -> Option<Check> {
    record(data, Record::Framework)
}

pub(crate) fn executor(data: &[u8]) -> Option<Check> {
    record(data, Record::Executor)
}

pub(crate) fn task(data: &[u8]) -> Option<Check> {
    record(data, Record::Task)
}

pub(crate) fn update(data: &[u8]) -> Option<Check> {
    record(data, Record::Update)
}

fn record<T: DeserializeOwned + 'static>(data: &[u8], of: fn(Box<T>) -> Record) -> Option<Check> {
    let key = of(Box::new(decode_body(data).ok()?)).key();
    let bytes = seal(&key, data).ok()?;
    let read = Record::read(&key, &bytes).ok()?;
    Some(Box::new(move || {
        let write = |record: &Record| record.write().expect("a record that was read is written");
        let (key, once) = write(&read);
        if let Some(again) = affordable(decode_body::<T>(&once[HEADER..])) {
            let again = of(Box::new(again));
            assert_eq!(write(&again), (key.clone(), once.clone()));
            assert!(Record::read(&key, &once).is_ok(), "{key}");
        }
    }))
}
