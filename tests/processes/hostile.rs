//! Requests by those who mean no good, byte for byte, to a master and an agent that must not care.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};

use meseta_tests::{Cluster, LIMIT, http_get};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;

/// How many are sent when `MESETA_HOSTILE_REQUESTS` does not say.
const FEW: usize = 400;

/// Connections that are left open with half a request at a time.
const HALF_OPEN: usize = 60;

/// The status codes of answers that follow each other, without anything between or behind.
fn statuses(mut bytes: &[u8]) -> Vec<u16> {
    let mut all = Vec::new();
    // What begins like TLS and is none is answered with an alert, which is no answer of HTTP.
    while !bytes.starts_with(&[0x15, 3]) && !bytes.is_empty() {
        let end = bytes.windows(4).position(|part| part == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no head: {:?}", String::from_utf8_lossy(bytes)));
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        assert!(head.starts_with("HTTP/1."), "{head}");
        let status = head[9..12].parse().unwrap();
        all.push(status);
        let header = |name: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(": "));
            let found = lines.find(|(known, _)| known.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value)
        };
        if status == 100 {
            bytes = &bytes[end + 4..];
            continue;
        }
        // The rest of a stream is of no interest.
        if header("transfer-encoding").is_some() {
            break;
        }
        let length: usize = header("content-length").map_or(0, |text| text.parse().unwrap());
        bytes = bytes[end + 4..].get(length..).unwrap_or_default();
    }
    all
}

struct Attacker {
    random: StdRng,
    addresses: Vec<String>,
    half_open: VecDeque<TcpStream>,
}

impl Attacker {
    fn pick<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.random.random_range(0..all.len())]
    }

    fn connect(&mut self) -> TcpStream {
        let address = &self.addresses[self.random.random_range(0..self.addresses.len())];
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Sends this and no more; what comes back until the other side ends.
    fn send(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.connect();
        // The other side may have heard enough.
        let sent = stream.write_all(bytes);
        if sent.is_ok() {
            let _gone = stream.shutdown(Shutdown::Write);
        }
        read(stream)
    }

    /// As [`Attacker::send`], for what is a request or is refused.
    fn answered(&mut self, bytes: &[u8]) -> Vec<u16> {
        statuses(&self.send(bytes))
    }

    fn path(&mut self) -> &'static str {
        self.pick(&[
            "/health",
            "/state",
            "/master/state",
            "/slave(1)/state",
            "/api/v1",
            "/api/v1/scheduler",
            "/api/v1/executor",
            "/files/read?path=../../../../etc/passwd",
            "/files/browse?path=%00",
            "/files/download?path=/proc/self/environ",
            "/%2e%2e/%2e%2e/etc/passwd",
            "//////",
            "/state?limit=99999999999999999999&x=%zz",
            "/tasks?offset=-1&limit=-1",
            "/nothing",
            "/__processes__?id=%ff",
            "/logging/toggle?level=9&duration=-1secs",
            "http://elsewhere.example/state",
            "*",
        ])
    }

    /// Two lengths of one body, of which a proxy before this may have believed the other.
    fn smuggling(&mut self) {
        let lengths = self.pick(&[
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
            "Content-Length: 5\r\nContent-Length: 6",
            "Content-Length: 5, 6",
            "Content-Length: +5",
            "Content-Length: -1",
            "Content-Length: 0x5",
            "Content-Length: 99999999999999999999999",
            "Transfer-Encoding: xchunked",
            "Transfer-Encoding: chunked, identity",
            "Transfer-Encoding : chunked",
            "Transfer-Encoding:\tchunked",
            " Transfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
            "Transfer-Encoding: \"chunked\"",
            "Content-Length: 5\nTransfer-Encoding: chunked",
            "X: y\r\r\nContent-Length: 5",
        ]);
        let body = self.pick(&[
            "0\r\n\r\nGET /health HTTP/1.1\r\nHost: x\r\n\r\n",
            "5\r\nabcde\r\n0\r\n\r\n",
            "ffffffffffffffffffff\r\nx",
            "-1\r\nx\r\n0\r\n\r\n",
            "5;x=\"\r\n\r\nabcde\r\n0\r\n\r\n",
            "zz\r\n",
            "1\r\nab\r\n0\r\n\r\n",
            "0\r\nContent-Length: 5\r\n\r\n",
        ]);
        let path = self.path();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{lengths}\r\n\r\n{body}"
        );
        let answers = self.answered(request.as_bytes());
        assert!(answers.len() <= 2, "{request:?}: {answers:?}");
        if lengths.starts_with("Transfer-Encoding: chunked\r\nC")
            || lengths.starts_with("Content-Length: 5\r\n")
        {
            // Neither of the two that it could be is served.
            assert_eq!(answers, [400], "{request:?}");
        }
    }

    /// Byte by byte, and right.
    fn drop_by_drop(&mut self) {
        let mut stream = self.connect();
        let request = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        for byte in request {
            stream.write_all(&[*byte]).unwrap();
        }
        assert_eq!(statuses(&read(stream)), [200]);
    }

    /// Half of a request, and silence.
    fn half_open(&mut self) {
        let path = self.path();
        let whole = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{{\"type\""
        );
        let length = self.random.random_range(0..=whole.len());
        let mut stream = self.connect();
        stream.write_all(&whole.as_bytes()[..length]).unwrap();
        self.half_open.push_back(stream);
        if self.half_open.len() > HALF_OPEN {
            self.half_open.pop_front();
        }
    }

    /// Asks and leaves without hearing.
    fn early_close(&mut self) {
        let path = self.path();
        let body = self.pick(&[
            r#"{"type":"SUBSCRIBE"}"#,
            r#"{"type":"GET_STATE"}"#,
            r#"{"type":"SUBSCRIBE","subscribe":{"framework_info":{"user":"root","name":"x"}}}"#,
        ]);
        let mut stream = self.connect();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let length = if self.random.random_bool(0.5) {
            request.len()
        } else {
            self.random.random_range(0..request.len())
        };
        let _gone = stream.write_all(&request.as_bytes()[..length]);
    }

    /// A head that nobody needs so long.
    fn oversize(&mut self) {
        let size = 1 << self.random.random_range(10..22);
        let long = "x".repeat(size);
        let request = match self.random.random_range(0..4) {
            0 => format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"),
            1 => format!("GET /health HTTP/1.1\r\nHost: x\r\nX: {long}\r\n\r\n"),
            2 => {
                let many = "X: y\r\n".repeat(size / 8);
                format!("GET /health HTTP/1.1\r\nHost: x\r\n{many}\r\n")
            }
            _ => format!("{long} /health HTTP/1.1\r\nHost: x\r\n\r\n"),
        };
        let answers = self.answered(request.as_bytes());
        assert!(answers.len() <= 1, "{answers:?}");
    }

    fn malformed(&mut self) {
        let path = self.path();
        let line = match self.random.random_range(0..12) {
            0 => format!("BREW {path} HTTP/1.1"),
            1 => format!("get {path} HTTP/1.1"),
            2 => format!(" {path} HTTP/1.1"),
            3 => format!("GET {path} HTTP/9.9"),
            4 => format!("GET {path}"),
            5 => format!("GET  {path}  HTTP/1.1"),
            6 => format!("CONNECT {path} HTTP/1.1"),
            7 => format!("OPTIONS {path} HTTP/1.1"),
            8 => format!("G\0T {path} HTTP/1.1"),
            9 => format!("TRACE {path} HTTP/1.1"),
            10 => "PRI * HTTP/2.0\r\n\r\nSM".to_owned(),
            _ => format!("DELETE {path} HTTP/1.0"),
        };
        let rest = self.pick(&[
            "\r\nHost: x\r\n\r\n",
            "\nHost: x\n\n",
            "\r\n\r\n",
            "\r\nHost: x\r\nHost: y\r\n\r\n",
            "\r\nHost\r\n\r\n",
            "\r\n: x\r\n\r\n",
            "\r\nX: \0\r\n\r\n",
            "\r\nX: \u{fffd}\r\n\r\n",
            "\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}",
            "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
            "\r\nAccept-Encoding: gzip;q=9, *;q=x\r\n\r\n",
            "\r\nAuthorization: Basic ====\r\n\r\n",
        ]);
        self.answered(format!("{line}{rest}").as_bytes());
    }

    fn noise(&mut self) {
        let size = self.random.random_range(0..2000);
        let mut bytes: Vec<u8> = (0..size).map(|_| self.random.random()).collect();
        if self.random.random_bool(0.3) {
            // How TLS begins.
            bytes.splice(0..0, [0x16, 3, 1, 2, 0, 1, 0]);
        }
        let answers = self.answered(&bytes);
        assert!(answers.len() <= 1, "{answers:?}");
    }

    /// Calls that are none.
    fn calls(&mut self) {
        let path = self.pick(&["/api/v1", "/api/v1/scheduler", "/api/v1/executor"]);
        let kind = self.pick(&["application/json", "application/x-protobuf", "text/plain"]);
        let depth = self.random.random_range(1..100_000);
        let body: Vec<u8> = match self.random.random_range(0..6) {
            0 => "[".repeat(depth).into_bytes(),
            1 => r#"{"a":"#.repeat(depth).into_bytes(),
            2 => vec![0x0a; depth],
            3 => (0..depth % 500).map(|_| self.random.random()).collect(),
            4 => br#"{"type":"ACCEPT","framework_id":{"value":"x"},"accept":null}"#.to_vec(),
            _ => br#"{"type":1e999,"framework_id":[]}"#.to_vec(),
        };
        let mut request = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nMesos-Stream-Id: \u{e4}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(&body);
        let answers = self.answered(&request);
        assert!(
            answers.iter().all(|status| (400..600).contains(status)),
            "{answers:?}"
        );
    }

    /// Many requests at once: as many answers, in order.
    fn pipelined(&mut self) {
        let count = self.random.random_range(2..40);
        let (mut requests, mut expected) = (String::new(), Vec::new());
        for at in 0..count {
            let (request, status) = match self.random.random_range(0..3) {
                0 => ("GET /health HTTP/1.1\r\nHost: x\r\n", 200),
                1 => ("GET /nothing HTTP/1.1\r\nHost: x\r\n", 404),
                _ => (
                    "POST /api/v1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n",
                    400,
                ),
            };
            requests += request;
            if at + 1 == count {
                requests += "Connection: close\r\n";
            }
            requests += "\r\n";
            expected.push(status);
        }
        let mut stream = self.connect();
        stream.write_all(requests.as_bytes()).unwrap();
        assert_eq!(statuses(&read(stream)), expected);
    }

    fn attack(&mut self) {
        match self.random.random_range(0..20) {
            0..=3 => self.smuggling(),
            4 | 5 => self.drop_by_drop(),
            6 | 7 => self.half_open(),
            8..=10 => self.early_close(),
            11 => self.oversize(),
            12..=14 => self.malformed(),
            15 | 16 => self.noise(),
            17 | 18 => self.calls(),
            _ => self.pipelined(),
        }
    }
}

/// All that comes until the other side ends, in order or not.
fn read(mut stream: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Err(error) = stream.read_to_end(&mut bytes) {
        let reset = matches!(
            error.kind(),
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
        );
        assert!(reset, "{error}");
        // It may have been cut off within an answer.
        bytes.clear();
    }
    bytes
}

fn slaves(cluster: &Cluster) -> Value {
    let (status, body) = http_get(&cluster.master, "/slaves");
    assert_eq!(status, 200);
    serde_json::from_str(&body).unwrap()
}

#[test]
fn master_and_agent_stay_well_whatever_is_sent_to_them() {
    let count = std::env::var("MESETA_HOSTILE_REQUESTS");
    let count = count.map_or(FEW, |text| text.parse().unwrap());
    let cluster = Cluster::start(1, &["--resources", "cpus:2;mem:512"]);
    let before = [cluster.pids_of("master"), cluster.pids_of("agent-1")];
    let known = slaves(&cluster);
    let pid = known["slaves"][0]["pid"].as_str().unwrap();
    let agent = pid.split('@').nth(1).unwrap().to_owned();
    let mut attacker = Attacker {
        random: StdRng::seed_from_u64(1),
        addresses: vec![cluster.master.clone(), agent],
        half_open: VecDeque::new(),
    };
    for number in 1..=count {
        attacker.attack();
        if number % 100 == 0 {
            for address in &attacker.addresses {
                assert_eq!(http_get(address, "/health").0, 200);
            }
        }
    }
    // They are the same programs, know each other, and work.
    assert_eq!(
        before,
        [cluster.pids_of("master"), cluster.pids_of("agent-1")]
    );
    let after = slaves(&cluster);
    assert_eq!(after["slaves"][0]["id"], known["slaves"][0]["id"]);
    assert_eq!(after["slaves"][0]["active"], true);
    let output = cluster.execute(&["--name=well", "--command=true"]);
    assert!(output.status.success(), "{output:?}");
    drop(attacker);
    cluster.stop();
}
