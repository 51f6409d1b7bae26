//! Why no usable answer came back.

use std::borrow::Cow;
use std::error::Error;

use http::StatusCode;

use super::{Blocked, TargetError};
use crate::ErrorKind;

/// Why a request brought no usable answer.
///
/// Its text is safe to show to a tenant: no resolved addresses and nothing of the network behind. Operators find
/// those in [`source`](Error::source).
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct TransportError {
    kind: ErrorKind,
    message: Cow<'static, str>,
    status: Option<StatusCode>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl TransportError {
    /// An error with a text that a tenant may read.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into(), status: None, source: None }
    }

    /// Sets the status that had arrived before the failure.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = Some(status);
        self
    }

    /// Sets the cause, for operators.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The text for the tenant.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The status, where the head of an answer had arrived.
    pub fn status(&self) -> Option<StatusCode> {
        self.status
    }

    /// Whether another try may succeed: everything but a refused target.
    pub fn is_retryable(&self) -> bool {
        self.kind != ErrorKind::Blocked
    }

    /// One text for every refused target, so that it tells nothing about the network.
    fn blocked(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(ErrorKind::Blocked, "the target is not allowed").with_source(source)
    }
}

impl From<Blocked> for TransportError {
    fn from(refusal: Blocked) -> Self {
        Self::blocked(refusal)
    }
}

impl From<TargetError> for TransportError {
    fn from(refusal: TargetError) -> Self {
        Self::blocked(refusal)
    }
}
