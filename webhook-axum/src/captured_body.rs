//! Reading the body of a request that is captured: its beginning is kept, the rest counted and hashed.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt;
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use webhook_core::{HeaderField, Refusal};

use crate::body as request_body;
use crate::serve::BodyDeadline;

/// So much of each body is held without asking, bounded by the number of connections.
const FREE: usize = 16 << 10;
/// What is asked for at a time beyond that.
const STEP: usize = 64 << 10;
/// How long a body waits for others to be stored.
const PATIENCE: Duration = Duration::from_secs(5);
/// The budget's unit.
const KIB: usize = 1 << 10;

/// Bytes of captured bodies that are held in memory at once.
#[derive(Clone, Debug)]
pub(crate) struct CaptureBudget(Arc<Semaphore>);

/// What came.
#[derive(Debug)]
pub(crate) struct ReadBody {
    pub(crate) kept: Bytes,
    pub(crate) size: u64,
    pub(crate) sha256: [u8; 32],
    pub(crate) trailers: Vec<HeaderField>,
    pub(crate) truncated: bool,
    pub(crate) refusal: Option<Refusal>,
    _held: Vec<OwnedSemaphorePermit>,
}

/// Too many large bodies are waiting to be stored.
#[derive(Debug)]
pub(crate) struct Busy;

impl CaptureBudget {
    pub(crate) fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new((bytes / KIB).clamp(STEP / KIB, Semaphore::MAX_PERMITS))))
    }

    async fn take(&self) -> Result<OwnedSemaphorePermit, Busy> {
        // Only what has arrived is asked for: who holds much has sent much. Bodies that wait for each other give up.
        let permit = timeout(PATIENCE, Arc::clone(&self.0).acquire_many_owned((STEP / KIB) as u32)).await;
        permit.ok().and_then(Result::ok).ok_or(Busy)
    }
}

/// Reads `body` up to `limit` bytes, and keeps `prefix` of them.
pub(crate) async fn read(
    mut body: Body,
    prefix: usize,
    limit: usize,
    budget: &CaptureBudget,
) -> Result<ReadBody, Busy> {
    let (mut kept, mut size, mut hash) = (Vec::new(), 0_u64, Sha256::new());
    let (mut held, mut trailers, mut refusal) = (Vec::new(), Vec::new(), None);
    while let Some(frame) = body.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => {
                refusal =
                    Some(if request_body::is::<BodyDeadline>(&error) { Refusal::TooSlow } else { Refusal::Incomplete });
                break;
            }
        };
        match frame.into_data() {
            Ok(data) => {
                size += data.len() as u64;
                hash.update(&data);
                let more = data.len().min(prefix - kept.len());
                while kept.len() + more > FREE + held.len() * STEP {
                    held.push(budget.take().await?);
                }
                kept.extend_from_slice(&data[..more]);
                if size > limit as u64 {
                    refusal = Some(Refusal::TooLarge);
                    break;
                }
            }
            Err(frame) => trailers.extend(frame.into_trailers().iter().flat_map(fields)),
        }
    }
    Ok(ReadBody {
        truncated: refusal.is_some() || size > kept.len() as u64,
        kept: kept.into(),
        size,
        sha256: hash.finalize().into(),
        trailers,
        refusal,
        _held: held,
    })
}

/// Header fields with their bytes, those of one name in their order.
pub(crate) fn fields(headers: &http::HeaderMap) -> Vec<HeaderField> {
    let field = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        (name.as_str().to_owned(), Bytes::copy_from_slice(value.as_bytes()))
    };
    headers.iter().map(field).collect()
}
