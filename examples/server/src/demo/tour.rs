//! The steps of the demo, each a call of the HTTP API.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::receiver::{Receiver, UNLUCKY};
use super::tables;
use crate::client::{self, Answer};

/// Seconds between attempts: short enough to watch.
const SCHEDULE: [f64; 3] = [0.6, 1.2, 2.4];
const PATIENCE: Duration = Duration::from_secs(8);
const PAUSE: Duration = Duration::from_millis(50);

pub(super) struct Tour {
    server: SocketAddr,
    receiver: Receiver,
}

impl Tour {
    pub(super) fn new(server: SocketAddr, receiver: Receiver) -> Self {
        Self { server, receiver }
    }

    pub(super) async fn run(&self) -> io::Result<()> {
        println!("A webhook server and a receiver, both on this machine:");
        println!("  server    http://{}   (its database is a temporary SQLite file)", self.server);
        println!("  receiver  {}", self.receiver.url());
        let subscription = self.subscribe().await?;
        let events = self.emit().await?;
        self.watch(&events).await?;
        self.show(&subscription).await
    }

    /// The subscription's id.
    async fn subscribe(&self) -> io::Result<String> {
        let wanted = json!({
            "target_url": self.receiver.url(),
            "events": ["order.*"],
            "retry": {"schedule": SCHEDULE},
        });
        println!("\n1. The receiver subscribes:  POST /subscriptions {wanted}");
        let made = expect(StatusCode::CREATED, client::post(self.server, "/subscriptions", &wanted).await?)?;
        let (id, secret) = (text(&made, "id"), text(&made, "secret"));
        self.receiver.trust(secret);
        println!("  201 Created: id {id}, and the secret that signs: {}…", secret.get(..9).unwrap_or_default());
        Ok(id.to_owned())
    }

    /// The events' ids.
    async fn emit(&self) -> io::Result<Vec<String>> {
        println!(
            "\n2. The application sends events (>), answered when they are on disk, and the receiver gets them (<)."
        );
        println!("   It has a bad day with {UNLUCKY}:");
        let mut ids = Vec::new();
        for (event_type, payload) in [
            (UNLUCKY, json!({"order": 1001, "total": "49.90"})),
            ("order.paid", json!({"order": 1001, "paid_by": "card"})),
            ("order.shipped", json!({"order": 1001, "carrier": "post"})),
            ("user.signed_up", json!({"user": 7})),
        ] {
            let event = json!({"event_type": event_type, "payload": payload});
            let accepted = expect(StatusCode::ACCEPTED, client::post(self.server, "/events", &event).await?)?;
            let matched = match accepted["deliveries"].as_u64() {
                Some(0) => "nobody subscribed to it",
                _ => "one delivery",
            };
            println!("  >  POST /events {event_type:<15} 202 Accepted, {matched}");
            ids.push(text(&accepted, "id").to_owned());
        }
        Ok(ids)
    }

    /// Until no delivery of the events is pending.
    async fn watch(&self, events: &[String]) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        for id in events {
            let path = format!("/events/{id}/status");
            while text(&self.get(&path).await?, "status") == "pending" {
                if Instant::now() > deadline {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "the deliveries take too long"));
                }
                sleep(PAUSE).await;
            }
        }
        Ok(())
    }

    async fn show(&self, subscription: &str) -> io::Result<()> {
        println!("\n3. What the server knows about it:  GET /deliveries and GET /deliveries/{{id}}");
        let list = self.get(&format!("/deliveries?subscription_id={subscription}")).await?;
        let mut deliveries = Vec::new();
        // The list has the newest first, a story the oldest.
        for delivery in list["data"].as_array().into_iter().flatten().rev() {
            deliveries.push(self.get(&format!("/deliveries/{}", text(delivery, "id"))).await?);
        }
        print!("{}", tables::deliveries(&deliveries));
        println!("\nAll of it took {:.1} s.", self.receiver.opened().elapsed().as_secs_f64());
        Ok(())
    }

    pub(super) fn say_what_is_next(&self, keep: bool) {
        println!("\nWhat to try next:");
        let server = if keep { self.server.to_string() } else { "127.0.0.1:8080".to_owned() };
        if !keep {
            println!("  webhook-server demo --keep     # the same, and it goes on running");
            println!("  webhook-server --allow-network 127.0.0.0/8     # a server of your own; then");
            println!("  curl {server}/subscriptions --json '{{\"target_url\": \"http://127.0.0.1:9000/hooks\"}}'");
        }
        println!("  curl {server}/events --json '{{\"event_type\": \"{UNLUCKY}\", \"payload\": {{\"order\": 1002}}}}'");
        println!("  curl {server}/deliveries");
        println!("  curl {server}/stats");
        println!("  and the whole API in a browser: http://{server}/docs");
        if keep {
            println!("\nRunning until Ctrl-C; what arrives at the receiver shows here.");
        }
    }

    async fn get(&self, path: &str) -> io::Result<Value> {
        expect(StatusCode::OK, client::get(self.server, path).await?)
    }
}

fn expect(status: StatusCode, answer: Answer) -> io::Result<Value> {
    if answer.status == status {
        return answer.json();
    }
    let body = String::from_utf8_lossy(&answer.body);
    Err(io::Error::other(format!("the server answered {} in place of {status}: {body}", answer.status)))
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap_or_default()
}
