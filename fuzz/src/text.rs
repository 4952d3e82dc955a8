//! Texts that people and programs write: PIDs, resources, attributes, ids, log directives.
#![expect(clippy::expect_used, reason = "a broken rule fails by panicking")]

use std::fmt::{Debug, Display};
use std::str::{FromStr, from_utf8};

use meseta_protocol::attributes::parse_attributes;
use meseta_protocol::ids::{validate_id, validate_role};
use meseta_protocol::resources::{ResourceQuantities, Resources};
use meseta_protocol::{ContainerId, Role, TaskId, UpdateId};
use meseta_runtime::codec::{decode_body, encode_body};
use meseta_runtime::logging::directives;
use meseta_runtime::{Address, Pid};

use crate::Check;

/// How nothing is printed where a list is empty, as people know it; nothing reads it.
const NOTHING: &str = "{}";

/// A text that is read, printed and read again.
fn text<T: FromStr + Display + PartialEq + Debug + 'static>(data: &[u8]) -> Option<Check>
where
    T::Err: Debug,
{
    let value: T = from_utf8(data).ok()?.parse().ok()?;
    Some(Box::new(move || {
        let printed = value.to_string();
        if printed == NOTHING {
            return;
        }
        let again: T = printed.parse().expect("what was printed is read");
        assert_eq!(again, value, "printed as {printed}");
    }))
}

pub(crate) fn pid(data: &[u8]) -> Option<Check> {
    text::<Pid>(data)
}

pub(crate) fn address(data: &[u8]) -> Option<Check> {
    text::<Address>(data)
}

/// Only what nobody has reserved is printed as it is read; the wire form has everything.
pub(crate) fn resources(data: &[u8]) -> Option<Check> {
    let resources: Resources = from_utf8(data).ok()?.parse().ok()?;
    Some(Box::new(move || {
        let body = encode_body(&resources).expect("what was read can be written");
        let again: Resources = decode_body(&body).expect("what was written is read");
        assert_eq!(again, resources);
        let printed = resources.to_string();
        if resources.iter().all(|one| is_plain(&one.name))
            && !printed.contains("reservations")
            && printed != NOTHING
        {
            let again: Resources = printed.parse().expect("what was printed is read");
            assert_eq!(again, resources, "printed as {printed}");
        }
    }))
}

pub(crate) fn quantities(data: &[u8]) -> Option<Check> {
    let quantities: ResourceQuantities = from_utf8(data).ok()?.parse().ok()?;
    let is_plain = quantities.iter().all(|(name, _)| is_plain(name));
    text::<ResourceQuantities>(data).filter(|_| is_plain)
}

/// Whether a name of a resource can stand in a text: JSON may give any name, also one with what separates resources there.
fn is_plain(name: &str) -> bool {
    name == name.trim() && !name.contains([';', ':', '(', '[', '{'])
}

pub(crate) fn attributes(data: &[u8]) -> Option<Check> {
    let attributes = parse_attributes(from_utf8(data).ok()?).ok()?;
    Some(Box::new(move || {
        let texts: Vec<String> = attributes.iter().map(ToString::to_string).collect();
        let again = parse_attributes(&texts.join(";")).expect("what was printed is read");
        assert_eq!(again, attributes);
    }))
}

pub(crate) fn ids(data: &[u8]) -> Option<Check> {
    let id = from_utf8(data).ok()?;
    validate_id(id).ok()?;
    text::<TaskId>(data)
}

pub(crate) fn roles(data: &[u8]) -> Option<Check> {
    let role = from_utf8(data).ok()?;
    validate_role(role).ok()?;
    text::<Role>(data)
}

pub(crate) fn containers(data: &[u8]) -> Option<Check> {
    text::<ContainerId>(data)
}

pub(crate) fn updates(data: &[u8]) -> Option<Check> {
    text::<UpdateId>(data)
}

pub(crate) fn log_directives(data: &[u8]) -> Option<Check> {
    let filter = directives::parse(from_utf8(data).ok()?).ok()?;
    Some(Box::new(move || drop(filter)))
}
