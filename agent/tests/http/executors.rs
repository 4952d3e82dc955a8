//! An executor that speaks HTTP and comes back in the few moments in which its agent does not know yet how it stands with
//! it. The test holds such a moment for as long as it likes.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use futures::channel::oneshot;
use meseta_agent::Config;
use meseta_agent::checkpoint::Storage;
use meseta_agent::checkpoint::memory::Memory;
use meseta_agent::config::Containment;
use meseta_agent::containerizer::{Adopt, Launch, Sweep};
use meseta_protocol::UpdateId;
use meseta_protocol::common::CommandInfo;
use meseta_protocol::executor::ExecutorInfo;
use meseta_protocol::framework::FrameworkInfo;
use meseta_protocol::messages::agent::{
    AgentRegistered, AgentReregistered, RegisterAgent, ReregisterAgent, RunTask,
};
use meseta_protocol::messages::{Led, MasterMessage};
use meseta_protocol::task::TaskInfo;
use meseta_runtime::ports::FreePorts;
use meseta_runtime::testing::{ANY, Exited, LIMIT, Probe};
use meseta_runtime::{Clock, Node, Pid};
use serde_json::{Value, json};

use super::{FIRST, builder};

/// What is left of an agent when it ends.
struct Home {
    memory: Memory,
    work_dir: tempfile::TempDir,
    ports: FreePorts,
}

impl Home {
    fn new() -> Self {
        Self {
            memory: Memory::default(),
            work_dir: tempfile::tempdir().unwrap(),
            ports: FreePorts::find(1).unwrap(),
        }
    }
}

/// One run of an agent, with a master that the test plays beside it.
struct Run {
    node: Node,
    master: Probe,
    agent: Pid,
}

impl Drop for Run {
    fn drop(&mut self) {
        self.node.shutdown();
    }
}

impl Run {
    /// Starts an agent that says when it sweeps, and sweeps until the test says that it has.
    fn start(home: &Home, sweeps: Sender<()>, swept: oneshot::Receiver<()>) -> Self {
        let swept = Mutex::new(Some(swept));
        let node = Storage::Memory(home.memory.clone())
            .serve(builder().port(home.ports.all()[0]).awaits_delegate())
            .op(|_: Launch| async { Ok(FIRST) })
            .op(|_: Adopt| async { Some(FIRST) })
            .op(move |_: Sweep| {
                let swept = swept.lock().unwrap().take();
                sweeps.send(()).unwrap();
                async move {
                    if let Some(swept) = swept {
                        swept.await.map_err(|error| error.to_string())?;
                    }
                    Ok(())
                }
            })
            .start()
            .unwrap();
        let master = node.testing().probe("master").unwrap();
        let mut config = Config::new(master.pid().clone(), home.work_dir.path());
        config.containment = Containment::Walk;
        config.resources = "cpus:4;mem:1024".parse().unwrap();
        config.registration_backoff_factor = Duration::from_millis(1);
        // Longer than any test: one that waits for nothing hears of it.
        config.executor_reregistration_timeout = Duration::from_secs(3600);
        let agent = meseta_agent::start(&node, config).unwrap();
        Self {
            node,
            master,
            agent,
        }
    }

    /// A first run whose agent is in and has been given the task `first`, for the executor `e`.
    fn with_a_task(home: &Home) -> Self {
        let (over, swept) = oneshot::channel();
        over.send(()).unwrap();
        let (sweeps, _begun) = channel();
        let run = Self::start(home, sweeps, swept);
        run.master.find::<RegisterAgent>();
        run.say(AgentRegistered {
            agent_id: "S0".into(),
            ..AgentRegistered::default()
        });
        run.launch("first", true);
        run
    }

    fn say<M: MasterMessage>(&self, message: M) {
        let leader_epoch = 1;
        let led = Led {
            leader_epoch,
            message,
        };
        self.master.send(&self.agent, led);
    }

    fn launch(&self, id: &str, launch_executor: bool) {
        let mut executor = ExecutorInfo::custom("e", CommandInfo::exec::<&str>("/bin/run", []));
        executor.resources = "cpus:0.5".parse().unwrap();
        let task = TaskInfo {
            command: None,
            executor: Some(executor.clone()),
            ..TaskInfo::new(id, "S0", "cpus:1;mem:64".parse().unwrap(), "")
        };
        let mut framework = FrameworkInfo::new("", "test");
        framework.checkpoint = true;
        self.say(RunTask {
            framework_id: "f".into(),
            framework,
            executor: Some(executor),
            task,
            launch_executor,
            launch_uuid: UpdateId::default(),
            resource_version_uuids: vec![],
        });
    }

    /// Sends a call of the executor `e`.
    fn call(&self, more: &Value) -> Answer {
        let mut call = json!({"framework_id": {"value": "f"}, "executor_id": {"value": "e"}});
        let more = more.as_object().unwrap().clone();
        call.as_object_mut().unwrap().extend(more);
        Answer::to(self.node.address().port, &call.to_string())
    }

    fn subscribe(&self) -> Answer {
        self.call(&json!({"type": "SUBSCRIBE", "subscribe": {}}))
    }

    /// Subscribes as soon as the agent does not say any more that one has to try again.
    fn subscribe_at_last(&self) -> Answer {
        self.taken_at_last(&json!({"type": "SUBSCRIBE", "subscribe": {}}))
    }

    fn taken_at_last(&self, call: &Value) -> Answer {
        let clock = Clock::live();
        let began = clock.now();
        loop {
            let mut answer = self.call(call);
            let status = answer.status();
            if status == 200 {
                return answer;
            }
            // It has not heard of the executor, or is not ready for it.
            assert!([400, 503].contains(&status), "{status}");
            let waited = clock.now().since(began);
            assert!(waited < LIMIT, "{status} after {waited:?}");
            std::thread::yield_now();
        }
    }
}

/// An answer and the connection that it goes on.
struct Answer(BufReader<TcpStream>);

impl Answer {
    fn to(port: u16, call: &str) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        write!(
            stream,
            "POST /api/v1/executor HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{call}",
            call.len()
        )
        .unwrap();
        Self(BufReader::new(stream))
    }

    /// Reads the head.
    fn status(&mut self) -> u16 {
        let first = self.line();
        while !self.line().is_empty() {}
        first.split(' ').nth(1).unwrap().parse().unwrap()
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// The next event of a stream in a few words; none when the stream has ended.
    fn event(&mut self) -> Option<String> {
        let size = usize::from_str_radix(&self.line(), 16).ok()?;
        let mut chunk = vec![0; size + 2];
        self.0.read_exact(&mut chunk).unwrap();
        if size == 0 {
            return None;
        }
        let at = chunk.iter().position(|byte| *byte == b'\n').unwrap();
        let event: Value = serde_json::from_slice(&chunk[at + 1..size]).unwrap();
        let kind = event["type"].as_str().unwrap();
        Some(match kind {
            "LAUNCH" => format!("LAUNCH {}", event["launch"]["task"]["name"].as_str()?),
            _ => kind.to_owned(),
        })
    }

    fn events(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.event().unwrap()).collect()
    }
}

/// That the task `first` runs, in the executor's words.
fn running() -> Value {
    json!({
        "task_id": {"value": "first"}, "state": "TASK_RUNNING", "source": "SOURCE_EXECUTOR",
        "uuid": "AAAAAAAAQAAAAAAAAAAAAQ==",
    })
}

#[test]
fn a_new_stream_is_taken_when_the_end_of_the_older_one_is_known() {
    let home = Home::new();
    let run = Run::with_a_task(&home);
    let mut older = run.subscribe_at_last();
    assert_eq!(older.events(2), ["SUBSCRIBED", "LAUNCH first"]);

    // The older stream has ended, and the agent does not know it yet.
    let notice = run.node.testing().hold::<Exited>(ANY, &run.agent);
    assert_eq!(run.subscribe().status(), 503);
    notice.wait();
    assert_eq!(older.event(), None);
    assert_eq!(run.subscribe().status(), 503);
    notice.release();

    let mut newer = run.subscribe_at_last();
    assert_eq!(newer.events(2), ["SUBSCRIBED", "LAUNCH first"]);
    let mut update = run.call(&json!({"type": "UPDATE", "update": {"status": running()}}));
    assert_eq!(update.status(), 202);
    assert_eq!(newer.events(1), ["ACKNOWLEDGED"]);
    run.launch("second", false);
    assert_eq!(newer.events(1), ["LAUNCH second"]);
}

#[test]
fn one_that_calls_before_its_agent_runs_is_told_to_try_again() {
    let node = meseta_agent::operators(builder()).start().unwrap();
    let subscribe = json!({"type": "SUBSCRIBE", "subscribe": {}}).to_string();
    assert_eq!(Answer::to(node.address().port, &subscribe).status(), 503);
    node.shutdown();
}

#[test]
fn one_that_comes_back_while_containers_are_swept_is_told_at_once_to_try_again() {
    let home = Home::new();
    let first = Run::with_a_task(&home);
    let mut stream = first.subscribe_at_last();
    assert_eq!(stream.events(2), ["SUBSCRIBED", "LAUNCH first"]);
    drop(first);

    let ((over, swept), (sweeps, begun)) = (oneshot::channel(), channel());
    let second = Run::start(&home, sweeps, swept);
    begun.recv_timeout(LIMIT).unwrap();
    let subscribe = json!({"unacknowledged_updates": [{"status": running()}]});
    let subscribe = json!({"type": "SUBSCRIBE", "subscribe": subscribe});
    // However long it takes: an answer that came after the sweep might find a client that does not wait any more.
    let mut refused = second.call(&subscribe);
    assert_eq!(refused.status(), 503);
    let mut update = second.call(&json!({"type": "UPDATE", "update": {"status": running()}}));
    assert_eq!(update.status(), 503);
    over.send(()).unwrap();
    let mut stream = second.taken_at_last(&subscribe);

    let back = second.master.find::<ReregisterAgent>().message;
    assert_eq!(back.executor_infos.len(), 1);
    // The launch may never have arrived.
    assert_eq!(
        stream.events(3),
        ["SUBSCRIBED", "LAUNCH first", "ACKNOWLEDGED"]
    );
    second.say(AgentReregistered {
        agent_id: "S0".into(),
        ..AgentReregistered::default()
    });
    second.launch("second", false);
    assert_eq!(stream.events(1), ["LAUNCH second"]);
}
