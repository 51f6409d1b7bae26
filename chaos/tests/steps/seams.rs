//! Between the calls of the seams.

use std::os::unix::process::ExitStatusExt;

use serde_json::Value;

use crate::endpoint::First;
use crate::scene::{Backend, Scene, until};

const SIGABRT: i32 = 6;

/// Sends all events to a server that aborts at that call, and lets another one go on.
async fn survives(backend: Backend, first: First, abort: &str) {
    let scene = Scene::new(backend, first).await;
    let mut node = scene.start(&["--abort", abort]).await;
    let acknowledged = scene.emit_all(&node).await;
    let status = node.ended().await.expect("it ends");
    assert_eq!(status.signal(), Some(SIGABRT), "{abort}: it came to that call");
    scene.endpoint.first(First::Succeeds);
    scene.nothing_is_lost(&acknowledged, &[]).await;
}

/// The same on SQLite and on PostgreSQL.
async fn survives_on_both(first: First, abort: &str) {
    survives(Backend::Sqlite, first, abort).await;
    survives(Backend::Postgres, first, abort).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_an_event_is_stored() {
    survives_on_both(First::Succeeds, "before:accept:1").await;
    survives_on_both(First::Succeeds, "before:accept:3").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_event_is_stored_and_before_its_caller_knows() {
    survives_on_both(First::Succeeds, "after:accept:1").await;
    survives_on_both(First::Succeeds, "after:accept:3").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_and_after_a_hint_is_pushed() {
    survives(Backend::PostgresAndRedis, First::Fails, "before:push:1").await;
    survives(Backend::PostgresAndRedis, First::Fails, "after:push:1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_a_claim_and_between_it_and_the_attempt() {
    for abort in ["before:claim:1", "before:claim_some:1", "after:load_events:1"] {
        survives_on_both(First::Fails, abort).await;
    }
    for abort in ["after:pop:1", "before:claim_some:1"] {
        survives(Backend::PostgresAndRedis, First::Fails, abort).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_an_attempt_and_between_it_and_its_record() {
    for abort in ["before:send:1", "after:send:1", "after:send:4", "before:record:1"] {
        survives_on_both(First::Succeeds, abort).await;
        survives_on_both(First::Fails, abort).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_record_and_before_its_hint_is_gone() {
    survives_on_both(First::Succeeds, "after:record:1").await;
    survives_on_both(First::Fails, "after:record:1").await;
    for abort in ["after:record:1", "before:done:1", "after:done:1"] {
        survives(Backend::PostgresAndRedis, First::Succeeds, abort).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_an_endpoint_has_the_request_and_has_not_answered() {
    for backend in [Backend::Sqlite, Backend::Postgres, Backend::PostgresAndRedis] {
        let scene = Scene::new(backend, First::Hangs).await;
        let node = scene.start(&[]).await;
        let acknowledged = scene.emit_all(&node).await;
        scene.endpoint.until_reached().await;
        node.kill().await;
        scene.endpoint.first(First::Succeeds);
        scene.nothing_is_lost(&acknowledged, &[]).await;
    }
}

/// What a killed server held is found by another one, which aborts when it has, and by a third.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_lost_leases_are_found_again() {
    for backend in [Backend::Sqlite, Backend::Postgres, Backend::PostgresAndRedis] {
        let scene = Scene::new(backend, First::Hangs).await;
        let node = scene.start(&[]).await;
        let acknowledged = scene.emit_all(&node).await;
        scene.endpoint.until_reached().await;
        node.kill().await;
        scene.endpoint.first(First::Succeeds);
        let mut node = scene.start(&["--abort=before:claim_some:1"]).await;
        assert_eq!(node.ended().await.expect("it ends").signal(), Some(SIGABRT));
        scene.nothing_is_lost(&acknowledged, &[]).await;
    }
}

/// The endpoint hangs for longer than the grace lasts: leases are given back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_it_stops() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        for abort in ["before:release:1", "after:release:1"] {
            let scene = Scene::new(backend, First::Hangs).await;
            let mut node = scene.start(&["--abort", abort]).await;
            let acknowledged = scene.emit_all(&node).await;
            scene.endpoint.until_reached().await;
            node.signal("TERM").await;
            assert_eq!(node.ended().await.expect("it ends").signal(), Some(SIGABRT), "{abort}");
            scene.endpoint.first(First::Succeeds);
            scene.nothing_is_lost(&acknowledged, &[]).await;
        }
    }
}

/// Old history goes in steps; what is still open stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_history_is_removed() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        for abort in ["before:prune:1", "after:prune:1", "before:prune:2"] {
            let scene = Scene::new(backend, First::Succeeds).await;
            let node = scene.start(&[]).await;
            let old = scene.emit(&node, 100).await.expect("an old event");
            until("the old event is delivered", async || {
                let path = format!("/events/{old}/status");
                (scene.ask(&node, "GET", &path, &Value::Null).await?.1["status"] == "delivered").then_some(())
            })
            .await;
            scene.endpoint.first(First::Hangs);
            let acknowledged = scene.emit_all(&node).await;
            node.kill().await;
            let mut node = scene.start(&["--keep=0", "--abort", abort]).await;
            assert_eq!(node.ended().await.expect("it ends").signal(), Some(SIGABRT), "{abort}");

            scene.endpoint.first(First::Succeeds);
            let node = scene.start(&["--keep=0"]).await;
            for id in acknowledged.values() {
                until("what was open has arrived", async || {
                    let arrivals = scene.endpoint.arrivals();
                    arrivals.iter().any(|arrival| &arrival.event == id && arrival.status == 200).then_some(())
                })
                .await;
            }
            until("what is over is gone", async || {
                let (_, answer) = scene.ask(&node, "GET", "/events", &Value::Null).await?;
                answer["data"].as_array()?.is_empty().then_some(())
            })
            .await;
            assert!(node.stop().await);
        }
    }
}
