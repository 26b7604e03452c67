//! A client's connection: watches the framing of what comes in, and looks before each write whether what goes out may
//! still go out.
//!
//! A process can be frozen between the check of an answer and the system call that sends it, and a slow client keeps an
//! answer in the buffer for as long as it likes. So the passes of all answers that may be in the buffer are checked
//! again at each write; when one is no longer good the connection is cut and the client knows that it does not know.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{framing::Framing, pass::Pass};

/// The passes of the answers that may not have left the buffer yet.
#[derive(Default)]
pub(super) struct Passes {
    /// Keeps connections that never carry an answer of a writer away from the lock.
    any: AtomicBool,
    list: Mutex<Vec<Arc<Pass>>>,
}

impl Passes {
    pub(super) fn add(&self, pass: Arc<Pass>) {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).push(pass);
        self.any.store(true, Ordering::Release);
    }

    fn all_good(&self) -> bool {
        !self.any.load(Ordering::Acquire)
            || self
                .list
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .iter()
                .all(|pass| pass.good())
    }

    /// The buffer is empty: only answers whose body is still to come can leave more.
    fn flushed(&self) {
        if self.any.load(Ordering::Acquire) {
            let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
            list.retain(|pass| Arc::strong_count(pass) > 1);
            self.any.store(!list.is_empty(), Ordering::Release);
        }
    }
}

/// The stream under the HTTP parser.
pub(super) struct Connection {
    stream: TcpStream,
    framing: Option<Framing>,
    passes: Arc<Passes>,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, http1: bool) -> (Self, Arc<Passes>) {
        let passes = Arc::new(Passes::default());
        let framing = http1.then(Framing::new);
        let connection = Self {
            stream,
            framing,
            passes: passes.clone(),
        };
        (connection, passes)
    }

    fn check(&self) -> io::Result<()> {
        match self.passes.all_good() {
            true => Ok(()),
            false => Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "this region may not answer any more",
            )),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Some(framing) = &mut self.framing {
            framing.watch(&mut buf.filled_mut()[before..]);
        }
        result
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if matches!(flushed, Poll::Ready(Ok(()))) {
            self.passes.flushed();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use leeward_core::name::{AppKey, Epoch};
    use tokio::{io::AsyncWriteExt, net::TcpListener};

    use super::*;
    use crate::{Admission, Shared, Verdict};

    struct Lease(AtomicBool);

    impl Admission for Lease {
        fn admit(&self, _: &AppKey) -> Verdict {
            match self.0.load(Ordering::SeqCst) {
                true => Verdict::Granted { epoch: Epoch(7) },
                false => Verdict::Refused { reason: "over".into() },
            }
        }
    }

    #[tokio::test]
    async fn nothing_is_written_after_the_grant_of_an_answer_in_the_buffer_has_ended() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut connection, passes) = Connection::new(stream, true);
        let lease = Arc::new(Lease(AtomicBool::new(true)));
        let shared = Arc::new(Shared::open("west".into(), None, lease.clone()));
        let pass = Arc::new(Pass::new(shared, AppKey::new("shop", "web"), Epoch(7), true));

        passes.add(pass.clone());
        connection.write_all(b"part").await.unwrap();
        connection.flush().await.unwrap();
        // The body is still to come, so the pass stays although the buffer is empty.
        lease.0.store(false, Ordering::SeqCst);
        assert_eq!(
            connection.write(b"part").await.unwrap_err().kind(),
            io::ErrorKind::ConnectionAborted
        );

        // The answer is whole and gone: the next one on the connection is not its concern.
        lease.0.store(true, Ordering::SeqCst);
        drop(pass);
        connection.write_all(b"end").await.unwrap();
        connection.flush().await.unwrap();
        lease.0.store(false, Ordering::SeqCst);
        connection.write_all(b"another").await.unwrap();
    }
}
