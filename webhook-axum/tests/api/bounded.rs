//! Reading is bounded, whatever is stored.

use std::collections::BTreeSet;

use axum::body::Body;
use http::StatusCode;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use webhook_core::Role;
use webhook_core::transport::{OutboundResponse, RecordingTransport};

use crate::host::{ACME, Answer, Host, request, text};

const MIB: usize = 1 << 20;

/// A path `p` with so many requests, each with a body of so many bytes, of which JSON has six for one.
async fn full_path(count: usize, bytes: usize) -> Host {
    let host = Host::new();
    host.path(json!({"path_id": "p"})).await;
    for _ in 0..count {
        host.call("POST", "/webhook/p", "", vec![0; bytes]).await.expect(200);
    }
    host
}

/// All pages of a list, by cursor: how large each is, and the ids.
async fn pages(host: &Host, list: &str) -> (Vec<usize>, Vec<String>) {
    let (mut sizes, mut ids, mut cursor) = (Vec::new(), Vec::new(), String::new());
    loop {
        let answer: Answer = host.get(&format!("{list}?limit=1000{cursor}")).await;
        sizes.push(answer.body.len());
        let page = answer.expect(200);
        ids.extend(page["data"].as_array().unwrap().iter().map(|item| text(&item["id"])));
        assert_eq!(page["pagination"]["limit"], 1000);
        assert_eq!(page["pagination"]["has_more"], json!(page["pagination"]["next_cursor"].is_string()));
        let Some(next) = page["pagination"]["next_cursor"].as_str() else { return (sizes, ids) };
        cursor = format!("&cursor={next}");
    }
}

#[tokio::test]
async fn a_page_of_requests_ends_before_it_is_too_large_and_goes_on() {
    let host = full_path(40, 64 << 10).await;
    let (sizes, ids) = pages(&host, "/api/paths/p/logs").await;
    assert!(sizes.len() > 3 && sizes.iter().all(|size| *size < 5 * MIB), "{sizes:?}");
    let whole = host.get("/api/paths/p/logs?limit=1000&include_body=false").await.expect(200);
    let whole: Vec<_> = whole["data"].as_array().unwrap().iter().map(|item| text(&item["id"])).collect();
    assert_eq!((whole.len(), ids), (40, whole), "each once, newest first");
}

#[tokio::test]
async fn a_page_by_its_place_has_all_of_its_requests_and_cuts_their_bodies() {
    let host = full_path(40, 64 << 10).await;
    for (query, first) in [("offset=0&limit=40", 0), ("page=1&limit=40", 0), ("offset=5&limit=1000", 5)] {
        let answer = host.get(&format!("/api/paths/p/logs?{query}")).await;
        assert!(answer.body.len() < 5 * MIB, "{}", answer.body.len());
        let page = answer.expect(200);
        let logs = page["data"].as_array().unwrap();
        assert_eq!((logs.len(), &page["pagination"]["total"]), (40 - first, &json!(40)), "{query}");
        assert_eq!((logs[0].get("body_cut"), text(&logs[0]["body"]).len()), (None, 64 << 10));
        let last = logs.last().unwrap();
        assert_eq!(
            (&last["body_cut"], &last["body"], &last["body_size"]),
            (&json!(true), &json!(""), &json!(64 << 10))
        );
    }
}

#[tokio::test]
async fn a_page_of_paths_ends_before_it_is_too_large_and_goes_on() {
    let host = Host::new();
    for _ in 0..12 {
        host.path(json!({"response": {"body": "\u{0}".repeat(80 << 10)}})).await;
    }
    let (sizes, ids) = pages(&host, "/api/paths").await;
    assert!(sizes.len() > 1 && sizes.iter().all(|size| *size < 5 * MIB), "{sizes:?}");
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 12);
    let many = Host::new();
    for _ in 0..70 {
        many.path(json!({})).await;
    }
    let page = many.get("/api/paths?limit=60").await.expect(200);
    assert_eq!((page["data"].as_array().unwrap().len(), &page["pagination"]["has_more"]), (60, &json!(true)));
}

#[tokio::test]
async fn a_page_of_attempts_ends_before_it_is_too_large_and_one_by_its_place_cuts_responses() {
    let host = Host::answered(RecordingTransport::new().answering(|_| {
        let mut answer = OutboundResponse::new(StatusCode::OK);
        answer.body = vec![0; 16 << 10].into();
        Ok(answer)
    }));
    let subscription = text(&host.subscription().await["id"]);
    for _ in 0..100 {
        host.event().await;
    }
    let stop = CancellationToken::new();
    let worker = tokio::spawn({
        let (webhooks, stop) = (host.webhooks.clone(), stop.clone());
        async move { webhooks.run(Role::Worker, stop).await }
    });
    host.transport.wait_for(100).await;
    stop.cancel();
    worker.await.unwrap();

    let list = format!("/subscriptions/{subscription}/attempts");
    let (sizes, ids) = pages(&host, &list).await;
    assert!(sizes.len() > 1 && sizes.iter().all(|size| *size < 5 * MIB), "{sizes:?}");
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 100);
    let answer = host.get(&format!("{list}?offset=0&limit=1000")).await;
    assert!(answer.body.len() < 5 * MIB, "{}", answer.body.len());
    let page = answer.expect(200);
    let attempts = page["data"].as_array().unwrap();
    assert_eq!((attempts.len(), &page["pagination"]["total"]), (100, &json!(100)));
    let cut = |attempt: &Value| (text(&attempt["response_body"]).len(), attempt["response_truncated"] == true);
    assert_eq!((cut(&attempts[0]), cut(&attempts[99])), ((16 << 10, false), (0, true)));
}

#[tokio::test]
async fn an_export_comes_in_chunks_that_hold_one_large_request() {
    let host = full_path(5, MIB).await;
    for format in ["json", "ndjson", "csv", "har"] {
        let call = request("GET", &format!("/api/paths/p/export?format={format}"), ACME);
        let response = host.router.clone().oneshot(call.body(Body::empty()).unwrap()).await.unwrap();
        let (mut body, mut whole, mut largest) = (response.into_body(), Vec::new(), 0);
        while let Some(frame) = body.frame().await {
            let data = frame.unwrap().into_data().unwrap();
            largest = largest.max(data.len());
            whole.extend_from_slice(&data);
        }
        assert!(largest < 6 * MIB + (16 << 10), "{format}: {largest}");
        let requests = match format {
            "json" => serde_json::from_slice::<Vec<Value>>(&whole).unwrap().len(),
            "har" => serde_json::from_slice::<Value>(&whole).unwrap()["log"]["entries"].as_array().unwrap().len(),
            "csv" => whole.split(|byte| *byte == b'\n').count() - 2,
            _ => whole.split(|byte| *byte == b'\n').count() - 1,
        };
        assert_eq!(requests, 5, "{format}");
    }
}
