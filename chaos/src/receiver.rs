//! The endpoints: they are the witnesses, and nothing happens to them.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};
use webhook_core::{Clock, Secret, SystemClock, verify_ingest};

use crate::ledger::{Arrival, Endpoint, Ledger, number_in, payload, tenant_of};
use crate::temper::Conduct;
use crate::wire::Message;

/// A sender with a deadline has gone long before.
const LONGEST: Duration = Duration::from_secs(20);
const DRIP: Duration = Duration::from_millis(200);
const HUGE: usize = 300_000_000;

#[derive(Debug)]
pub(crate) struct Receiver {
    addr: SocketAddr,
    trap: SocketAddr,
    ledger: Arc<Ledger>,
    secrets: Mutex<HashMap<Endpoint, Secret>>,
    calm: AtomicBool,
    /// Requests that have not ended.
    open: AtomicUsize,
    trapped: AtomicUsize,
    /// What came and was no delivery of ours.
    strange: AtomicUsize,
}

impl Receiver {
    pub(crate) async fn start(ledger: Arc<Ledger>) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let trap = TcpListener::bind("127.0.0.2:0").await.unwrap();
        let receiver = Arc::new(Self {
            addr: listener.local_addr().unwrap(),
            trap: trap.local_addr().unwrap(),
            ledger,
            secrets: Mutex::default(),
            calm: AtomicBool::new(false),
            open: AtomicUsize::new(0),
            trapped: AtomicUsize::new(0),
            strange: AtomicUsize::new(0),
        });
        tokio::spawn({
            let receiver = Arc::clone(&receiver);
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let receiver = Arc::clone(&receiver);
                    tokio::spawn(async move { receiver.converse(stream).await });
                }
            }
        });
        tokio::spawn({
            let receiver = Arc::clone(&receiver);
            async move {
                while trap.accept().await.is_ok() {
                    receiver.trapped.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        receiver
    }

    pub(crate) fn url(&self, endpoint: Endpoint) -> String {
        format!("http://{}{}", self.addr, endpoint.path())
    }

    /// Where nobody may connect to.
    pub(crate) fn trap(&self) -> SocketAddr {
        self.trap
    }

    /// Connections to where nobody may connect to.
    pub(crate) fn trapped(&self) -> usize {
        self.trapped.load(Ordering::Relaxed)
    }

    /// Requests that are no delivery of ours.
    pub(crate) fn strange(&self) -> usize {
        self.strange.load(Ordering::Relaxed)
    }

    /// Requests that have not ended.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Signatures of deliveries to that endpoint must verify with the secret.
    pub(crate) fn trust(&self, endpoint: Endpoint, secret: &str) {
        self.secrets.lock().unwrap().insert(endpoint, Secret::new(secret));
    }

    /// All endpoints are well from now on.
    pub(crate) fn calm_down(&self) {
        self.calm.store(true, Ordering::SeqCst);
    }

    async fn converse(&self, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        while let Ok(request) = Message::read(&mut stream).await {
            self.open.fetch_add(1, Ordering::SeqCst);
            let outcome = self.take(&mut stream, &request).await;
            self.open.fetch_sub(1, Ordering::SeqCst);
            if outcome.is_err() {
                return;
            }
        }
    }

    /// An error ends the connection.
    async fn take(&self, stream: &mut BufReader<TcpStream>, request: &Message) -> io::Result<()> {
        let arrived = self.ledger.elapsed();
        let known = Endpoint::of_path(request.second()).zip(number_in(&request.body));
        let (Some((endpoint, n)), Ok(event), Ok(attempt)) =
            (known, request.header("webhook-id").parse(), request.header("webhook-attempt").parse())
        else {
            self.strange.fetch_add(1, Ordering::Relaxed);
            return Err(io::ErrorKind::InvalidData.into());
        };
        let secret = self.secrets.lock().unwrap().get(&endpoint).cloned();
        let signed = secret
            .is_some_and(|secret| verify_ingest(&secret, &request.headers, &request.body, SystemClock.now()).is_ok());
        let conduct = if self.calm.load(Ordering::SeqCst) {
            Conduct::at_once(200)
        } else {
            Conduct::choose(endpoint, n, attempt, arrived, &self.trap.to_string())
        };
        let status = match &conduct {
            Conduct::Answer(status, ..) => *status,
            // As much of it as anybody reads is read, and that is a success.
            Conduct::Huge => 200,
            Conduct::Hang | Conduct::Drip | Conduct::Reset | Conduct::Babble => 0,
        };
        let outcome = carry_out(stream, conduct).await;
        let exact = request.body == payload(n).as_bytes() && endpoint.tenant == tenant_of(n);
        let ended = self.ledger.elapsed();
        self.ledger.arrivals().push(Arrival { n, endpoint, event, attempt, status, arrived, ended, signed, exact });
        outcome
    }
}

async fn carry_out(stream: &mut BufReader<TcpStream>, conduct: Conduct) -> io::Result<()> {
    let over = || Err(io::ErrorKind::ConnectionAborted.into());
    match conduct {
        Conduct::Answer(status, after, headers) => {
            sleep(after).await;
            let answer = format!("HTTP/1.1 {status} Whatever\r\n{headers}content-length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await
        }
        Conduct::Hang => {
            let _ = timeout(LONGEST, stream.read_u8()).await;
            over()
        }
        Conduct::Drip => {
            let end = Instant::now() + LONGEST;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n").await?;
            while Instant::now() < end {
                // Whoever hangs up is seen at once, not when the network has filled.
                match timeout(DRIP, stream.read_u8()).await {
                    Ok(_) => break,
                    Err(_) => stream.write_all(b".").await?,
                }
            }
            over()
        }
        Conduct::Huge => {
            let chunk = vec![b'x'; 65_536];
            stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {HUGE}\r\n\r\n").as_bytes()).await?;
            for _ in 0..HUGE / chunk.len() {
                stream.write_all(&chunk).await?;
            }
            over()
        }
        Conduct::Reset => {
            stream.get_ref().set_zero_linger()?;
            over()
        }
        Conduct::Babble => {
            stream.write_all(b"HTTP/9.9 two hundred\r\n\r\n").await?;
            over()
        }
    }
}
