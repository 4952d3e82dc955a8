//! Trees as JSON, read with all the leniency that clients of Mesos rely on.
//!
//! Pure. Accepted beside the strict form: explicit nulls, fields nobody knows, numbers and flags as texts, one bare value
//! for a repeated field.

mod strict;
mod text;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

pub(crate) use text::Text;
pub use text::write;

use crate::protobuf::MAX_DEPTH;
use crate::schema::{Field, Kind, Label, MessageType};
use crate::tree::Tree;

/// Why a body is no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// It is no JSON object.
    #[error("Failed to parse body into JSON: {0}")]
    Syntax(String),
    /// It is not this message.
    #[error("Failed to convert JSON into {message} protobuf: {why}")]
    Message {
        /// Last part of the message's name.
        message: String,
        /// What is wrong.
        why: String,
    },
}

/// Reads a message.
///
/// # Errors
/// [`JsonError`] with the text that the client is told.
pub fn read(body: &[u8], message: &'static MessageType) -> Result<Tree, JsonError> {
    read_within(body, message, MAX_DEPTH)
}

/// Reads a message that may nest so many levels deep, at most [`MAX_DEPTH`].
///
/// # Errors
/// [`JsonError`] with the text that the client is told.
pub fn read_within(
    body: &[u8],
    message: &'static MessageType,
    nesting: usize,
) -> Result<Tree, JsonError> {
    // What is read deeper than that could take up more of a stack than there is.
    let nesting = nesting.min(MAX_DEPTH);
    if nests_deeper(body, nesting) {
        return Err(JsonError::Syntax(format!(
            "it nests deeper than {nesting} levels: see --max_http_nesting"
        )));
    }
    let wrong = |why: String| JsonError::Message {
        message: message
            .name
            .rsplit('.')
            .next()
            .unwrap_or_default()
            .to_owned(),
        why,
    };
    let node = match strict::read(body, message) {
        Some(node) => node,
        None => read_leniently(body, message, wrong)?,
    };
    let missing = node.missing(message);
    if missing.is_empty() {
        Ok(node)
    } else {
        Err(wrong(format!(
            "Missing required fields: {}",
            missing.join(", ")
        )))
    }
}

fn read_leniently(
    body: &[u8],
    message: &'static MessageType,
    wrong: impl Fn(String) -> JsonError,
) -> Result<Tree, JsonError> {
    let value: Value =
        serde_json::from_slice(body).map_err(|error| JsonError::Syntax(near(body, &error)))?;
    if !value.is_object() {
        return Err(wrong("Expecting a JSON object".to_owned()));
    }
    read_message(value, message).map_err(wrong)
}

/// Whether a text nests deeper than so many levels, if it is JSON.
fn nests_deeper(text: &[u8], levels: usize) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => {
                depth += 1;
                if depth > levels {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// Where a text stops to be JSON.
fn near(body: &[u8], error: &serde_json::Error) -> String {
    let line = error.line().max(1);
    let text = body
        .split(|byte| *byte == b'\n')
        .nth(line - 1)
        .unwrap_or_default();
    let rest = text
        .get(error.column().saturating_sub(1)..)
        .unwrap_or_default();
    // At the end of the text serde names its last byte.
    let rest = if error.is_eof() { &[][..] } else { rest };
    format!(
        "syntax error at line {line} near: {}",
        String::from_utf8_lossy(rest)
    )
}

fn read_message(value: Value, message: &'static MessageType) -> Result<Tree, String> {
    let Value::Object(entries) = value else {
        return Err(unexpected(&value, "a message"));
    };
    let mut fields = Vec::new();
    for (name, value) in entries {
        if let Some(field) = message.field(&name)
            && let Some(node) = read_field(value, field)?
        {
            fields.push((field, node));
        }
    }
    Ok(Tree::Message(fields))
}

/// None for what counts as not set.
fn read_field(value: Value, field: &'static Field) -> Result<Option<Tree>, String> {
    if value.is_null() {
        return Ok(None);
    }
    match (field.label, value) {
        (Label::Map, Value::Object(entries)) => {
            let mut all = Vec::new();
            for (name, value) in entries {
                if let Some(node) = read_value(value, field)? {
                    all.push((name, node));
                }
            }
            Ok((!all.is_empty()).then_some(Tree::Map(all)))
        }
        (Label::Map, other) => Err(unexpected(&other, field.name)),
        (Label::Repeated, Value::Array(values)) => {
            let mut all = Vec::with_capacity(values.len());
            for value in values {
                all.extend(read_value(value, field)?);
            }
            Ok((!all.is_empty()).then_some(Tree::List(all)))
        }
        (Label::Repeated, bare) => Ok(read_value(bare, field)?.map(|one| Tree::List(vec![one]))),
        (Label::Optional | Label::Required, value) => read_value(value, field),
    }
}

fn read_value(value: Value, field: &'static Field) -> Result<Option<Tree>, String> {
    if value.is_null() {
        return Ok(None);
    }
    let node = match field.kind {
        Kind::Message(_) => match field.kind.message() {
            Some(message) if value.is_object() => read_message(value, message)?,
            _ => return Err(unexpected(&value, field.name)),
        },
        Kind::Enum(_) => {
            let names = field.kind.names();
            let found = match &value {
                Value::String(name) => names.and_then(|names| names.named(name)),
                Value::Number(number) => number
                    .as_i64()
                    .and_then(|number| i32::try_from(number).ok())
                    .and_then(|number| names?.numbered(number)),
                Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
                    return Err(unexpected(&value, field.name));
                }
            };
            match found {
                Some((name, number)) => Tree::Enum(name, number),
                // A name from a later version counts as not set.
                None if field.label != Label::Required => return Ok(None),
                None => return Err(format!("Failed to find enum for '{}'", shown(&value))),
            }
        }
        Kind::Text => match value {
            Value::String(text) => Tree::Text(text),
            other @ (Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_)) => return Err(unexpected(&other, field.name)),
        },
        Kind::Bytes => match &value {
            Value::String(text) => Tree::Bytes(
                BASE64
                    .decode(text.as_bytes())
                    .map_err(|error| not_base64(field, text, error))?,
            ),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_) => {
                return Err(unexpected(&value, field.name));
            }
        },
        Kind::Bool => match &value {
            Value::Bool(flag) => Tree::Bool(*flag),
            Value::String(text) if text == "true" => Tree::Bool(true),
            Value::String(text) if text == "false" => Tree::Bool(false),
            Value::Null
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_) => return Err(unexpected(&value, field.name)),
        },
        Kind::Double | Kind::Float | Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64 => {
            read_number(&value, field)?
        }
    };
    Ok(Some(node))
}

fn read_number(value: &Value, field: &'static Field) -> Result<Tree, String> {
    let parsed;
    let number = match value {
        Value::Number(number) => number,
        Value::String(text) => {
            // The words that JSON numbers cannot say.
            if field.kind == Kind::Double
                && let Ok(special @ ("Infinity" | "-Infinity" | "NaN")) = Ok::<&str, ()>(text)
            {
                return Ok(Tree::Double(special.parse().unwrap_or(f64::NAN)));
            }
            parsed = text
                .parse::<serde_json::Number>()
                .map_err(|_| {
                    let name = field.name;
                    format!(
                        "Failed to parse '{text}' as a JSON number for field '{name}': syntax error at line 1 near: {text}"
                    )
                })?;
            &parsed
        }
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
            return Err(unexpected(value, field.name));
        }
    };
    let out_of_range = || {
        format!(
            "The number {number} is out of range for field '{}'",
            field.name
        )
    };
    match field.kind {
        Kind::Double | Kind::Float => number.as_f64().map(Tree::Double),
        Kind::Uint32 | Kind::Uint64 => {
            let most = if field.kind == Kind::Uint32 {
                u64::from(u32::MAX)
            } else {
                u64::MAX
            };
            whole(number)
                .and_then(|whole| u64::try_from(whole).ok())
                .filter(|whole| *whole <= most)
                .map(Tree::Uint)
        }
        Kind::Int32
        | Kind::Int64
        | Kind::Bool
        | Kind::Text
        | Kind::Bytes
        | Kind::Enum(_)
        | Kind::Message(_) => {
            let small = field.kind == Kind::Int32;
            whole(number)
                .and_then(|whole| i64::try_from(whole).ok())
                .filter(|whole| !small || i32::try_from(*whole).is_ok())
                .map(Tree::Int)
        }
    }
    .ok_or_else(out_of_range)
}

fn not_base64(field: &Field, text: &str, error: base64::DecodeError) -> String {
    let why = match error {
        base64::DecodeError::InvalidByte(at, _) => {
            let odd = text
                .get(at..)
                .and_then(|rest| rest.chars().next())
                .unwrap_or_default();
            format!("Invalid character '{odd}'")
        }
        other @ (base64::DecodeError::InvalidLength(_)
        | base64::DecodeError::InvalidLastSymbol { .. }
        | base64::DecodeError::InvalidPadding) => other.to_string(),
    };
    format!(
        "Failed to base64 decode bytes field '{}': {why}",
        field.name
    )
}

/// A number without its fraction, as Mesos takes it.
fn whole(number: &serde_json::Number) -> Option<i128> {
    let exact = number
        .as_i64()
        .map(i128::from)
        .or_else(|| number.as_u64().map(i128::from));
    exact.or_else(|| {
        let value = number.as_f64().filter(|value| value.abs() < 1e19)?;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the bound above is far below 2^127"
        )]
        let whole = value.trunc() as i128;
        Some(whole)
    })
}

fn unexpected(value: &Value, field: &str) -> String {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    format!("Not expecting a JSON {kind} for field '{field}'")
}

fn shown(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::schema::message;

    fn call(text: &str) -> Result<Tree, String> {
        read(text.as_bytes(), message("mesos.v1.scheduler.Call")).map_err(|error| error.to_string())
    }

    #[test]
    fn what_clients_get_away_with_is_read_as_the_strict_form() {
        let strict = call(
            r#"{"type":"DECLINE","framework_id":{"value":"f"},
                "decline":{"offer_ids":[{"value":"o"}],"filters":{"refuse_seconds":3.5}}}"#,
        )
        .unwrap();
        for lenient in [
            r#"{"type":"DECLINE","framework_id":{"value":"f"},"accept":null,"new":[{}],
                "decline":{"offer_ids":{"value":"o"},"filters":{"refuse_seconds":"3.5"}}}"#,
            r#"{"type":2,"type":"DECLINE","framework_id":{"value":"f","x":null},
                "decline":{"offer_ids":[{"value":"o"},null],"filters":{"refuse_seconds":3.5},"x":1}}"#,
        ] {
            assert_eq!(call(lenient).unwrap(), strict, "{lenient}");
        }
    }

    #[test]
    fn errors_have_the_texts_that_people_match_on() {
        let refused = |text: &str| call(text).unwrap_err();
        assert!(refused("{").starts_with("Failed to parse body into JSON: "));
        assert_eq!(
            refused("{"),
            "Failed to parse body into JSON: syntax error at line 1 near: "
        );
        assert_eq!(
            refused("{\n\"a\": x1}"),
            "Failed to parse body into JSON: syntax error at line 2 near: x1}"
        );
        assert_eq!(
            refused("[]"),
            "Failed to convert JSON into Call protobuf: Expecting a JSON object"
        );
        assert_eq!(
            refused(r#"{"message":{"data":"%%"}}"#),
            "Failed to convert JSON into Call protobuf: Failed to base64 decode bytes field 'data': Invalid character '%'"
        );
        assert_eq!(
            refused(r#"{"decline":{"filters":{"refuse_seconds":"abc"}}}"#),
            "Failed to convert JSON into Call protobuf: Failed to parse 'abc' as a JSON number for field \
             'refuse_seconds': syntax error at line 1 near: abc"
        );
        assert_eq!(
            refused(r#"{"type":"KILL","kill":{}}"#),
            "Failed to convert JSON into Call protobuf: Missing required fields: kill.task_id"
        );
        assert_eq!(
            refused(r#"{"type":"KILL","kill":{"task_id":"t"}}"#),
            "Failed to convert JSON into Call protobuf: Not expecting a JSON string for field 'task_id'"
        );
        let nested = "[".repeat(200);
        assert_eq!(
            refused(&nested),
            "Failed to parse body into JSON: it nests deeper than 100 levels: see --max_http_nesting"
        );
        let twice = r#"{"type":"{[\"{[","decline":{"filters":{"refuse_seconds":1}}}"#;
        let read =
            |levels| read_within(twice.as_bytes(), message("mesos.v1.scheduler.Call"), levels);
        assert!(read(3).is_ok() || !read(3).unwrap_err().to_string().contains("deeper"));
        assert!(read(2).unwrap_err().to_string().contains("deeper than 2"));
        let number =
            r#"{"accept":{"operations":[{"type":"LAUNCH","launch":{"task_infos":[{}]}}]}}"#;
        assert_eq!(
            refused(number),
            "Failed to convert JSON into Call protobuf: Missing required fields: \
             accept.operations[0].launch.task_infos[0].name, accept.operations[0].launch.task_infos[0].task_id, \
             accept.operations[0].launch.task_infos[0].agent_id"
        );
    }

    #[test]
    fn defaults_are_shown_and_a_name_from_the_future_counts_as_not_set() {
        let command = message("mesos.v1.CommandInfo");
        let node = read(br#"{"value":"x"}"#, command).unwrap();
        assert_eq!(write(&node, command), br#"{"value":"x","shell":true}"#);
        let node = call(r#"{"type":"DREAM"}"#).unwrap();
        assert_eq!(node, Tree::empty());
    }

    const NAMES: [&str; 15] = [
        "type",
        "framework_id",
        "value",
        "decline",
        "offer_ids",
        "filters",
        "refuse_seconds",
        "accept",
        "operations",
        "launch",
        "task_infos",
        "resources",
        "scalar",
        "data",
        "nobody",
    ];

    /// JSON that is now and then a call: names of fields at any place, also twice in one object.
    fn any_json() -> impl Strategy<Value = String> {
        let plain = prop_oneof![
            Just("null".to_owned()),
            Just("true".to_owned()),
            Just("\"DECLINE\"".to_owned()),
            Just("\"LAUNCH\"".to_owned()),
            Just("\"1.5\"".to_owned()),
            Just("\"\\ud83d\"".to_owned()),
            Just("1e999".to_owned()),
            any::<i64>().prop_map(|number| number.to_string()),
            any::<f64>().prop_map(|number| Value::from(number).to_string()),
        ];

        plain.prop_recursive(6, 40, 4, |inner| {
            let entry = (proptest::sample::select(&NAMES[..]), inner.clone());
            prop_oneof![
                proptest::collection::vec(inner, 0..4)
                    .prop_map(|all| format!("[{}]", all.join(","))),
                proptest::collection::vec(entry, 0..5).prop_map(|all| {
                    let entries = all
                        .iter()
                        .map(|(name, value)| format!("\"{name}\":{value}"));
                    format!("{{{}}}", Vec::from_iter(entries).join(","))
                }),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_the_strict_reader_reads_the_lenient_one_reads_as_well(text in any_json()) {
            let call = message("mesos.v1.scheduler.Call");
            if let Some(node) = strict::read(text.as_bytes(), call) {
                let wrong = |why| JsonError::Message { message: String::new(), why };
                prop_assert_eq!(read_leniently(text.as_bytes(), call, wrong), Ok(node));
            }
        }
    }
}
