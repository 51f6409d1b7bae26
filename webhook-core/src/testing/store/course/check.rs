//! Whether the store is as the model is.

use std::collections::{BTreeMap, BTreeSet};

use super::Course;
use crate::store::{DeliveryFilter, Page, PageRequest};
use crate::testing::store::model::time;
use crate::{Delivery, DeliveryState, SubscriptionId, SubscriptionRecord};

impl Course {
    pub(super) async fn list(&self, tenant: &crate::TenantId) -> Vec<Delivery> {
        let (filter, page) = (DeliveryFilter::default(), PageRequest::newest(100_000));
        self.scene.store.list_deliveries(tenant, &filter, page).await.expect("the store works").items
    }

    /// Looks at pages of a list, one after the other and somewhere in between.
    pub(super) async fn list_all(&self, filter: &DeliveryFilter, limit: u32) {
        let expected = self.model.find(filter);
        let (store, tenant) = (&self.scene.store, &self.scene.tenant);
        let list = async |page| store.list_deliveries(tenant, filter, page).await.expect("the store works");
        let ids = |found: &Page<Delivery>| found.items.iter().map(|delivery| delivery.id).collect::<Vec<_>>();
        let (mut page, mut all) = (PageRequest::newest(limit), Vec::new());
        // Much is looked at in part.
        for _ in 0..12 {
            let found = list(page).await;
            all.extend(ids(&found));
            assert_eq!(found.has_more, all.len() < expected.len(), "another page follows {}", all.len());
            let Some(last) = all.last().filter(|_| found.has_more) else { break };
            page = PageRequest::after(limit, last.as_uuid());
        }
        assert_eq!(all, expected[..all.len()], "found by {filter:?}");
        for offset in [0, expected.len() / 3, expected.len()] {
            let found = list(PageRequest::offset(limit, offset as u64)).await;
            let end = expected.len().min(offset + limit as usize);
            assert_eq!(ids(&found), expected[offset..end], "found by {filter:?} from {offset} on");
            assert_eq!(found.total, Some(expected.len() as u64), "how many {filter:?} finds");
        }
    }

    pub(super) async fn count(&self, subscription: Option<SubscriptionId>) {
        let (store, tenant) = (&self.scene.store, &self.scene.tenant);
        let stats = store.stats(tenant, subscription, time(0)).await.expect("the store works");
        let all = self.model.find(&DeliveryFilter { subscription, ..DeliveryFilter::default() });
        let events = if subscription.is_some() { all.len() } else { self.model.events.len() };
        assert_eq!(stats.events, events as u64, "events of {subscription:?}");
        for state in DeliveryState::ALL {
            let filter = DeliveryFilter { subscription, state: Some(*state), ..DeliveryFilter::default() };
            let expected = self.model.find(&filter).len() as u64;
            assert_eq!(stats.deliveries[state.as_str()], expected, "{state:?} of {subscription:?}");
        }
    }

    /// The store is as the model is.
    pub(super) async fn compare(&self) {
        let (model, tenant) = (&self.model, &self.scene.tenant);
        let found = self.list(tenant).await;
        let ids: BTreeSet<_> = found.iter().map(|delivery| delivery.id).collect();
        assert!(ids.iter().eq(model.deliveries.keys()), "the deliveries there are: {ids:?}");
        for (delivery, row) in found.iter().filter_map(|delivery| Some((delivery, model.deliveries.get(&delivery.id)?)))
        {
            let held = model.subscription(row.subscription).is_some_and(|record| record.disabled.is_some());
            assert!(row.agrees_with(delivery, held), "is {delivery:?}, should be {row:?}, held {held}");
        }
        let page = PageRequest::newest(1_000);
        let found = self.scene.store.list_subscriptions(tenant, page).await.expect("the store works").items;
        let facts =
            |record: &SubscriptionRecord| (record.id, record.version, record.disabled.clone(), record.paused_until);
        let known: BTreeMap<_, _> = model.subscriptions.iter().map(|record| (record.id, facts(record))).collect();
        let found: BTreeMap<_, _> = found.iter().map(|record| (record.id, facts(record))).collect();
        assert_eq!(found, known, "subscriptions with version, state and pause");
        assert_eq!(self.scene.generation(tenant).await, model.generation, "the generation");
        let backlog = self.scene.store.backlog(self.now()).await.expect("the store works");
        assert_eq!(backlog, model.backlog(self.now()), "the backlog");
    }
}
