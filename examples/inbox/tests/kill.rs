//! The example as a process that is killed again and again: what it answered 200 is handled.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

const SECRET: &str = "It's a Secret to Everybody";
const MESSAGES: usize = 300;
const SENDERS: usize = 4;
const KILLS: usize = 5;
/// Longer than anything takes, so that only what would never happen fails by it.
const PATIENCE: Duration = Duration::from_secs(120);

/// A server in `directory`, and where it listens.
async fn start(directory: &Path) -> (Child, SocketAddr) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_webhook-example-inbox"))
        .env_clear()
        .envs([("GITHUB_SECRET", SECRET), ("LISTEN_ADDR", "127.0.0.1:0")])
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = timeout(PATIENCE, lines.next_line()).await.expect("it does not listen").unwrap().expect("it has ended");
    (child, line.strip_prefix("listening on ").unwrap().parse().unwrap())
}

/// The status; none when there was no answer.
async fn post(addr: SocketAddr, id: &str) -> Option<u16> {
    let body = format!(r#"{{"message":"{id}"}}"#);
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(body.as_bytes());
    let signature = hex::encode(mac.finalize().into_bytes());
    let request = format!(
        "POST /github HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\nx-github-delivery: {id}\r\n\
         x-github-event: push\r\nx-hub-signature-256: sha256={signature}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(addr).await.ok()?;
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    answer.split(' ').nth(1)?.parse().ok()
}

/// Sends until there is an answer, as senders do.
async fn insist(addr: &Mutex<SocketAddr>, id: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = *addr.lock().unwrap();
        match post(now, id).await {
            Some(200) => return,
            Some(status) => assert_eq!(status, 503, "{id}"),
            None => {}
        }
        assert!(Instant::now() < deadline, "{id} is not taken");
        sleep(Duration::from_millis(10)).await;
    }
}

/// How often each message is in the log.
fn handled(directory: &Path) -> BTreeMap<String, usize> {
    let log = std::fs::read_to_string(directory.join("handled.log")).unwrap_or_default();
    let mut handled = BTreeMap::new();
    for line in log.lines() {
        *handled.entry(line.split(' ').next().unwrap().to_owned()).or_default() += 1;
    }
    handled
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_is_handled_whenever_the_process_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let (mut server, first) = start(directory.path()).await;
    let addr = Arc::new(Mutex::new(first));
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let addr = Arc::clone(&addr);
            tokio::spawn(async move {
                for number in (sender..MESSAGES).step_by(SENDERS) {
                    insist(&addr, &format!("m{number}")).await;
                }
            })
        })
        .collect();
    for kill in 1..=KILLS {
        // Not at a moment of the clock, but when so much has been handled.
        let deadline = Instant::now() + PATIENCE;
        while handled(directory.path()).len() < kill * MESSAGES / (KILLS + 2) {
            assert!(Instant::now() < deadline, "nothing goes on before kill {kill}");
            sleep(Duration::from_millis(1)).await;
        }
        server.kill().await.unwrap();
        let (next, at) = start(directory.path()).await;
        server = next;
        *addr.lock().unwrap() = at;
    }
    for sender in senders {
        sender.await.unwrap();
    }
    let deadline = Instant::now() + PATIENCE;
    while handled(directory.path()).len() < MESSAGES {
        assert!(Instant::now() < deadline, "lost: {} of {MESSAGES} handled", handled(directory.path()).len());
        sleep(Duration::from_millis(20)).await;
    }
    let twice: usize = handled(directory.path()).values().map(|times| times - 1).sum();
    println!("{MESSAGES} messages, {KILLS} kills: all handled, {twice} twice");
    // What was being handled, or was handled and not yet recorded, at a kill: no more than can be in flight.
    assert!(twice <= KILLS * 16 * 2, "{twice} messages were handled again");

    let now_at = *addr.lock().unwrap();
    let before = handled(directory.path())["m0"];
    assert_eq!(post(now_at, "m0").await, Some(200), "a repeat is taken");
    insist(&addr, "last").await;
    while !handled(directory.path()).contains_key("last") {
        assert!(Instant::now() < deadline, "the last one is not handled");
        sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(handled(directory.path())["m0"], before, "and not handled");
    server.kill().await.unwrap();
}
