//! Bodies on their way: of requests, so that one that was not touched can be sent elsewhere; of answers, so that each
//! part is let out only while this region may answer.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::pass::Pass;

/// A request's body, kept until it is known whether another try needs it.
#[derive(Clone)]
pub(super) enum Source {
    /// None, or all of it: can be sent any number of times.
    Whole(Bytes),
    /// Still with the client: can be sent again for as long as nobody has begun to read it.
    Stream(Arc<Streaming>, SizeHint),
}

/// A body that is still with the client.
pub(super) struct Streaming {
    body: Mutex<Option<Incoming>>,
    /// Parts that were read of it: as long as this grows the client is sending.
    parts: AtomicU64,
}

impl Streaming {
    fn take(&self) -> Option<Incoming> {
        self.body.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Source {
    pub(super) fn stream(body: Incoming) -> Self {
        let hint = body.size_hint();
        let streaming = Streaming {
            body: Mutex::new(Some(body)),
            parts: AtomicU64::new(0),
        };
        Self::Stream(Arc::new(streaming), hint)
    }

    /// Whether the whole body could still be sent.
    pub(super) fn untouched(&self) -> bool {
        match self {
            Self::Whole(_) => true,
            Self::Stream(streaming, _) => streaming.body.lock().unwrap_or_else(PoisonError::into_inner).is_some(),
        }
    }

    /// How many parts were read of a body that is streamed.
    pub(super) fn parts(&self) -> u64 {
        match self {
            Self::Whole(_) => 0,
            Self::Stream(streaming, _) => streaming.parts.load(Ordering::Relaxed),
        }
    }

    /// The body for one try.
    pub(super) fn open(&self) -> Outgoing {
        match self {
            Self::Whole(bytes) => Outgoing::Whole(Some(bytes.clone()).filter(|b| !b.is_empty())),
            Self::Stream(streaming, hint) => Outgoing::Waiting(streaming.clone(), *hint),
        }
    }
}

/// A request's body in one try.
pub(super) enum Outgoing {
    Whole(Option<Bytes>),
    /// Taken from the client only when the connection asks for it, so that a failed connect leaves it in place.
    Waiting(Arc<Streaming>, SizeHint),
    Reading(Arc<Streaming>, Incoming),
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        loop {
            match &mut *self {
                Self::Whole(bytes) => return Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
                Self::Reading(streaming, body) => {
                    let frame = std::task::ready!(Pin::new(body).poll_frame(cx));
                    streaming.parts.fetch_add(1, Ordering::Relaxed);
                    return Poll::Ready(frame);
                }
                Self::Waiting(streaming, _) => {
                    let streaming = streaming.clone();
                    *self = match streaming.take() {
                        Some(body) => Self::Reading(streaming, body),
                        None => Self::Whole(None),
                    };
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Waiting(..) => false,
            Self::Reading(_, body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Waiting(_, hint) => *hint,
            Self::Reading(_, body) => body.size_hint(),
        }
    }
}

/// Why an answer was cut.
#[derive(Debug, thiserror::Error)]
pub(super) enum Cut {
    #[error("the answer broke off at its origin: {0}")]
    Origin(#[from] hyper::Error),
    #[error("this region may not answer any more")]
    Fenced,
}

/// An answer's body.
pub(super) enum Answer {
    Text(Option<Bytes>),
    Stream(Incoming, Option<Arc<Pass>>),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match &mut *self {
            Self::Text(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Self::Stream(body, pass) => {
                let frame = std::task::ready!(Pin::new(body).poll_frame(cx));
                match pass {
                    Some(pass) if !pass.good() => Poll::Ready(Some(Err(Cut::Fenced))),
                    _ => Poll::Ready(frame.map(|f| f.map_err(Cut::Origin))),
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Text(bytes) => bytes.is_none(),
            Self::Stream(body, _) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Text(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Stream(body, _) => body.size_hint(),
        }
    }
}
