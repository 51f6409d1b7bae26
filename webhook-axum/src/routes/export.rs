//! Captured requests as a file.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::try_unfold;
use http::HeaderValue;
use http::header::{CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use webhook_core::store::ReadLimit;
use webhook_core::{CaptureFilter, CaptureId, CapturedRequest, Error, PathId, TenantId, Webhooks};

use super::capture::SANDBOX;
use super::captured::{attachment, credentials_of, filter};
use crate::api::ApiState;
use crate::export::Format;
use crate::extract::{CapturePathId, Reader};
use crate::problem::Problem;
use crate::query::Query;
#[cfg(feature = "openapi")]
use crate::wire;
use crate::wire::Credentials;

/// What is read at once, more than these bytes only where one request alone has more …
const AT_ONCE: ReadLimit = ReadLimit::requests(100).with_bytes(512 << 10);
/// … and written at once: a chunk ends behind so many bytes.
const CHUNK: usize = 64 << 10;

/// Export captured requests
///
/// All that the path holds now and that match, oldest first, with the bodies as far as they are kept. CSV has an
/// apostrophe in front of whatever a spreadsheet might take for a formula, also inside of a field; HAR has bodies that are no
/// text in the custom field `_base64`, and trailers in `_trailers`. A file that ends before its format does is incomplete.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/api/paths/{path_id}/export", tag = "Capturing", params(
        ("path_id" = String, Path),
        ("format" = Option<String>, Query, description = "`json` (the default), `ndjson`, `csv` or `har`"),
        ("method" = Option<String>, Query, description = "Only this method, in any case"),
        ("since" = Option<wire::Time>, Query, description = "From this time on, inclusive"),
        ("until" = Option<wire::Time>, Query, description = "Before this time, exclusive"),
        ("q" = Option<String>, Query, description = "Only where this is in the path, the query, the headers or the body"),
        ("mask" = Option<bool>, Query, description = "Hides the values of headers that are credentials"),
    ),
    responses((status = 200, description = "The file", content(
        (Vec<wire::Captured> = "application/json"),
        (String = "application/x-ndjson"),
        (String = "text/csv"),
    ))),
))]
pub(crate) async fn export_captured_requests(
    State(state): State<Arc<ApiState>>,
    caller: Reader,
    CapturePathId(path_id): CapturePathId,
    mut query: Query,
) -> Result<Response, Problem> {
    let format = query.get("format").unwrap_or(Format::Json);
    let filter = filter(&mut query);
    let credentials = credentials_of(&mut query);
    query.finish()?;
    let path = state.webhooks.capture_path(caller.tenant(), &path_id).await?;
    let name = format!("{path_id}.{}", format.extension());
    let export = Export {
        webhooks: state.webhooks.clone(),
        tenant: caller.tenant().clone(),
        path_id,
        filter,
        format,
        credentials,
        after: None,
        read: VecDeque::new(),
        last: path.usage.last_id,
        written: 0,
        place: Place::Head,
    };
    let mut response = Response::new(Body::from_stream(export.chunks()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    headers.insert(CONTENT_DISPOSITION, attachment(&name));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(SANDBOX));
    Ok(response)
}

/// A file in the making. What it reads next is read when somebody wants it.
struct Export {
    webhooks: Webhooks,
    tenant: TenantId,
    path_id: PathId,
    filter: CaptureFilter,
    format: Format,
    credentials: Credentials,
    after: Option<CaptureId>,
    /// What is read, and not yet written.
    read: VecDeque<CapturedRequest>,
    /// The newest request when it began: what comes later is not waited for.
    last: Option<CaptureId>,
    written: u64,
    place: Place,
}

#[derive(PartialEq)]
enum Place {
    Head,
    Requests,
    End,
}

impl Export {
    fn chunks(self) -> impl Stream<Item = Result<Bytes, Error>> {
        try_unfold(self, |mut export| async move { Ok(export.chunk().await?.map(|chunk| (chunk, export))) })
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        let mut out = Vec::new();
        while out.is_empty() {
            match self.place {
                Place::Head => {
                    out.extend_from_slice(self.format.head().as_bytes());
                    self.place = Place::Requests;
                }
                Place::Requests => self.push_requests(&mut out).await?,
                Place::End => return Ok(None),
            }
        }
        Ok(Some(out.into()))
    }

    /// Some requests, or the file's end.
    async fn push_requests(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        if self.read.is_empty() {
            let read = self.webhooks.captured_after(&self.tenant, &self.path_id, self.after, AT_ONCE).await?;
            self.read =
                read.into_iter().take_while(|captured| self.last.is_some_and(|last| captured.id <= last)).collect();
        }
        if self.read.is_empty() {
            out.extend_from_slice(self.format.tail().as_bytes());
            self.place = Place::End;
        }
        while out.len() < CHUNK
            && let Some(captured) = self.read.pop_front()
        {
            self.after = Some(captured.id);
            if self.filter.matches(&captured) {
                self.format.push(out, captured, self.written, self.credentials);
                self.written += 1;
            }
        }
        Ok(())
    }
}
