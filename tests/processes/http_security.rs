//! Who may do what over HTTP, against real programs: passwords, tokens of executors, TLS.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use meseta_runtime::http::auth::basic;
use meseta_runtime::http::auth::bearer::TokenKey;
use meseta_tests::door::Door;
use meseta_tests::http::{Answer, Connection, Executor, Scheduler, command_task};
use meseta_tests::own_agent::OwnAgent;
use meseta_tests::{Cluster, dev_ca, program, wait_for};
use serde_json::{Value, json};
use tempfile::TempDir;

const JSON: (&str, &str) = ("Content-Type", "application/json");

fn info(principal: Option<&str>) -> Value {
    let mut info = json!({
        "user": std::env::var("USER").unwrap_or_else(|_| "root".to_owned()), "name": "secure", "roles": ["*"],
        "capabilities": [{"type": "MULTI_ROLE"}], "failover_timeout": 3600, "checkpoint": true,
    });
    if let Some(principal) = principal {
        info["principal"] = json!(principal);
    }
    info
}

fn call(door: &Door, path: &str, body: &Value) -> Answer {
    Connection::through(door).request("POST", path, &[JSON], &body.to_string())
}

/// The entry of a principal, as `meseta credentials hash` prints it.
fn entry(principal: &str, password: &str) -> Value {
    let mut child = Command::new(program("meseta"))
        .args(["credentials", "hash", principal])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    writeln!(input, "{password}").unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Files of a cluster in which everybody has to prove who they are.
struct Files {
    credentials: PathBuf,
    key: PathBuf,
    secret: PathBuf,
}

impl Files {
    fn write(dir: &Path) -> Self {
        let put = |name: &str, text: &str| {
            let path = dir.join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let all = json!({"credentials": [entry("ops", "ops-secret"), entry("web", "web:secret")]});
        Self {
            credentials: put("credentials.json", &all.to_string()),
            key: put("jwt-key", KEY),
            secret: put("secret", "ops-secret\n"),
        }
    }

    /// What meseta local and all it starts find in their environment.
    fn settings(&self) -> [(&'static str, String); 7] {
        let path = |path: &Path| path.display().to_string();
        [
            ("MESETA_HTTP_CREDENTIALS", path(&self.credentials)),
            ("MESETA_AUTHENTICATE_HTTP_READONLY", "true".to_owned()),
            ("MESETA_AUTHENTICATE_HTTP_READWRITE", "true".to_owned()),
            ("MESETA_AUTHENTICATE_HTTP_FRAMEWORKS", "true".to_owned()),
            // By which meseta local looks at what it has started.
            ("MESETA_HTTP_PRINCIPAL", "ops".to_owned()),
            ("MESETA_HTTP_SECRET_FILE", path(&self.secret)),
            ("MESETA_LOGGING_LEVEL", "info".to_owned()),
        ]
    }
}

const KEY: &str = "a key of thirty-two bytes or more";

fn asks_for(answer: &Answer, challenge: &str) {
    assert_eq!(answer.status, 401, "{answer:?}");
    let asked = answer.header("www-authenticate");
    assert_eq!(asked, Some(challenge), "{answer:?}");
}

#[test]
fn schedulers_executors_and_operators_prove_who_they_are() {
    let dir = TempDir::with_prefix("meseta-test-").unwrap();
    let files = Files::write(dir.path());
    let settings = files.settings();
    let settings: Vec<(&str, &str)> = settings.iter().map(|(n, v)| (*n, &**v)).collect();
    let cluster = Cluster::start_in(dir, 0, &[], &settings);
    let authority = dev_ca().join("ca.pem");
    let open = Door::plain(&cluster.master);
    let ops = basic::write("ops", "ops-secret");
    let web = open
        .clone()
        .showing(basic::write("web", "web:secret"))
        .over_tls(&authority);

    // Schedulers.
    let subscribe =
        |info: Value| json!({"type": "SUBSCRIBE", "subscribe": {"framework_info": info}});
    let path = "/api/v1/scheduler";
    for stranger in [
        open.clone(),
        open.clone().showing(basic::write("web", "wrong")),
        open.clone().showing(basic::write("nobody", "web:secret")),
        open.clone().showing("Basic"),
    ] {
        let answer = call(&stranger, path, &subscribe(info(None)));
        asks_for(&answer, "Basic realm=\"mesos-master-scheduler\"");
    }
    let answer = call(&web, path, &subscribe(info(Some("other"))));
    assert_eq!(
        (answer.status, &*answer.body),
        (
            400,
            "Failed to validate scheduler::Call: Authenticated principal 'web' does not match principal 'other' set in \
             `FrameworkInfo`"
        )
    );
    let mut scheduler = Scheduler::subscribe_through(&web, &info(None));
    let mut theirs = json!({"type": "REVIVE", "framework_id": {"value": scheduler.framework_id}});
    let answer = call(&open.clone().showing(&*ops), path, &theirs);
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(
        answer
            .body
            .starts_with("Authenticated principal 'ops' does not match principal 'web'")
    );
    theirs["type"] = json!("TEARDOWN");
    asks_for(
        &call(&open, path, &theirs),
        "Basic realm=\"mesos-master-scheduler\"",
    );

    // An agent that gives its executors tokens, which tasks do not see.
    let mut flags: Vec<String> = settings
        .iter()
        .filter(|(name, _)| *name == "MESETA_HTTP_CREDENTIALS")
        .map(|(_, value)| format!("--http_credentials={value}"))
        .collect();
    flags.extend([
        "--resources=cpus:4;mem:1024".to_owned(),
        "--authenticate_http_readonly".to_owned(),
        "--authenticate_http_readwrite".to_owned(),
        "--authenticate_http_executors".to_owned(),
        format!("--jwt_secret_key={}", files.key.display()),
    ]);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let mut agent = OwnAgent::start(&cluster, "agent", &flags, &[]);
    let offer = scheduler.offer();
    let framework = scheduler.framework_id.clone();
    let cpus = |value: f64| json!({"name": "cpus", "type": "SCALAR", "scalar": {"value": value}});
    let custom = json!({
        "name": "long", "task_id": {"value": "long"}, "agent_id": offer["agent_id"], "resources": [cpus(0.5)],
        "executor": {
            "type": "CUSTOM", "executor_id": {"value": "e"}, "framework_id": {"value": framework},
            "command": {"value": "echo -n $MESOS_EXECUTOR_AUTHENTICATION_TOKEN; exec sleep 1000"},
            "resources": [cpus(0.1)],
        },
    });
    let blind = "test -z \"$MESOS_EXECUTOR_AUTHENTICATION_TOKEN\"";
    scheduler.launch(&offer, &[command_task("blind", &offer, blind), custom]);
    let end = loop {
        let status = scheduler.status();
        let is_over = ["TASK_FINISHED", "TASK_FAILED"].map(|state| status["state"] == state);
        if status["task_id"]["value"] == "blind" && is_over.contains(&true) {
            break status;
        }
    };
    assert_eq!(end["state"], "TASK_FINISHED", "{end}");

    // What the executor was given, from its sandbox, which is shown to those only who may see it.
    let there = Door::plain(agent.address());
    let agent_ops = there.clone().showing(&*ops).over_tls(&authority);
    let log = format!("/frameworks/{framework}/executors/e/runs/latest/stdout");
    let sandbox = format!("/files/read?offset=0&path={log}");
    let refused = Connection::through(&there).request("GET", &sandbox, &[], "");
    let both = |realm: &str| format!("Basic realm=\"{realm}\",Bearer realm=\"{realm}\"");
    asks_for(&refused, &both("mesos-agent-readonly"));
    let token = wait_for("the executor to write its token", || {
        let shown = Connection::through(&agent_ops).request("GET", &sandbox, &[], "");
        let shown: Value = serde_json::from_str(&shown.body).ok()?;
        let text = shown["data"].as_str()?;
        (text.split('.').count() == 3).then(|| text.to_owned())
    });
    let claims = TokenKey::new(KEY.as_bytes()).open(&token, 0).unwrap();
    assert_eq!((&*claims["fid"], &*claims["eid"]), (&*framework, "e"));

    // Executors.
    let path = "/api/v1/executor";
    let ids = json!({"framework_id": {"value": framework}, "executor_id": {"value": "e"}});
    let mut subscribe = ids.clone();
    subscribe["type"] = json!("SUBSCRIBE");
    subscribe["subscribe"] = json!({"unacknowledged_tasks": [], "unacknowledged_updates": []});
    asks_for(
        &call(&there, path, &subscribe),
        &both("mesos-agent-executor"),
    );
    let forged = TokenKey::new(b"another").sign(&claims);
    let answer = call(
        &there.clone().showing(format!("Bearer {forged}")),
        path,
        &subscribe,
    );
    assert_eq!(answer.status, 401);
    assert!(
        answer
            .header("www-authenticate")
            .unwrap()
            .contains("invalid_token")
    );
    for (name, value) in [("fid", "other"), ("eid", "other"), ("cid", "other")] {
        let mut wrong = claims.clone();
        wrong.insert(name.to_owned(), value.to_owned());
        let wrong = TokenKey::new(KEY.as_bytes()).sign(&wrong);
        let answer = call(
            &there.clone().showing(format!("Bearer {wrong}")),
            path,
            &subscribe,
        );
        assert_eq!(answer.status, 403, "{answer:?}");
        assert!(answer.body.contains(&format!("'{name}'")), "{answer:?}");
    }
    let own = there.clone().showing(format!("Bearer {token}"));
    // A token is good for nothing else.
    let quiet = json!({"type": "SET_LOGGING_LEVEL", "set_logging_level": {
        "level": 1, "duration": {"nanoseconds": 1_000_000_000_u64},
    }});
    assert_eq!(call(&own, "/api/v1", &quiet).status, 403);
    for path in [&sandbox, "/state", "/slave(1)/flags"] {
        let seen = Connection::through(&own).request("GET", path, &[], "");
        assert_eq!(seen.status, 403, "{path}: {seen:?}");
    }
    let mut executor = Executor::subscribe_through(&own, &ids, &[], &[]);
    assert_eq!(executor.event().unwrap()["type"], "SUBSCRIBED");
    let launched = executor.event().unwrap();
    assert_eq!(launched["type"], "LAUNCH", "{launched}");

    // The token outlives the agent.
    agent.kill();
    assert_eq!(executor.event(), None);
    agent.start_again(&[]);
    let task = launched["launch"]["task"].clone();
    let mut executor = Executor::subscribe_through(&own, &ids, &[task], &[]);
    assert_eq!(executor.event().unwrap()["type"], "SUBSCRIBED");
    executor.update(&json!({
        "task_id": {"value": "long"}, "state": "TASK_FINISHED", "source": "SOURCE_EXECUTOR",
        "uuid": "bG9uZ2xvRmdsb25nbG9uZw==",
    }));
    let end = loop {
        let status = scheduler.status();
        if status["task_id"]["value"] == "long" {
            break status;
        }
    };
    assert_eq!(end["state"], "TASK_FINISHED", "{end}");

    // Operators, with the command line too.
    let teardown = json!({"type": "TEARDOWN", "teardown": {"framework_id": {"value": framework}}});
    asks_for(
        &call(&open, "/api/v1", &teardown),
        "Basic realm=\"mesos-master-readwrite\"",
    );
    let tasks = |flags: &[&str]| cluster.command("tasks").args(flags).output().unwrap();
    let refused = tasks(&[]);
    assert!(!refused.status.success());
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(told.contains("401"), "{told}");
    let secret = files.secret.to_str().unwrap();
    let mut proving = vec!["--http_principal", "ops", "--http_secret_file", secret];
    assert!(tasks(&proving).status.success());
    proving.extend(["--http_ca_file", authority.to_str().unwrap()]);
    let shown = tasks(&proving);
    assert!(shown.status.success(), "{shown:?}");
    assert!(String::from_utf8_lossy(&shown.stdout).contains("long"));
    let ended = call(
        &open.clone().showing(&*ops).over_tls(&authority),
        "/api/v1",
        &teardown,
    );
    assert_eq!(ended.status, 200, "{ended:?}");
    let log = std::fs::read_to_string(cluster.dir.path().join("master/log")).unwrap();
    let line = log
        .lines()
        .find(|line| line.contains("an operator ends a framework"));
    assert!(
        line.is_some_and(|line| line.contains("\"ops\"")),
        "{line:?}"
    );
    assert!(!log.contains("ops-secret"), "a password is in the log");
    while executor.event().unwrap()["type"] != "SHUTDOWN" {}
    agent.leaves();
    cluster.stop();
}

#[test]
fn an_agent_without_the_key_of_tokens_does_not_ask_for_them() {
    let dir = TempDir::with_prefix("meseta-test-").unwrap();
    let empty = dir.path().join("empty");
    std::fs::write(&empty, "").unwrap();
    let work_dir = format!("--work_dir={}", dir.path().display());
    let refused = |name: &str, flags: &[&str]| {
        let output = Command::new(program(name))
            .args([&*work_dir, "--port=0"])
            .args(flags)
            .env("MESETA_DEV_CA_DIR", dev_ca())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let agent = |flag: &str| refused("meseta-agent", &["--master=127.0.0.1:1", flag]);
    let told = agent("--authenticate_http_executors");
    assert!(
        told.contains("--authenticate_http_executors needs --jwt_secret_key"),
        "{told}"
    );
    let told = agent(&format!("--jwt_secret_key={}", empty.display()));
    assert!(
        told.contains("--jwt_secret_key") && told.contains("is empty"),
        "{told}"
    );
    let told = agent("--authenticate_http_readonly=true");
    assert!(
        told.contains("--authenticate_http_readonly needs --http_credentials"),
        "{told}"
    );
    let told = refused("meseta-master", &["--authenticate_http_frameworks"]);
    assert!(
        told.contains("--authenticate_http_frameworks needs --http_credentials"),
        "{told}"
    );
    let bad = format!("--http_credentials={}", empty.display());
    let told = refused("meseta-master", &[&bad]);
    assert!(told.contains("\"credentials\""), "{told}");
}
