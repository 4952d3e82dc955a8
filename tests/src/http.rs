//! A client of Mesos' HTTP API as small as can be: it sends what it is told, byte for byte, and shows what comes back.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};

use serde_json::{Value, json};

use crate::door::{Door, Stream};
use crate::wait_for;

/// Status, headers and body of an answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Headers in the order sent, their names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body; empty where a stream follows.
    pub body: String,
}

impl Answer {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// One connection, kept open.
pub struct Connection {
    stream: BufReader<Stream>,
    door: Door,
}

impl Connection {
    /// Connects to `host:port`.
    pub fn open(address: &str) -> Self {
        Self::through(&Door::plain(address))
    }

    /// Connects so.
    pub fn through(door: &Door) -> Self {
        Self::try_through(door).unwrap()
    }

    fn try_through(door: &Door) -> std::io::Result<Self> {
        Ok(Self {
            stream: BufReader::new(door.open()?),
            door: door.clone(),
        })
    }

    /// Sends a request without waiting for the answer.
    pub fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) {
        let host = &self.door.address;
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n");
        if let Some(shown) = &self.door.authorization {
            request += &format!("Authorization: {shown}\r\n");
        }
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        request += &format!("Content-Length: {}\r\n\r\n", body.len());
        let mut request = request.into_bytes();
        request.extend_from_slice(body);
        self.stream.get_mut().write_all(&request).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Reads an answer, but not a stream that follows its head.
    pub fn answer(&mut self) -> Answer {
        let status = self.line();
        let status = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let mut headers = Vec::new();
        loop {
            let line = self.line();
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            headers.push((name.to_lowercase(), value.trim().to_owned()));
        }
        let mut answer = Answer {
            status: status.unwrap(),
            headers,
            body: String::new(),
        };
        if let Some(length) = answer.header("content-length") {
            let mut body = vec![0; length.parse().unwrap()];
            self.stream.read_exact(&mut body).unwrap();
            answer.body = String::from_utf8(body).unwrap();
        }
        answer
    }

    /// Sends a request and reads its answer.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        self.send(method, path, headers, body.as_bytes());
        self.answer()
    }

    /// The next chunk of a stream; none when it has ended.
    pub fn chunk(&mut self) -> Option<Vec<u8>> {
        let size = usize::from_str_radix(&self.line(), 16).ok()?;
        let mut chunk = vec![0; size + 2];
        self.stream.read_exact(&mut chunk).unwrap();
        chunk.truncate(size);
        (size > 0).then_some(chunk)
    }

    /// Breaks the connection.
    pub fn close(&self) {
        self.stream.get_ref().close();
    }
}

/// A scheduler that speaks the HTTP API in JSON.
pub struct Scheduler {
    events: Connection,
    calls: Connection,
    /// The framework's id.
    pub framework_id: String,
    /// The subscription's.
    pub stream_id: String,
    /// The first event.
    pub subscribed: Value,
}

const JSON: (&str, &str) = ("Content-Type", "application/json");

impl Scheduler {
    /// Subscribes as this framework, which has an id when it was there before.
    pub fn subscribe(master: &str, info: &Value) -> Self {
        Self::subscribe_through(&Door::plain(master), info)
    }

    /// The same, so.
    pub fn subscribe_through(master: &Door, info: &Value) -> Self {
        let mut events = Connection::through(master);
        let mut call = json!({"type": "SUBSCRIBE", "subscribe": {"framework_info": info}});
        if let Some(id) = info.get("id") {
            call["framework_id"] = id.clone();
        }
        let call = call.to_string();
        events.send("POST", "/api/v1/scheduler", &[JSON], call.as_bytes());
        let answer = events.answer();
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
        let mut scheduler = Self {
            events,
            calls: Connection::through(master),
            framework_id: String::new(),
            stream_id: answer
                .header("mesos-stream-id")
                .unwrap_or_default()
                .to_owned(),
            subscribed: Value::Null,
        };
        let subscribed = scheduler.event().unwrap();
        assert_eq!(subscribed["type"], "SUBSCRIBED", "{subscribed}");
        let id = &subscribed["subscribed"]["framework_id"]["value"];
        scheduler.framework_id = id.as_str().unwrap().to_owned();
        scheduler.subscribed = subscribed;
        scheduler
    }

    /// The next event; none when the stream has ended. Each is one record in one chunk.
    pub fn event(&mut self) -> Option<Value> {
        let chunk = self.events.chunk()?;
        let at = chunk.iter().position(|byte| *byte == b'\n').unwrap();
        let length = std::str::from_utf8(&chunk[..at]).unwrap().parse::<usize>();
        assert_eq!(length.unwrap(), chunk.len() - at - 1);
        Some(serde_json::from_slice(&chunk[at + 1..]).unwrap())
    }

    /// The next event of this type; others are dropped.
    pub fn event_of(&mut self, kind: &str) -> Value {
        loop {
            let event = self.event().unwrap();
            assert!(kind == "ERROR" || event["type"] != "ERROR", "{event}");
            if event["type"] == kind {
                return event;
            }
        }
    }

    /// The next offer.
    pub fn offer(&mut self) -> Value {
        self.event_of("OFFERS")["offers"]["offers"][0].clone()
    }

    /// Calls, with the framework's id and the stream's added.
    pub fn call(&mut self, mut call: Value) -> Answer {
        call["framework_id"] = json!({"value": self.framework_id});
        let headers = [JSON, ("Mesos-Stream-Id", &*self.stream_id)];
        self.calls
            .request("POST", "/api/v1/scheduler", &headers, &call.to_string())
    }

    /// Accepts an offer for these tasks.
    pub fn launch(&mut self, offer: &Value, tasks: &[Value]) {
        let answer = self.call(json!({"type": "ACCEPT", "accept": {
            "offer_ids": [offer["id"]],
            "operations": [{"type": "LAUNCH", "launch": {"task_infos": tasks}}],
        }}));
        assert_eq!((answer.status, &*answer.body), (202, ""));
    }

    /// The next status update, which is acknowledged.
    pub fn status(&mut self) -> Value {
        let status = self.event_of("UPDATE")["update"]["status"].clone();
        if !status["uuid"].is_null() {
            let answer = self.call(json!({"type": "ACKNOWLEDGE", "acknowledge": {
                "agent_id": status["agent_id"], "task_id": status["task_id"], "uuid": status["uuid"],
            }}));
            assert_eq!(answer.status, 202, "{answer:?}");
        }
        status
    }

    /// Breaks the subscription's connection.
    pub fn disconnect(&self) {
        self.events.close();
    }
}

/// An executor that speaks the HTTP API in JSON, played by the test beside whatever its container runs.
pub struct Executor {
    events: Connection,
    calls: Connection,
    /// Both ids, as each call names them.
    ids: Value,
}

impl Executor {
    /// Subscribes as this executor with what it has heard nothing about, as soon as the agent knows it and its former
    /// subscription has ended.
    pub fn subscribe(agent: &str, ids: &Value, tasks: &[Value], updates: &[Value]) -> Self {
        Self::subscribe_through(&Door::plain(agent), ids, tasks, updates)
    }

    /// The same, so.
    pub fn subscribe_through(
        agent: &Door,
        ids: &Value,
        tasks: &[Value],
        updates: &[Value],
    ) -> Self {
        let mut call = ids.clone();
        call["type"] = json!("SUBSCRIBE");
        call["subscribe"] = json!({
            "unacknowledged_tasks": tasks,
            "unacknowledged_updates": updates.iter().map(|status| json!({"status": status})).collect::<Vec<_>>(),
        });
        let call = call.to_string();
        let events = wait_for("the agent to take an executor's subscription", || {
            // There may be nobody yet, or an agent that has not read its checkpoint.
            let mut events = Connection::try_through(agent).ok()?;
            events.send("POST", "/api/v1/executor", &[JSON], call.as_bytes());
            let answer = events.answer();
            (answer.status == 200).then_some(events)
        });
        Self {
            events,
            calls: Connection::through(agent),
            ids: ids.clone(),
        }
    }

    /// The next event but heartbeats; none when the stream has ended.
    pub fn event(&mut self) -> Option<Value> {
        loop {
            let chunk = self.events.chunk()?;
            let at = chunk.iter().position(|byte| *byte == b'\n').unwrap();
            let event: Value = serde_json::from_slice(&chunk[at + 1..]).unwrap();
            if event["type"] != "HEARTBEAT" {
                return Some(event);
            }
        }
    }

    /// Reports a task's state.
    pub fn update(&mut self, status: &Value) {
        self.call(json!({"type": "UPDATE", "update": {"status": status}}));
    }

    /// Calls, with both ids added.
    pub fn call(&mut self, mut call: Value) {
        for name in ["framework_id", "executor_id"] {
            call[name] = self.ids[name].clone();
        }
        let answer = (self.calls).request("POST", "/api/v1/executor", &[JSON], &call.to_string());
        assert_eq!((answer.status, &*answer.body), (202, ""));
    }

    /// Breaks the subscription's connection.
    pub fn disconnect(&self) {
        self.events.close();
    }
}

/// A task with a command, on the agent of an offer.
pub fn command_task(id: &str, offer: &Value, command: &str) -> Value {
    json!({
        "name": id, "task_id": {"value": id}, "agent_id": offer["agent_id"],
        "command": {"value": command},
        "resources": [
            {"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.1}},
            {"name": "mem", "type": "SCALAR", "scalar": {"value": 32}},
        ],
    })
}
