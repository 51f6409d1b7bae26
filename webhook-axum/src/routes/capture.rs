//! Where requests are captured.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{ConnectInfo, OriginalUri, Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use webhook_core::{Captured, CustomResponse, Error, IncomingRequest, Noun, PathId, Refusal};

use crate::api::ApiState;
use crate::capture_budget::{Account, Busy};
use crate::captured_body::{self, ReadBody};
use crate::client_address::client_address;
use crate::problem::Problem;
use crate::{json, wire};

/// Whatever an answer holds, a browser runs none of it, and keeps it away from the origin.
pub(crate) const SANDBOX: &str = "sandbox; default-src 'none'";
const PREFIX: &str = "/webhook/";

/// Send a request to a capture path
///
/// Any method but CONNECT, any bytes, on this path and everything below it. The request is stored byte for byte before
/// it is answered as the path says, by default with its id. Up to 16 MiB of a body are read; beyond that the answer is
/// 413, and what came is kept all the same. A path that forwards also refuses what is larger than it can forward. 503
/// means that the request may not have been stored.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/webhook/{path_id}", tag = "Capturing", params(("path_id" = String, Path)),
    request_body(content = wire::RawBody, content_type = "*/*"),
    responses(
        (status = 200, description = "Stored: the default answer", body = wire::CaptureReceipt),
        (status = 431, description = "The head has more than 100 fields, or is too long: nothing is kept"),
    ),
    security(()),
))]
pub(crate) async fn capture_request(State(state): State<Arc<ApiState>>, request: Request) -> Response {
    let outcome = capture(&state, request).await;
    let mut response = match outcome {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    };
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(SANDBOX));
    response
}

async fn capture(state: &Arc<ApiState>, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    if parts.method == Method::CONNECT {
        // An answer with 2xx would turn the connection into a tunnel (RFC 9110 section 9.3.6).
        return Err(Problem::unknown_method());
    }
    let path_id = path_id(&parts)?;
    state.webhooks.live_path(&path_id).await?;
    let method = parts.method.clone();
    // A task of its own, so that what came of a request whose caller goes away is kept.
    let stored = tokio::spawn(store(Arc::clone(state), path_id, parts, body)).await;
    let captured = stored.map_err(|_| Problem::internal())??;
    match (captured.refusal, &captured.response) {
        (Some(refusal), _) => Err(refused(refusal)),
        (None, None) => {
            let (request_id, timestamp) = (captured.id.into(), captured.received_at.into());
            let receipt = wire::CaptureReceipt { request_id, timestamp, method: method.as_str() };
            Ok(json::answer(StatusCode::OK, &receipt))
        }
        (None, Some(response)) => {
            if !response.delay.is_zero() {
                tokio::select! {
                    () = tokio::time::sleep(response.delay) => {}
                    // It is stored: the grace of stopping is for others.
                    () = state.readiness.stopped() => {}
                }
            }
            Ok(answer(response))
        }
    }
}

async fn store(state: Arc<ApiState>, path_id: PathId, parts: Parts, body: Body) -> Result<Captured, Problem> {
    let options = state.webhooks.options();
    let limit = options.capture_max_body;
    let addresses = addresses(&state, &parts);
    let account = Account { path: path_id.clone(), sender: addresses.map(|(sender, _)| sender) };
    let prefix = options.capture_prefix.min(limit);
    let read = captured_body::read(body, prefix, limit, &state.capture_budget, &account).await;
    let read = read.map_err(|Busy| Problem::unavailable())?;
    let refusal = read.refusal;
    let request = incoming(parts, addresses, &read);
    let captured = state.webhooks.capture(&path_id, request, refusal).await?;
    drop(read);
    Ok(captured)
}

/// The segment behind `/webhook/` as it was sent. Legal names have nothing to decode: another spelling is another path.
fn path_id(parts: &Parts) -> Result<PathId, Problem> {
    let below = parts.uri.path().strip_prefix(PREFIX).unwrap_or_default();
    let name = below.split('/').next().unwrap_or_default();
    name.parse().map_err(|_| Error::NotFound(Noun::Path).into())
}

/// Who sent it, as far as proxies are believed, and who is connected.
fn addresses(state: &ApiState, parts: &Parts) -> Option<(IpAddr, IpAddr)> {
    let ConnectInfo(peer) = parts.extensions.get::<ConnectInfo<SocketAddr>>()?;
    let sender = client_address(peer.ip(), &parts.headers, &state.options.trusted_proxies);
    Some((sender, peer.ip().to_canonical()))
}

fn incoming(parts: Parts, addresses: Option<(IpAddr, IpAddr)>, read: &ReadBody) -> IncomingRequest {
    // The path as the caller wrote it, in front of what a host's prefix took off.
    let uri = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |original| &original.0);
    let mut request = IncomingRequest::new(parts.method.as_str(), uri.path());
    request.query = uri.query().map(str::to_owned);
    request.http_version = format!("{:?}", parts.version);
    request.headers = captured_body::fields(&parts.headers);
    if let (None, Some(authority)) = (parts.headers.get(HOST), parts.uri.authority()) {
        // What HTTP/2 has instead (RFC 9113 section 8.3.1).
        request.headers.insert(0, ("host".to_owned(), authority.to_string().into()));
    }
    request.trailers = read.trailers.clone();
    (request.ip_address, request.peer_address) = addresses.unzip();
    request.body = read.kept.clone();
    request.body_size = read.size;
    request.body_sha256 = read.sha256;
    request.body_truncated = read.truncated;
    request
}

fn refused(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::TooSlow => {
            Problem::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", "the body took too long to arrive")
        }
        Refusal::Incomplete => Problem::bad_request("incomplete_body", "the body ended before it was complete"),
        _ => {
            let detail = "the body is larger than this path takes";
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
        }
    }
}

/// What the path's owner chose, in so far as it was checked when it was saved.
fn answer(chosen: &CustomResponse) -> Response {
    let mut response = Response::new(Body::from(chosen.body.clone()));
    *response.status_mut() = StatusCode::from_u16(chosen.status).unwrap_or(StatusCode::OK);
    for (name, value) in &chosen.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().append(name, value);
        }
    }
    if !chosen.body.is_empty() {
        let media = if std::str::from_utf8(&chosen.body).is_ok() {
            "text/plain; charset=utf-8"
        } else {
            "application/octet-stream"
        };
        response.headers_mut().entry(CONTENT_TYPE).or_insert(HeaderValue::from_static(media));
    }
    response
}
