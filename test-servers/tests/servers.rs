//! The servers come up, fail as they are told to, and go with the process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, fs, thread};

use webhook_test_servers::{FaultProxy, PostgresServer, RedisCluster, RedisServer, TestDatabase, TestRedis, Traffic};

fn eventually(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..1_500 {
        if holds() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("not so after 15 s: {what}");
}

fn runs(pid: &str) -> bool {
    // The state stands after the name, which ends with the last bracket. A zombie runs no more.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z'))
}

fn psql(url: &str, statement: &str) -> Child {
    let mut command = Command::new("psql");
    command.args(["-X", "-q", "-t", "-A", "-c", statement, url]);
    command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn what_postgres_committed_survives_a_kill_and_its_port_stays() {
    let server = PostgresServer::start();
    let url = server.url();
    server.sql(&url, "create table t (n int); insert into t values (1)");
    assert_eq!(server.sql(&url, "show fsync").trim(), "on");

    server.kill();
    assert!(!psql(&url, "select 1").wait().unwrap().success());
    server.restart();
    assert_eq!(server.sql(&url, "select n from t").trim(), "1");

    server.stop_immediate();
    server.restart();
    server.stop_fast();
    server.restart();
    assert_eq!(server.url(), url);
    assert_eq!(server.sql(&url, "select n from t").trim(), "1");
}

#[test]
fn a_killed_session_takes_the_others_of_its_server_with_it() {
    let server = PostgresServer::start();
    assert_eq!(server.kill_one_backend(), None);
    let mut sessions = [psql(&server.url(), "select pg_sleep(60)"), psql(&server.url(), "select pg_sleep(60)")];
    let open = "select count(*) from pg_stat_activity where query like '%pg_sleep(60)' and state = 'active'";
    eventually("both sessions are there", || server.sql(&server.url(), open).trim() == "2");
    assert!(server.kill_one_backend().is_some());
    for session in &mut sessions {
        assert!(!session.wait().unwrap().success());
    }
    eventually("the server recovers", || psql(&server.url(), "select 1").wait().unwrap().success());
}

#[test]
fn a_paused_server_answers_when_it_goes_on() {
    let server = PostgresServer::start();
    server.pause();
    let mut asking = psql(&server.url(), "select 1");
    thread::sleep(Duration::from_millis(200));
    assert!(asking.try_wait().unwrap().is_none());
    server.resume();
    assert!(asking.wait().unwrap().success());
}

#[test]
fn every_test_database_is_empty_and_goes() {
    let (one, other) = (TestDatabase::fresh(), TestDatabase::fresh());
    assert_ne!(one.url(), other.url());
    for database in [&one, &other] {
        assert!(psql(database.url(), "create table t (n int)").wait().unwrap().success());
    }
    let url = one.url().to_owned();
    drop(one);
    assert!(!psql(&url, "select 1").wait().unwrap().success());
    assert!(psql(other.url(), "select 1").wait().unwrap().success());
}

#[test]
fn redis_keeps_what_it_saved_and_loses_the_rest() {
    let server = RedisServer::start();
    server.command(&["SET", "a", "1"]);
    server.command(&["SAVE"]);
    server.command(&["SET", "b", "2"]);
    server.restart();
    assert_eq!((server.command(&["GET", "a"]), server.command(&["EXISTS", "b"])), ("1".into(), "0".into()));
    server.restart_empty();
    assert_eq!(server.command(&["DBSIZE"]), "0");
    server.kill();
    assert_eq!(server.pid(), None);
}

#[test]
fn a_cluster_serves_every_slot() {
    let cluster = RedisCluster::start();
    let owners = cluster.nodes().iter().filter(|node| node.command(&["SET", "{a}", "1"]) == "OK").count();
    assert_eq!(owners, 1);
}

#[test]
fn tests_that_share_a_redis_have_prefixes_of_their_own() {
    let (one, other) = (TestRedis::fresh(), TestRedis::fresh());
    assert_eq!(one.url(), other.url());
    assert_ne!(one.prefix(), other.prefix());
}

#[test]
fn a_swallowed_answer_leaves_the_client_in_doubt_and_the_work_done() {
    let server = PostgresServer::start();
    server.sql(&server.url(), "create table t (n int)");
    let proxy = FaultProxy::start(server.addr());
    let url = proxy.rewrite(&server.url());

    proxy.swallow_answer_to("insert into");
    assert!(!psql(&url, "insert into t values (1)").wait().unwrap().success());
    assert_eq!(proxy.swallowed(), 1);
    assert_eq!(server.sql(&server.url(), "select n from t").trim(), "1");
    assert!(psql(&url, "insert into t values (2)").wait().unwrap().success());
}

#[test]
fn a_proxy_refuses_stalls_slows_and_cuts() {
    let server = PostgresServer::start();
    let proxy = FaultProxy::start(server.addr());
    let url = proxy.rewrite(&server.url());

    proxy.set(Traffic::Refused);
    assert!(!psql(&url, "select 1").wait().unwrap().success());

    proxy.set(Traffic::Stalls);
    let mut asking = psql(&url, "select 1");
    thread::sleep(Duration::from_millis(200));
    assert!(asking.try_wait().unwrap().is_none());
    proxy.set(Traffic::Flows);
    assert!(asking.wait().unwrap().success());

    proxy.set(Traffic::Slow(Duration::from_millis(1)));
    assert!(psql(&url, "select 1").wait().unwrap().success());

    let mut sleeping = psql(&url, "select pg_sleep(60)");
    let open = "select count(*) from pg_stat_activity where query = 'select pg_sleep(60)'";
    eventually("the session is there", || server.sql(&server.url(), open).trim() == "1");
    proxy.cut();
    assert!(!sleeping.wait().unwrap().success());
}

const VICTIM: &str = "a_process_with_servers_is_killed_by_the_test_beside_it";

#[test]
fn servers_and_directories_go_with_a_killed_process() {
    let mut victim = Command::new(env::current_exe().unwrap())
        .args(["--exact", VICTIM, "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(victim.stdout.take().unwrap()).lines().map(Result::unwrap);
    let servers: Vec<(String, String)> = lines
        .filter_map(|line| {
            let (pid, dir) = line.strip_prefix("server ")?.split_once(' ')?;
            Some((pid.to_owned(), dir.to_owned()))
        })
        .take(2)
        .collect();
    assert_eq!(servers.len(), 2);
    assert!(servers.iter().all(|(pid, dir)| runs(pid) && Path::new(dir).exists()));
    victim.kill().unwrap();
    victim.wait().unwrap();
    for (pid, dir) in servers {
        eventually("the server is gone", || !runs(&pid));
        let gone = format!("{dir}.gone");
        eventually("its directory is gone", || !Path::new(&dir).exists() && !Path::new(&gone).exists());
    }
}

#[test]
#[ignore = "it only waits to be killed"]
fn a_process_with_servers_is_killed_by_the_test_beside_it() {
    let (postgres, redis) = (PostgresServer::start(), RedisServer::start());
    println!();
    println!("server {} {}", postgres.pid().unwrap(), postgres.dir().display());
    println!("server {} {}", redis.pid().unwrap(), redis.dir().display());
    loop {
        thread::sleep(Duration::from_secs(60));
    }
}

#[test]
fn servers_and_directories_go_when_they_are_dropped() {
    let (postgres, redis) = (PostgresServer::start(), RedisServer::start());
    let left = [(postgres.pid().unwrap(), postgres.dir().to_owned()), (redis.pid().unwrap(), redis.dir().to_owned())];
    drop((postgres, redis));
    for (pid, dir) in left {
        assert!(!runs(&pid.to_string()));
        assert!(!dir.exists());
    }
}
