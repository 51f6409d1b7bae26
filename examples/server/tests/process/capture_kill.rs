//! kill -9 under capture load, and a flood: nothing that was answered with 2xx is lost.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::support::client::Client;
use crate::support::place::Place;
use crate::support::until;

const KILLS: usize = 10;
const SENDERS: usize = 16;
/// Requests that are answered before each kill, at least.
const ROUND: usize = 150;

/// Which requests were answered with 200: number and id.
type Answered = Arc<Mutex<BTreeMap<usize, String>>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn captures_on_sqlite_survive_kills() {
    survive(&Place::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn captures_on_postgres_survive_kills() {
    survive(&Place::postgres().await).await;
}

async fn survive(place: &Place) {
    let mut chance = StdRng::seed_from_u64(7);
    let mut server = place.launch(&[]).await;
    server.client().post("/api/paths", &json!({"path_id": "p"})).await.unwrap().expect(201);
    let (answered, next) = (Answered::default(), Arc::new(AtomicUsize::new(0)));
    let turn = watch::channel(Some(server.addr())).0;
    let mut senders = JoinSet::new();
    for _ in 0..SENDERS {
        senders.spawn(send(turn.subscribe(), Arc::clone(&answered), Arc::clone(&next)));
    }
    for _ in 0..KILLS {
        let enough = answered.lock().unwrap().len() + ROUND;
        until("requests are answered", async || (answered.lock().unwrap().len() >= enough).then_some(())).await;
        sleep(Duration::from_micros(chance.random_range(0..10_000))).await;
        server.kill().await;
        server = place.launch(&[]).await;
        turn.send_replace(Some(server.addr()));
    }
    turn.send_replace(None);
    senders.join_all().await;
    let answered = answered.lock().unwrap().clone();
    let sent = next.load(Ordering::SeqCst);
    let stored = stored(&mut server.client()).await;
    for (number, id) in &answered {
        assert_eq!(stored.get(id), Some(number), "request {number} was answered with 200");
    }
    let mut numbers: Vec<_> = stored.values().collect();
    numbers.sort();
    numbers.dedup();
    assert_eq!(numbers.len(), stored.len(), "none is stored twice");
    let stats = server.client().get("/api/paths/p/stats").await.unwrap().expect(200);
    assert_eq!(stats["total_requests"], stored.len(), "the figures count what is there");
    println!(
        "{KILLS} kills: {sent} requests sent, {} answered with 200, all of them stored; {} more stored",
        answered.len(),
        stored.len() - answered.len()
    );
    server.stop().await;
}

/// Sends numbered requests, each once, until there is no server any more.
async fn send(mut turn: watch::Receiver<Option<SocketAddr>>, answered: Answered, next: Arc<AtomicUsize>) {
    loop {
        let Some(addr) = *turn.borrow_and_update() else { return };
        let mut client = Client::new(addr);
        loop {
            let number = next.fetch_add(1, Ordering::SeqCst);
            let sent = client.send("POST", &format!("/webhook/p/{number}"), number.to_string().as_bytes()).await;
            match sent {
                Ok(answer) if answer.status == 200 => {
                    let id = answer.json()["request_id"].as_str().unwrap().to_owned();
                    answered.lock().unwrap().insert(number, id);
                }
                Ok(answer) => assert_eq!(answer.status, 503, "{answer:?}"),
                Err(_) => break,
            }
            if turn.has_changed().unwrap() {
                break;
            }
        }
        if !turn.has_changed().unwrap() {
            // Killed: wait for the next one.
            turn.changed().await.unwrap();
        }
    }
}

/// What is stored, by id: the number in the body, which the path must have too.
async fn stored(client: &mut Client) -> BTreeMap<String, usize> {
    let (mut stored, mut cursor) = (BTreeMap::new(), String::new());
    loop {
        let page = client.get(&format!("/api/paths/p/logs?limit=1000{cursor}")).await.unwrap().expect(200);
        for log in page["data"].as_array().unwrap() {
            let number: usize = log["body"].as_str().unwrap().parse().unwrap();
            assert_eq!(log["path"], format!("/webhook/p/{number}"));
            let id = log["id"].as_str().unwrap().to_owned();
            assert!(stored.insert(id, number).is_none(), "pages show each request once");
        }
        match &page["pagination"]["next_cursor"] {
            Value::String(next) => cursor = format!("&cursor={next}"),
            _ => return stored,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_20_000_captures_on_sqlite_at_64_at_once_none_is_lost() {
    flood(&Place::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_20_000_captures_on_postgres_at_64_at_once_none_is_lost() {
    flood(&Place::postgres().await).await;
}

async fn flood(place: &Place) {
    const CAPTURES: usize = 20_000;
    let server = place.launch(&[]).await;
    server.client().post("/api/paths", &json!({"path_id": "p"})).await.unwrap().expect(201);
    let (answered, next) = (Answered::default(), Arc::new(AtomicUsize::new(0)));
    let mut senders = JoinSet::new();
    let began = Instant::now();
    for _ in 0..64 {
        let (mut client, answered, next) = (server.client(), Arc::clone(&answered), Arc::clone(&next));
        senders.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::SeqCst);
                if number >= CAPTURES {
                    return;
                }
                let path = format!("/webhook/p/{number}");
                let answer = client.send("POST", &path, number.to_string().as_bytes()).await.unwrap();
                let id = answer.expect(200)["request_id"].as_str().unwrap().to_owned();
                answered.lock().unwrap().insert(number, id);
            }
        });
    }
    senders.join_all().await;
    let took = began.elapsed();
    let answered = answered.lock().unwrap().clone();
    let stored = stored(&mut server.client()).await;
    assert_eq!((answered.len(), stored.len()), (CAPTURES, CAPTURES));
    assert!(answered.iter().all(|(number, id)| stored.get(id) == Some(number)));
    println!("{CAPTURES} captures in {:.1} s: all stored, each once", took.as_secs_f64());
    server.stop().await;
}
