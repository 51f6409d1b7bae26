#![doc = include_str!("../README.md")]

mod access_log;
mod api;
mod auth;
mod body;
mod capture_budget;
mod captured_body;
mod client_address;
mod envelope;
mod export;
mod extract;
mod figures;
mod json;
#[cfg(feature = "openapi")]
mod openapi;
mod options;
mod page_writer;
mod problem;
mod query;
mod readiness;
mod receive;
mod request_id;
mod routes;
mod serve;
mod wire;

pub use access_log::{AccessLog, AccessLogLayer, access_log};
pub use api::{Answered, Api, Unanswered};
pub use auth::{ApiKeys, AuthError, Authenticator, Caller, ParseApiKeyError, ParseScopesError, Scopes};
#[cfg(feature = "openapi")]
pub use openapi::document as openapi;
pub use options::ApiOptions;
pub use problem::{method_not_allowed, not_found};
pub use readiness::{Duty, Readiness};
pub use receive::{Inbox, Once, Verified, Verify, VerifyLayer};
pub use request_id::RequestId;
pub use serve::{BodyDeadline, ServeOptions, serve};
