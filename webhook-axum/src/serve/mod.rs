//! Serving a router over TCP, with the deadlines that keep slow callers from tying it up.
//!
//! `axum::serve` has no deadline for the head of a request, and none for its body. It also resets the connection of a
//! caller that is answered while it still sends.

mod body_deadline;
mod first_request;
mod linger;

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use http::header::CONNECTION;
use http::{HeaderValue, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

pub use body_deadline::BodyDeadline;
use body_deadline::DeadlineBody;
use first_request::FirstRequest;
use linger::{Linger, Unread};

/// After an accept that failed, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Bytes that an HTTP/1 connection reads ahead at most: what a body that is not wanted yet takes of memory. A request's
/// head has room in it too, and gets 431 beyond.
const CONNECTION_BUFFER: usize = 128 << 10;
/// The same for a request on an HTTP/2 connection …
const STREAM_WINDOW: u32 = 64 << 10;
/// … and for all on it together: some that wait leave room for others.
const CONNECTION_WINDOW: u32 = 512 << 10;

/// Deadlines and limits of [`serve`], each with its default.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServeOptions {
    /// How long the head of a request may take, counted from the connection or the request before: 10 s.
    pub header_timeout: Duration,
    /// How long the body of a request may take: 30 s.
    pub body_timeout: Duration,
    /// How long requests may take to end at shutdown: 20 s.
    pub grace: Duration,
    /// Connections at once; further ones wait in the backlog: 10,000.
    pub max_connections: usize,
    /// HTTP/2 requests at once on one connection: 250.
    pub max_streams: u32,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            grace: Duration::from_secs(20),
            max_connections: 10_000,
            max_streams: 250,
        }
    }
}

/// Serves `router` on `listener`, HTTP/1 and HTTP/2 without TLS, until `shutdown` is cancelled and what is under way
/// has ended or its grace is over. Dropped, it cuts off what is under way.
///
/// Requests carry the caller's address as [`ConnectInfo`]`<SocketAddr>`. A caller of HTTP/1 that is answered while it still
/// sends its body gets the answer all the same: what still comes is thrown away, until nothing comes for 2 s, and for at
/// most 10 s, 32 MiB, and the time that the body had.
pub async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken, options: ServeOptions) {
    let slots = Arc::new(Semaphore::new(options.max_connections));
    let connections = TaskTracker::new();
    let abort = CancellationToken::new();
    let _dropped = abort.clone().drop_guard();
    let serving = Serving { router, http: http(&options), options, shutdown, abort };
    while let Some((stream, peer, slot)) = serving.accept(&listener, &slots).await {
        let serving = serving.clone();
        connections.spawn(async move {
            serving.connection(stream, peer).await;
            drop(slot);
        });
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(serving.options.grace, connections.wait()).await.is_err() {
        tracing::warn!(connections = connections.len(), "the grace is over: connections are cut off");
        serving.abort.cancel();
        connections.wait().await;
    }
}

fn http(options: &ServeOptions) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        // Who has sent all of a request may close its half, and is answered all the same.
        .half_close(true)
        .timer(TokioTimer::new())
        .header_read_timeout(options.header_timeout)
        .max_buf_size(CONNECTION_BUFFER);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(options.max_streams)
        .keep_alive_interval(options.body_timeout)
        .keep_alive_timeout(options.header_timeout);
    builder
}

#[derive(Clone)]
struct Serving {
    router: Router,
    http: Builder<TokioExecutor>,
    options: ServeOptions,
    shutdown: CancellationToken,
    abort: CancellationToken,
}

impl Serving {
    /// The next connection; none at shutdown.
    async fn accept(
        &self,
        listener: &TcpListener,
        slots: &Arc<Semaphore>,
    ) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
        let next = async {
            let slot = Arc::clone(slots).acquire_owned().await.ok()?;
            loop {
                match listener.accept().await {
                    Ok((stream, peer)) => return Some((stream, peer, slot)),
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => None,
            next = next => next,
        }
    }

    async fn connection(&self, stream: TcpStream, peer: SocketAddr) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY could not be set");
        }
        let (io, arrived) = FirstRequest::new(stream, self.options.header_timeout);
        let (io, unread) = Linger::new(io);
        let service = service_fn(|request: hyper::Request<Incoming>| {
            arrived.mark();
            // A stream of HTTP/2 ends by itself: nobody waits for what comes on it.
            let unread = if request.version() < Version::HTTP_2 { unread.clone() } else { Unread::default() };
            unread.clear();
            let mut request =
                request.map(|body| Body::new(DeadlineBody::new(body, self.options.body_timeout, unread.clone())));
            request.extensions_mut().insert(ConnectInfo(peer));
            let answer = self.router.clone().oneshot(request);
            async move {
                let mut answer = answer.await;
                // Beyond what is read ahead, the connection will not do for another request.
                if let Ok(response) = &mut answer
                    && unread.bytes() > CONNECTION_BUFFER as u64
                {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                answer
            }
        });
        let mut connection = pin!(self.http.serve_connection_with_upgrades(TokioIo::new(io), service));
        let result = tokio::select! {
            biased;
            result = connection.as_mut() => result,
            () = self.abort.cancelled() => Ok(()),
            () = self.shutdown.cancelled() => {
                // What was answered before and is still connected is idle, or lingers already.
                unread.clear();
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    biased;
                    result = connection => result,
                    () = self.abort.cancelled() => Ok(()),
                }
            }
        };
        if let Err(error) = result {
            tracing::debug!(%peer, error, "a connection ended badly");
        }
    }
}
