//! What was accepted, delivered, doubled, lost and invented: the callers' ledger, the database's and the receiver's.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use sqlx::Row as _;
use webhook_core::DeliveryState;

use crate::support::database::Database;
use crate::support::receiver::Arrival;
use crate::support::senders::Acknowledged;

/// The account of a run. All that must be zero is.
#[derive(Debug, Default)]
pub(crate) struct Account {
    acknowledged: usize,
    stored: usize,
    lost: usize,
    invented: usize,
    deliveries: usize,
    expected: usize,
    states: BTreeMap<&'static str, usize>,
    misnumbered: usize,
    lost_leases: usize,
    requests: usize,
    unsigned: usize,
    /// Delivered, and no endpoint ever said yes.
    untrue: usize,
    /// Deliveries to the endpoint that is always well that did not arrive.
    unreached: usize,
    /// Answers of 200 beyond the first.
    duplicates: usize,
}

impl Account {
    pub(crate) async fn draw(
        database: &mut Database,
        events: &[Acknowledged],
        arrivals: &[Arrival],
        subscriptions: &[(String, &str)],
    ) -> Self {
        let acknowledged: BTreeSet<_> = events.iter().map(|event| event.id.clone()).collect();
        let path_of: BTreeMap<_, _> = subscriptions.iter().map(|(id, path)| (id.as_str(), *path)).collect();
        let mut good = BTreeMap::<(&str, &str), usize>::new();
        for arrival in arrivals.iter().filter(|arrival| arrival.status == 200) {
            *good.entry((&arrival.webhook_id, &arrival.path)).or_default() += 1;
        }
        let mut account = Self {
            acknowledged: acknowledged.len(),
            expected: acknowledged.len() * subscriptions.len(),
            misnumbered: database.misnumbered().await,
            lost_leases: database.lost_leases().await,
            requests: arrivals.len(),
            unsigned: arrivals.iter().filter(|arrival| !arrival.verified).count(),
            duplicates: good.values().map(|times| times - 1).sum(),
            ..Self::default()
        };
        let Database::Postgres(connection) = database else { panic!("chaos runs on PostgreSQL") };
        let stored: Vec<String> =
            sqlx::query_scalar("SELECT id::text FROM webhook.event").fetch_all(&mut *connection).await.unwrap();
        let stored: BTreeSet<_> = stored.into_iter().collect();
        account.stored = stored.len();
        account.lost = acknowledged.difference(&stored).count();
        account.invented = stored.difference(&acknowledged).count();
        account.invented += arrivals.iter().filter(|arrival| !stored.contains(&arrival.webhook_id)).count();
        let rows =
            sqlx::query("SELECT event_id::text AS event, subscription_id::text AS target, state FROM webhook.delivery")
                .fetch_all(connection)
                .await
                .unwrap();
        account.deliveries = rows.len();
        for row in &rows {
            let (event, target): (String, String) = (row.get("event"), row.get("target"));
            let state = DeliveryState::from_code(row.get("state")).unwrap();
            let path = path_of.get(target.as_str()).copied().unwrap_or_default();
            let arrived = good.contains_key(&(event.as_str(), path));
            *account.states.entry(state.as_str()).or_default() += 1;
            account.untrue += usize::from(state == DeliveryState::Delivered && !arrived);
            account.unreached += usize::from(path == "/steady" && !arrived);
        }
        account
    }

    /// # Panics
    ///
    /// Something that was accepted is not there, or something is there that was not.
    pub(crate) fn assert_nothing_is_lost(&self, duplicates: usize) {
        assert_eq!((self.lost, self.invented), (0, 0), "events lost, and invented");
        assert_eq!(self.deliveries, self.expected, "deliveries");
        assert_eq!((self.misnumbered, self.unsigned), (0, 0), "deliveries with gaps in their attempts, bad signatures");
        assert_eq!((self.untrue, self.unreached), (0, 0), "delivered without a 2xx, and lost on the way");
        assert_eq!(self.states.get("pending"), None, "open deliveries");
        assert!(self.duplicates <= duplicates, "{} duplicates, {duplicates} at most", self.duplicates);
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = 100.0 * self.duplicates as f64 / self.deliveries.max(1) as f64;
        let states: Vec<_> = self.states.iter().map(|(state, count)| format!("{state} {count}")).collect();
        writeln!(
            f,
            "accepted   {} acknowledged, {} stored: lost {}, invented {}   (C1 C2 C14)",
            self.acknowledged, self.stored, self.lost, self.invented
        )?;
        writeln!(f, "fan-out    {} deliveries expected, {} found   (C3)", self.expected, self.deliveries)?;
        writeln!(f, "final      {}; leases lost {}   (C4)", states.join(", "), self.lost_leases)?;
        writeln!(
            f,
            "healthy    not reached {}; requests {}, answered 200 more than once {} ({share:.2} %)   (C8)",
            self.unreached, self.requests, self.duplicates
        )?;
        write!(
            f,
            "truth      delivered without a 2xx {}; gaps in attempts {}; bad signatures {}   (C5 C9 C11)",
            self.untrue, self.misnumbered, self.unsigned
        )
    }
}
