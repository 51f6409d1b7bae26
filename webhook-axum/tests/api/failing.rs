//! What a caller sees while the database is down or broken.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use serde_json::json;
use webhook_core::{MemoryStore, StoreError};

use crate::host::Host;

const WORKS: u8 = 0;
const UNAVAILABLE: u8 = 1;
const BROKEN: u8 = 2;
const CORRUPT: u8 = 3;

/// What no answer may show.
const INSIDE: &str = "postgres://user:pass@10.1.2.3";

/// A store in memory whose every method fails as it is told.
#[derive(Debug, Default)]
struct Failing {
    inner: MemoryStore,
    how: AtomicU8,
}

impl Failing {
    async fn around<T>(
        &self,
        _: &'static str,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        self.fail()?;
        call.await
    }

    fn fail(&self) -> Result<(), StoreError> {
        match self.how.load(Ordering::SeqCst) {
            UNAVAILABLE => Err(StoreError::Unavailable(INSIDE.into())),
            BROKEN => Err(StoreError::Other(INSIDE.into())),
            CORRUPT => Err(StoreError::Corrupt(INSIDE.to_owned())),
            _ => Ok(()),
        }
    }
}

webhook_core::wrap_store!(Failing);

#[tokio::test]
async fn a_store_that_fails_is_said_without_its_words() {
    let store = Arc::new(Failing::default());
    let host = Host::on(store.clone());
    host.subscription().await;
    host.path(json!({"path_id": "known"})).await;
    host.call("POST", "/webhook/known", "", "x").await.expect(200);
    for (how, status, code) in
        [(UNAVAILABLE, 503, "unavailable"), (BROKEN, 500, "internal"), (CORRUPT, 500, "internal")]
    {
        store.how.store(how, Ordering::SeqCst);
        for (method, path, body) in [
            ("POST", "/events", json!({"event_type": "a", "payload": 1})),
            ("POST", "/events/batch", json!([{"event_type": "a", "payload": 1}, {"event_type": "b", "payload": 2}])),
            ("POST", "/subscriptions", json!({"target_url": "https://example.com/"})),
            ("GET", "/subscriptions", json!(null)),
            ("GET", "/stats", json!(null)),
            ("POST", "/api/paths", json!({})),
            ("GET", "/api/paths/known/logs", json!(null)),
            ("GET", "/api/paths/known/export", json!(null)),
            // The one is in the cache, the other is not.
            ("POST", "/webhook/known", json!("lost")),
            ("POST", "/webhook/other", json!("lost")),
        ] {
            let answer = host.call(method, path, crate::host::ACME, body.to_string()).await;
            assert!(!String::from_utf8_lossy(&answer.body).contains("10.1.2.3"), "{method} {path}");
            let retry_after = answer.headers.get("retry-after").map(|value| value.to_str().unwrap().to_owned());
            assert_eq!(retry_after.as_deref(), (status == 503).then_some("1"), "{method} {path}");
            assert_eq!(answer.problem(status)["code"], code, "{method} {path}");
        }
        let ready = host.get("/health/ready").await;
        assert!(!String::from_utf8_lossy(&ready.body).contains("10.1.2.3"));
        let ready = ready.expect(503);
        assert_eq!((&ready["status"], &ready["checks"][0]["name"]), (&json!("not_ready"), &json!("store")));
        assert_eq!(ready["checks"][0]["status"], "failed");
        host.get("/health/live").await.expect(200);
    }
    store.how.store(WORKS, Ordering::SeqCst);
    host.event().await;
    assert_eq!(host.logs("known").await.len(), 1, "what was not answered with 200 is not there");
    assert_eq!(host.get("/health/ready").await.expect(200)["status"], "ready");
}
