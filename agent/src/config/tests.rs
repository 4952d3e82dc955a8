use std::time::Duration;

use clap::Parser as _;
use meseta_runtime::error_chain;

use super::{ExecutorTransport, Flags};
use crate::resources::Detected;

fn flags(more: &[&str]) -> Flags {
    let mut all = vec!["meseta-agent", "--master=10.0.0.1:5050", "--work_dir=/w"];
    all.extend(more);
    Flags::try_parse_from(all).unwrap()
}

#[test]
fn durations_are_written_as_in_mesos() {
    for (text, seconds) in [
        ("15secs", 15),
        ("1mins", 60),
        ("6hrs", 21_600),
        ("1weeks", 604_800),
    ] {
        assert_eq!(
            meseta_runtime::flags::duration(text),
            Ok(Duration::from_secs(seconds)),
            "{text}"
        );
    }
    assert!(meseta_runtime::flags::duration("soon").is_err());
}

#[test]
fn flags_become_settings() {
    let detected = Detected {
        cpus: 8,
        mem_mib: Some(4096),
        disk_mib: Some(50_000),
    };
    let flags = flags(&[
        "--resources=cpus:2;mem:512",
        "--attributes=rack:a",
        "--switch_user=false",
        "--executor_transport=unix",
        "--launcher_dir=/opt/meseta",
        r#"--executor_environment_variables={"A":"b"}"#,
        r#"--domain={"fault_domain":{"region":"r","zone":"z"}}"#,
    ]);
    let config = flags.config(&detected).unwrap();
    assert_eq!(config.masters.to_string(), "10.0.0.1:5050");
    let expected = "cpus:2;mem:512;disk:44880;ports:[31000-32000]"
        .parse()
        .unwrap();
    assert_eq!(config.resources, expected);
    assert_eq!(config.launcher, ["/opt/meseta/meseta-executor", "launch"]);
    assert_eq!(config.executor_environment[0].name, "A");
    assert!(!config.switch_user);
    assert_eq!(
        config
            .domain
            .and_then(|d| d.zone().map(str::to_owned))
            .as_deref(),
        Some("z")
    );
    assert_eq!(config.executor_transport, ExecutorTransport::Unix);
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let detected = Detected::default();
    for bad in [
        "--resources=cpus:x",
        "--default_role=a//b",
        "--domain={}",
        "--attributes=x",
        "--executor_reregistration_timeout=16secs",
    ] {
        assert!(flags(&[bad]).config(&detected).is_err(), "{bad}");
    }
    let zookeeper = Flags {
        master: "zk://a/b".to_owned(),
        ..flags(&[])
    };
    let error = error_chain(&zookeeper.config(&detected).unwrap_err());
    assert!(
        error.starts_with("--master: zk://a/b is for ZooKeeper"),
        "{error}"
    );
    for (bad, named) in [
        ("--no_such=1", "--no_such"),
        ("--executor_transport=tcp", "[possible values: quic, unix]"),
    ] {
        let all = ["meseta-agent", "--master=a:1", "--work_dir=/w", bad];
        let error = Flags::try_parse_from(all).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
}
