//! The endpoints: witnesses that are never killed.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderValue, StatusCode};
use tokio::time::sleep;
use webhook_core::{
    Clock, ErrorKind, EventId, OutboundRequest, OutboundResponse, TenantId, Timestamp, TransportError, verify_ingest,
};

use crate::audit::{Audit, index_of};
use crate::chance::Chance;
use crate::node::Node;
use crate::plan::{Plan, Temper};
use crate::world::World;

/// A request that arrived, and what it was answered.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) event: EventId,
    pub(crate) index: u32,
    pub(crate) number: u32,
    pub(crate) body: Vec<u8>,
    pub(crate) answered: Option<u16>,
}

/// A call of a transport, and when it must have returned.
#[derive(Debug)]
struct Exchange {
    node: Arc<Node>,
    until: Timestamp,
    ended: bool,
}

/// The end of a call that is waited for.
#[derive(Debug)]
pub(crate) struct Expected {
    receiver: Arc<Receiver>,
    exchange: usize,
}

impl Expected {
    /// The call returned.
    pub(crate) fn came(self) {
        let world = &self.receiver.world;
        let until = self.receiver.exchanges.lock().unwrap().get(self.exchange).map(|exchange| exchange.until);
        let late = until.map_or(Duration::ZERO, |until| world.now().since(until));
        if late > Duration::from_millis(1) {
            world.wrong(format!("C18 a call of the transport took {late:?} longer than its deadline"));
        }
    }
}

/// Whoever gives a call up waits for nothing.
impl Drop for Expected {
    fn drop(&mut self) {
        if let Some(exchange) = self.receiver.exchanges.lock().unwrap().get_mut(self.exchange) {
            exchange.ended = true;
        }
    }
}

/// All endpoints.
#[derive(Debug)]
pub(crate) struct Receiver {
    world: Arc<World>,
    audit: Arc<Audit>,
    chance: Chance,
    arrivals: Mutex<Vec<Arrival>>,
    exchanges: Mutex<Vec<Exchange>>,
}

impl Receiver {
    pub(crate) fn new(world: &Arc<World>, audit: &Arc<Audit>) -> Arc<Self> {
        Arc::new(Self {
            world: Arc::clone(world),
            audit: Arc::clone(audit),
            chance: world.chance("receiver"),
            arrivals: Mutex::default(),
            exchanges: Mutex::default(),
        })
    }

    pub(crate) fn arrivals(&self) -> Vec<Arrival> {
        self.arrivals.lock().unwrap().clone()
    }

    /// A transport is called that must return within `total`, or be dropped.
    pub(crate) fn expect_end(self: &Arc<Self>, node: &Arc<Node>, total: Duration) -> Expected {
        let mut exchanges = self.exchanges.lock().unwrap();
        exchanges.push(Exchange { node: Arc::clone(node), until: self.world.now() + total, ended: false });
        Expected { receiver: Arc::clone(self), exchange: exchanges.len() - 1 }
    }

    /// No call may still be under way whose deadline has passed, unless its process was stopped. Those that are cut off
    /// now, with whoever made them, are forgotten.
    pub(crate) fn check_ends(&self) {
        let now = self.world.now();
        for exchange in self.exchanges.lock().unwrap().drain(..) {
            // A timer may ring a millisecond late, and whoever waits for it is not asked in the same moment.
            let over = exchange.until + Duration::from_millis(5) < now;
            if !exchange.ended && over && !exchange.node.was_stopped() {
                self.world.wrong(format!("C18 a call of the transport of {} never returned", exchange.node.name));
            }
        }
    }

    /// Takes a request as the endpoint it goes to would.
    pub(crate) async fn take(&self, node: &Node, request: OutboundRequest) -> Result<OutboundResponse, TransportError> {
        let index = index_of(request.url.as_str());
        let plan = self.world.plan(index);
        let arrival = self.arrive(node, &request, index, &plan);
        let position = {
            let mut arrivals = self.arrivals.lock().unwrap();
            arrivals.push(arrival);
            arrivals.len() - 1
        };
        let (delay, answer) =
            if self.world.is_calm() { (Duration::ZERO, status(200)) } else { self.temper(plan.temper) };
        sleep(delay).await;
        if let Ok(response) = &answer {
            self.arrivals.lock().unwrap()[position].answered = Some(response.status.as_u16());
        }
        answer
    }

    fn arrive(&self, node: &Node, request: &OutboundRequest, index: u32, plan: &Plan) -> Arrival {
        let now = self.world.now();
        let header = |name| request.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let event: EventId = header("webhook-id").parse().unwrap();
        let number: u32 = header("webhook-attempt").parse().unwrap();
        self.world.log(format_args!("{} sends {event} to {index}, attempt {number}", node.name));
        if let Err(error) = verify_ingest(&plan.secret, &request.headers, &request.body, now) {
            self.world.wrong(format!("C11 {event} to {index}: {error}"));
        }
        if !self.audit.is_leased(event, index, now) && !node.was_stopped() {
            self.world.wrong(format!("C6 {event} to {index}: sent without a lease"));
        }
        Arrival { event, index, number, body: request.body.to_vec(), answered: None }
    }

    fn temper(&self, temper: Temper) -> (Duration, Result<OutboundResponse, TransportError>) {
        let chance = &self.chance;
        let soon = chance.between(Duration::ZERO, Duration::from_millis(300));
        let for_ever = Duration::from_secs(365 * 86_400);
        match temper {
            Temper::Healthy => (soon, status(200)),
            Temper::Flapping if chance.hits(500) => (soon, status(500)),
            Temper::Busy if chance.hits(500) => {
                let after = HeaderValue::from(chance.below(20));
                let code = if chance.hits(500) { 429 } else { 503 };
                (
                    soon,
                    status(code).map(|mut response| {
                        response.headers.insert(RETRY_AFTER, after);
                        response
                    }),
                )
            }
            Temper::Slow => (chance.between(Duration::from_millis(500), Duration::from_secs(3)), status(200)),
            Temper::Hanging if chance.hits(700) => (for_ever, status(200)),
            Temper::Dripping if chance.hits(700) => {
                let late = TransportError::new(ErrorKind::Timeout, "the body was late").with_status(StatusCode::OK);
                (Duration::from_millis(1500), Err(late))
            }
            Temper::Redirecting if chance.hits(700) => (soon, status(302)),
            Temper::Leaving if chance.hits(100) => (soon, status(410)),
            // It says that the connection broke off, and has done what was asked.
            Temper::Lying if chance.hits(500) => (soon, Err(TransportError::new(ErrorKind::Protocol, "broke off"))),
            _ => (soon, status(204)),
        }
    }

    /// C13 and C1: what arrived carries the event's own bytes, of the subscription's own tenant.
    pub(crate) fn check_bytes(&self, tenant_of: impl Fn(u32) -> Option<TenantId>) {
        let books = self.audit.books();
        for Arrival { event, index, body, .. } in self.arrivals.lock().unwrap().iter() {
            match books.events.get(event) {
                Some(accepted) if accepted.payload != *body => {
                    self.world.wrong(format!("C11 {event} to {index}: other bytes arrived than were accepted"));
                }
                Some(accepted) if tenant_of(*index).is_some_and(|tenant| tenant != accepted.tenant) => {
                    self.world.wrong(format!("C13 {event} to {index}: it is another tenant's"));
                }
                Some(_) => {}
                None => self.world.wrong(format!("C2 {event} to {index}: arrived, and was never accepted")),
            }
        }
    }
}

fn status(code: u16) -> Result<OutboundResponse, TransportError> {
    Ok(OutboundResponse::new(StatusCode::from_u16(code).unwrap()))
}
