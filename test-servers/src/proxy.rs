//! A bad network between a client and its server.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

/// What happens to the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// They go on.
    Flows,
    /// They go on, each read so much later.
    Slow(Duration),
    /// They stay here, and so do new connections: nobody is told anything.
    Stalls,
    /// New connections are reset. Those that there are go on.
    Refused,
}

/// Forwards TCP connections to a server on loopback, and does to them what a bad network does.
///
/// It runs in threads of its own: neither a paused clock nor a blocked runtime of the test stops it.
#[derive(Debug)]
pub struct FaultProxy {
    addr: SocketAddr,
    origin: SocketAddr,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

#[derive(Debug)]
struct Shared {
    upstream: watch::Sender<SocketAddr>,
    traffic: watch::Sender<Traffic>,
    /// Counts the cuts: a connection ends when it changes.
    cuts: watch::Sender<u64>,
    /// Counts the strandings: a connection forwards nothing any more when it changes.
    strandings: watch::Sender<u64>,
    /// The next request with these bytes in it gets no answer.
    needle: Mutex<Option<Vec<u8>>>,
    swallowed: watch::Sender<u64>,
}

impl FaultProxy {
    /// A proxy before the server that listens at `upstream`.
    pub fn start(upstream: SocketAddr) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("fault-proxy").enable_all().build();
        let runtime = runtime.expect("a runtime can be built");
        // Tests may already be inside a runtime, where blocking on another one is not allowed.
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        listener.set_nonblocking(true).expect("a listener can be made not to block");
        let listener = {
            let _inside = runtime.enter();
            TcpListener::from_std(listener).expect("a listener can be handed over")
        };
        let shared = Arc::new(Shared {
            upstream: watch::Sender::new(upstream),
            traffic: watch::Sender::new(Traffic::Flows),
            cuts: watch::Sender::new(0),
            strandings: watch::Sender::new(0),
            needle: Mutex::default(),
            swallowed: watch::Sender::new(0),
        });
        let addr = listener.local_addr().expect("a listener has an address");
        runtime.spawn(accept(listener, Arc::clone(&shared)));
        Self { addr, origin: upstream, shared, runtime: Some(runtime) }
    }

    /// Where clients connect to.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The URL of the server, by way of this proxy.
    pub fn rewrite(&self, url: &str) -> String {
        url.replace(&self.origin.to_string(), &self.addr.to_string())
    }

    /// Sets what happens to the bytes from now on.
    pub fn set(&self, traffic: Traffic) {
        self.shared.traffic.send_replace(traffic);
    }

    /// Resets all connections that there are.
    pub fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Lets all connections that there are stay open and forward nothing any more, as when a network forgets them. New
    /// ones work.
    pub fn strand(&self) {
        self.shared.strandings.send_modify(|strandings| *strandings += 1);
    }

    /// New connections lead to the server at `upstream`. Those that there are go on as they were, as after a failover
    /// by name.
    pub fn redirect(&self, upstream: SocketAddr) {
        self.shared.upstream.send_replace(upstream);
    }

    /// The next request that contains `needle` (`COMMIT`, `EVALSHA`) reaches the server; when that has answered, the
    /// answer is swallowed and the connection reset. The client cannot know whether it was done, and it was.
    pub fn swallow_answer_to(&self, needle: &str) {
        *self.shared.needle.lock().unwrap_or_else(PoisonError::into_inner) = Some(needle.as_bytes().to_owned());
    }

    /// How many answers were swallowed.
    pub fn swallowed(&self) -> u64 {
        *self.shared.swallowed.borrow()
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Blocking until all is closed would not be allowed in an async test.
            runtime.shutdown_background();
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        if *shared.traffic.borrow() == Traffic::Refused {
            reset(&client);
            continue;
        }
        tokio::spawn(async move { connect(client, &shared).await });
    }
}

async fn connect(mut client: TcpStream, shared: &Shared) {
    let (mut cuts, mut strandings) = (shared.cuts.subscribe(), shared.strandings.subscribe());
    wait_while_stalled(shared).await;
    let upstream = *shared.upstream.borrow();
    let Ok(mut server) = TcpStream::connect(upstream).await else { return reset(&client) };
    for stream in [&client, &server] {
        // Without it the proxy would add delays of its own.
        let _ = stream.set_nodelay(true);
    }
    let end = tokio::select! {
        end = forward(&mut client, &mut server, shared) => end,
        _ = cuts.changed() => End::Fault,
        // Both sides are kept open until the proxy goes, or cuts them.
        _ = strandings.changed() => {
            let _ = cuts.changed().await;
            End::Fault
        }
    };
    if end == End::Fault {
        reset(&client);
        reset(&server);
    }
}

/// How a connection ends.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// One side closed it.
    Closed,
    /// This proxy cuts it.
    Fault,
}

async fn forward(client: &mut TcpStream, server: &mut TcpStream, shared: &Shared) -> End {
    let (swallow, swallowed) = watch::channel(false);
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let end = tokio::select! {
        end = requests(from_client, to_server, shared, &swallow) => end,
        end = answers(from_server, to_client, shared, &swallowed) => end,
    };
    end.unwrap_or(End::Fault)
}

async fn requests(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    shared: &Shared,
    swallow: &watch::Sender<bool>,
) -> io::Result<End> {
    let (mut buffer, mut seen) = (vec![0; 64 << 10], Vec::new());
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Ok(End::Closed);
        }
        delay(shared).await;
        if is_awaited(shared, &mut seen, &buffer[..length]) {
            swallow.send_replace(true);
        }
        to.write_all(&buffer[..length]).await?;
    }
}

async fn answers(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    shared: &Shared,
    swallow: &watch::Receiver<bool>,
) -> io::Result<End> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Ok(End::Closed);
        }
        delay(shared).await;
        if *swallow.borrow() {
            shared.swallowed.send_modify(|count| *count += 1);
            return Ok(End::Fault);
        }
        to.write_all(&buffer[..length]).await?;
    }
}

/// Whether the needle is in what was read, also where two reads meet; it is looked for no more then.
fn is_awaited(shared: &Shared, seen: &mut Vec<u8>, read: &[u8]) -> bool {
    let mut needle = shared.needle.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(wanted) = needle.as_deref().filter(|wanted| !wanted.is_empty()) else {
        seen.clear();
        return false;
    };
    seen.extend_from_slice(read);
    let found = seen.windows(wanted.len()).any(|window| window == wanted);
    let keep = seen.len().saturating_sub(wanted.len() - 1);
    seen.drain(..keep);
    if found {
        *needle = None;
        seen.clear();
    }
    found
}

async fn delay(shared: &Shared) {
    let traffic = *shared.traffic.borrow();
    if let Traffic::Slow(delay) = traffic {
        tokio::time::sleep(delay).await;
    }
    wait_while_stalled(shared).await;
}

async fn wait_while_stalled(shared: &Shared) {
    let mut traffic = shared.traffic.subscribe();
    // The sender is in `shared`: it does not go away while this waits.
    let _ = traffic.wait_for(|traffic| *traffic != Traffic::Stalls).await;
}

/// The connection ends with a reset when it is dropped.
fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}
