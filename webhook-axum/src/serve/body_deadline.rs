//! A deadline for the body of a request.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::BoxError;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep};

use super::linger::Unread;

/// The body of a request took too long to arrive.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the body took too long to arrive")]
#[non_exhaustive]
pub struct BodyDeadline;

/// A body that fails when it is not complete in time. The clock starts when somebody has to wait for it.
pub(super) struct DeadlineBody {
    inner: Incoming,
    limit: Duration,
    deadline: Option<Pin<Box<Sleep>>>,
    ended: bool,
    unread: Unread,
}

impl DeadlineBody {
    /// When it is given up before its end, `unread` says so.
    pub(super) fn new(inner: Incoming, limit: Duration, unread: Unread) -> Self {
        Self { inner, limit, deadline: None, ended: false, unread }
    }

    fn failed(&mut self) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.ended = true;
        Poll::Ready(Some(Err(BodyDeadline.into())))
    }
}

impl Drop for DeadlineBody {
    fn drop(&mut self) {
        if !self.ended && !self.inner.is_end_stream() {
            let deadline =
                self.deadline.as_ref().map_or_else(|| Instant::now() + self.limit, |deadline| deadline.deadline());
            self.unread.leave(self.inner.size_hint().lower(), deadline);
        }
    }
}

impl Body for DeadlineBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(context).is_ready()
        {
            return self.failed();
        }
        match Pin::new(&mut self.inner).poll_frame(context) {
            Poll::Ready(frame) => {
                self.ended = !matches!(frame, Some(Ok(_)));
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Poll::Pending => {
                if self.deadline.is_none() {
                    let mut deadline = Box::pin(sleep(self.limit));
                    // Registers for the wake-up; a deadline of zero is already over.
                    let over = deadline.as_mut().poll(context).is_ready();
                    self.deadline = Some(deadline);
                    if over {
                        return self.failed();
                    }
                }
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
