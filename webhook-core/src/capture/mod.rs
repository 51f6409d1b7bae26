//! Capturing: requests of whatever kind, kept byte for byte, and what is done with them.

mod capturer;
mod filter;
mod live;
mod path;
mod path_id;
mod paths;
mod replay;
mod request;
mod requests;
mod response;
mod watch;

pub(crate) use capturer::Capturer;
pub use capturer::{Captured, Refusal};
pub use filter::CaptureFilter;
pub use live::LivePath;
pub use path::{CapturePath, PathDraft, PathSettings, PathVersion};
pub use path_id::{ParsePathIdError, PathId};
pub use paths::PathCreated;
pub use replay::{ReplayRequest, Replayed};
pub use request::{CapturedRequest, HeaderField, IncomingRequest};
pub use response::CustomResponse;
pub use watch::{CaptureWatch, WatchEvent};
