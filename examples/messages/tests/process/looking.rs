use serde_json::{Value, json};

use crate::client::{Client, message};
use crate::service::Service;

async fn ids(client: Client, query: &str) -> (Vec<String>, i64) {
    let page = client.get(&format!("/messages{query}")).await.expect(200);
    let id = |message: &Value| message["message_id"].as_str().unwrap().to_owned();
    (page["data"].as_array().unwrap().iter().map(id).collect(), page["total"].as_i64().unwrap())
}

async fn messages_are_found(service: Service) {
    let client = service.client;
    let empty = json!({
        "total_messages": 0, "senders_count": 0, "messages_per_sender": [], "first_message_ts": null, "last_message_ts": null,
    });
    assert_eq!(client.get("/stats").await.expect(200), empty);
    assert_eq!(client.get("/messages").await.expect(200), json!({ "data": [], "total": 0 }));
    for (id, from, ts, text) in [
        ("m2", "+919876543210", "2025-01-15T10:00:00Z", "Hello World"),
        ("m1", "+14155550111", "2025-01-15T09:00:00.5Z", "100% CAFÉ_au lait"),
        ("m4", "+919876543210", "2025-01-15T12:00:00Z", "goodbye"),
        ("m3", "+919876543210", "2025-01-15T11:00:00+00:00", "hello again"),
    ] {
        client.post(&message(id, from, ts, text)).await.expect(200);
    }
    let mut silent = message("m5", "+14155550111", "2025-01-15T13:00:00Z", "");
    silent["text"] = Value::Null;
    client.post(&silent).await.expect(200);
    for (query, expected, total) in [
        ("", &["m5", "m4", "m3", "m2", "m1"][..], 5),
        ("?limit=2", &["m5", "m4"], 5),
        ("?limit=2&offset=4", &["m1"], 5),
        ("?offset=99", &[], 5),
        ("?from=+919876543210", &["m4", "m3", "m2"], 3),
        ("?from=%2B14155550111", &["m5", "m1"], 2),
        ("?from=14155550111", &[], 0),
        ("?since=2025-01-15T11:00:00Z", &["m5", "m4", "m3"], 3),
        ("?since=2025-01-15T12:00:00+01:00", &["m5", "m4", "m3"], 3),
        ("?since=2025-01-15T11:00:00.001Z", &["m5", "m4"], 2),
        ("?q=HELLO", &["m3", "m2"], 2),
        ("?q=caf%C3%A9", &["m1"], 1),
        ("?q=0%25", &["m1"], 1),
        ("?q=%25", &["m1"], 1),
        ("?q=_", &["m1"], 1),
        ("?q=o+w", &["m2"], 1),
        ("?q=%27%20OR%201=1--", &[], 0),
        ("?q=hello&from=+919876543210&since=2025-01-15T10:30:00Z&limit=1", &["m3"], 1),
    ] {
        assert_eq!(ids(client, query).await, (expected.iter().map(|id| (*id).to_owned()).collect(), total), "{query}");
    }
    for query in ["limit=0", "limit=101", "limit=x", "offset=-1", "since=x"] {
        let problem = client.get(&format!("/messages?{query}")).await.expect(422);
        assert_eq!(problem["detail"][0]["loc"][1], query.split('=').next().unwrap(), "{problem}");
    }
    let page = client.get("/messages?limit=1").await.expect(200);
    assert_eq!(page["data"][0], silent, "letter by letter");
    let stats = json!({
        "total_messages": 5,
        "senders_count": 2,
        "messages_per_sender": [
            { "from_msisdn": "+919876543210", "count": 3 },
            { "from_msisdn": "+14155550111", "count": 2 },
        ],
        "first_message_ts": "2025-01-15T09:00:00.5Z",
        "last_message_ts": "2025-01-15T13:00:00Z",
    });
    assert_eq!(client.get("/stats").await.expect(200), stats);
    service.stop().await;
}

#[tokio::test]
async fn messages_are_found_on_sqlite() {
    messages_are_found(Service::on_sqlite().await).await;
}

#[tokio::test]
async fn messages_are_found_on_postgres() {
    messages_are_found(Service::on_postgres().await).await;
}

#[tokio::test]
async fn the_page_shows_messages_as_text() {
    let service = Service::on_sqlite().await;
    let text = "<script>alert(1)</script>&\"'";
    service.client.post(&message("<b>", "+919876543210", "2025-01-15T10:00:00Z", text)).await.expect(200);
    let page = service.client.get("/ui").await;
    assert_eq!(page.status, 200);
    assert!(page.head.contains("text/html") && page.head.contains("frame-ancestors 'none'"), "{}", page.head);
    assert!(page.body.contains("&lt;script&gt;alert(1)&lt;/script&gt;&amp;&quot;&#39;"), "{}", page.body);
    assert!(!page.body.contains("<script>") && !page.body.contains("<b>"), "{}", page.body);
    for part in ["Statistics", "Top senders", "Recent messages", "+919876543210", r#"content="5""#] {
        assert!(page.body.contains(part), "{part}");
    }
    let script = service.client.get("/ui/refresh.js").await;
    assert!(script.head.contains("text/javascript") && script.body.contains("PERIOD = 5000"));
    assert!(service.client.get("/ui/style.css").await.head.contains("text/css"));
}
