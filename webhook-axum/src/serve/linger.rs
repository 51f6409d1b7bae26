//! Closing a connection whose caller is still sending.
//!
//! An answer may be given before the body is read: the caller is unknown, or the body too large. To close the socket with
//! bytes unread resets the connection, and a caller that writes all of its request before it reads sees the reset in
//! place of the answer. So the sending half is closed first, and what still comes is thrown away for a while (RFC 9112
//! section 9.6).

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// A caller that sends nothing for so long has nothing left to send, or never will.
const SILENCE: Duration = Duration::from_secs(2);
/// However much comes, it ends after so long …
const LONGEST: Duration = Duration::from_secs(10);
/// … and after so many bytes.
const MOST: u64 = 32 << 20;
/// What is thrown away goes through a buffer of so many bytes.
const BUFFER: usize = 16 << 10;

/// What the connection's latest request left unread. All clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Unread(Arc<Mutex<Option<Rest>>>);

#[derive(Clone, Copy, Debug)]
struct Rest {
    /// Bytes that will come at least.
    bytes: u64,
    /// When the body would have had to be complete.
    deadline: Instant,
}

impl Unread {
    /// A body was given up with at least that many bytes to come, which had time until `deadline`.
    pub(super) fn leave(&self, bytes: u64, deadline: Instant) {
        self.set(Some(Rest { bytes, deadline }));
    }

    /// There is nothing to wait for.
    pub(super) fn clear(&self) {
        self.set(None);
    }

    /// Bytes that will come at least.
    pub(super) fn bytes(&self) -> u64 {
        self.get().map_or(0, |rest| rest.bytes)
    }

    fn get(&self) -> Option<Rest> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, rest: Option<Rest>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = rest;
    }
}

/// A connection that ends only when the caller has had time to send what nobody reads.
pub(super) struct Linger<S> {
    stream: S,
    unread: Unread,
    farewell: Farewell,
}

enum Farewell {
    NotYet,
    Listening { silence: Pin<Box<Sleep>>, end: Instant, bytes: u64 },
    Over,
}

impl<S> Linger<S> {
    pub(super) fn new(stream: S) -> (Self, Unread) {
        let unread = Unread::default();
        (Self { stream, unread: unread.clone(), farewell: Farewell::NotYet }, unread)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Linger<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Linger<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, unread, farewell } = &mut *self;
        loop {
            match farewell {
                Farewell::NotYet => {
                    ready!(Pin::new(&mut *stream).poll_shutdown(context))?;
                    *farewell = match unread.get() {
                        None => Farewell::Over,
                        Some(rest) => {
                            let now = Instant::now();
                            let end = rest.deadline.min(now + LONGEST);
                            let silence = Box::pin(sleep_until(end.min(now + SILENCE)));
                            Farewell::Listening { silence, end, bytes: 0 }
                        }
                    };
                }
                Farewell::Listening { silence, end, bytes } => {
                    let mut scratch = [0; BUFFER];
                    let mut buffer = ReadBuf::new(&mut scratch);
                    let read = Pin::new(&mut *stream).poll_read(context, &mut buffer);
                    let over = match read {
                        Poll::Ready(Ok(())) => {
                            *bytes += buffer.filled().len() as u64;
                            let now = Instant::now();
                            silence.as_mut().reset((*end).min(now + SILENCE));
                            buffer.filled().is_empty() || *bytes > MOST || now >= *end
                        }
                        Poll::Ready(Err(_)) => true,
                        Poll::Pending => {
                            ready!(silence.as_mut().poll(context));
                            true
                        }
                    };
                    if over {
                        *farewell = Farewell::Over;
                    }
                }
                Farewell::Over => return Poll::Ready(Ok(())),
            }
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
