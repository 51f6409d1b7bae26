//! Whatever bodies, queries and cursors a caller sends: an answer that says what is wrong, and never a 5xx.
//!
//! Together they run for `FUZZ_SECONDS`, ten by default.

use std::fmt::Debug;

use axum::body::Body;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use serde_json::json;
use tokio::runtime::Runtime;
use webhook_core::testing;

use crate::host::{ACME, Answer, Host, OTHER};

/// What shares the time.
const TARGETS: u32 = 6;

/// Tries values for a share of the time, and a few in any case.
fn fuzz<S: Strategy<Value: Debug>>(values: &S, test: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    testing::fuzz(testing::fuzz_time(10) / TARGETS, values, test);
}

/// Where to begin, how much to take away, and what to put there.
fn changes() -> impl Strategy<Value = Vec<(prop::sample::Index, usize, Vec<u8>)>> {
    let pieces: Vec<&[u8]> = vec![
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\"",
        b"\\",
        b"\\u0000",
        b"\\ud800",
        b"null",
        b"true",
        b"-1",
        b"1e999",
        b"\xff",
        b"\0",
        b"{\"a\":",
        b"[[[[[[[[",
        b"\"payload\":1,",
        b"\"id\":\"a\",",
        b"\"secret\":\"x\",",
        b"99999999999999999999",
        b" ",
    ];
    let piece = prop_oneof![
        3 => prop::sample::select(pieces).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 0..6),
    ];
    prop::collection::vec((any::<prop::sample::Index>(), 0_usize..12, piece), 1..5)
}

fn changed(value: &[u8], changes: &[(prop::sample::Index, usize, Vec<u8>)]) -> Vec<u8> {
    let mut value = value.to_vec();
    for (at, remove, insert) in changes {
        let at = at.index(value.len() + 1);
        let end = (at + remove).min(value.len());
        value.splice(at..end, insert.iter().copied());
    }
    value
}

/// Good, or a problem that is one.
fn is_sound(answer: &Answer) -> Result<(), TestCaseError> {
    let status = answer.status.as_u16();
    prop_assert!(status < 500 && (200..300).contains(&status) || (400..500).contains(&status), "{status}");
    if status >= 400 {
        prop_assert_eq!(&answer.headers["content-type"], "application/problem+json");
        let problem: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        prop_assert_eq!(&problem["status"], status);
        prop_assert!(problem["code"].as_str().is_some_and(|code| !code.is_empty()));
    }
    Ok(())
}

#[test]
fn no_body_is_a_5xx() {
    let (runtime, host) = (Runtime::new().unwrap(), Host::new());
    let event =
        json!({"event_type": "order.created", "payload": {"n": 1.5, "t": "ü"}, "id": "k", "metadata": {"a": "b"}});
    let subscription = json!({
        "target_url": "https://example.com/hook", "events": ["order.*", "**"], "headers": {"X-A": "b"}, "timeout_seconds": 3,
        "retry": {"schedule": [1, 2.5]}, "rate_limit": {"per_second": 5, "burst": 2}, "max_in_flight": 4, "enabled": true,
        "signature": {"scheme": "standard"}, "metadata": {"a": 1}, "description": "d",
    });
    let path =
        json!({"description": "d", "response": {"status": 201, "headers": {"a": "b"}, "body": "x", "delay_ms": 0}});
    let batch = json!([event, event]);
    let right =
        vec![("/events", event), ("/subscriptions", subscription), ("/api/paths", path), ("/events/batch", batch)];
    let right: Vec<_> = right.into_iter().map(|(route, body)| (route, body.to_string().into_bytes())).collect();
    for (route, body) in &right {
        let answer = runtime.block_on(host.call("POST", route, ACME, body.clone()));
        assert!(answer.status.is_success(), "{route}: {}", String::from_utf8_lossy(&answer.body));
    }
    fuzz(&(prop::sample::select(right.clone()), changes()), |((route, right), changes)| {
        let body = changed(&right, &changes);
        is_sound(&runtime.block_on(host.call("POST", route, ACME, body)))
    });
    fuzz(&(prop::sample::select(right), prop::collection::vec(any::<u8>(), 0..200)), |((route, _), body)| {
        is_sound(&runtime.block_on(host.call("POST", route, ACME, body)))
    });
}

/// Also those of lists of others.
#[test]
fn no_cursor_and_no_query_is_a_5xx_or_shows_what_is_anothers() {
    let (runtime, host) = (Runtime::new().unwrap(), Host::new());
    let cursor = runtime.block_on(async {
        for _ in 0..3 {
            host.event().await;
        }
        let list = host.get("/events?limit=1").await.expect(200);
        crate::host::text(&list["pagination"]["next_cursor"])
    });
    let lists = ["/events", "/subscriptions", "/deliveries", "/api/paths"];
    let ask = |list: &str, query: &str| {
        let uri = format!("{list}?{query}");
        if uri.parse::<http::Uri>().is_err() {
            return Ok(());
        }
        let answer = runtime.block_on(host.call("GET", &uri, OTHER, Body::empty()));
        is_sound(&answer)?;
        if answer.status == 200 {
            prop_assert!(answer.json()["data"].as_array().unwrap().is_empty(), "{uri}");
        }
        Ok(())
    };
    let list = prop::sample::select(lists.to_vec());
    fuzz(&(list.clone(), changes()), |(list, changes)| {
        ask(list, &format!("cursor={}", String::from_utf8_lossy(&changed(cursor.as_bytes(), &changes))))
    });
    fuzz(&(list.clone(), "[A-Za-z0-9_-]{0,40}"), |(list, cursor)| ask(list, &format!("limit=2&cursor={cursor}")));
    let names = "(limit|offset|page|cursor|since|until|state|event_type|subscription_id|event_id|q|\\PC{0,5})";
    let query = format!("({names}=(-?[0-9]{{0,22}}|[A-Za-z0-9%:.+*-]{{0,30}}|pending)&){{0,4}}");
    fuzz(&(list.clone(), proptest::string::string_regex(&query).unwrap()), |(list, query)| ask(list, &query));
    fuzz(&(list, "[!-~]{0,60}"), |(list, query)| ask(list, &query));
}
