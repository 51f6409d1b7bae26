//! Receiving what other systems send: verified, and handled once.

mod answer;
mod figure;
mod inbox;
mod layer;
mod once;
mod verified;

pub use inbox::Inbox;
pub use layer::{Verify, VerifyLayer};
pub use once::Once;
pub use verified::Verified;
