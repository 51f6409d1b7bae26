//! Flags, variables and the small commands.

use std::process::Output;

use serde_json::Value;
use tokio::net::TcpListener;

use crate::support::server::{Server, database_url, output, program, stderr};
use crate::support::until;

type Variables = &'static [(&'static str, &'static str)];

async fn run(variables: &[(&str, &str)], arguments: &[&str]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    output(program().envs(variables.iter().copied()).args(arguments).current_dir(directory.path())).await
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_a_reason() {
    let cases: [(Variables, &[&str], &str); 13] = [
        (&[], &["--listen=0.0.0.0:0"], "without API keys"),
        (&[("LISTEN_ADDR", "0.0.0.0:0")], &["serve"], "without API keys"),
        (&[("PORT", "8123")], &[], "0.0.0.0:8123"),
        (&[("PORT", "http")], &[], "no port"),
        (&[("DATABASE_URL", "postgres://user:canary@host:port/db")], &[], "PostgreSQL"),
        (&[("REDIS_URL", "redis://:canary@host:port")], &[], "rediss://"),
        (&[("REDIS_URL", "redis://:canary@host"), ("REDIS_PREFIX", "{wh}")], &[], "a key prefix is"),
        (&[("ROLE", "worker")], &[], "share"),
        (&[("DATABASE_URL", "memory:")], &["--role=api"], "share"),
        (&[("API_KEYS", "good=acme,canary")], &[], "number 2"),
        (&[("ENCRYPTION_KEYS", "k1=canary")], &[], "number 1"),
        (&[("ALLOW_NETWORKS", "10.0.0.0/8,ten")], &[], "ten"),
        (&[], &["--log-level=loud"], "critical"),
    ];
    for (variables, arguments, reason) in cases {
        let refused = run(variables, arguments).await;
        let text = stderr(&refused);
        assert_eq!(refused.status.code(), Some(2), "{variables:?} {arguments:?}: {text}");
        assert!(text.contains(reason) && !text.contains("canary"), "{variables:?} {arguments:?}: {text}");
    }
}

#[tokio::test]
async fn help_shows_variables_without_what_is_in_them() {
    let help = run(&[("API_KEYS", "canary=acme")], &["--help"]).await;
    let text = String::from_utf8(help.stdout).unwrap();
    assert!(text.contains("API_KEYS") && !text.contains("canary"), "{text}");
}

#[tokio::test]
async fn flags_win_over_variables_and_empty_variables_are_unset() {
    let directory = tempfile::tempdir().unwrap();
    let variables = [
        ("LISTEN_ADDR", "0.0.0.0:1"),
        ("PORT", ""),
        ("DATABASE_URL", ""),
        ("WORKER_CONCURRENCY", "3"),
        ("CACHE_TTL_SECONDS", "7"),
        ("ALLOW_NETWORKS", "127.0.0.0/8, 10.0.0.0/8"),
        ("ALLOW_HTTP", "true"),
        ("API_KEYS", ""),
        ("ENCRYPTION_KEYS", ""),
        ("LOG_LEVEL", "INFO"),
        ("LOG_FORMAT", "JSON"),
    ];
    let mut command = program();
    command.envs(variables).current_dir(directory.path());
    let server = Server::spawn(command.args(["--concurrency=5", "serve", "--listen=127.0.0.1:0"])).await;
    let lines = server.lines().json();
    let configuration = lines.iter().find(|line| line["message"] == "configuration").unwrap();
    for (field, value) in [
        ("listen", Value::from("127.0.0.1:0")),
        ("database_url", "sqlite://webhook.db".into()),
        ("concurrency", 5.into()),
        ("cache_ttl_seconds", 7.0.into()),
        ("allow_networks", "127.0.0.0/8,10.0.0.0/8".into()),
        ("allow_http", true.into()),
        ("api_keys", "none".into()),
    ] {
        assert_eq!(configuration[field], value, "{field}");
    }
    assert!(lines.iter().any(|line| line["message"].as_str().unwrap().contains("in clear")));
    assert!(directory.path().join("webhook.db").exists());
    server.stop().await;
}

#[tokio::test]
async fn the_example_of_settings_is_one_to_start_from() {
    let directory = tempfile::tempdir().unwrap();
    let example = include_str!("../../../../.env.example");
    let variables = example.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
    let mut command = program();
    command.envs(variables).env("LISTEN_ADDR", "0.0.0.0:0").current_dir(directory.path());
    let refused = output(&mut command).await;
    assert!(stderr(&refused).contains("without API keys"), "the key is left to fill in: {refused:?}");
    Server::spawn(command.env("API_KEYS", "key=acme")).await.stop().await;
}

#[tokio::test]
async fn a_request_has_one_line_with_its_fields_on_top() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]).await;
    let mut client = server.client().with_header("x-request-id", "my-request-1");
    assert_eq!(client.get("/nowhere?token=canary").await.unwrap().status, 404);
    let line = until("the line is written", async || {
        server.lines().json().into_iter().find(|line| line["request_id"] == "my-request-1")
    })
    .await;
    assert_eq!((&line["level"], &line["method"]), (&"INFO".into(), &"GET".into()));
    assert_eq!((&line["path"], &line["status"]), (&"/nowhere".into(), &404.into()));
    assert!(line["latency_ms"].is_number(), "{line}");
    let ts = line["ts"].as_str().unwrap();
    assert!(ts.len() == 24 && ts.ends_with('Z') && &ts[10..11] == "T", "{ts}");
    assert!(!server.lines().all().concat().contains("canary"));
    server.stop().await;
}

#[tokio::test]
async fn healthcheck_tells_by_its_code() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &["--api-key=key=acme"]).await;
    let listen = server.addr().to_string();
    let healthy = run(&[("LISTEN_ADDR", &listen)], &["healthcheck"]).await;
    assert!(healthy.status.success() && String::from_utf8_lossy(&healthy.stdout).contains("ready"), "{healthy:?}");
    server.stop().await;
    let gone = run(&[], &["healthcheck", "--listen", &listen]).await;
    assert_eq!(gone.status.code(), Some(1));
    assert!(stderr(&gone).contains(&listen), "{gone:?}");

    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let deaf = run(&[], &["--listen", &silent.local_addr().unwrap().to_string(), "healthcheck"]).await;
    assert_eq!(deaf.status.code(), Some(1));
}

#[tokio::test]
async fn migrations_are_told_and_applied() {
    let directory = tempfile::tempdir().unwrap();
    let database = database_url(directory.path());
    let run = async |arguments: &[&str]| output(program().arg(&database).args(arguments)).await;
    let told = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();

    let status = run(&["migrate", "--status"]).await;
    assert_eq!(status.status.code(), Some(1), "{status:?}");
    for made in [false, true] {
        let refused = run(&["serve", "--no-migrate", "--listen=127.0.0.1:0"]).await;
        assert_eq!(refused.status.code(), Some(1));
        assert!(stderr(&refused).contains("webhook-server migrate"), "{refused:?}");
        let file = directory.path().join("webhook.db");
        assert_eq!(file.exists(), made, "nothing creates it but this test");
        std::fs::File::options().create(true).append(true).open(file).unwrap();
    }
    let status = run(&["migrate", "--status"]).await;
    assert!(status.status.code() == Some(1) && told(&status).contains("pending"), "{status:?}");

    assert!(run(&["migrate"]).await.status.success());
    let status = run(&["migrate", "--status"]).await;
    assert!(status.status.success() && told(&status).contains("applied"), "{status:?}");
    Server::start(directory.path(), &["--no-migrate"]).await.stop().await;
}

#[tokio::test]
async fn figures_of_an_engine_in_memory() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = program();
    command.args([
        "--database-url=memory:",
        "--listen=127.0.0.1:0",
        "--log-format=json",
        "--api-key=key=acme:read,write",
    ]);
    let server = Server::spawn(command.current_dir(directory.path())).await;
    let mut client = server.client().with_header("authorization", "Bearer key");
    let event = serde_json::json!({"event_type": "test.sent", "payload": {}});
    client.post("/events", &event).await.unwrap().expect(202);
    let figures = client.get("/metrics").await.unwrap();
    let text = String::from_utf8(figures.body).unwrap();
    assert!(text.contains("webhook_events_accepted_total 1") && text.contains("_seconds_bucket"), "{text}");
    assert_eq!(server.client().get("/metrics").await.unwrap().status, 401);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    server.stop().await;
}
