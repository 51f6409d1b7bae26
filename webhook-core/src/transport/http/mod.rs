//! The transport on reqwest.

mod classify;
mod dns;
mod tls;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderValue, Method};
use reqwest::redirect::Policy;
use reqwest::{Client, Request};
use tokio::time::{Instant, error::Elapsed, timeout};

use super::guard::Reach;
use super::{AddressGuard, MAX_RESPONSE_KEPT, MAX_RESPONSE_READ, OutboundRequest, OutboundResponse};
use super::{Transport, TransportError};
use crate::ErrorKind;

pub use dns::{Resolver, SystemResolver};

/// Sends over HTTP/1.1 and HTTP/2, with or without TLS, and keeps connections for the next request.
///
/// Every connection is guarded: a literal address is judged before the request, and a name by each address that its
/// look-up brought, of which exactly these are dialled; one refused address refuses the name. Proxy settings of the
/// environment are ignored, as a proxy would look names up by itself.
#[derive(Clone)]
pub struct HttpTransport {
    guard: Arc<AddressGuard>,
    /// For URLs that may have any address that the guard lets through.
    public: Client,
    /// For URLs that may have addresses in allowed networks only. A client of its own, as the look-up sees the name
    /// but neither scheme nor port, and connections are shared inside a client.
    allowed_networks: Client,
}

impl HttpTransport {
    /// A transport behind `guard`, to be set up further.
    pub fn builder(guard: AddressGuard) -> HttpTransportBuilder {
        HttpTransportBuilder {
            guard,
            resolver: None,
            tls: None,
            roots: Vec::new(),
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(4),
            max_idle_per_host: 512,
        }
    }
}

impl fmt::Debug for HttpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpTransport").field("guard", &self.guard).finish_non_exhaustive()
    }
}

/// Sets up an [`HttpTransport`].
#[derive(Debug)]
pub struct HttpTransportBuilder {
    guard: AddressGuard,
    resolver: Option<Arc<dyn Resolver>>,
    tls: Option<rustls::ClientConfig>,
    roots: Vec<rustls::pki_types::CertificateDer<'static>>,
    connect_timeout: Duration,
    idle_timeout: Duration,
    max_idle_per_host: usize,
}

impl HttpTransportBuilder {
    /// Limits look-up, TCP and TLS handshake together. Default 5 s.
    #[must_use]
    pub fn with_connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// Sets how long an unused connection is kept. Default 4 s: less than the 5 s after which common servers close
    /// theirs, as a request that meets the closing is lost.
    #[must_use]
    pub fn with_idle_timeout(mut self, limit: Duration) -> Self {
        self.idle_timeout = limit;
        self
    }

    /// Sets how many unused connections are kept for each scheme, host and port. Default 512, as many as attempts are made at once by default.
    #[must_use]
    pub fn with_max_idle_per_host(mut self, count: usize) -> Self {
        self.max_idle_per_host = count;
        self
    }

    /// Looks names up by `resolver` in place of [`SystemResolver`]. Its answers are judged all the same.
    #[must_use]
    pub fn with_resolver(mut self, resolver: Arc<dyn Resolver>) -> Self {
        self.resolver = Some(resolver);
        self
    }

    /// Trusts `certificate` besides the roots of Mozilla, for endpoints with a private authority.
    #[must_use]
    pub fn with_root_certificate(mut self, certificate: rustls::pki_types::CertificateDer<'static>) -> Self {
        self.roots.push(certificate);
        self
    }

    /// Uses the host's TLS configuration as it is: provider, roots, client certificate and ALPN (`h2`, `http/1.1`).
    #[must_use]
    pub fn with_tls_config(mut self, config: rustls::ClientConfig) -> Self {
        self.tls = Some(config);
        self
    }

    /// Makes the transport.
    ///
    /// # Errors
    ///
    /// [`BuildTransportError`] when the TLS settings do not fit together.
    pub fn build(self) -> Result<HttpTransport, BuildTransportError> {
        let tls = match self.tls {
            Some(_) if !self.roots.is_empty() => return Err(BuildTransportError::RootsBesideConfig),
            Some(config) => config,
            None => tls::default_config(self.roots)?,
        };
        let guard = Arc::new(self.guard);
        let resolver = self.resolver.unwrap_or_else(|| Arc::new(SystemResolver::new()));
        let client = |reach| {
            Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .dns_resolver(dns::GuardedResolver::new(Arc::clone(&resolver), Arc::clone(&guard), reach))
                .no_proxy()
                .redirect(Policy::none())
                .retry(reqwest::retry::never())
                .referer(false)
                // A host that switches these on in reqwest for itself would switch them on here.
                .no_gzip()
                .no_brotli()
                .no_zstd()
                .no_deflate()
                .connect_timeout(self.connect_timeout)
                .pool_idle_timeout(self.idle_timeout)
                .pool_max_idle_per_host(self.max_idle_per_host)
                .tcp_nodelay(true)
                // Answers are small: no need for the 2 and 5 MiB that hyper grants.
                .http2_initial_stream_window_size(STREAM_WINDOW)
                .http2_initial_connection_window_size(CONNECTION_WINDOW)
                .build()
                .map_err(BuildTransportError::client)
        };
        Ok(HttpTransport { public: client(Reach::Public)?, allowed_networks: client(Reach::AllowedNetworks)?, guard })
    }
}

/// What an endpoint may send on one HTTP/2 stream before it is read.
const STREAM_WINDOW: u32 = 64 * 1024;
/// What an endpoint may send on one HTTP/2 connection before it is read.
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Why a transport cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildTransportError {
    /// Without the feature `tls-ring` the host must bring a TLS configuration.
    #[error("no TLS configuration was given and the feature tls-ring is off")]
    NoTls,
    /// Root certificates were given besides a complete TLS configuration, which has its own.
    #[error("root certificates cannot be added to a TLS configuration of the host")]
    RootsBesideConfig,
    /// A root certificate is none, or the provider does not fit the TLS versions.
    #[error("the TLS configuration is not valid")]
    Tls(#[from] rustls::Error),
    /// The HTTP client cannot be made.
    #[error("the HTTP client cannot be made")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl BuildTransportError {
    fn client(error: reqwest::Error) -> Self {
        Self::Client(error.into())
    }
}

#[async_trait]
impl Transport for HttpTransport {
    async fn send(&self, request: OutboundRequest) -> Result<OutboundResponse, TransportError> {
        let started = Instant::now();
        let deadlines = request.deadlines;
        let client = match self.guard.reach(&request.url)? {
            Reach::Public => &self.public,
            Reach::AllowedNetworks => &self.allowed_networks,
        };
        let mut response = match timeout(deadlines.total, client.execute(prepare(request))).await {
            Ok(answer) => answer.map_err(classify::before_answer)?,
            Err(late) => return Err(timed_out("no answer within the deadline", late)),
        };
        let status = response.status();
        let headers = std::mem::take(response.headers_mut());

        let left = deadlines.total.saturating_sub(started.elapsed()).min(deadlines.body);
        let mut prefix = Prefix::default();
        let failure = match timeout(left, prefix.read(response)).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(classify::in_body(error)),
            Err(late) => Some(timed_out("the answer's body did not end within the deadline", late)),
        };
        match failure {
            Some(error) if status.is_success() => Err(error.with_status(status)),
            broken => {
                let truncated = broken.is_some() || prefix.truncated;
                Ok(OutboundResponse { status, headers, body: prefix.kept.freeze(), truncated })
            }
        }
    }
}

fn prepare(request: OutboundRequest) -> Request {
    let mut headers = request.headers;
    // hyper believes these when they are there: a wrong one would let a body be read as a second request.
    for framing in [CONTENT_LENGTH, HOST, TRANSFER_ENCODING] {
        headers.remove(framing);
    }
    // hyper sends no length for no body, but where one is expected RFC 9110, section 8.6, asks for it.
    if request.body.is_empty() && matches!(request.method, Method::POST | Method::PUT | Method::PATCH) {
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    let mut prepared = Request::new(request.method, request.url);
    *prepared.headers_mut() = headers;
    *prepared.body_mut() = Some(request.body.into());
    prepared
}

fn timed_out(message: &'static str, late: Elapsed) -> TransportError {
    TransportError::new(ErrorKind::Timeout, message).with_source(late)
}

/// The start of a body.
#[derive(Default)]
struct Prefix {
    kept: BytesMut,
    read: usize,
    truncated: bool,
}

impl Prefix {
    /// Reads to the end or to the limit. Dropping a response that goes on closes its connection.
    async fn read(&mut self, mut response: reqwest::Response) -> Result<(), reqwest::Error> {
        while self.read <= MAX_RESPONSE_READ {
            let Some(chunk) = response.chunk().await? else { break };
            self.push(&chunk);
        }
        Ok(())
    }

    fn push(&mut self, chunk: &Bytes) {
        self.read = self.read.saturating_add(chunk.len());
        let room = MAX_RESPONSE_KEPT - self.kept.len();
        self.truncated |= chunk.len() > room;
        // Copied, as a kept slice would keep the whole read buffer.
        self.kept.extend_from_slice(&chunk[..chunk.len().min(room)]);
    }
}
