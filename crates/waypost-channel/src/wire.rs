//! What the library reads and writes of a connection, and what is learnt from that on its way: the library tells neither what it has written
//! nor much of what it has read.
//!
//! Each says at its head why it is here: [`posted`](crate::posted) follows what goes out, [`greeting`](crate::greeting) what comes in, and
//! [`last_words`](crate::last_words) has a server heard to its end.

use crate::greeting::{Greeting, Listening};
use crate::last_words::LastWords;
use crate::posted::Posted;
use crate::table::Pace;
use crate::traffic::Traffic;
use pin_project_lite::pin_project;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

pin_project! {
    /// Passes everything through.
    pub(crate) struct Wire<T> {
        #[pin]
        transport: T,
        posted: Posted,
        last_words: LastWords,
        listening: Listening,
    }
}

// === impl Wire ===

impl<T> Wire<T> {
    /// With what tells of the server's greeting. A server that complains of pings slows down the `pace`.
    pub(crate) fn new(
        transport: T,
        traffic: Arc<Traffic>,
        pace: Arc<Pace>,
    ) -> (Self, oneshot::Receiver<Greeting>) {
        let posted = Posted::new(Arc::clone(&traffic));
        let (listening, greeting) = Listening::new(traffic, pace);
        (Self { transport, posted, last_words: LastWords::default(), listening }, greeting)
    }
}

impl<T: AsyncRead> AsyncRead for Wire<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.project();
        let (before, room) = (buffer.filled().len(), buffer.remaining());
        let polled = match this.transport.poll_read(cx, buffer) {
            Poll::Pending => this.last_words.poll_patience(cx),
            polled @ Poll::Ready(_) => polled,
        };
        let read = &buffer.filled()[before..];
        match &polled {
            Poll::Ready(Ok(())) if read.is_empty() && room > 0 => {
                this.last_words.end();
                this.listening.end();
            }
            Poll::Ready(Err(_)) => this.listening.end(),
            _ => {}
        }
        if !read.is_empty() {
            this.listening.hear(read);
        }
        polled
    }
}

impl<T: AsyncWrite> AsyncWrite for Wire<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.project();
        this.last_words.write(cx, bytes.len(), |cx| {
            let taken = ready!(this.transport.poll_write(cx, bytes))?;
            this.posted.take(bytes, taken);
            Poll::Ready(Ok(taken))
        })
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.project();
        this.last_words.write(cx, (), |cx| this.transport.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.project();
        this.last_words.write(cx, (), |cx| this.transport.poll_shutdown(cx))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.project();
        let length = slices.iter().map(|slice| slice.len()).sum();
        this.last_words.write(cx, length, |cx| {
            let taken = ready!(this.transport.poll_write_vectored(cx, slices))?;
            let mut left = taken;
            for slice in slices {
                left -= this.posted.take(slice, left);
            }
            Poll::Ready(Ok(taken))
        })
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }
}
