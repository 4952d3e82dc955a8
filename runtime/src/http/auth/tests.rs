use std::collections::BTreeMap;

use axum::http::HeaderValue;

use super::*;

fn gate(with_credentials: bool, with_tokens: bool) -> Gate {
    let file = tempfile::NamedTempFile::new().unwrap();
    let entry = serde_json::json!({"principal": "ops", "secret": "secret"});
    let text = serde_json::json!({ "credentials": [entry] }).to_string();
    std::fs::write(file.path(), text).unwrap();
    let security = Security {
        realms: "mesos-agent",
        credentials: with_credentials.then(|| Arc::new(Credentials::read(file.path()).unwrap())),
        tokens: with_tokens.then(|| TokenKey::new(b"key")),
        ..Security::default()
    };
    Gate::new(security, Metrics::default()).unwrap()
}

#[expect(clippy::result_large_err, reason = "an answer is what a client gets")]
fn ask(gate: &Gate, needed: bool, values: &[&str]) -> Result<Option<Principal>, Response> {
    let mut headers = HeaderMap::new();
    for value in values {
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        headers.append(header::AUTHORIZATION, value);
    }
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(gate.principal(Realm::ReadWrite, &headers, needed, 0))
}

fn asked_for(answer: Result<Option<Principal>, Response>) -> String {
    let answer = answer.unwrap_err();
    assert_eq!(answer.status, 401);
    let (name, value) = &answer.headers[0];
    assert_eq!(*name, "www-authenticate");
    value.clone()
}

const BASIC: &str = "Basic realm=\"mesos-agent-readwrite\"";
const BEARER: &str = "Bearer realm=\"mesos-agent-readwrite\"";

#[test]
fn a_password_is_asked_for_where_a_principal_is_needed() {
    let gate = gate(true, false);
    let good = basic::write("ops", "secret");
    let ops = Some(Principal::named("ops"));
    assert_eq!(ask(&gate, true, &[&good]).unwrap(), ops);
    assert_eq!(ask(&gate, false, &[&good]).unwrap(), ops);
    assert_eq!(ask(&gate, false, &[]).unwrap(), None);
    assert_eq!(asked_for(ask(&gate, true, &[])), BASIC);
    let bad = basic::write("ops", "wrong");
    for values in [
        &[&*bad][..],
        &["Basic"],
        &["Bearer x"],
        &["é"],
        &[""],
        // Which one was meant, nobody knows.
        &[&good, &good],
        &[&good, &bad],
    ] {
        assert_eq!(asked_for(ask(&gate, true, values)), BASIC, "{values:?}");
        assert_eq!(asked_for(ask(&gate, false, values)), BASIC, "{values:?}");
    }
}

#[test]
fn what_was_found_out_is_remembered_within_bounds() {
    let gate = gate(true, false);
    let good = basic::write("ops", "secret");
    ask(&gate, true, &[&good]).unwrap();
    for guess in 0..REMEMBERED + 10 {
        let mut digest = Digest::default();
        digest[..8].copy_from_slice(&guess.to_le_bytes());
        gate.memory.lock().keep(digest, None);
    }
    let memory = gate.memory.lock();
    assert_eq!((memory.proven.len(), memory.others.len()), (1, REMEMBERED));
    assert_eq!(memory.known.len(), REMEMBERED + 1);
    let kept = memory.known.get(&memory.proven[0]);
    assert_eq!(kept, Some(&Some(Principal::named("ops"))));
}

#[test]
fn a_token_proves_what_it_claims() {
    let gate = gate(false, true);
    let claims = BTreeMap::from([("fid".to_owned(), "f".to_owned())]);
    let token = TokenKey::new(b"key").sign(&claims);
    let found = ask(&gate, true, &[&format!("Bearer {token}")]).unwrap();
    let expected = Principal {
        value: None,
        claims: claims.clone(),
    };
    assert_eq!(found, Some(expected));
    assert_eq!(asked_for(ask(&gate, true, &[])), BEARER);
    let forged = TokenKey::new(b"other").sign(&claims);
    for (value, why) in [
        (format!("Bearer {forged}"), "its signature is not valid"),
        (
            "Bearer x".to_owned(),
            "it has not three parts with dots between",
        ),
        ("Basic YTpi".to_owned(), "its scheme is not 'Bearer'"),
    ] {
        let expected =
            format!("{BEARER}, error=\"invalid_token\", error_description=\"Invalid JWT: {why}\"");
        assert_eq!(asked_for(ask(&gate, true, &[&value])), expected);
    }
}

#[test]
fn where_both_are_taken_both_are_asked_for() {
    let gate = gate(true, true);
    assert_eq!(
        asked_for(ask(&gate, true, &[])),
        format!("{BASIC},{BEARER}")
    );
    let refused = ask(&gate, true, &[]).unwrap_err();
    let text = String::from_utf8(refused.body.to_vec()).unwrap();
    assert!(
        text.starts_with("\"Basic\" authenticator returned:\n401"),
        "{text}"
    );
    assert!(ask(&gate, true, &[&basic::write("ops", "secret")]).is_ok());
}
