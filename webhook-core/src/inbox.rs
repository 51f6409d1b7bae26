//! The durable inbox: what others sent is stored first and handled from the store, like a delivery.

use std::collections::HashMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::StatusCode;
use sha2::{Digest as _, Sha256};

use crate::store::{IdempotencyKey, Lease};
use crate::{
    DirectTarget, Emitted, Error, ErrorKind, Event, EventId, EventType, NewEvent, OutboundResponse, Source, TenantId,
    TransportError, Webhooks,
};

/// What stands before the source in the URL of such a delivery. No host can give one: targets are http or https.
pub(crate) const SCHEME: &str = "handler";
/// How long a message id is remembered: longer than senders repeat a message.
const MEMORY: Duration = Duration::from_secs(7 * 24 * 3600);

/// Handles what came from one source: [`WebhooksBuilder::inbox`](crate::WebhooksBuilder::inbox).
///
/// # Contract
///
/// - It may be called more than once for one message: when it failed, when it took longer than
///   [`Options::max_timeout`](crate::Options::max_timeout), and when the process ended meanwhile. The message's id is the
///   same each time: what must not be done twice keeps it in the transaction that does it.
/// - Its future is dropped when it takes too long, and when the engine's grace at shutdown is over.
#[async_trait]
pub trait InboxHandler: fmt::Debug + Send + Sync + 'static {
    /// Handles a message.
    ///
    /// # Errors
    ///
    /// [`HandlerError`] says whether it is worth another try, which comes when the engine's retry policy says.
    async fn handle(&self, message: InboxMessage) -> Result<(), HandlerError>;
}

/// A message to handle.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct InboxMessage {
    /// Whose message this is.
    pub tenant: TenantId,
    /// Its id here, the same for all attempts.
    pub id: EventId,
    /// What happened, where that is known.
    pub event_type: Option<EventType>,
    /// The media type that the sender gave.
    pub content_type: String,
    /// The bytes as they came.
    pub payload: Bytes,
    /// What else was stored of it.
    pub metadata: Option<serde_json::Value>,
    /// Which attempt this is, from 1.
    pub attempt: u32,
}

/// A message was not handled. The text is kept in the attempt log: it should not show secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct HandlerError {
    message: String,
    status: StatusCode,
}

impl HandlerError {
    /// Another try may succeed.
    pub fn retry(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), status: StatusCode::SERVICE_UNAVAILABLE }
    }

    /// No other try will.
    pub fn give_up(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), status: StatusCode::GONE }
    }
}

/// A message that was received and verified.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ReceivedMessage {
    /// The bytes as they came.
    pub payload: Bytes,
    /// Their media type.
    pub content_type: String,
    /// What the sender calls it: a message with an id is stored once.
    pub message_id: Option<String>,
    /// What happened.
    pub event_type: Option<EventType>,
    /// What else the handler should know, at most 16 KiB of JSON.
    pub metadata: Option<serde_json::Value>,
}

impl ReceivedMessage {
    /// A message of bytes.
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self {
            payload: payload.into(),
            content_type: "application/octet-stream".to_owned(),
            message_id: None,
            event_type: None,
            metadata: None,
        }
    }

    /// With the sender's id.
    #[must_use]
    pub fn with_message_id(mut self, id: impl Into<String>) -> Self {
        self.message_id = Some(id.into());
        self
    }
}

impl Webhooks {
    /// Stores a message for the handler of its source. When this returns it is committed, and will be handled: here, or by
    /// another process that shares the store and has the handler.
    ///
    /// A message with an id that came before, in the last seven days, is not stored again: the first one is returned.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`], [`Error::TooLarge`]; [`crate::Conflict::KeyReused`] when another payload came under this id; when
    /// the store is unavailable it may have been stored all the same.
    pub async fn receive(
        &self,
        tenant: &TenantId,
        source: &Source,
        message: ReceivedMessage,
    ) -> Result<Emitted, Error> {
        let key = message.message_id.map(|id| {
            let fingerprint = Sha256::digest(&message.payload).into();
            IdempotencyKey::new("inbox", format!("{source}/{id}"), fingerprint, self.now() + MEMORY)
        });
        let mut event = NewEvent::untyped(message.payload).with_content_type(message.content_type);
        event.event_type = message.event_type;
        event.metadata = message.metadata;
        self.emit_direct_as(tenant, event, DirectTarget::Handler(source.clone()), key).await
    }
}

/// The handlers of this process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Handlers(HashMap<Source, Arc<dyn InboxHandler>>);

impl Handlers {
    pub(crate) fn insert(&mut self, source: Source, handler: Arc<dyn InboxHandler>) {
        self.0.insert(source, handler);
    }

    pub(crate) fn get(&self, source: &str) -> Option<Arc<dyn InboxHandler>> {
        self.0.get(&source.parse().ok()?).cloned()
    }
}

/// Calls the handler once, and puts what came of it as an endpoint would.
pub(crate) async fn attempt(
    handler: &dyn InboxHandler,
    lease: &Lease,
    event: &Event,
    number: u32,
    timeout: Duration,
) -> Result<OutboundResponse, TransportError> {
    let message = InboxMessage {
        tenant: lease.tenant.clone(),
        id: event.id,
        event_type: event.event_type.clone(),
        content_type: event.content_type.clone(),
        payload: event.payload.clone(),
        metadata: event.metadata.clone(),
        attempt: number,
    };
    // The call itself is inside: it may panic before there is a future.
    let handling = AssertUnwindSafe(async { handler.handle(message).await }).catch_unwind();
    match tokio::time::timeout(timeout, handling).await {
        Ok(Ok(Ok(()))) => Ok(OutboundResponse::new(StatusCode::OK)),
        Ok(Ok(Err(error))) => Ok(OutboundResponse::new(error.status).with_body(error.message)),
        Ok(Err(_)) => Ok(OutboundResponse::new(StatusCode::INTERNAL_SERVER_ERROR).with_body("the handler panicked")),
        Err(_) => Err(TransportError::new(ErrorKind::Timeout, "the handler took too long")),
    }
}
