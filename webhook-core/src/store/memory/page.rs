//! Pages of what is kept in order of age.

use std::ops::Bound::{self, Excluded, Unbounded};

use uuid::Uuid;

use crate::store::{Page, PageRequest, Position};

/// Below which id the page begins.
pub(super) fn below(request: PageRequest) -> Bound<Uuid> {
    match request.position {
        Position::After(id) => Excluded(id),
        Position::Start | Position::Offset(_) => Unbounded,
    }
}

/// The page of `rows`, which are newest first and begin [`below`] the position.
pub(super) fn page_of<R, T>(rows: impl Iterator<Item = R>, request: PageRequest, view: impl FnMut(R) -> T) -> Page<T> {
    let probe = request.limit as usize + 1;
    let Position::Offset(offset) = request.position else {
        return Page::from_probe(rows.take(probe).map(view).collect(), request.limit, None);
    };
    let (mut items, mut total) = (Vec::new(), 0);
    for row in rows {
        if total >= offset && items.len() < probe {
            items.push(row);
        }
        total += 1;
    }
    Page::from_probe(items.into_iter().map(view).collect(), request.limit, Some(total))
}

/// The page of nothing.
pub(super) fn no_page<T>(request: PageRequest) -> Page<T> {
    page_of(std::iter::empty(), request, |item: T| item)
}
