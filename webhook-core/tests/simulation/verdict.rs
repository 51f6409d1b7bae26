//! After the calm: what callers were told, what the store holds and what endpoints saw must agree.

use std::collections::{BTreeMap, BTreeSet};

use webhook_core::store::{CaptureStore, EventFilter, EventStore, HistoryStore, PageRequest, ReadLimit};
use webhook_core::{Attempt, Delivery, DeliveryId, DeliveryState, EventId, Reason, TenantId};

use crate::audit::{Audit, Book};
use crate::client::{Ledger, path_of, text_of};
use crate::plan::tenant;
use crate::receiver::Receiver;
use crate::world::World;

/// What was answered to each attempt, by event, subscription and number: all answers, where it was sent twice.
type Answers = BTreeMap<(EventId, u32), Vec<(u32, Option<u16>)>>;

pub(crate) async fn judge(world: &World, audit: &Audit, receiver: &Receiver, ledger: &Ledger) {
    events(world, audit, ledger).await;
    captures(world, audit, ledger).await;
    receiver.check_ends();
    receiver.check_bytes(|index| ledger.tenant_of.get(&index).cloned());
    let mut answers = Answers::new();
    for arrival in receiver.arrivals() {
        answers.entry((arrival.event, arrival.index)).or_default().push((arrival.number, arrival.answered));
    }
    let open: BTreeSet<DeliveryId> = open(audit).await.into_iter().collect();
    let books = audit.books().deliveries.clone();
    for (id, book) in books {
        let Some(delivery) = audit.inner.delivery(&book.tenant, id).await.unwrap() else {
            world.wrong(format!("C3 {id}: the delivery is lost"));
            continue;
        };
        let attempts = audit.inner.attempts_of(&book.tenant, id).await.unwrap();
        let seen = answers.remove(&(book.event, book.index)).unwrap_or_default();
        Case { world, id, book: &book, delivery: &delivery, attempts: &attempts, seen: &seen }
            .judge(open.contains(&id));
    }
    for ((event, index), _) in answers {
        world.wrong(format!("C2 {event} to {index}: arrived without a delivery"));
    }
}

/// C1, C2, C14: accepted means there, and there means tried.
async fn events(world: &World, audit: &Audit, ledger: &Ledger) {
    for (id, tenant, payload) in &ledger.acked {
        match audit.inner.event(tenant, *id).await.unwrap() {
            Some((event, _)) if text_of(&event) == *payload => {}
            Some(_) => world.wrong(format!("C2 {id}: the payload is another one")),
            None => world.wrong(format!("C1 {id}: accepted, and lost")),
        }
    }
    let mut of_key: BTreeMap<(TenantId, String), u32> = BTreeMap::new();
    for number in 0..2 {
        let tenant = tenant(number);
        let all = PageRequest::newest(1000);
        for summary in audit.inner.list_events(&tenant, &EventFilter::default(), all).await.unwrap().items {
            let Some((event, _)) = audit.inner.event(&tenant, summary.id).await.unwrap() else { continue };
            match ledger.tried.get(&text_of(&event)) {
                Some((whose, key)) if *whose == tenant => {
                    if let Some(key) = key {
                        *of_key.entry((tenant.clone(), key.clone())).or_default() += 1;
                    }
                }
                Some(_) => world.wrong(format!("C13 {}: stored for another tenant", event.id)),
                None => world.wrong(format!("C2 {}: nobody emitted this", event.id)),
            }
        }
    }
    for ((tenant, key), count) in of_key.iter().filter(|(_, count)| **count > 1) {
        world.wrong(format!("C14 {tenant} {key}: there {count} times"));
    }
}

/// C15: kept means there, byte for byte, and there means sent, once; numbers have no gap.
async fn captures(world: &World, audit: &Audit, ledger: &Ledger) {
    let mut there = BTreeMap::new();
    for number in 0..2 {
        let tenant = tenant(number);
        let rows =
            audit.inner.captured_after(&tenant, &path_of(&tenant), None, ReadLimit::requests(1000)).await.unwrap();
        let mut bodies = BTreeSet::new();
        for (number, row) in (1..).zip(rows) {
            let body = String::from_utf8_lossy(&row.request.body).into_owned();
            if row.number != number {
                world.wrong(format!("C15 {}: number {} instead of {number}", row.id, row.number));
            }
            if !ledger.sent.contains(&body) || !bodies.insert(body.clone()) {
                world.wrong(format!("C15 {}: nobody sent this, or it is there twice: {body}", row.id));
            }
            there.insert((tenant.clone(), row.id), body);
        }
    }
    for (tenant, id, body) in &ledger.kept {
        if there.get(&(tenant.clone(), *id)) != Some(body) {
            world.wrong(format!("C15 {id}: kept, and lost or changed"));
        }
    }
}

/// The deliveries that are open and need not be: those of a disabled subscription wait.
pub(crate) async fn open(audit: &Audit) -> Vec<DeliveryId> {
    let books: Vec<_> = audit.books().deliveries.iter().map(|(id, book)| (*id, book.tenant.clone())).collect();
    let mut open = Vec::new();
    for (id, tenant) in books {
        if let Some(delivery) = audit.inner.delivery(&tenant, id).await.unwrap()
            && delivery.state == DeliveryState::Pending
            && !delivery.held
        {
            open.push(id);
        }
    }
    open
}

struct Case<'a> {
    world: &'a World,
    id: DeliveryId,
    book: &'a Book,
    delivery: &'a Delivery,
    attempts: &'a [Attempt],
    seen: &'a [(u32, Option<u16>)],
}

impl Case<'_> {
    fn wrong(&self, what: &str) {
        let Self { id, delivery, seen, .. } = self;
        let (state, reason) = (delivery.state, delivery.reason);
        self.world
            .wrong(format!("{what}: {id} {state:?} {reason:?} after {} attempts, seen {seen:?}", delivery.attempts));
    }

    fn judge(&self, open: bool) {
        let Self { book, delivery, attempts, .. } = self;
        if open {
            self.wrong("C4 still open after the calm");
        }
        if (delivery.state == DeliveryState::Pending) != delivery.completed_at.is_none() {
            self.wrong("C4 an end without its time, or a time without an end");
        }
        if (delivery.event_id, &delivery.tenant) != (book.event, &book.tenant) {
            self.wrong("C13 it is another event's or tenant's");
        }
        let numbers: Vec<_> = attempts.iter().map(|attempt| attempt.number).collect();
        if numbers != (1..=delivery.attempts).collect::<Vec<_>>() || delivery.attempts != book.attempts {
            self.wrong("C5 attempts are not numbered without a gap");
        }
        for attempt in *attempts {
            self.judge_attempt(attempt);
        }
        self.judge_end();
    }

    /// C9: an answer that is recorded was given.
    fn judge_attempt(&self, attempt: &Attempt) {
        let Some(code) = attempt.status_code else { return };
        let given = |(number, answered): &(u32, Option<u16>)| *number == attempt.number && *answered == Some(code);
        // A body that never ended leaves a status without an answer.
        if attempt.failure.as_ref().is_none_or(|failure| failure.kind.as_str() == "status")
            && !self.seen.iter().any(given)
        {
            self.wrong("C9 an answer is recorded that nobody gave");
        }
    }

    fn judge_end(&self) {
        let Self { book, delivery, attempts, .. } = self;
        let succeeded = |attempt: &Attempt| attempt.failure.is_none();
        match (delivery.state, delivery.reason) {
            (DeliveryState::Pending, _) => {}
            (DeliveryState::Delivered, None) => {
                if !attempts.iter().any(succeeded) {
                    self.wrong("C9 delivered without a good answer");
                }
            }
            (DeliveryState::Exhausted, Some(Reason::AttemptsExhausted)) => {
                let allowed = self.world.plan(book.index).attempts();
                if delivery.attempts < allowed || attempts.iter().any(succeeded) {
                    self.wrong("C9 given up too early");
                }
            }
            (DeliveryState::Exhausted, Some(Reason::Gone)) => {
                if !attempts.iter().any(|attempt| attempt.status_code == Some(410)) {
                    self.wrong("C9 gone, and nobody said so");
                }
            }
            (DeliveryState::Exhausted, Some(Reason::LostLeases)) => {
                if book.lost < 5 {
                    self.wrong("C5 given up for leases that were not lost");
                }
            }
            (DeliveryState::Cancelled, Some(Reason::Requested)) => {
                if !book.cancelled {
                    self.wrong("C4 cancelled, and nobody asked for it");
                }
            }
            (DeliveryState::Cancelled, Some(Reason::SubscriptionDeleted)) => {}
            _ => self.wrong("C4 an end that cannot be"),
        }
    }
}
