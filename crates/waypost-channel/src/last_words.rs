//! Hears a server out after it has hung up.
//!
//! A server that shuts down says in its last GOAWAY which calls it has not taken, and closes. A write that meets the closed
//! socket fails, and the HTTP library gives the connection up without reading what had arrived before: calls that could go
//! elsewhere would be lost. So a write that fails is not told; what is there is read first, and then its end, or the error.
//!
//! After the end nothing is written any more: the library would flush what it has, to a server that may not read, before it tells that the
//! connection has ended.

use pin_project_lite::pin_project;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

pin_project! {
    /// Passes everything through; after a write has failed, or the server has ended, discards what is written and only reads.
    pub(crate) struct LastWords<T> {
        #[pin]
        inner: T,
        broken: Option<Broken>,
    }
}

/// Why nothing is written any more, and how long the reading may still take.
struct Broken {
    error: io::ErrorKind,
    patience: Pin<Box<Sleep>>,
}

/// A closed socket tells its end at once; what cannot be read by then is not waited for.
const PATIENCE: Duration = Duration::from_secs(1);

// === impl LastWords ===

impl<T> LastWords<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self { inner, broken: None }
    }
}

/// What to answer for a write: `discarded` if it has failed now or before.
fn told<A>(
    broken: &mut Option<Broken>,
    cx: &mut Context<'_>,
    discarded: A,
    write: impl FnOnce(&mut Context<'_>) -> Poll<io::Result<A>>,
) -> Poll<io::Result<A>> {
    if broken.is_some() {
        return Poll::Ready(Ok(discarded));
    }
    match write(cx) {
        Poll::Ready(Err(error)) => {
            *broken = Some(Broken::with(error.kind()));
            // So that the next read starts to wait.
            cx.waker().wake_by_ref();
            Poll::Ready(Ok(discarded))
        }
        answer => answer,
    }
}

impl Broken {
    fn with(error: io::ErrorKind) -> Self {
        Self { error, patience: Box::pin(sleep(PATIENCE)) }
    }
}

impl<T: AsyncRead> AsyncRead for LastWords<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.project();
        let (before, room) = (buffer.filled().len(), buffer.remaining());
        match (this.inner.poll_read(cx, buffer), this.broken) {
            (Poll::Pending, Some(Broken { error, patience })) => {
                patience.as_mut().poll(cx).map(|()| Err((*error).into()))
            }
            (Poll::Ready(Ok(())), broken @ None) if room > 0 && buffer.filled().len() == before => {
                *broken = Some(Broken::with(io::ErrorKind::UnexpectedEof));
                Poll::Ready(Ok(()))
            }
            (answer, _) => answer,
        }
    }
}

impl<T: AsyncWrite> AsyncWrite for LastWords<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.project();
        told(this.broken, cx, bytes.len(), |cx| this.inner.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.project();
        told(this.broken, cx, (), |cx| this.inner.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.project();
        told(this.broken, cx, (), |cx| this.inner.poll_shutdown(cx))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.project();
        let length = slices.iter().map(|slice| slice.len()).sum();
        told(this.broken, cx, length, |cx| this.inner.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A transport that can be read, and every write to which fails.
    #[derive(Debug, Default)]
    struct Script {
        readable: Vec<u8>,
        ends: bool,
    }

    impl AsyncRead for Script {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let some = self.readable.len().min(buffer.remaining());
            if some == 0 && !self.ends {
                return Poll::Pending;
            }
            buffer.put_slice(&self.readable.drain(..some).collect::<Vec<_>>());
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Script {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn what_had_arrived_is_read_after_a_write_has_failed() {
        let mut io = LastWords::new(Script { readable: b"GOAWAY".to_vec(), ends: true });
        io.write_all(b"a call").await.unwrap();
        io.write_all(b"another").await.unwrap();
        io.flush().await.unwrap();
        let mut heard = Vec::new();
        io.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"GOAWAY");
    }

    /// It may have ended and not read: nobody waits for that.
    #[tokio::test]
    async fn nothing_is_written_after_the_end() {
        let (client, server) = tokio::io::duplex(1);
        let (_unread, half) = tokio::io::split(server);
        let mut io = LastWords::new(client);
        io.write_all(b"a").await.unwrap();
        { half }.shutdown().await.unwrap();
        assert_eq!(io.read_to_end(&mut Vec::new()).await.unwrap(), 0);
        io.write_all(b"more than there is room for").await.unwrap();
        io.shutdown().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_says_nothing_more_is_not_waited_for() {
        let mut io = LastWords::new(Script::default());
        io.write_all(b"a call").await.unwrap();
        let error = io.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
