//! The inputs that a corpus begins with: what the product writes, and what it must withstand.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use meseta_api::Format;
use meseta_api::operator::Api;
use meseta_fuzz::MESSAGES;
use meseta_protocol::launch::{EnvironmentEntry, ExecutorCredential, LaunchCommand, LaunchPlan};
use meseta_runtime::codec::stream::{MAX_ROUTE_TEXT, Writer};
use meseta_runtime::codec::{Class, DEFAULT_MAX_MESSAGE, Frame, encode_body};
use meseta_runtime::identity::GuestKey;
use meseta_runtime::logging::{LogFilter, ResetLogFilter, SetLogFilter};
use meseta_runtime::message::{Correlation, Kind};
use meseta_runtime::{ExitReason, Message as _, Pid};
use serde::Serialize;

use crate::mutate::list;
use crate::stored;

/// An input and the name of its file.
pub(crate) type Seed = (String, Vec<u8>);

/// Calls of each API, as clients write them.
const CALLS: &[&str] = &[
    r#"{"type":"SUBSCRIBE","subscribe":{"framework_info":{"user":"u","name":"n","roles":["a","b/c"],"capabilities":[{"type":"MULTI_ROLE"}],"failover_timeout":1.5,"labels":{"labels":[{"key":"k"}]}},"suppressed_roles":["a"]}}"#,
    r#"{"type":"ACCEPT","framework_id":{"value":"f"},"accept":{"offer_ids":[{"value":"o"}],"operations":[{"type":"LAUNCH","launch":{"task_infos":[{"task_id":{"value":"t"},"name":"t","agent_id":{"value":"a"},"resources":[{"name":"cpus","type":"SCALAR","scalar":{"value":0.1}},{"name":"ports","type":"RANGES","ranges":{"range":[{"begin":1,"end":"2"}]}}],"command":{"value":"true","environment":{"variables":[{"name":"A","value":"\u00e9"}]}},"data":"AAEC"}]}}],"filters":{"refuse_seconds":5}}}"#,
    r#"{"type":"ACCEPT","framework_id":{"value":"f"},"accept":{"offer_ids":[],"operations":{"type":"LAUNCH_GROUP","launch_group":{"executor":{"executor_id":{"value":"e"},"type":"CUSTOM"},"task_group":{"tasks":[]}}}}}"#,
    r#"{"type":"ACKNOWLEDGE","framework_id":{"value":"f"},"acknowledge":{"agent_id":{"value":"a"},"task_id":{"value":"t"},"uuid":"AAAAAAAAAAAAAAAAAAAAAA=="}}"#,
    r#"{"type":"RECONCILE","framework_id":{"value":"f"},"reconcile":{"tasks":[{"task_id":{"value":"t"}}]}}"#,
    r#"{"type":"DECLINE","framework_id":{"value":"f"},"decline":{"offer_ids":[{"value":"o"}],"filters":null}}"#,
    r#"{"type":"SUBSCRIBE","executor_id":{"value":"e"},"framework_id":{"value":"f"},"subscribe":{"unacknowledged_tasks":[],"unacknowledged_updates":[]}}"#,
    r#"{"type":"UPDATE","executor_id":{"value":"e"},"framework_id":{"value":"f"},"update":{"status":{"task_id":{"value":"t"},"state":"TASK_RUNNING","uuid":"AAAAAAAAAAAAAAAAAAAAAA==","source":"SOURCE_EXECUTOR","timestamp":1e9}}}"#,
    r#"{"type":"GET_STATE"}"#,
    r#"{"type":"READ_FILE","read_file":{"path":"/a","offset":"1","length":2}}"#,
    r#"{"type":"SET_LOGGING_LEVEL","set_logging_level":{"level":1,"duration":{"nanoseconds":60000000000}}}"#,
    r#"{"type":3,"unknown":[1,{"a":null}],"x":1e400,"y":-0.0}"#,
    "[]",
    "{\"type\":\"SUB",
];

/// The same in protobuf, each as a call of the API that takes it.
fn calls_in_protobuf() -> Vec<Seed> {
    let apis = [
        meseta_api::scheduler::call_type(),
        meseta_api::executor::call_type(),
        Api::Master.call_type(),
    ];
    let mut all = Vec::new();
    for (call, text) in CALLS.iter().enumerate() {
        for (number, api) in apis.iter().enumerate() {
            if let Ok(read) = Format::Json.read(text.as_bytes(), api) {
                let bytes = Format::Protobuf.write(&read, api);
                all.push((format!("call-{call}-{number}"), bytes));
            }
        }
    }
    all
}

/// The seeds of a target.
pub(crate) fn of(target: &str) -> Vec<Seed> {
    match target {
        "frames" => frames(),
        "lane" => lane(),
        "control" => control(),
        "hello" => hello().into_iter().chain(hostile(&["kinds"])).collect(),
        "exit_reason" => exit_reasons().into_iter().chain(hostile(&[])).collect(),
        "scheduler_messages" | "agent_messages" | "executor_messages" | "master_messages"
        | "logging_messages" => messages(target),
        "log_records" => stored::records(),
        "log_batches" => stored::batches(),
        "log_journal" => stored::journals(),
        "log_table" => stored::tables(),
        "registry" => stored::registries(),
        "checkpoint" => stored::checkpoints(),
        "launch_plan" => plans()
            .into_iter()
            .chain(hostile(&["environment"]))
            .collect(),
        "certificate" => certificates(),
        "pid" => texts(&[
            "master@127.0.0.1:5050",
            "slave(1)@host-7.example:5051",
            "master@[::1]:0",
            "127.0.0.1:5050",
            "[::1]:5050",
            "@h:1",
            "a@",
            "a b@h:1",
            "a@h:+5",
            "a@h:65536",
            "a@::1:5",
            "a@[::1:5",
            "\u{e9}@\u{e9}:1",
            "a@b@c:1",
            "[]:50",
        ]),
        "api_json" => texts(CALLS),
        "api_protobuf" => calls_in_protobuf(),
        "api_records" => texts(&[
            "",
            "5\nhello0\n",
            "1\na2\nbc",
            "3\nab",
            "99999999999999999999\n",
            "18446744073709551615\nx",
            "-1\n",
            "a\n",
            "007\nseven!!",
        ]),
        "http_target" => texts(&[
            "/",
            "/slave(1)/state",
            "/master/state?jsonp=x&y=1",
            "*",
            "/metrics/snapshot?timeout=1secs",
            "//a//b",
            "/a?b=%00%ff&b",
            "/%2e%2e/%2f",
            "http://h:1/a/b?c=d",
            "/a?%",
            "/\u{e9}",
        ]),
        "http_requests" => texts(&[
            "GET /state HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.0\n\n",
            "POST /api/v1 HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}GET",
            "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nT: 1\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffff\r\nabc",
            "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
            "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc",
            "POST /a HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
            "POST /a HTTP/1.1\r\nContent-Length: 18446744073709551615\r\n\r\nabc",
            "GET / HTTP/1.1\r\nX: 1\r\n Y: 2\r\n\r\n",
            "\r\n\n\r\nGET / HTTP/1.1\r\n\r\n",
        ]),
        "http_authorization" => texts(&[
            "Basic b3BzOnNlY3JldA==",
            "basic  b3BzOg",
            "Basic OnNlY3JldA==",
            "Basic ====",
            "Bearer a.b.c",
            // Signed with the key `key`.
            "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJmaWQiOiJmIn0.TOeA6QkPHYrzS6VIzUf4ofr56dQKgVt16st6hvLMk7Q",
            "..",
        ]),
        "log_directives" => texts(&[
            "info",
            "info,meseta_runtime=debug",
            "off",
            "a=b",
            "x[y{z=1}]=trace",
            ",,,",
            "info,=,debug",
        ]),
        "resources" => texts(&[
            "cpus:4; mem:1024; ports:[31000-32000]",
            "cpus(prod/web):0.5;disks:{sda1,sdb1}",
            "cpus:1e308;mem:-1",
            "ports:[0-18446744073709551615]",
            "ports:[3-1, 5-5,4-9]",
            "cpus:0.0001",
            "cpus:NaN",
            "a:{}",
            "a:[]",
            ":",
            "cpus",
            "cpus(:1",
            "[{\"name\":\"cpus\",\"type\":\"SCALAR\",\"scalar\":{\"value\":1}}]",
            "[[[[[[[[",
            "gpus:2;gpus:{a}",
        ]),
        "attributes" => texts(&[
            "rack:a;level:10;ports:[1-5]",
            "a:b:c",
            "x:",
            ":y",
            "set:{a,b}",
            " a : b ; c:1.50 ",
            "n:-0",
            "n:1e-320",
        ]),
        "ids" => texts(&[
            "t-1",
            "prod/web",
            "*",
            "a.b.c",
            "..",
            ".",
            "",
            "/a",
            "a//b",
            "-a",
            "F-0001-S0",
            "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
            "6BA7B8109DAD11D180B400C04FD430C8",
            "\u{0}",
        ]),
        _ => Vec::new(),
    }
}

pub(crate) fn named(name: &str, bytes: Vec<u8>) -> Seed {
    (name.to_owned(), bytes)
}

fn numbered(name: &str, all: impl IntoIterator<Item = Vec<u8>>) -> Vec<Seed> {
    let all = all.into_iter().enumerate();
    all.map(|(number, bytes)| (format!("{name}-{number}"), bytes))
        .collect()
}

fn texts(texts: &[&str]) -> Vec<Seed> {
    let mut seeds = numbered("text", texts.iter().map(|text| text.as_bytes().to_vec()));
    seeds.push(named("no-utf8", b"a\xff\xfe@h:1".to_vec()));
    seeds.push(named("long", b"a:1;".repeat(400)));
    seeds
}

/// MessagePack that announces or nests more than there is, and lists of very small values in these fields.
pub(crate) fn hostile(fields: &[&str]) -> Vec<Seed> {
    hostile_within("led", "message", fields)
}

/// The same, and the lists also in this field of a record that holds the record.
pub(crate) fn hostile_within(called: &str, outer: &str, fields: &[&str]) -> Vec<Seed> {
    let map = |field: &str, value: &[u8]| {
        let mut bytes = vec![0x81, 0xd9, u8::try_from(field.len()).unwrap()];
        bytes.extend_from_slice(field.as_bytes());
        bytes.extend_from_slice(value);
        bytes
    };
    let mut seeds = vec![
        named("huge-list", b"\xdd\xff\xff\xff\xff".to_vec()),
        named("huge-map", b"\xdf\xff\xff\xff\xff".to_vec()),
        named("huge-text", b"\xdb\xff\xff\xff\xffab".to_vec()),
        named("huge-blob", b"\xc6\xff\xff\xff\xffab".to_vec()),
        named("huge-extension", b"\xc9\xff\xff\xff\xff\x01".to_vec()),
        named("deep-lists", [vec![0x91; 2000], vec![0xc0]].concat()),
        named("deep-maps", [b"\x81\xa1x".repeat(700), vec![0xc0]].concat()),
        named("empty", Vec::new()),
        named("nil", vec![0xc0]),
    ];
    for field in fields {
        for (what, value) in [
            ("huge", b"\xdd\x00\xff\xff\xff".to_vec()),
            ("records", list(b"\x80", 2000)),
            ("texts", list(b"\xa1x", 1000)),
        ] {
            seeds.push((format!("{what}-{field}"), map(field, &value)));
            let inner = map(field, &value);
            seeds.push((format!("{what}-{called}-{field}"), map(outer, &inner)));
        }
    }
    seeds
}

/// Bytes that a crate has recorded for its later versions.
pub(crate) fn recorded(fixture: &str) -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folders = ["protocol", "master", "master/log", "agent"].map(|place| {
        let (member, inner) = place.split_once('/').unwrap_or((place, ""));
        root.join(member).join("tests/fixtures").join(inner)
    });
    let mut files = folders.iter().map(|folder| folder.join(fixture));
    let file = files.find(|file| file.exists());
    std::fs::read(file.unwrap_or_else(|| panic!("{fixture}: nobody has recorded it"))).unwrap()
}

fn logging(name: &str) -> Vec<u8> {
    let body = match name {
        SetLogFilter::NAME => encode_body(&SetLogFilter {
            directives: "info,meseta_master=debug".to_owned(),
            seconds: 600,
        }),
        ResetLogFilter::NAME => encode_body(&ResetLogFilter {}),
        _ => encode_body(&LogFilter {
            directives: "debug".to_owned(),
            base: "info".to_owned(),
            by: Some("operator-1".to_owned()),
            seconds_left: Some(599),
            refused: None,
        }),
    };
    body.unwrap().to_vec()
}

fn messages(target: &str) -> Vec<Seed> {
    let (_, names) = MESSAGES.iter().find(|(name, _)| *name == target).unwrap();
    let mut seeds = Vec::new();
    for name in *names {
        let bytes = match target {
            "logging_messages" => logging(name),
            _ => recorded(&format!("{name}.v1.msgpack")),
        };
        seeds.push(named(
            &format!("{name}-cut"),
            bytes[..bytes.len() * 2 / 3].to_vec(),
        ));
        seeds.push(named(name, bytes));
    }
    let fields: &[&str] = match target {
        "scheduler_messages" => &["offers", "tasks", "requests", "offer_ids", "operations"],
        "agent_messages" => &["tasks", "executor_infos", "frameworks"],
        "master_messages" => &["actions", "missing", "lives", "capabilities"],
        "logging_messages" => &[],
        _ => &["unacknowledged_tasks", "unacknowledged_updates"],
    };
    seeds.extend(hostile(fields));
    seeds
}

fn plans() -> Vec<Seed> {
    let credential = ExecutorCredential::default();
    let plan = LaunchPlan {
        command: LaunchCommand {
            program: "/bin/sh".to_owned(),
            arguments: vec!["sh".to_owned(), "-c".to_owned(), "true".to_owned()],
        },
        working_directory: "/tmp/sandbox".to_owned(),
        environment: vec![EnvironmentEntry {
            name: "HOME".to_owned(),
            value: "/root".to_owned(),
        }],
        credential: Some(credential.clone()),
        ..LaunchPlan::default()
    };
    let body = |value: Bytes| value.to_vec();
    vec![
        named("plan", body(encode_body(&plan).unwrap())),
        named("credential", body(encode_body(&credential).unwrap())),
    ]
}

fn exit_reasons() -> Vec<Seed> {
    let reasons = [
        ExitReason::Normal,
        ExitReason::Terminated,
        ExitReason::Panic("index 3 out of 2".to_owned()),
        ExitReason::Failed("too many restarts".to_owned()),
        ExitReason::NoProcess,
        ExitReason::ConnectionLost,
        ExitReason::NodeRestarted,
        ExitReason::Unknown,
    ];
    numbered(
        "reason",
        reasons
            .iter()
            .map(|reason| encode_body(reason).unwrap().to_vec()),
    )
}

fn hello() -> Vec<Seed> {
    /// As `runtime/src/transport/quic/hello.rs` writes it.
    #[derive(Serialize)]
    struct Hello {
        protocol_min: u16,
        protocol_max: u16,
        incarnation: u64,
        address: &'static str,
        dialable: bool,
        cluster_id: Option<&'static str>,
        kinds: Vec<(u32, u16)>,
        dial: u64,
        accepted: Option<Dial>,
    }
    #[derive(Serialize)]
    struct Dial {
        incarnation: u64,
        number: u64,
    }
    let hello = |kinds, accepted| Hello {
        protocol_min: 1,
        protocol_max: 2,
        incarnation: u64::MAX,
        address: "host-7.example:5050",
        dialable: true,
        cluster_id: Some("cluster"),
        kinds,
        dial: 3,
        accepted,
    };
    let dial = Dial {
        incarnation: 7,
        number: 8,
    };
    let all = [
        hello(vec![(1, 1), (u32::MAX, u16::MAX)], Some(dial)),
        hello((0..400).map(|kind| (kind, 1)).collect(), None),
    ];
    let mut seeds = numbered(
        "hello",
        all.iter().map(|hello| encode_body(hello).unwrap().to_vec()),
    );
    seeds.push(named("cut", seeds[0].1[..40].to_vec()));
    seeds.extend(unix_hello());
    seeds
}

fn unix_hello() -> Vec<Seed> {
    /// As `runtime/src/transport/unix/hello.rs` writes it.
    #[derive(Serialize)]
    struct Hello {
        protocol_min: u16,
        protocol_max: u16,
        incarnation: u64,
        id: &'static str,
        token: Bytes,
        dial: u64,
        kinds: Vec<(u32, u16)>,
    }
    #[derive(Serialize)]
    struct Answer {
        refused: Option<&'static str>,
        incarnation: u64,
        address: &'static str,
        role: &'static str,
        kinds: Vec<(u32, u16)>,
    }
    let hello = Hello {
        protocol_min: 1,
        protocol_max: 1,
        incarnation: 7,
        id: "executor-1",
        token: Bytes::from(vec![0xa5; 32]),
        dial: 1,
        kinds: vec![(1, 1)],
    };
    let answer = Answer {
        refused: Some("the token is unknown"),
        incarnation: 8,
        address: "127.0.0.1:5051",
        role: "agent",
        kinds: vec![(1, 1)],
    };
    vec![
        named("guest", encode_body(&hello).unwrap().to_vec()),
        named("host", encode_body(&answer).unwrap().to_vec()),
    ]
}

fn certificates() -> Vec<Seed> {
    let key = GuestKey::generate().unwrap();
    let cut = key.certificate[..key.certificate.len() / 2].to_vec();
    vec![
        named("guest", key.certificate),
        named("cut", cut),
        named(
            "huge-length",
            b"\x30\x84\xff\xff\xff\xff\x30\x82\x01\x00".to_vec(),
        ),
        named("deep", b"\x30\x80".repeat(300)),
    ]
}

fn pairs() -> Vec<(Arc<str>, Pid)> {
    let long = "x".repeat(MAX_ROUTE_TEXT + 1);
    let from = |id: &str| -> Pid { format!("{id}@127.0.0.1:5050").parse().unwrap() };
    vec![
        (Arc::from("slave(1)"), from("master")),
        (Arc::from("scheduler-1"), from("master")),
        (Arc::from(long.as_str()), from("a")),
    ]
}

fn classes() -> [Class; 6] {
    let message = |correlation| Class::Message {
        kind: Kind::named("meseta.Ping"),
        correlation,
    };
    [
        message(Correlation::None),
        message(Correlation::Request(9)),
        message(Correlation::Answer(u64::MAX)),
        Class::Link,
        Class::Unlink,
        Class::Exited,
    ]
}

fn frames() -> Vec<Seed> {
    let mut seeds = Vec::new();
    let mut all = BytesMut::new();
    for class in classes() {
        let (to, from) = pairs().swap_remove(0);
        let body = Bytes::from_static(b"\x81\xa1n\x07");
        let frame = Frame {
            class,
            to,
            from,
            body,
        };
        let mut bytes = BytesMut::new();
        frame.encode(DEFAULT_MAX_MESSAGE, &mut bytes).unwrap();
        all.extend_from_slice(&bytes);
        seeds.push(bytes.to_vec());
    }
    let mut seeds = numbered("frame", seeds);
    seeds.push(named("cut", all[..all.len() - 3].to_vec()));
    seeds.push(named("all", all.to_vec()));
    seeds.extend(hostile_frames());
    seeds
}

/// As `runtime/src/transport/quic/control.rs` has it: what, length of the rest, rest.
fn control() -> Vec<Seed> {
    let word = |what: u8, rest: &[u8]| {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&[what][..], &length, rest].concat()
    };
    let number = 7_u64.to_be_bytes();
    let words = [
        word(1, &number),
        word(2, &u64::MAX.to_be_bytes()),
        word(3, b"slave(1)"),
        word(4, &[number, number].concat()),
        word(5, b""),
        word(6, b""),
    ];
    let all = words.concat();
    vec![
        named("words", all.clone()),
        named("cut", all[..all.len() - 5].to_vec()),
        named("of-a-later-version", [word(99, b"what"), all].concat()),
        named("short-number", word(1, b"1234567")),
        named("number-of-stay", word(6, b"more")),
        named("no-utf8", word(3, b"a\xff")),
        named("long-id", word(3, &b"a".repeat(2_000))),
        named("longest", word(3, &vec![b'a'; 65_535])),
        named("huge-length", b"\x03\xff\xff".to_vec()),
    ]
}

fn hostile_frames() -> Vec<Seed> {
    vec![
        named("huge-frame", b"\xff\xff\xff\xff\0".to_vec()),
        named("largest-frame", b"\0\x10\x0f\xff\0".to_vec()),
        named("no-header", b"\0\0\0\0".to_vec()),
        named(
            "huge-receiver",
            b"\0\0\0\x0c\0\xff\xff\xff\xff\x0f\0\0\0\0\0\0".to_vec(),
        ),
        named(
            "endless-number",
            b"\0\0\0\x0d\x20\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(),
        ),
        named("unknown-route", b"\0\0\0\x06\x20\x07\0\0\0\0".to_vec()),
        named(
            "route-out-of-turn",
            b"\0\0\0\x12\x40\x07\x01a\x07b@h:123\0\0\0\0\0".to_vec(),
        ),
        // Announces 64 MiB and brings a byte.
        named(
            "huge-message",
            b"\0\0\0\x16\x04\x01a\x05b@h:1\0\0\0\x07\x80\x80\x80\x20xyzuvw".to_vec(),
        ),
        named("part-of-nothing", b"\0\0\0\x0a\x05\x01a\x05b@h:1x".to_vec()),
    ]
}

fn lane() -> Vec<Seed> {
    let mut writer = Writer::default();
    let mut bytes = Vec::new();
    for _ in 0..2 {
        for (to, from) in pairs() {
            for class in classes() {
                let body = b"\x81\xa1n\x07";
                writer
                    .header(class, &to, &from, body.len(), &mut bytes)
                    .unwrap();
                bytes.extend_from_slice(body);
            }
        }
    }
    let mut parts = Vec::new();
    let (to, from) = pairs().swap_remove(0);
    let message = (Kind(7), Correlation::Request(1));
    for at in 0..3 {
        let lengths = (at * 10, 10, 30);
        writer.part_header(message, &to, &from, lengths, &mut parts);
        parts.extend_from_slice(&[b'p'; 10]);
    }
    let never: Result<(), Infallible> = Ok(());
    debug_assert!(never.is_ok());
    let mut seeds = vec![
        named("pairs", bytes.clone()),
        named("parts", parts.clone()),
        named("parts-cut", parts[..parts.len() - 12].to_vec()),
        named(
            "parts-within-parts",
            [&parts[..parts.len() - 15], &parts].concat(),
        ),
        named("cut", bytes[..bytes.len() / 2 + 1].to_vec()),
    ];
    seeds.extend(hostile_frames());
    seeds
}
