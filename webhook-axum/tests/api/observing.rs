//! What the host sees of the requests.

use std::io::Write;
use std::sync::{Arc, Mutex};

use axum::Router;
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::{Value, json};
use tracing_subscriber::fmt::MakeWriter;
use webhook_axum::{Api, AuthError, Authenticator, Caller, access_log, method_not_allowed, not_found};

use crate::host::{ACME, Host, READ, request, text};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn each_request_is_one_line_without_its_query() {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt().json().with_writer(lines.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let host = Host::new();
    let host = Host { router: host.router.clone().layer(access_log()), ..host };
    let call = request("GET", "/events?cursor=secret", ACME).header("x-request-id", "r-1");
    host.send(call.body("".into()).unwrap()).await.problem(422);
    let written = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let access: Vec<Value> = written.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let line = access.iter().find(|line| line["target"] == "webhook_axum::access").unwrap();
    let fields = &line["fields"];
    assert_eq!((&fields["request_id"], &fields["method"]), (&"r-1".into(), &"GET".into()));
    assert_eq!((&fields["path"], &fields["status"]), (&"/events".into(), &422.into()));
    assert!(fields["latency_ms"].is_number());
    assert!(!written.contains("secret"));
}

#[tokio::test]
async fn a_short_secret_is_a_warning_that_does_not_show_it() {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt().json().with_writer(lines.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let host = Host::new();
    let warned = || {
        let written = std::mem::take(&mut *lines.0.lock().unwrap());
        let written = String::from_utf8(written).unwrap();
        assert!(!written.contains("hunter"), "{written}");
        let lines = written.lines().map(|line| serde_json::from_str(line).unwrap());
        lines
            .filter(|line: &Value| line["level"] == "WARN")
            .map(|line| text(&line["fields"]["field"]))
            .collect::<Vec<_>>()
    };
    let plain = |secret: &str| json!({"target_url": "https://example.com/", "secret": secret, "signature": {"scheme": "x-signature"}});
    let id = text(&host.post("/subscriptions", plain("hunter 1")).await.expect(201)["id"]);
    assert_eq!(warned(), ["secret"]);
    let path = format!("/subscriptions/{id}");
    host.call("PUT", &path, ACME, plain("hunter 2").to_string()).await.expect(200);
    assert_eq!(warned(), ["secret"]);
    host.call("PATCH", &path, ACME, r#"{"secret":"hunter 3","ingest_secret":"hunter"}"#).await.expect(200);
    assert_eq!(warned(), ["secret", "ingest_secret"]);
    host.post(&format!("{path}/secret/rotate"), json!({"secret": "hunter 4"})).await.expect(200);
    assert_eq!(warned(), ["secret"]);
    // Long enough, or ours.
    host.call("PATCH", &path, ACME, r#"{"secret":"a hunter of twenty-four b"}"#).await.expect(200);
    host.post(&format!("{path}/secret/rotate"), json!({})).await.expect(200);
    host.subscription().await;
    assert!(warned().is_empty());
}

#[tokio::test]
async fn figures_count_by_route_and_never_by_path() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let host = Host::new();
    let id = "01900000-0000-7000-8000-000000000000";
    host.get(&format!("/events/{id}")).await.problem(404);
    host.get(&format!("/events/{id}/")).await.problem(404);
    host.call("INVENTED", "/events", ACME, "").await.problem(405);
    let figures = recorder.handle().render();
    let counted = r#"http_requests_total{method="GET",route="/events/{id}",status="404"} 2"#;
    assert!(figures.contains(counted), "{figures}");
    assert!(figures.contains(r#"method="other",route="/events",status="405""#), "{figures}");
    assert!(figures.contains("http_request_duration_seconds") && !figures.contains(id), "{figures}");
}

#[tokio::test]
async fn what_is_refused_is_counted_too_and_once() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let host = Host::new();
    let own = Router::new().route("/own/{id}", axum::routing::get(async || ()));
    let own = own.method_not_allowed_fallback(method_not_allowed);
    let host = Host { router: host.router.clone().merge(own).fallback(not_found), ..host };
    host.call("GET", "/stats", "", "").await.problem(401);
    host.call("POST", "/subscriptions", READ, "{}").await.problem(403);
    host.get("/no/where?secret").await.problem(404);
    host.call("DELETE", "/events/", ACME, "").await.problem(405);
    host.call("DELETE", "/own/7", ACME, "").await.problem(405);
    host.call("POST", "/events", ACME, vec![b' '; 2 << 20]).await.problem(413);
    host.post("/events", serde_json::json!({})).await.problem(422);
    let figures = recorder.handle().render();
    for counted in [
        r#"{method="GET",route="/stats",status="401"} 1"#,
        r#"{method="POST",route="/subscriptions",status="403"} 1"#,
        r#"{method="GET",route="unmatched",status="404"} 1"#,
        r#"{method="DELETE",route="/events",status="405"} 1"#,
        r#"{method="DELETE",route="/own/{id}",status="405"} 1"#,
        r#"{method="POST",route="/events",status="413"} 1"#,
        r#"{method="POST",route="/events",status="422"} 1"#,
    ] {
        assert!(figures.contains(&format!("http_requests_total{counted}\n")), "{counted}: {figures}");
    }
    assert!(!figures.contains("where"), "{figures}");
}

#[derive(Debug)]
struct Panics;

#[async_trait::async_trait]
impl Authenticator for Panics {
    async fn authenticate(&self, _: &http::request::Parts) -> Result<Caller, AuthError> {
        panic!("with what a caller sent")
    }
}

#[tokio::test]
async fn a_panic_is_an_answer_and_a_line_without_its_message() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _figures = metrics::set_default_local_recorder(&recorder);
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt().json().with_writer(lines.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let host = Host::new();
    let host = Host { router: Api::new(host.webhooks.clone()).authenticator(Arc::new(Panics)).router(), ..host };
    let call = request("GET", "/events", ACME).header("x-request-id", "r-1").body("".into()).unwrap();
    let problem = host.send(call).await.problem(500);
    assert_eq!((&problem["code"], &problem["request_id"]), (&"internal".into(), &"r-1".into()));
    let written = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<Value> = written.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let line = lines.iter().find(|line| line["fields"]["message"] == "a handler panicked").unwrap();
    assert_eq!((&line["level"], &line["fields"]["request_id"]), (&"ERROR".into(), &"r-1".into()));
    assert!(!written.contains("what a caller sent"), "{written}");
    assert!(recorder.handle().render().contains(r#"route="/events",status="500"} 1"#));
}
