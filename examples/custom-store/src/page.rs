//! Pages.

use uuid::Uuid;
use webhook_core::store::{Page, PageRequest, Position};

/// The page of `rows`, which are all there are, newest first.
pub(crate) fn page<T>(rows: impl Iterator<Item = (Uuid, T)>, request: PageRequest) -> Page<T> {
    let probe = request.limit as usize + 1;
    let (items, total): (Vec<T>, _) = match request.position {
        Position::Start => (rows.take(probe).map(|(_, row)| row).collect(), None),
        Position::After(last) => {
            (rows.skip_while(|(id, _)| *id >= last).take(probe).map(|(_, row)| row).collect(), None)
        }
        Position::Offset(offset) => {
            let all: Vec<T> = rows.map(|(_, row)| row).collect();
            let total = all.len() as u64;
            let skip = usize::try_from(offset).unwrap_or(usize::MAX);
            (all.into_iter().skip(skip).take(probe).collect(), Some(total))
        }
    };
    Page::from_probe(items, request.limit, total)
}
