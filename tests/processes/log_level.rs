//! What a running node logs is changed for a time, with a certificate or from its own machine.

use meseta_tests::{Cluster, http_get};

#[test]
fn what_a_node_logs_is_changed_for_a_time_by_an_operator_or_on_its_own_machine() {
    let cluster = Cluster::start(1, &[]);
    let level = |arguments: &[&str]| {
        let output = cluster
            .command("log-level")
            .args(arguments)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        (
            output.status.success(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    let shown = |arguments: &[&str]| {
        let (fine, out, err) = level(arguments);
        assert!(fine, "{arguments:?}: {err}");
        out
    };
    assert_eq!(shown(&[]), "info");
    let changed = shown(&["warn,meseta_master=debug", "--for", "1h"]);
    assert!(
        changed.starts_with("warn,meseta_master=debug (by node@127.0.0.1:"),
        "{changed}"
    );
    assert!(shown(&[]).ends_with("more; then info)"));
    assert_eq!(shown(&["--reset"]), "info");

    let (fine, _, error) = level(&["info,meseta_master=loud"]);
    assert!(!fine && error.contains("`meseta_master=loud`"), "{error}");
    let (fine, _, error) = level(&["debug", "--for", "30days"]);
    assert!(!fine && error.contains("1 second to 7 days"), "{error}");

    // The way of Mesos, open on loopback.
    let get = |path: &str| http_get(&cluster.master, path);
    assert_eq!(get("/logging/toggle"), (200, "0\n".to_owned()));
    assert_eq!(
        get("/logging/toggle?level=1&duration=5mins"),
        (200, String::new())
    );
    assert_eq!(get("/logging/toggle"), (200, "1\n".to_owned()));
    assert!(shown(&[]).starts_with("info,meseta=debug (by somebody on this machine over HTTP"));
    let (status, reason) = get("/logging/toggle?level=1");
    assert_eq!(
        (status, reason.as_str()),
        (400, "Expecting 'duration=value' in query.\n")
    );
    assert_eq!(get("/logging/toggle?level=0&duration=1secs").0, 200);
    assert_eq!(shown(&[]), "info");
    cluster.stop();
}
