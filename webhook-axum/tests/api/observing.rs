//! What the host sees of the requests.

use std::io::Write;
use std::sync::{Arc, Mutex};

use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::Value;
use tracing_subscriber::fmt::MakeWriter;
use webhook_axum::access_log;

use crate::host::{ACME, Host, request};

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
