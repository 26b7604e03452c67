//! Bodies on their way: of requests, so that one that was not touched can be sent elsewhere; of answers, so that each
//! part is let out only while this region may answer.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
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
    Stream(Arc<Mutex<Option<Incoming>>>, SizeHint),
}

impl Source {
    pub(super) fn stream(body: Incoming) -> Self {
        let hint = body.size_hint();
        Self::Stream(Arc::new(Mutex::new(Some(body))), hint)
    }

    /// Whether the whole body could still be sent.
    pub(super) fn untouched(&self) -> bool {
        match self {
            Self::Whole(_) => true,
            Self::Stream(slot, _) => slot.lock().unwrap_or_else(PoisonError::into_inner).is_some(),
        }
    }

    /// The body for one try.
    pub(super) fn open(&self) -> Outgoing {
        match self {
            Self::Whole(bytes) => Outgoing::Whole(Some(bytes.clone()).filter(|b| !b.is_empty())),
            Self::Stream(slot, hint) => Outgoing::Waiting(slot.clone(), *hint),
        }
    }
}

/// A request's body in one try.
pub(super) enum Outgoing {
    Whole(Option<Bytes>),
    /// Taken from the client only when the connection asks for it, so that a failed connect leaves it in place.
    Waiting(Arc<Mutex<Option<Incoming>>>, SizeHint),
    Reading(Incoming),
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        loop {
            match &mut *self {
                Self::Whole(bytes) => return Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
                Self::Reading(body) => return Pin::new(body).poll_frame(cx),
                Self::Waiting(slot, _) => {
                    let taken = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
                    *self = taken.map_or(Self::Whole(None), Self::Reading);
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Waiting(..) => false,
            Self::Reading(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Waiting(_, hint) => *hint,
            Self::Reading(body) => body.size_hint(),
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
