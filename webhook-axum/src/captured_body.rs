//! Reading the body of a request that is captured: its beginning is kept, the rest counted and hashed.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::Body as _;
use http_body_util::BodyExt;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout};
use webhook_core::{HeaderField, Refusal};

use crate::body as request_body;
use crate::capture_budget::{Account, Busy, CaptureBudget, Held};
use crate::serve::BodyDeadline;

/// So much of each body is held without asking, bounded by the number of connections.
const FREE: usize = 16 << 10;
/// The buffer grows by so much: twice as large each time, it would hold twice what was asked for.
const STEP: usize = 64 << 10;
/// A body of which nothing comes for so long is given up.
const STALL: Duration = Duration::from_secs(5);
/// One that holds a part of the budget must come at so many bytes a second; it may fall behind by [`STALL`].
const MIN_RATE: u64 = 8 << 10;

/// What came.
#[derive(Debug)]
pub(crate) struct ReadBody {
    pub(crate) kept: Bytes,
    pub(crate) size: u64,
    pub(crate) sha256: [u8; 32],
    pub(crate) trailers: Vec<HeaderField>,
    pub(crate) truncated: bool,
    pub(crate) refusal: Option<Refusal>,
    _held: Option<Held>,
}

/// Reads `body` up to `limit` bytes, and keeps `prefix` of them.
pub(crate) async fn read(
    mut body: Body,
    prefix: usize,
    limit: usize,
    budget: &CaptureBudget,
    account: &Account,
) -> Result<ReadBody, Busy> {
    let announced = body.size_hint().exact().and_then(|size| usize::try_from(size).ok());
    let most = announced.map_or(prefix, |announced| announced.min(prefix));
    let (mut kept, mut size, mut hash) = (Vec::new(), 0_u64, Sha256::new());
    let (mut held, mut trailers, mut refusal) = (None::<Held>, Vec::new(), None);
    let mut patience = STALL;
    loop {
        let began = Instant::now();
        let frame = match timeout(patience, body.frame()).await.ok() {
            None => {
                refusal = Some(Refusal::TooSlow);
                break;
            }
            Some(None) => break,
            Some(Some(Err(error))) => {
                refusal =
                    Some(if request_body::is::<BodyDeadline>(&error) { Refusal::TooSlow } else { Refusal::Incomplete });
                break;
            }
            Some(Some(Ok(frame))) => frame,
        };
        // The time that a sender waits for room, below, does not count.
        let waited = began.elapsed();
        match frame.into_data() {
            Ok(data) => {
                size += data.len() as u64;
                let earned = Duration::from_millis(data.len() as u64 * 1000 / MIN_RATE);
                patience = if held.is_some() { (patience + earned).saturating_sub(waited).min(STALL) } else { STALL };
                hash.update(&data);
                let more = data.len().min(prefix - kept.len());
                if held.is_none() && kept.len() + more > FREE {
                    held = Some(budget.hold(account, most.max(kept.len() + more)).await?);
                }
                if kept.len() + more > kept.capacity() {
                    let step = if held.is_some() { STEP.min(most.saturating_sub(kept.len())) } else { 0 };
                    kept.reserve_exact(step.max(more));
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
    if let Some(held) = &mut held {
        held.shrink_to(kept.capacity());
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
