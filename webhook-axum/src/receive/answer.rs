//! Answers as they are remembered.

use axum::body::{Body, BodyDataStream};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, HeaderName, SET_COOKIE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

use crate::problem::Problem;
use crate::request_id::X_REQUEST_ID;

/// Bytes of a body that are remembered; a longer one is remembered as none.
const MAX_BODY: usize = 64 * 1024;

/// What belongs to one response, and not to the next one.
const OF_ONE_RESPONSE: [HeaderName; 8] =
    [CONNECTION, CONTENT_LENGTH, DATE, SET_COOKIE, TRAILER, TRANSFER_ENCODING, UPGRADE, X_REQUEST_ID];

#[derive(Serialize, Deserialize)]
pub(super) struct Answer {
    status: u16,
    /// Names, and values in base64: they need not be text.
    headers: Vec<(String, String)>,
    body: String,
}

impl Answer {
    /// The response, which is as it was, and what is remembered of it.
    pub(super) async fn of(response: Response) -> (Response, Vec<u8>) {
        let (parts, body) = response.into_parts();
        let (start, rest) = start_of(body.into_data_stream()).await;
        let remembered = if rest.is_none() { &start[..] } else { &[] };
        let answer =
            Self { status: parts.status.as_u16(), headers: headers(&parts.headers), body: STANDARD.encode(remembered) };
        let body = match rest {
            None => Body::from(start),
            Some(rest) => Body::from_stream(stream::iter([Ok(start)]).chain(rest)),
        };
        (Response::from_parts(parts, body), serde_json::to_vec(&answer).unwrap_or_default())
    }

    fn into_response(self) -> Option<Response> {
        let mut response = Response::new(Body::from(STANDARD.decode(self.body).ok()?));
        *response.status_mut() = StatusCode::from_u16(self.status).ok()?;
        for (name, value) in self.headers {
            let value = HeaderValue::from_bytes(&STANDARD.decode(value).ok()?).ok()?;
            response.headers_mut().append(name.parse::<HeaderName>().ok()?, value);
        }
        Some(response)
    }
}

/// The response that is remembered.
pub(super) fn read(stored: &[u8]) -> Response {
    let answer = serde_json::from_slice::<Answer>(stored).ok().and_then(Answer::into_response);
    answer.unwrap_or_else(|| {
        tracing::error!("a remembered answer cannot be read");
        Problem::internal().into_response()
    })
}

fn headers(headers: &HeaderMap) -> Vec<(String, String)> {
    let kept = headers.iter().filter(|(name, _)| !OF_ONE_RESPONSE.contains(name));
    kept.map(|(name, value)| (name.as_str().to_owned(), STANDARD.encode(value.as_bytes()))).collect()
}

/// The whole body, or as much as is too long, and the rest. A body that breaks off is not whole.
async fn start_of(mut body: BodyDataStream) -> (Bytes, Option<stream::BoxStream<'static, Result<Bytes, axum::Error>>>) {
    let mut start = BytesMut::new();
    while let Some(piece) = body.next().await {
        match piece {
            Ok(piece) => start.extend_from_slice(&piece),
            Err(error) => return (start.freeze(), Some(stream::iter([Err(error)]).boxed())),
        }
        if start.len() > MAX_BODY {
            return (start.freeze(), Some(body.boxed()));
        }
    }
    (start.freeze(), None)
}
