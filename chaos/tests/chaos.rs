//! A short share of the long run, and that it fails where it should.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::process::{Command, Output};

/// Runs the command with a seed and those arguments.
fn chaos(arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_chaos")).arg("--seed=1").args(arguments).output().unwrap();
    println!("{}", text(&output));
    output
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A run with that bug built into the servers fails, and names what came of it.
fn is_caught(plant: &str, check: &str, arguments: &[&str]) {
    let plant = format!("--plant={plant}");
    let output = chaos(&[&[plant.as_str(), "--rate=30", "--calm=15"], arguments].concat());
    assert_eq!(output.status.code(), Some(1), "{plant}");
    assert!(text(&output).contains(&format!("FAILED     {check}")), "{plant} was not found as {check:?}");
}

#[test]
fn nothing_is_lost_and_nothing_invented_whatever_happens() {
    let faults = "--fault=server-killed,server-frozen,clock-off,session-killed,postmaster-killed,commit-answers-lost,\
                  postgres-partitioned,sessions-taken,redis-killed";
    let output = chaos(&["--minutes=0.6", "--rate=40", faults]);
    assert!(output.status.success());
}

#[test]
fn nothing_is_lost_when_redis_is_away_for_the_whole_run() {
    let faults = "--fault=server-killed,postgres-stopped-at-once,postgres-stalled,postgres-cut";
    let output = chaos(&["--minutes=0.25", "--rate=40", "--without-redis", "--lease=5", faults]);
    assert!(output.status.success());
}

#[test]
fn an_acknowledgement_before_the_commit_is_found() {
    let only = ["--fault=postmaster-killed", "--minutes=0.1"];
    is_caught("ack-before-commit", "events lost (C1)", &only);
}

#[test]
fn a_retry_that_only_the_queue_knows_of_is_found() {
    is_caught("hint-only-retry", "deliveries still open (C4)", &["--fault=redis-flushed", "--minutes=0.1"]);
}

#[test]
fn a_result_without_the_lease_is_found() {
    // Half a minute shows it about four times, and so at times not at all.
    let only = ["--fault=server-frozen", "--minutes=1", "--lease=4"];
    is_caught("no-token", "results without the current lease (C7)", &only);
}

#[test]
fn an_answer_that_may_take_for_ever_is_found() {
    is_caught(
        "no-body-deadline",
        "attempts held beyond their deadline (C18)",
        &["--fault=redis-flushed", "--minutes=0.1"],
    );
}
