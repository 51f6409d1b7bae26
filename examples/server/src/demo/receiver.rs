//! What a receiver of webhooks looks like: one route that verifies the signature. This one also fails at first.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use webhook_core::{Clock, Secret, SystemClock, verify_ingest};

/// The event whose first attempts fail, and how.
pub(super) const UNLUCKY: &str = "order.created";
const BAD_DAY: [StatusCode; 2] = [StatusCode::INTERNAL_SERVER_ERROR, StatusCode::SERVICE_UNAVAILABLE];

/// Listens on a free port of this machine until the demo ends.
pub(super) struct Receiver {
    addr: SocketAddr,
    desk: Arc<Desk>,
}

struct Desk {
    /// The subscription's secret, known once there is a subscription.
    secret: OnceLock<Secret>,
    opened: Instant,
}

impl Receiver {
    pub(super) async fn start(shutdown: CancellationToken) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let desk = Arc::new(Desk { secret: OnceLock::new(), opened: Instant::now() });
        let receiver = Self { addr: listener.local_addr()?, desk: Arc::clone(&desk) };
        let router = Router::new().route("/hooks", post(receive)).with_state(desk);
        let serving = axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned());
        tokio::spawn(async move { serving.await });
        Ok(receiver)
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/hooks", self.addr)
    }

    /// From now on signatures are verified with it.
    pub(super) fn trust(&self, secret: &str) {
        // There is one subscription, so that nothing can be there already.
        let _ = self.desk.secret.set(Secret::new(secret));
    }

    /// Since when it has been open.
    pub(super) fn opened(&self) -> Instant {
        self.desk.opened
    }
}

async fn receive(State(desk): State<Arc<Desk>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("?");
    let (event_type, attempt) = (text("x-event-type"), text("webhook-attempt"));
    // The check of Standard Webhooks: id, timestamp and body are signed, and the timestamp must be fresh.
    let verified =
        desk.secret.get().is_some_and(|secret| verify_ingest(secret, &headers, &body, SystemClock.now()).is_ok());
    let bad_day = attempt.parse::<usize>().ok().and_then(|attempt| BAD_DAY.get(attempt.checked_sub(1)?));
    let answer = match bad_day {
        _ if !verified => StatusCode::UNAUTHORIZED,
        Some(failure) if event_type == UNLUCKY => *failure,
        _ => StatusCode::OK,
    };
    let verdict = if verified { "signature verified" } else { "signature WRONG" };
    let at = desk.opened.elapsed().as_secs_f64();
    println!("  <  {at:5.2} s  attempt {attempt} of {event_type:<14} {verdict}, answered {answer}");
    answer
}
