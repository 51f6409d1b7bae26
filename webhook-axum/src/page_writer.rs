//! Pages of lists whose items may be large: written item by item, and ended before they are too large.

use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use uuid::Uuid;
use webhook_core::store::{Page, PageRequest};

use crate::problem::Problem;
use crate::query::Paging;
use crate::{json, wire};

/// A page that goes on by cursor ends behind so many bytes of JSON, with however many items …
const FULL: usize = 4 << 20;
/// … and one that was asked for by its place behind these: whoever counts places counts on all of its items.
const FULL_BY_PLACE: usize = 8 << 20;

/// A page in the making. What is written is all that is held of it.
#[derive(Debug)]
pub(crate) struct PageWriter {
    paging: Paging,
    out: Vec<u8>,
    items: u32,
    last: Option<Uuid>,
    has_more: bool,
    total: Option<u64>,
    complete: bool,
}

impl PageWriter {
    pub(crate) fn new(paging: Paging) -> Self {
        let out = b"{\"data\":[".to_vec();
        Self { paging, out, items: 0, last: None, has_more: false, total: None, complete: false }
    }

    /// What to read next, at most `at_once` items; none when the page is complete.
    pub(crate) fn wanted(&self, at_once: u32) -> Option<PageRequest> {
        let limit = (self.paging.request.limit - self.items).min(at_once);
        match self.last {
            _ if self.complete => None,
            Some(last) => Some(PageRequest::after(limit, last)),
            None => Some(PageRequest { limit, ..self.paging.request }),
        }
    }

    /// How many bytes of the next item may be shown that can be left out: only a page by its place needs that.
    pub(crate) fn room(&self) -> usize {
        if self.paging.is_by_cursor() { usize::MAX } else { FULL.saturating_sub(self.out.len()) }
    }

    /// Writes what was [wanted](PageWriter::wanted); `id` tells an item's id, `wire` how it is shown, given the
    /// [room](PageWriter::room) that there is.
    pub(crate) fn write<T, U: Serialize>(
        &mut self,
        page: Page<T>,
        id: impl Fn(&T) -> Uuid,
        wire: impl Fn(T, usize) -> U,
    ) -> Result<(), Problem> {
        let full = if self.paging.is_by_cursor() { FULL } else { FULL_BY_PLACE };
        self.total = self.total.or(page.total);
        self.has_more = page.has_more;
        self.complete = !page.has_more;
        for item in page.items {
            if self.out.len() >= full {
                (self.has_more, self.complete) = (true, true);
                return Ok(());
            }
            if self.items > 0 {
                self.out.push(b',');
            }
            self.last = Some(id(&item));
            self.items += 1;
            let room = self.room();
            json::write(&mut self.out, &wire(item, room))?;
        }
        self.complete |= self.items >= self.paging.request.limit;
        Ok(())
    }

    pub(crate) fn finish(mut self) -> Result<Response, Problem> {
        let pagination: wire::Pagination = self.paging.pagination(self.last, self.has_more, self.total);
        self.out.extend_from_slice(b"],\"pagination\":");
        json::write(&mut self.out, &pagination)?;
        self.out.push(b'}');
        Ok(json::written(StatusCode::OK, self.out))
    }
}
