//! The HTTP server of a node against clients that say nothing, say it slowly, are too many, or ask for nonsense.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use meseta_runtime::http::HttpLimits;
use meseta_runtime::identity::{CertificateAuthority, Identity};
use meseta_runtime::logging::{Filter, LOGGING, Logging};
use meseta_runtime::{
    Context, Credentials, Message, Node, NodeBuilder, Pid, Process, Receive, Response, Routes,
};
use serde::{Deserialize, Serialize};

fn node(set: impl FnOnce(NodeBuilder) -> NodeBuilder) -> Node {
    let ca = CertificateAuthority::create("test").unwrap();
    let identity = Identity::issue(&ca, &["127.0.0.1".to_owned()], &["master"]).unwrap();
    let builder = Node::builder()
        .role("master")
        .credentials(Credentials::Given(Box::new(identity)));
    set(builder).start().unwrap()
}

struct Client(TcpStream);

impl Client {
    fn of(node: &Node) -> Self {
        let stream = TcpStream::connect(node.address().to_string()).unwrap();
        // Turns a hang into a failure.
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        Self(stream)
    }

    /// Asks and reads the whole answer; the connection stays. None when it was closed.
    fn get(&mut self, path: &str) -> Option<(u16, String)> {
        self.ask(path).ok()?;
        self.answer()
    }

    fn ask(&mut self, path: &str) -> std::io::Result<()> {
        write!(self.0, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    }

    fn answer(&mut self) -> Option<(u16, String)> {
        let mut answer = Vec::new();
        loop {
            let mut piece = [0; 4096];
            let read = self.0.read(&mut piece).ok().filter(|read| *read > 0)?;
            answer.extend_from_slice(&piece[..read]);
            let text = String::from_utf8_lossy(&answer).into_owned();
            let Some((head, body)) = text.split_once("\r\n\r\n") else {
                continue;
            };
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("Content-Length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                let status = head.split(' ').nth(1).unwrap().parse().unwrap();
                return Some((status, body.to_owned()));
            }
        }
    }

    /// Whether the server closes it without a word.
    fn is_closed(&mut self) -> bool {
        // A close with bytes unread on the other side is a reset.
        !matches!(self.0.read(&mut [0; 64]), Ok(1..))
    }
}

fn once(node: &Node, path: &str) -> (u16, String) {
    Client::of(node).get(path).unwrap()
}

#[test]
fn idle_connections_however_many_keep_nobody_out() {
    let node = node(|node| node.http_connections(4));
    let mut first = Client::of(&node);
    assert_eq!(first.get("/health"), Some((200, String::new())));
    let idle: Vec<Client> = (0..20).map(|_| Client::of(&node)).collect();
    assert_eq!(once(&node, "/health").0, 200);
    assert!(first.is_closed());
    let metrics = node.metrics();
    assert!(metrics.value("runtime/http_connections_gave_way") >= Some(16.0));
    assert!(metrics.value("runtime/http_connections") <= Some(4.0));
    drop(idle);
    node.shutdown();
}

#[test]
fn a_head_that_does_not_come_ends_the_connection_and_silence_between_requests_does_not() {
    let node = node(|node| node.http_patience(Duration::from_millis(100)));
    let mut silent = Client::of(&node);
    let mut served = Client::of(&node);
    assert_eq!(served.get("/health").unwrap().0, 200);
    let mut slow = Client::of(&node);
    slow.0.write_all(b"GET /health HT").unwrap();
    assert!(slow.is_closed());
    // They have been silent for longer than that one.
    assert_eq!(silent.get("/health").unwrap().0, 200);
    assert_eq!(served.get("/health").unwrap().0, 200);
    // A head that has begun on a connection that was served before has the same time.
    served.0.write_all(b"GET /health HT").unwrap();
    assert!(served.is_closed());
    node.shutdown();
}

/// Takes calls, and says how long they are.
struct Listener;

impl Process for Listener {
    fn routes(routes: &mut Routes<Self>) {
        routes.call("/say", |_, _, request| {
            Response::text(200, request.body.len().to_string())
        });
    }
}

#[test]
fn a_body_that_does_not_come_ends_its_request_and_the_connection() {
    // Long enough for a machine that is busy to send the head in time.
    let node = node(|node| node.http_patience(Duration::from_secs(2)));
    node.spawn("listener", || Listener).unwrap();
    let head = b"POST /listener/say HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\n\r\n";
    let mut whole = Client::of(&node);
    whole
        .0
        .write_all(&[head, b"abcde".as_slice()].concat())
        .unwrap();
    assert_eq!(whole.answer(), Some((200, "5".to_owned())));
    let mut half = Client::of(&node);
    half.0
        .write_all(&[head, b"ab".as_slice()].concat())
        .unwrap();
    let (status, text) = half.answer().unwrap();
    assert_eq!(status, 408);
    assert!(text.contains("did not come within 2s"), "{text}");
    assert!(half.is_closed());
    node.shutdown();
}

#[test]
fn a_compressed_call_is_read_as_what_it_was() {
    let node = node(|node| {
        node.http_limits(HttpLimits {
            body: 1000,
            ..HttpLimits::default()
        })
    });
    node.spawn("listener", || Listener).unwrap();
    let compressed = |length: usize| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&vec![b'x'; length]).unwrap();
        encoder.finish().unwrap()
    };
    let mut client = Client::of(&node);
    let mut say = |encoding: &str, body: &[u8]| {
        let head = format!(
            "POST /listener/say HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {}\r\n{encoding}\r\n",
            body.len()
        );
        client
            .0
            .write_all(&[head.as_bytes(), body].concat())
            .unwrap();
        client.answer().unwrap()
    };
    let gzip = "Content-Encoding: gzip\r\n";
    assert_eq!(say(gzip, &compressed(1000)), (200, "1000".to_owned()));
    // Those that nobody knows are passed over.
    let other = "Content-Encoding: identity\r\n";
    assert_eq!(say(other, b"abc"), (200, "3".to_owned()));
    let (status, text) = say(gzip, b"abc");
    assert!(status == 400 && text.contains("gzip"), "{status} {text}");
    let (status, text) = say(gzip, &compressed(1001));
    assert!(
        status == 413 && text.contains("1000 bytes"),
        "{status} {text}"
    );
    node.shutdown();
}

/// Shows a document, as long as it is asked to.
struct Shown;

impl Process for Shown {
    fn routes(routes: &mut Routes<Self>) {
        routes.get("/letters", |_, _, request| {
            let length = request.query["length"].parse().unwrap();
            Response::json(&serde_json::Value::String("x".repeat(length)))
        });
        routes.get("/named", |_, _, request| {
            let tag = request.tag("state");
            if request.knows(&tag) {
                return Response::not_modified(tag);
            }
            Response::json(&serde_json::json!({})).tagged(tag)
        });
    }
}

/// Head and body of the answer to a request with these headers, after which the connection ends.
fn exchange(node: &Node, method: &str, path: &str, headers: &str) -> (String, Vec<u8>) {
    let mut client = Client::of(node);
    let head = format!("{method} {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n");
    write!(client.0, "{head}{headers}\r\n").unwrap();
    let mut answer = Vec::new();
    client.0.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|part| part == b"\r\n\r\n");
    let body = answer.split_off(end.unwrap() + 4);
    (String::from_utf8(answer).unwrap(), body)
}

/// The value of a header of an answer.
fn value<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    let found = lines.find(|(known, _)| known.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value)
}

#[test]
fn an_answer_that_the_client_knows_is_not_sent_again() {
    let node = node(|node| node);
    node.spawn("shown", || Shown).unwrap();
    for path in [
        "/shown/letters?length=3",
        "/shown/letters?length=300000",
        "/shown/named",
        "/shown/letters?length=3&jsonp=f",
    ] {
        let (head, body) = exchange(&node, "GET", path, "");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let tag = value(&head, "etag").unwrap();
        for known in [
            format!("If-None-Match: \"other\"\r\nIf-None-Match: {tag}\r\n"),
            "If-None-Match: *\r\n".to_owned(),
        ] {
            let (head, body) = exchange(&node, "GET", path, &known);
            assert!(head.starts_with("HTTP/1.1 304 "), "{path} {known} {head}");
            assert_eq!(value(&head, "etag"), Some(tag), "{path}");
            assert_eq!(value(&head, "content-type"), None, "{path}");
            assert_eq!(body, b"", "{path}");
        }
        let other = "If-None-Match: W/\"other\"\r\n";
        assert_eq!(exchange(&node, "GET", path, other).1, body, "{path}");
        // What may change something is answered in full.
        let posted = exchange(&node, "POST", path, &format!("If-None-Match: {tag}\r\n"));
        assert_eq!(posted.1, body, "{path}");
    }
    // Only who made it knows what HEAD asks for.
    for (path, status) in [("/shown/named", 304), ("/shown/letters?length=3", 200)] {
        let (head, body) = exchange(&node, "HEAD", path, "If-None-Match: *\r\n");
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        assert_eq!(body, b"");
    }
    let head = exchange(&node, "GET", "/shown/nothing", "If-None-Match: *\r\n").0;
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
    assert_eq!(value(&head, "etag"), None);
    node.shutdown();
}

#[test]
fn a_long_answer_is_compressed_for_those_who_take_it() {
    let node = node(|node| node);
    node.spawn("shown", || Shown).unwrap();
    let gzip = "Accept-Encoding: deflate, gzip\r\n";
    for (length, is_long) in [(1021, false), (1022, true), (300_000, true)] {
        let path = format!("/shown/letters?length={length}");
        let (plain, letters) = exchange(&node, "GET", &path, "");
        assert_eq!(value(&plain, "content-encoding"), None);
        assert_eq!(value(&plain, "vary"), Some("Accept-Encoding"));
        assert_eq!(letters.len(), length + 2);
        let (head, body) = exchange(&node, "GET", &path, gzip);
        assert_eq!(value(&head, "vary"), Some("Accept-Encoding"));
        assert_eq!(value(&head, "etag"), value(&plain, "etag"));
        assert_eq!(
            value(&head, "content-length"),
            Some(&*body.len().to_string())
        );
        if !is_long {
            assert_eq!(value(&head, "content-encoding"), None);
            assert_eq!(body, letters);
            continue;
        }
        assert_eq!(value(&head, "content-encoding"), Some("gzip"));
        assert!(body.len() < letters.len() / 10);
        let mut back = Vec::new();
        flate2::read::GzDecoder::new(&*body)
            .read_to_end(&mut back)
            .unwrap();
        assert_eq!(back, letters);
        let (told, none) = exchange(&node, "HEAD", &path, gzip);
        assert_eq!(
            value(&told, "content-length"),
            value(&head, "content-length")
        );
        assert_eq!(value(&told, "content-encoding"), Some("gzip"));
        assert_eq!(none, b"");
        // Known by its tag it is not sent, and so not compressed.
        let known = format!("{gzip}If-None-Match: {}\r\n", value(&head, "etag").unwrap());
        let (head, body) = exchange(&node, "GET", &path, &known);
        assert!(head.starts_with("HTTP/1.1 304 "), "{head}");
        assert_eq!(value(&head, "content-encoding"), None);
        assert_eq!(value(&head, "vary"), Some("Accept-Encoding"));
        assert_eq!(body, b"");
        let refused = exchange(&node, "GET", &path, "Accept-Encoding: gzip;q=0, *\r\n");
        assert_eq!(refused.1, letters);
    }
    node.shutdown();
}

#[test]
fn a_process_that_does_not_run_is_not_found() {
    let node = node(|node| node);
    let (status, text) = once(&node, "/__processes__?id=nope");
    assert_eq!(status, 404);
    assert!(text.contains("`nope`"), "{text}");
    let (status, shown) = once(&node, "/__processes__?id=logging");
    assert_eq!(status, 200);
    assert!(shown.contains("\"logging\""), "{shown}");
    node.shutdown();
}

/// Answers one path.
struct Greeter;

impl Process for Greeter {
    fn routes(routes: &mut Routes<Self>) {
        routes.get("/hello", |_, _, _| Response::text(200, "hello"));
    }
}

#[test]
fn what_is_about_to_start_is_not_there_yet_and_what_has_ended_is_no_more() {
    let plain = node(|node| node);
    assert_eq!(once(&plain, "/hello").0, 404);
    plain.shutdown();
    let node = node(NodeBuilder::awaits_delegate);
    for path in ["/hello", "/greeter/hello", "/other"] {
        assert_eq!(once(&node, path).0, 503, "{path}");
    }
    assert_eq!(once(&node, "/health").0, 200);
    let greeter = node.spawn("greeter", || Greeter).unwrap();
    assert_eq!(once(&node, "/greeter/hello"), (200, "hello".to_owned()));
    assert_eq!(once(&node, "/hello").0, 503);
    node.delegate("greeter");
    assert_eq!(once(&node, "/hello"), (200, "hello".to_owned()));
    assert_eq!(once(&node, "/other").0, 404);
    let ended = node.ended(&greeter);
    node.terminate(&greeter);
    futures::executor::block_on(ended);
    for path in ["/hello", "/greeter/hello"] {
        assert_eq!(once(&node, path).0, 404, "{path}");
    }
    node.shutdown();
}

#[test]
fn a_toggle_that_cannot_be_meant_is_refused_with_a_reason_and_changes_nothing() {
    let filter = Filter::new("info", |_| Ok(()));
    let node = node(|node| node);
    let known = filter.clone();
    // In place of the one that every node has: this test program has no filter of its own.
    let own = node.pid(LOGGING).unwrap();
    let ended = node.ended(&own);
    node.terminate(&own);
    futures::executor::block_on(ended);
    node.spawn(LOGGING, move || Logging::of(move || Some(known.clone())))
        .unwrap();
    for (query, reason) in [
        ("level=-1&duration=1mins", "Invalid level '-1'"),
        ("level=1.5&duration=1mins", "Invalid level '1.5'"),
        ("level=&duration=1mins", "Invalid level ''"),
        ("level=%2B1&duration=1mins", "Invalid level '+1'"),
        (
            "level=4294967296&duration=1mins",
            "Invalid level '4294967296'",
        ),
        (
            "level=1&level=2&duration=1mins",
            "'level' is given more than once",
        ),
        (
            "level=1&duration=1mins&duration=2mins",
            "'duration' is given more than once",
        ),
        ("level=1&duration=soon", "duration `soon`"),
        ("level=1", "Expecting 'duration=value'"),
    ] {
        let (status, text) = once(&node, &format!("/logging/toggle?{query}"));
        assert_eq!(status, 400, "{query}: {text}");
        assert!(text.contains(reason), "{query}: {text}");
        assert_eq!(filter.in_force().directives, "info", "{query}");
    }
    assert_eq!(once(&node, "/logging/toggle?level=9&duration=1mins").0, 200);
    assert_eq!(filter.in_force().directives, "info,meseta=trace");
    node.shutdown();
}

#[test]
fn whatever_is_served_stands_in_the_description_and_the_reverse() {
    let node = node(|node| node);
    node.spawn("shown", || Shown).unwrap();
    node.delegate("shown");
    let (status, text) = once(&node, "/openapi.json");
    assert_eq!(status, 200);
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    let paths = document["paths"].as_object().unwrap();
    for path in [
        "/letters",
        "/shown/letters",
        "/named",
        "/health",
        "/metrics/snapshot",
        "/logging",
        "/help",
    ] {
        assert!(paths[path]["get"].is_object(), "{path}");
    }
    for (path, item) in paths {
        let query = if path.ends_with("/letters") {
            "?length=3"
        } else {
            ""
        };
        for method in item.as_object().unwrap().keys() {
            let target = format!("{path}{query}");
            let (head, _) = exchange(&node, &method.to_uppercase(), &target, "");
            for status in ["404", "405", "5"] {
                let start = format!("HTTP/1.1 {status}");
                assert!(!head.starts_with(&start), "{method} {path}: {head}");
            }
        }
    }
    assert_eq!(once(&node, "/help/shown/letters").0, 200);
    node.shutdown();
}

#[test]
fn a_method_that_a_path_does_not_take_is_refused_in_words() {
    let node = node(|node| node);
    for path in ["/metrics", "/__processes__"] {
        let mut client = Client::of(&node);
        let head = format!("POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n");
        client.0.write_all(head.as_bytes()).unwrap();
        let (status, text) = client.answer().unwrap();
        assert_eq!(status, 405, "{path}: {text}");
        assert!(
            text.contains("Expecting one of { 'GET' }, but received 'POST'"),
            "{text}"
        );
    }
    node.shutdown();
}

/// Counts who looks at it, and handles one message for as long as it is not let go.
struct Busy {
    begun: Sender<()>,
    go: Receiver<()>,
    looks: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Work;

impl Message for Work {
    const NAME: &'static str = "test.Work";
}

impl Process for Busy {
    fn routes(routes: &mut Routes<Self>) {
        routes.on::<Work>().get("/looks", |busy, _, _| {
            busy.looks += 1;
            Response::text(200, busy.looks.to_string())
        });
    }
}

impl Receive<Work> for Busy {
    fn receive(&mut self, _: &mut Context<'_, Self>, _: &Pid, _: Work) {
        self.begun.send(()).unwrap();
        self.go.recv().unwrap();
    }
}

#[test]
fn what_a_client_asked_that_has_left_is_not_looked_up() {
    let node = node(|node| node);
    let (begun, has_begun) = channel();
    let (let_go, go) = channel();
    let busy = Busy {
        begun,
        go,
        looks: 0,
    };
    let busy = node.spawn("busy", move || busy).unwrap();
    node.send(&busy, Work);
    has_begun.recv().unwrap();
    let waiting = |count: u64| {
        wait_for(|| {
            let shown = once(&node, "/__processes__?id=busy").1;
            let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
            shown["processes"][0]["control_depth"] == count
        });
    };
    let mut left = Client::of(&node);
    left.ask("/busy/looks").unwrap();
    waiting(1);
    drop(left);
    let mut stays = Client::of(&node);
    stays.ask("/busy/looks").unwrap();
    waiting(2);
    // One that stays, and this thread's own by turns.
    wait_for(|| node.metrics().value("runtime/http_connections") == Some(1.0));
    let_go.send(()).unwrap();
    assert_eq!(stays.answer(), Some((200, "1".to_owned())));
    let abandoned = node.metrics().value("runtime/http_requests_abandoned");
    assert_eq!(abandoned, Some(1.0));
    node.shutdown();
}

/// Looks again and again, as nothing outside the node can be told of a change.
fn wait_for(mut holds: impl FnMut() -> bool) {
    while !holds() {
        std::thread::yield_now();
    }
}
