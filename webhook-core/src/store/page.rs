//! Pages of lists, newest first.

use uuid::Uuid;

/// Which page of a list is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// At most so many items, 1 to 1000.
    pub limit: u32,
    /// Where the page begins.
    pub position: Position,
}

/// Where a page begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// With the newest item.
    Start,
    /// After the item with this id, the last one of the page before.
    After(Uuid),
    /// After so many items; the page then tells the total.
    Offset(u64),
}

impl PageRequest {
    /// The newest `limit` items.
    pub const fn newest(limit: u32) -> Self {
        Self { limit, position: Position::Start }
    }

    /// `limit` items after the one with this id.
    pub const fn after(limit: u32, id: Uuid) -> Self {
        Self { limit, position: Position::After(id) }
    }

    /// `limit` items after the first `offset`, with the total.
    pub const fn offset(limit: u32, offset: u64) -> Self {
        Self { limit, position: Position::Offset(offset) }
    }
}

/// One page of a list. Newest first means by descending id: ids grow with time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The items, newest first.
    pub items: Vec<T>,
    /// More items follow.
    pub has_more: bool,
    /// How many items there are in all, where the request gave an offset.
    pub total: Option<u64>,
}

impl<T> Page<T> {
    /// The page made of rows that were read with a limit of one more than asked for.
    pub fn from_probe(mut items: Vec<T>, limit: u32, total: Option<u64>) -> Self {
        let limit = limit as usize;
        let has_more = items.len() > limit;
        items.truncate(limit);
        Self { items, has_more, total }
    }

    /// The same page of other items.
    pub fn map<U>(self, f: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(f).collect(), has_more: self.has_more, total: self.total }
    }
}
