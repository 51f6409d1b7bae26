//! Fields of a JSON body, looked at only after its signature held.

use serde::Deserialize;

/// The longest message id that is taken, in bytes.
const MAX_ID: usize = 255;

/// The body as `T`, which names what is looked at; anything else, JSON or not, is none.
pub(super) fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Option<T> {
    serde_json::from_slice(body).ok()
}

/// Text that can serve as a message id.
pub(super) fn id(text: Option<String>) -> Option<String> {
    text.filter(|text| (1..=MAX_ID).contains(&text.len()))
}
