//! Finding the subscriptions that want an event, among any number of them.

use std::collections::{BTreeSet, HashMap};

use crate::pattern::Segment;
use crate::{EventPattern, EventType, SubscriptionId};

/// The patterns of one tenant's subscriptions, arranged so that a match costs what it finds, not what there is.
///
/// A trie over segments. A look-up follows each segment of the event type, and `*` beside it.
#[derive(Debug, Default)]
pub struct MatchIndex {
    root: Node,
    patterns: HashMap<SubscriptionId, Box<[EventPattern]>>,
}

/// More subscriptions match an event than one event may go to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {limit} subscriptions match")]
pub struct TooMany {
    /// The limit that was given.
    pub limit: usize,
}

#[derive(Debug, Default)]
struct Node {
    exactly: HashMap<Box<str>, Node>,
    one: Option<Box<Node>>,
    /// Subscriptions with a pattern that ends here.
    here: BTreeSet<SubscriptionId>,
    /// Subscriptions with a pattern that goes on from here with `**`.
    rest: BTreeSet<SubscriptionId>,
}

impl MatchIndex {
    /// Sets the patterns of a subscription, in place of those it had. With none it matches nothing.
    pub fn insert(&mut self, id: SubscriptionId, patterns: &[EventPattern]) {
        self.remove(id);
        for pattern in patterns {
            self.root.insert(pattern.segments(), id);
        }
        self.patterns.insert(id, patterns.into());
    }

    /// Forgets a subscription; one that is not there is no error.
    pub fn remove(&mut self, id: SubscriptionId) {
        for pattern in self.patterns.remove(&id).iter().flatten() {
            self.root.remove(pattern.segments(), id);
        }
    }

    /// The subscriptions with a pattern that selects this type, or events without one: each once, in order.
    ///
    /// # Errors
    ///
    /// There are more than `limit`. The search stops early then.
    pub fn matches(&self, event_type: Option<&EventType>, limit: usize) -> Result<Vec<SubscriptionId>, TooMany> {
        let mut found = Found { ids: Vec::new(), limit };
        match event_type {
            Some(event_type) => self.root.find(event_type.as_str(), &mut found)?,
            None => found.add(&self.root.rest)?,
        }
        found.finish()
    }

    /// How many subscriptions there are.
    pub fn len(&self) -> usize {
        self.patterns.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }
}

impl Node {
    fn insert<'a>(&mut self, segments: impl Iterator<Item = Segment<'a>>, id: SubscriptionId) {
        let mut node = self;
        for segment in segments {
            node = match segment {
                Segment::Exactly(text) => node.exactly.entry(text.into()).or_default(),
                Segment::One => node.one.get_or_insert_default(),
                Segment::Rest => {
                    node.rest.insert(id);
                    return;
                }
            };
        }
        node.here.insert(id);
    }

    /// Takes the id out and drops the nodes that this leaves empty.
    fn remove<'a>(&mut self, mut segments: impl Iterator<Item = Segment<'a>>, id: SubscriptionId) {
        match segments.next() {
            None => {
                self.here.remove(&id);
            }
            Some(Segment::Rest) => {
                self.rest.remove(&id);
            }
            Some(Segment::Exactly(text)) => {
                let Some(child) = self.exactly.get_mut(text) else { return };
                child.remove(segments, id);
                if child.is_empty() {
                    self.exactly.remove(text);
                }
            }
            Some(Segment::One) => {
                let Some(child) = &mut self.one else { return };
                child.remove(segments, id);
                if child.is_empty() {
                    self.one = None;
                }
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.exactly.is_empty() && self.one.is_none() && self.here.is_empty() && self.rest.is_empty()
    }

    /// Adds what matches `text`, one or more segments that follow this node. Goes no deeper than an event type has
    /// segments, 128 at most.
    fn find(&self, text: &str, found: &mut Found) -> Result<(), TooMany> {
        found.add(&self.rest)?;
        let (segment, further) = match text.split_once('.') {
            Some((segment, further)) => (segment, Some(further)),
            None => (text, None),
        };
        for child in self.exactly.get(segment).into_iter().chain(self.one.as_deref()) {
            match further {
                Some(further) => child.find(further, found)?,
                None => found.add(&child.here)?,
            }
        }
        Ok(())
    }
}

/// Ids found so far, some more than once.
struct Found {
    ids: Vec<SubscriptionId>,
    limit: usize,
}

impl Found {
    fn add(&mut self, ids: &BTreeSet<SubscriptionId>) -> Result<(), TooMany> {
        if ids.len() > self.limit {
            return Err(TooMany { limit: self.limit });
        }
        self.ids.extend(ids);
        // Sorting pays for itself only when about half of the list may be doubles.
        if self.ids.len() / 2 > self.limit { self.settle() } else { Ok(()) }
    }

    fn settle(&mut self) -> Result<(), TooMany> {
        // The list is a few sorted runs, which the stable sort merges.
        self.ids.sort();
        self.ids.dedup();
        if self.ids.len() > self.limit { Err(TooMany { limit: self.limit }) } else { Ok(()) }
    }

    fn finish(mut self) -> Result<Vec<SubscriptionId>, TooMany> {
        self.settle()?;
        Ok(self.ids)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn id(number: u128) -> SubscriptionId {
        SubscriptionId::from_uuid(Uuid::from_u128(number))
    }

    fn patterns(texts: &[&str]) -> Vec<EventPattern> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_subscription_is_found_once_whatever_matches() {
        let mut index = MatchIndex::default();
        index.insert(id(2), &patterns(&["order.created", "order.*", "order.**", "**", "order.created"]));
        index.insert(id(1), &patterns(&["*.created"]));
        index.insert(id(3), &patterns(&["user.created"]));
        let event_type = "order.created".parse().unwrap();
        assert_eq!(index.matches(Some(&event_type), 2), Ok(vec![id(1), id(2)]));
        assert_eq!(index.matches(Some(&event_type), 1), Err(TooMany { limit: 1 }));
        assert_eq!(index.matches(None, 1), Ok(vec![id(2)]));
        assert_eq!(index.matches(None, 0), Err(TooMany { limit: 0 }));
    }

    #[test]
    fn inserting_again_replaces() {
        let mut index = MatchIndex::default();
        index.insert(id(1), &patterns(&["order.created", "order.**"]));
        index.insert(id(1), &patterns(&["user.*"]));
        assert_eq!(index.len(), 1);
        assert_eq!(index.matches(Some(&"order.created".parse().unwrap()), 9), Ok(vec![]));
        assert_eq!(index.matches(Some(&"user.created".parse().unwrap()), 9), Ok(vec![id(1)]));
    }

    #[derive(Clone, Debug)]
    enum Change {
        Insert(u128, Vec<EventPattern>),
        Remove(u128),
    }

    fn any_pattern() -> impl Strategy<Value = EventPattern> {
        "([abc*]\\.){0,3}([abc*]|\\*\\*)".prop_map(|text| text.parse().unwrap())
    }

    fn any_change() -> impl Strategy<Value = Change> {
        prop_oneof![
            3 => (0..12_u128, proptest::collection::vec(any_pattern(), 0..5)).prop_map(|(id, p)| Change::Insert(id, p)),
            1 => (0..12_u128).prop_map(Change::Remove),
        ]
    }

    proptest! {
        #[test]
        fn the_index_finds_what_a_scan_finds(
            changes in proptest::collection::vec(any_change(), 0..40),
            event_types in proptest::collection::vec(proptest::option::of("([abcd]\\.){0,4}[abcd]"), 1..8),
            limit in 0_usize..14,
        ) {
            let mut index = MatchIndex::default();
            let mut scanned: BTreeMap<SubscriptionId, Vec<EventPattern>> = BTreeMap::new();
            for change in changes {
                match change {
                    Change::Insert(number, patterns) => {
                        index.insert(id(number), &patterns);
                        scanned.insert(id(number), patterns);
                    }
                    Change::Remove(number) => {
                        index.remove(id(number));
                        scanned.remove(&id(number));
                    }
                }
            }
            prop_assert_eq!(index.len(), scanned.len());
            for text in event_types {
                let event_type: Option<EventType> = text.map(|text| text.parse().unwrap());
                let wants = |patterns: &[EventPattern]| patterns.iter().any(|pattern| pattern.matches(event_type.as_ref()));
                let ids: Vec<_> = scanned.iter().filter(|(_, patterns)| wants(patterns)).map(|(id, _)| *id).collect();
                let expected = if ids.len() > limit { Err(TooMany { limit }) } else { Ok(ids) };
                prop_assert_eq!(index.matches(event_type.as_ref(), limit), expected);
            }
            for number in 0..12 {
                index.remove(id(number));
            }
            prop_assert!(index.is_empty() && index.root.is_empty(), "nothing is left behind: {:?}", index);
        }
    }
}
