//! Who may do what to a node over HTTP, in plain and over TLS, and what of a request is not taken at all.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use meseta_runtime::http::auth::basic;
use meseta_runtime::http::auth::credentials::{Credentials as Known, hash};
use meseta_runtime::http::tls::Dial;
use meseta_runtime::http::{self, HttpLimits, Need, ReadCall, Realm, Security, StreamSender};
use meseta_runtime::identity::{CertificateAuthority, Identity};
use meseta_runtime::{Credentials, Node, NodeBuilder, Process, Request, Response, Routes};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Says who asks, if they may change something.
#[derive(Default)]
struct Desk {
    streams: Vec<StreamSender>,
}

impl Desk {
    fn change(request: &Request, need: Need) -> Response {
        match request.caller.may(need) {
            Ok(()) => Response::text(200, request.caller.to_string()),
            Err(denied) => denied.into(),
        }
    }
}

impl Process for Desk {
    fn routes(routes: &mut Routes<Self>) {
        routes
            .get("/look", |_, _, request| {
                Response::text(200, request.caller.to_string())
            })
            .get("/data", |_, _, _| Response::json(&serde_json::json!({})))
            .call("/length", |_, _, request| {
                let length: Option<usize> = request.take_reading();
                Response::text(200, format!("{length:?}"))
            })
            .reading(|request| ReadCall::new(request.body.len(), false))
            .open("/open", |_, _, _| Response::text(200, "open"))
            .call("/change", |_, _, request| {
                Self::change(request, Need::Change)
            })
            .get("/sandbox", |_, _, request| {
                Self::change(request, Need::Sandbox)
            })
            .call_in(Realm::Own("scheduler"), "/own", |_, _, request| {
                Self::change(request, Need::Change)
            })
            .call("/follow", |me, _, request| {
                if request.has_no_stream_left {
                    return Response::text(503, Request::NO_STREAM_LEFT);
                }
                let (sender, stream) = http::stream(100);
                me.streams.push(sender);
                Response::stream("text/plain", stream)
            })
            .call("/drop", |me, _, _| {
                me.streams.clear();
                Response::empty()
            });
    }
}

/// A node with a desk, and a directory with the certificate of its authority.
fn node(set: impl FnOnce(NodeBuilder) -> NodeBuilder) -> (Node, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let ca = CertificateAuthority::create("test").unwrap();
    let identity = Identity::issue(&ca, &["127.0.0.1".to_owned()], &["master"]).unwrap();
    identity.save(&directory.path().join("node")).unwrap();
    let builder = Node::builder()
        .role("master")
        .credentials(Credentials::Given(Box::new(identity)));
    let node = set(builder).start().unwrap();
    node.spawn("desk", Desk::default).unwrap();
    (node, directory)
}

/// Guards these realms with the credentials of `ops`, whose password is `secret`.
fn security(guarded: &[Realm]) -> Security {
    let file = tempfile::NamedTempFile::new().unwrap();
    let entry = serde_json::json!({"principal": "ops", "secret": hash(b"secret").unwrap()});
    let text = serde_json::json!({ "credentials": [entry] }).to_string();
    std::fs::write(file.path(), text).unwrap();
    Security {
        realms: "mesos-master",
        guarded: guarded.iter().copied().collect(),
        credentials: Some(Arc::new(Known::read(file.path()).unwrap())),
        ..Security::default()
    }
}

fn authority(directory: &TempDir) -> Dial {
    Dial::trusting(&directory.path().join("node/ca.pem")).unwrap()
}

/// Status, head and body of an answer after which the server closes.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

fn parse(answer: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(answer).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

fn say(node: &Node, dial: &Dial, request: &str) -> std::io::Result<Vec<u8>> {
    let exchange = async {
        let mut stream = dial.connect(&node.address().to_string()).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok(answer)
    };
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(async {
            tokio::time::timeout(Duration::from_secs(60), exchange)
                .await
                .unwrap()
        })
}

fn ask(node: &Node, dial: &Dial, method: &str, path: &str, headers: &str) -> Answer {
    let request = format!(
        "{method} /desk{path} HTTP/1.1\r\n{headers}Content-Length: 0\r\nConnection: close\r\n\r\n"
    );
    parse(&say(node, dial, &request).unwrap())
}

const HERE: &str = "Host: 127.0.0.1:5050\r\n";
/// As whoever comes from another machine asks.
const AWAY: &str = "Host: node.example:5050\r\n";

fn authorized(headers: &str, principal: &str, secret: &str) -> String {
    format!(
        "{headers}Authorization: {}\r\n",
        basic::write(principal, secret)
    )
}

#[test]
fn what_is_below_a_path_is_guarded_like_it_however_it_is_written() {
    let (node, _directory) = node(|builder| builder);
    for path in [
        "/logging/toggle",
        "/logging/toggle/x",
        "//logging/t%6fggle/",
    ] {
        let request = format!(
            "GET {path}?level=1&duration=5mins HTTP/1.1\r\nHost: 127.0.0.1\r\nSec-Fetch-Site: cross-site\r\n\
             Connection: close\r\n\r\n"
        );
        let answer = parse(&say(&node, &Dial::Plain, &request).unwrap());
        assert_eq!(answer.status, 403, "{path}: {answer:?}");
    }
    node.shutdown();
}

#[test]
fn one_port_serves_tls_and_plain() {
    let (node, directory) = node(|node| node);
    let tls = authority(&directory);
    for dial in [&Dial::Plain, &tls] {
        let answer = ask(&node, dial, "GET", "/open", HERE);
        assert_eq!((answer.status, &*answer.body), (200, "open"));
    }
    // Another authority than that of the node.
    let other = CertificateAuthority::create("other").unwrap();
    other.save(&directory.path().join("other")).unwrap();
    let stranger = Dial::trusting(&directory.path().join("other/ca.pem")).unwrap();
    assert!(say(&node, &stranger, "GET / HTTP/1.1\r\n\r\n").is_err());
    assert!(Dial::trusting(Path::new("/no/such")).is_err());
    // What only begins like TLS harms nobody.
    let mut noise = TcpStream::connect(node.address().to_string()).unwrap();
    noise.write_all(&[0x16, 3, 1, 255, 255, 1, 2, 3]).unwrap();
    noise.shutdown(std::net::Shutdown::Write).unwrap();
    let _alert = noise.read_to_end(&mut Vec::new());
    assert_eq!(ask(&node, &tls, "GET", "/open", HERE).status, 200);
    node.shutdown();
}

#[test]
fn from_elsewhere_changes_need_tls_and_a_password() {
    let (node, directory) = node(|node| node.http_security(security(&[])));
    let (plain, tls) = (Dial::Plain, authority(&directory));
    let ops = authorized(AWAY, "ops", "secret");
    let wrong = authorized(AWAY, "ops", "wrong");
    for path in ["/change", "/sandbox", "/own"] {
        let answer = ask(&node, &plain, "POST", path, HERE);
        assert_eq!(
            (answer.status, &*answer.body),
            (200, "somebody on this machine")
        );
        let answer = ask(&node, &plain, "POST", path, AWAY);
        assert_eq!(answer.status, 403, "{answer:?}");
        assert!(answer.body.contains("use https"), "{answer:?}");
        let answer = ask(&node, &plain, "POST", path, &ops);
        assert_eq!(answer.status, 403, "{answer:?}");
        for headers in [AWAY, &wrong] {
            let answer = ask(&node, &tls, "POST", path, headers);
            assert_eq!(answer.status, 401, "{answer:?}");
            let asked = "Www-Authenticate: Basic realm=\"mesos-master-";
            assert!(answer.head.contains(asked), "{answer:?}");
        }
        let answer = ask(&node, &tls, "POST", path, &ops);
        assert_eq!((answer.status, &*answer.body), (200, "\"ops\""));
    }
    // Everybody may look.
    assert_eq!(ask(&node, &plain, "GET", "/look", AWAY).status, 200);
    // A page of another site changes nothing, whatever its reader's browser adds.
    let page = format!("{ops}Origin: https://evil.example\r\n");
    assert_eq!(ask(&node, &tls, "POST", "/change", &page).status, 403);
    node.shutdown();
}

#[test]
fn without_credentials_nobody_from_elsewhere_is_asked_for_them() {
    let (node, directory) = node(|node| node);
    let answer = ask(&node, &authority(&directory), "POST", "/change", AWAY);
    assert_eq!(answer.status, 403);
    assert!(answer.body.contains("--http_credentials"), "{answer:?}");
    node.shutdown();
    let trusting = Security {
        trusts_anybody: true,
        ..Security::default()
    };
    let (node, _directory) = self::node(|node| node.http_security(trusting));
    assert_eq!(
        ask(&node, &Dial::Plain, "POST", "/change", AWAY).status,
        200
    );
    node.shutdown();
}

#[test]
fn a_guarded_realm_asks_everybody_and_the_others_nobody() {
    for (guarded, path, other) in [
        (Realm::ReadOnly, "/look", "/change"),
        (Realm::ReadWrite, "/change", "/look"),
        (Realm::Own("scheduler"), "/own", "/change"),
    ] {
        let (node, _directory) = node(|node| node.http_security(security(&[guarded])));
        let ask = |path, headers: &str| ask(&node, &Dial::Plain, "POST", path, headers);
        let answer = ask(path, HERE);
        assert_eq!((answer.status, &*answer.body), (401, "401 Unauthorized."));
        let realm = format!(
            "Www-Authenticate: Basic realm=\"mesos-master-{}\"",
            guarded.name()
        );
        assert!(answer.head.contains(&realm), "{answer:?}");
        for bad in [
            authorized(HERE, "ops", "wrong"),
            authorized(HERE, "nobody", "secret"),
            format!("{HERE}Authorization: Basic !!!\r\n"),
            format!("{HERE}Authorization: \r\n"),
            format!("{HERE}Authorization: Bearer x.y.z\r\n"),
            format!("{HERE}Authorization: \u{e4}\r\n"),
            format!("{HERE}Authorization: Basic {}\r\n", "A".repeat(50_000)),
        ] {
            assert_eq!(ask(path, &bad).status, 401, "{bad}");
            // Where nobody is asked, nobody looks.
            assert_eq!(ask(other, &bad).status, 200, "{bad}");
        }
        // Again and again the same.
        for _ in 0..3 {
            let answer = ask(path, &authorized(HERE, "ops", "secret"));
            assert_eq!((answer.status, &*answer.body), (200, "\"ops\""));
        }
        assert_eq!(ask("/open", HERE).status, 200);
        let health = say(
            &node,
            &Dial::Plain,
            "GET /health HTTP/1.1\r\nConnection: close\r\n\r\n",
        );
        assert_eq!(parse(&health.unwrap()).status, 200);
        let metrics = "GET /metrics/snapshot HTTP/1.1\r\nConnection: close\r\n\r\n";
        let expected = if guarded == Realm::ReadOnly { 401 } else { 200 };
        let metrics = say(&node, &Dial::Plain, metrics).unwrap();
        assert_eq!(parse(&metrics).status, expected);
        node.shutdown();
    }
}

#[test]
fn a_request_that_could_be_two_is_refused_in_its_turn_and_ends_the_connection() {
    let (node, directory) = node(|node| node);
    let fine = "POST /desk/change HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2\r\n\r\nab";
    let hidden = "GET /desk/open HTTP/1.1\r\n\r\n";
    let tls = authority(&directory);
    for (headers, told) in [
        (
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "which one counts",
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
            "which one counts",
        ),
        ("Content-Length: 5\r\nContent-Length: 6", "one number"),
        ("Transfer-Encoding: chunked, identity", "'chunked', once"),
        ("X : y", "one line"),
    ] {
        let bad = format!("POST /desk/change HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}\r\n\r\n");
        for dial in [&Dial::Plain, &tls] {
            let request = format!("{fine}{bad}0\r\n\r\n{hidden}{hidden}");
            let answers = say(&node, dial, &request).unwrap();
            let answers = String::from_utf8(answers).unwrap();
            let all: Vec<&str> = answers.split("HTTP/1.1 ").skip(1).collect();
            assert_eq!(all.len(), 2, "{headers}: {answers}");
            assert!(all[0].starts_with("200"), "{answers}");
            assert!(
                all[1].starts_with("400") && all[1].contains(told),
                "{answers}"
            );
            assert!(all[1].contains("Connection: close"), "{answers}");
        }
    }
    assert!(node.metrics().value("runtime/http_requests_unfit") >= Some(10.0));
    node.shutdown();
}

#[test]
fn limits_are_told_to_those_who_exceed_them() {
    let limits = HttpLimits {
        body: 10,
        head: 2000,
        headers: 10,
        ..HttpLimits::default()
    };
    let (node, _directory) = node(|node| node.http_limits(limits));
    let ask = |headers: &str, body: &str| {
        let head = format!("POST /desk/change HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}\r\n");
        parse(&say(&node, &Dial::Plain, &format!("{head}{body}")).unwrap())
    };
    let close = "Connection: close\r\n";
    let ten = ask(&format!("{close}Content-Length: 10\r\n"), "0123456789");
    assert_eq!(ten.status, 200);
    for (headers, body) in [
        (
            "Content-Length: 11\r\n".to_owned(),
            "01234567890".to_owned(),
        ),
        // Before it has come, and however much of it comes.
        (
            "Content-Length: 1000000000\r\n".to_owned(),
            "x".repeat(500_000),
        ),
        (
            "Transfer-Encoding: chunked\r\n".to_owned(),
            "b\r\n01234567890\r\n0\r\n\r\n".to_owned(),
        ),
    ] {
        let answer = ask(&headers, &body);
        assert_eq!(answer.status, 413, "{answer:?}");
        assert!(answer.body.contains("10 bytes"), "{answer:?}");
        assert!(answer.body.contains("--max_http_body"), "{answer:?}");
    }
    for (headers, flag) in [
        (format!("X: {}\r\n", "x".repeat(100_000)), "--max_http_head"),
        ("X: 1\r\n".repeat(10), "--max_http_headers"),
    ] {
        let answer = ask(&headers, "");
        assert_eq!(answer.status, 431, "{answer:?}");
        assert!(answer.body.contains(flag), "{answer:?}");
    }
    node.shutdown();
}

#[test]
fn bodies_are_read_before_their_process_sees_them_and_broken_ones_are_the_client_s_fault() {
    let (node, _directory) = node(|node| node);
    let ask = |headers: &str, body: &str| {
        let head = format!(
            "POST /desk/length HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}Connection: close\r\n\r\n"
        );
        parse(&say(&node, &Dial::Plain, &format!("{head}{body}")).unwrap())
    };
    for length in [0, 3, 100_000] {
        let answer = ask(
            &format!("Content-Length: {length}\r\n"),
            &"x".repeat(length),
        );
        assert_eq!(
            (answer.status, answer.body),
            (200, format!("Some({length})"))
        );
    }
    for body in ["zz\r\nabc\r\n0\r\n\r\n", "3\r\nabcdef\r\n0\r\n\r\n"] {
        let answer = ask("Transfer-Encoding: chunked\r\n", body);
        assert_eq!(answer.status, 400, "{answer:?}");
    }
    node.shutdown();
}

#[test]
fn whoever_has_proven_nothing_is_told_so_before_a_long_body_is_read() {
    let (node, directory) = node(|node| node.http_security(security(&[])));
    let tls = authority(&directory);
    let ask = |dial: &Dial, headers: &str, body: &str| {
        let head = format!("POST /desk/length HTTP/1.1\r\n{AWAY}{headers}\r\n");
        parse(&say(&node, dial, &format!("{head}{body}")).unwrap())
    };
    let long = "Content-Length: 1000000\r\n";
    let told = ask(&tls, long, "");
    assert_eq!(told.status, 401, "{told:?}");
    assert!(
        told.head.to_lowercase().contains("www-authenticate: basic"),
        "{told:?}"
    );
    let plain = ask(&Dial::Plain, long, "");
    assert_eq!(plain.status, 403, "{plain:?}");
    let chunk = format!("{:x}\r\n{}\r\n0\r\n\r\n", 100_000, "x".repeat(100_000));
    assert_eq!(
        ask(&tls, "Transfer-Encoding: chunked\r\n", &chunk).status,
        401
    );
    // What asks only is short.
    let short = "Connection: close\r\nContent-Length: 3\r\n";
    assert_eq!(ask(&tls, short, "abc").body, "Some(3)");
    let proven = authorized(
        "Connection: close\r\nContent-Length: 100000\r\n",
        "ops",
        "secret",
    );
    assert_eq!(
        ask(&tls, &proven, &"x".repeat(100_000)).body,
        "Some(100000)"
    );
    node.shutdown();
}

#[test]
fn a_script_is_for_answers_that_need_no_password() {
    for (guarded, is_script) in [(&[][..], true), (&[Realm::ReadOnly][..], false)] {
        let (node, _directory) = node(|node| node.http_security(security(guarded)));
        let headers = authorized(HERE, "ops", "secret");
        let answer = ask(&node, &Dial::Plain, "GET", "/data?jsonp=f", &headers);
        let expected = if is_script { "f({})" } else { "{}" };
        assert_eq!(
            (answer.status, &*answer.body),
            (200, expected),
            "{answer:?}"
        );
        node.shutdown();
    }
}

#[test]
fn pages_of_other_sites_read_where_the_flag_says_so_and_change_nothing() {
    let with = |origins: &str| {
        let origins = origins.parse().unwrap();
        node(|node| {
            node.http_security(Security {
                origins,
                ..security(&[])
            })
        })
    };
    let page = format!("{HERE}Origin: https://board.example\r\nSec-Fetch-Site: cross-site\r\n");
    let allowed = |answer: &Answer| {
        answer
            .head
            .contains("Access-Control-Allow-Origin: https://board.example")
    };
    for (flag, may) in [("", false), ("https://board.example", true)] {
        let (node, _directory) = with(flag);
        for path in ["/data", "/nothing"] {
            let answer = ask(&node, &Dial::Plain, "GET", path, &page);
            assert_eq!(allowed(&answer), may, "{answer:?}");
            assert_eq!(answer.head.contains("Vary: Origin"), may, "{answer:?}");
        }
        let change = ask(&node, &Dial::Plain, "POST", "/change", &page);
        assert_eq!(change.status, 403, "{change:?}");
        let before = format!("{page}Access-Control-Request-Method: POST\r\n");
        let answer = ask(&node, &Dial::Plain, "OPTIONS", "/length", &before);
        assert_eq!(
            (answer.status == 204, allowed(&answer)),
            (may, may),
            "{answer:?}"
        );
        node.shutdown();
    }
}

#[test]
fn however_many_want_a_stream_at_once_no_more_get_one_than_may() {
    let limits = HttpLimits {
        streams: 2,
        ..HttpLimits::default()
    };
    let (node, _directory) = node(|node| node.http_limits(limits));
    let address = node.address().to_string();
    let all: Vec<_> = (0..20)
        .map(|_| {
            let address = address.clone();
            std::thread::spawn(move || {
                let mut stream = TcpStream::connect(address).unwrap();
                let request =
                    "POST /desk/follow HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n";
                stream.write_all(request.as_bytes()).unwrap();
                let mut first = [0; 12];
                stream.read_exact(&mut first).unwrap();
                (first.ends_with(b"200"), stream)
            })
        })
        .collect();
    let all: Vec<_> = all.into_iter().map(|one| one.join().unwrap()).collect();
    assert_eq!(all.iter().filter(|(goes_on, _)| *goes_on).count(), 2);
    assert_eq!(node.metrics().value("runtime/http_streams"), Some(2.0));
    node.shutdown();
}

#[test]
fn so_many_answers_go_on_and_no_more() {
    let limits = HttpLimits {
        streams: 2,
        ..HttpLimits::default()
    };
    let (node, _directory) = node(|node| node.http_limits(limits));
    let follow = || {
        let mut stream = TcpStream::connect(node.address().to_string()).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let request = "POST /desk/follow HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).unwrap();
        (String::from_utf8_lossy(&first).into_owned(), stream)
    };
    let (one, two) = (follow(), follow());
    assert_eq!((&*one.0, &*two.0), ("HTTP/1.1 200", "HTTP/1.1 200"));
    assert_eq!(follow().0, "HTTP/1.1 503");
    assert_eq!(node.metrics().value("runtime/http_streams"), Some(2.0));
    // Both end, and the answers with them.
    let dropped = ask(&node, &Dial::Plain, "POST", "/drop", HERE);
    assert_eq!(dropped.status, 200);
    for (_, mut stream) in [one, two] {
        let mut rest = Vec::new();
        while !rest.ends_with(b"0\r\n\r\n") {
            let mut piece = [0; 100];
            let count = stream.read(&mut piece).unwrap();
            assert!(count > 0);
            rest.extend_from_slice(&piece[..count]);
        }
    }
    let again = (0..1000)
        .map(|_| follow())
        .find(|(status, _)| status.ends_with("200"));
    assert!(again.is_some());
    node.shutdown();
}
