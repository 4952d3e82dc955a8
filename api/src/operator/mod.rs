//! The operator API of master and agent: calls as what they ask for, and what is known as answers and events.
//!
//! Pure. Source: http.md §5; texts as Mesos has them. A call whose subject this version does not have yet is known by
//! its name ([`Call::Later`]), after its parts have been looked at: whoever writes it wrong hears so first.

mod common;

use std::time::Duration;

use meseta_protocol::{AgentId, FrameworkId};
use serde::Serialize;

use crate::negotiation::{Format, Refusal};
use crate::schema::{MessageType, message};
use crate::tree::Tree;
use crate::{Mismatch, to_tree};

pub use common::FileInfo;

/// Whose operator API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// The master's.
    Master,
    /// An agent's.
    Agent,
}

/// What an operator may call.
#[derive(Debug, Clone, PartialEq)]
pub enum Call {
    /// To be shown something of this name, without further parameters: `GET_STATE`.
    Get(&'static str),
    /// To be shown the metrics.
    GetMetrics,
    /// To log more, or less, for a time.
    SetLoggingLevel {
        /// 0 is what the program was started with.
        level: u32,
        /// For how long.
        duration: Duration,
    },
    /// To be shown a directory.
    ListFiles {
        /// Its virtual path.
        path: String,
    },
    /// To be shown part of a file.
    ReadFile {
        /// Its virtual path.
        path: String,
        /// Where to begin.
        offset: u64,
        /// How many bytes; all when missing.
        length: Option<u64>,
    },
    /// To hear what happens.
    Subscribe,
    /// End a framework.
    Teardown(FrameworkId),
    /// An agent will never come back.
    MarkAgentGone(AgentId),
    /// To be shown containers.
    GetContainers,
    /// Forget images that nobody uses.
    PruneImages,
    /// Known, but about what this version does not have.
    Later(&'static str),
}

/// Calls that are complete with their name, and are answered with what they name.
const LOOKS: [(Api, &[&str]); 2] = [
    (
        Api::Master,
        &[
            "GET_HEALTH",
            "GET_FLAGS",
            "GET_VERSION",
            "GET_LOGGING_LEVEL",
            "GET_STATE",
            "GET_AGENTS",
            "GET_FRAMEWORKS",
            "GET_EXECUTORS",
            "GET_OPERATIONS",
            "GET_TASKS",
            "GET_ROLES",
            "GET_WEIGHTS",
            "GET_MASTER",
            "GET_MAINTENANCE_STATUS",
            "GET_MAINTENANCE_SCHEDULE",
            "GET_QUOTA",
        ],
    ),
    (
        Api::Agent,
        &[
            "GET_HEALTH",
            "GET_FLAGS",
            "GET_VERSION",
            "GET_LOGGING_LEVEL",
            "GET_STATE",
            "GET_FRAMEWORKS",
            "GET_EXECUTORS",
            "GET_OPERATIONS",
            "GET_TASKS",
            "GET_AGENT",
            "GET_RESOURCE_PROVIDERS",
        ],
    ),
];

impl Api {
    /// Type of the calls.
    pub fn call_type(self) -> &'static MessageType {
        message(match self {
            Self::Master => "mesos.v1.master.Call",
            Self::Agent => "mesos.v1.agent.Call",
        })
    }

    /// Type of the answers.
    pub fn response_type(self) -> &'static MessageType {
        message(match self {
            Self::Master => "mesos.v1.master.Response",
            Self::Agent => "mesos.v1.agent.Response",
        })
    }

    fn invalid(self, why: impl std::fmt::Display) -> Refusal {
        let who = match self {
            Self::Master => "master",
            Self::Agent => "agent",
        };
        Refusal::bad(format!("Failed to validate {who}::Call: {why}"))
    }

    fn expecting(self, field: &str) -> Refusal {
        self.invalid(format_args!("Expecting '{field}' to be present"))
    }

    /// The encoding of a request with this `Content-Type`.
    ///
    /// # Errors
    /// 400 without one, 415 with another.
    pub fn body_format(self, content_type: Option<&str>) -> Result<Format, Refusal> {
        Format::of_body(content_type).map_err(|refusal| self.in_its_words(refusal))
    }

    /// The encoding that a request with this `Accept` wants.
    ///
    /// # Errors
    /// 406 when neither will do.
    pub fn answer_format(self, accept: Option<&str>) -> Result<Format, Refusal> {
        Format::of_answer(accept).map_err(|refusal| self.in_its_words(refusal))
    }

    /// An agent says the same as the master in other words.
    fn in_its_words(self, refusal: Refusal) -> Refusal {
        let text = match (self, refusal.status) {
            (Self::Agent, 415) => {
                "Expecting 'Content-Type' of application/json or application/x-protobuf or application/recordio"
            }
            (Self::Agent, 406) => {
                "Expecting 'Accept' to allow application/json or application/x-protobuf or application/recordio"
            }
            (Self::Agent, 400) if refusal.text == "Failed to parse body into Call protobuf" => {
                "Failed to parse body into a protobuf object"
            }
            (Self::Agent, 400) => {
                let text = &*refusal.text;
                text.strip_prefix("Failed to convert JSON into Call protobuf: ")
                    .unwrap_or(text)
            }
            _ => return refusal,
        };
        Refusal::new(refusal.status, text)
    }

    /// Reads a call, which may nest so many levels deep.
    ///
    /// # Errors
    /// 400 with what is wrong; 501 for a call that says that it is none.
    pub fn read(self, format: Format, body: &[u8], nesting: usize) -> Result<Call, Refusal> {
        let call = format
            .read_within(body, self.call_type(), nesting)
            .map_err(|refusal| self.in_its_words(refusal))?;
        let Some(Tree::Enum(kind, _)) = call.get("type") else {
            return Err(self.expecting("type"));
        };
        let looks = LOOKS.iter().find(|(api, _)| *api == self);
        if looks.is_some_and(|(_, names)| names.contains(kind)) {
            return Ok(Call::Get(kind));
        }
        // These say what they want in a part of their name, which may be missing for two of them.
        let name = kind.to_lowercase();
        let part = match *kind {
            "UNKNOWN" => return Err(Refusal::new(501, "501 Not Implemented.")),
            "SUBSCRIBE" => return Ok(Call::Subscribe),
            "GET_CONTAINERS" => return Ok(Call::GetContainers),
            "PRUNE_IMAGES" => return Ok(Call::PruneImages),
            _ => call.get(&name).ok_or_else(|| self.expecting(&name))?,
        };
        let id = |field: &str| part.get(field).and_then(Tree::text).unwrap_or_default();
        Ok(match *kind {
            "GET_METRICS" => Call::GetMetrics,
            "SET_LOGGING_LEVEL" => Call::SetLoggingLevel {
                level: u32::try_from(part.uint("level").unwrap_or_default()).unwrap_or(u32::MAX),
                duration: duration(part.get("duration")),
            },
            "LIST_FILES" => Call::ListFiles {
                path: id("path").to_owned(),
            },
            "READ_FILE" => Call::ReadFile {
                path: id("path").to_owned(),
                offset: part.uint("offset").unwrap_or_default(),
                length: part.uint("length"),
            },
            "TEARDOWN" => Call::Teardown(FrameworkId::from(id("framework_id"))),
            "MARK_AGENT_GONE" => Call::MarkAgentGone(AgentId::from(id("agent_id"))),
            _ => Call::Later(kind),
        })
    }

    /// The answer of this name with its part of the same name.
    pub fn response(self, kind: &str, part: Option<Tree>) -> Tree {
        named(self.response_type(), kind, part)
    }

    /// The answer of this name whose part is this value.
    ///
    /// # Errors
    /// [`Mismatch`] when the value is no such part.
    pub fn response_of<T: Serialize>(self, kind: &str, part: &T) -> Result<Tree, Mismatch> {
        let of = self.part_type(kind);
        Ok(self.response(kind, Some(to_tree(part, of)?)))
    }

    /// Type of the part of the answer of this name.
    pub fn part_type(self, kind: &str) -> &'static MessageType {
        let field = self.response_type().field(&kind.to_lowercase());
        debug_assert!(field.is_some(), "no part for {kind}");
        let found = field.and_then(|field| field.kind.message());
        found.unwrap_or_else(|| self.response_type())
    }
}

/// A duration of Mesos, down to zero.
fn duration(node: Option<&Tree>) -> Duration {
    let nanoseconds = match node.and_then(|node| node.get("nanoseconds")) {
        Some(Tree::Int(number)) => u64::try_from(*number).unwrap_or_default(),
        _ => 0,
    };
    Duration::from_nanos(nanoseconds)
}

/// A message with a `type` of this name and a part called as the type is.
fn named(of: &'static MessageType, kind: &str, part: Option<Tree>) -> Tree {
    let mut out = Tree::empty();
    let named = of.field("type").and_then(|field| field.kind.names());
    if let Some((name, number)) = named.and_then(|names| names.named(kind)) {
        out.put(of, "type", Tree::Enum(name, number));
    }
    if let Some(part) = part {
        out.put(of, &kind.to_lowercase(), part);
    }
    out
}

/// A message of this type that is put together from its fields.
pub fn of_fields<'a>(
    of: &'static MessageType,
    fields: impl IntoIterator<Item = (&'a str, Tree)>,
) -> Tree {
    let mut out = Tree::empty();
    for (name, value) in fields {
        out.put(of, name, value);
    }
    out
}

/// Type of the events of a subscription.
pub fn event_type() -> &'static MessageType {
    message("mesos.v1.master.Event")
}

/// The event of this name.
pub fn event(kind: &str, part: Option<Tree>) -> Tree {
    named(event_type(), kind, part)
}

/// Type of the part of the event of this name.
pub fn event_part_type(kind: &str) -> &'static MessageType {
    let field = event_type().field(&kind.to_lowercase());
    debug_assert!(field.is_some(), "no part for {kind}");
    field
        .and_then(|field| field.kind.message())
        .unwrap_or_else(event_type)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn called(api: Api, value: &Value) -> Result<Call, (u16, String)> {
        api.read(Format::Json, value.to_string().as_bytes(), 100)
            .map_err(|refusal| (refusal.status, refusal.text))
    }

    #[test]
    fn every_call_is_known_and_wants_its_part() {
        for (api, parts) in [(Api::Master, "master"), (Api::Agent, "agent")] {
            let names = api.call_type().field("type").unwrap().kind.names().unwrap();
            for (name, number) in &names.values {
                let read = called(api, &json!({ "type": name }));
                let by_number =
                    api.read(Format::Protobuf, &[8, u8::try_from(*number).unwrap()], 100);
                assert_eq!(
                    read.clone().ok(),
                    by_number.ok(),
                    "{name} is the same in both encodings"
                );
                let complete = LOOKS
                    .iter()
                    .any(|(of, all)| *of == api && all.contains(name))
                    || ["SUBSCRIBE", "GET_CONTAINERS", "PRUNE_IMAGES"].contains(name);
                if *name == "UNKNOWN" {
                    assert_eq!(read, Err((501, "501 Not Implemented.".to_owned())));
                } else if complete {
                    assert!(read.is_ok(), "{name}");
                } else {
                    let part = name.to_lowercase();
                    let text = format!(
                        "Failed to validate {parts}::Call: Expecting '{part}' to be present"
                    );
                    assert_eq!(read, Err((400, text)));
                }
            }
        }
    }

    #[test]
    fn parameters_come_through() {
        let master = |value: Value| called(Api::Master, &value);
        assert_eq!(
            master(json!({"type": "SET_LOGGING_LEVEL",
                "set_logging_level": {"level": 2, "duration": {"nanoseconds": 1_500_000_000}}})),
            Ok(Call::SetLoggingLevel {
                level: 2,
                duration: Duration::from_millis(1500)
            })
        );
        assert_eq!(
            master(json!({"type": "READ_FILE", "read_file": {"path": "/x", "offset": "7"}})),
            Ok(Call::ReadFile {
                path: "/x".to_owned(),
                offset: 7,
                length: None
            })
        );
        assert_eq!(
            master(json!({"type": "TEARDOWN", "teardown": {"framework_id": {"value": "f"}}})),
            Ok(Call::Teardown("f".into()))
        );
        assert_eq!(
            master(
                json!({"type": "MARK_AGENT_GONE", "mark_agent_gone": {"agent_id": {"value": "a"}}})
            ),
            Ok(Call::MarkAgentGone("a".into()))
        );
        assert_eq!(
            master(json!({"type": "GET_METRICS", "get_metrics": {}})),
            Ok(Call::GetMetrics)
        );
        assert_eq!(
            master(json!({"type": "UPDATE_WEIGHTS", "update_weights": {}})),
            Ok(Call::Later("UPDATE_WEIGHTS"))
        );
        assert_eq!(
            master(json!({"type": "SET_LOGGING_LEVEL", "set_logging_level": {"level": 1}}))
                .unwrap_err()
                .1,
            "Failed to convert JSON into Call protobuf: Missing required fields: set_logging_level.duration"
        );
        let words = |api: Api| {
            let texts = [
                api.read(Format::Json, b"[]", 100).unwrap_err().text,
                api.read(Format::Protobuf, b"\xff", 100).unwrap_err().text,
                api.body_format(Some("text/plain")).unwrap_err().text,
                api.answer_format(Some("text/html")).unwrap_err().text,
                api.read(Format::Json, b"{", 100).unwrap_err().text,
            ];
            texts.map(|text| text.split(' ').next_back().unwrap_or_default().to_owned())
        };
        assert_eq!(
            words(Api::Master),
            [
                "object",
                "protobuf",
                "application/x-protobuf",
                "'application/json'",
                ""
            ]
        );
        assert_eq!(
            words(Api::Agent),
            [
                "object",
                "object",
                "application/recordio",
                "application/recordio",
                ""
            ]
        );
        assert_eq!(
            called(Api::Agent, &json!([])).unwrap_err().1,
            "Expecting a JSON object"
        );
        assert_eq!(
            master(json!({"type": "GET_CONTAINERS"})).unwrap_err().1,
            "Failed to validate master::Call: Expecting 'type' to be present"
        );
    }

    #[test]
    fn answers_have_the_published_shape_in_both_encodings() {
        #[derive(Serialize)]
        struct Health {
            healthy: bool,
        }
        for api in [Api::Master, Api::Agent] {
            let answer = api
                .response_of("GET_HEALTH", &Health { healthy: true })
                .unwrap();
            assert_eq!(
                Format::Json.write(&answer, api.response_type()),
                br#"{"type":"GET_HEALTH","get_health":{"healthy":true}}"#
            );
            assert_eq!(
                Format::Protobuf.write(&answer, api.response_type()),
                b"\x08\x01\x12\x02\x08\x01"
            );
        }
        let none = Api::Master.response("GET_WEIGHTS", None);
        let shown = Format::Json.write(&none, Api::Master.response_type());
        assert_eq!(shown, br#"{"type":"GET_WEIGHTS"}"#);
        let event = event("HEARTBEAT", None);
        assert_eq!(
            Format::Json.write(&event, event_type()),
            br#"{"type":"HEARTBEAT"}"#
        );
    }
}
