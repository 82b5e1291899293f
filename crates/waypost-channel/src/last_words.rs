//! Hears a server out after it has hung up.
//!
//! A server that shuts down says in its last GOAWAY which calls it has not taken, and closes. A write that meets the closed
//! socket fails, and the HTTP library gives the connection up without reading what had arrived before: calls that could go
//! elsewhere would be lost. So a write that fails is not told; what is there is read first, and then its end, or the error.
//!
//! After the end nothing is written any more: the library would flush what it has, to a server that may not read, before it tells that the
//! connection has ended.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Sleep, sleep};

/// After a write has failed, or the server has ended, nothing is written any more, and the rest is read.
#[derive(Default)]
pub(crate) struct LastWords {
    broken: Option<Broken>,
}

/// Why nothing is written any more, and how long the reading may still take.
struct Broken {
    error: io::ErrorKind,
    patience: Pin<Box<Sleep>>,
}

/// A closed socket tells its end at once; what cannot be read by then is not waited for.
const PATIENCE: Duration = Duration::from_secs(1);

// === impl LastWords ===

impl LastWords {
    /// Writes, and answers `discarded` if that fails or is over.
    pub(crate) fn write<A>(
        &mut self,
        cx: &mut Context<'_>,
        discarded: A,
        write: impl FnOnce(&mut Context<'_>) -> Poll<io::Result<A>>,
    ) -> Poll<io::Result<A>> {
        if self.broken.is_some() {
            return Poll::Ready(Ok(discarded));
        }
        match write(cx) {
            Poll::Ready(Err(error)) => {
                self.broken = Some(Broken::with(error.kind()));
                // So that the next read starts to wait.
                cx.waker().wake_by_ref();
                Poll::Ready(Ok(discarded))
            }
            answer => answer,
        }
    }

    /// The server will not read any more.
    pub(crate) fn end(&mut self) {
        self.broken.get_or_insert_with(|| Broken::with(io::ErrorKind::UnexpectedEof));
    }

    /// How a read ends that waits for what the server may still say.
    pub(crate) fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.broken {
            Some(Broken { error, patience }) => patience.as_mut().poll(cx).map(|()| Err((*error).into())),
            None => Poll::Pending,
        }
    }
}

// === impl Broken ===

impl Broken {
    fn with(error: io::ErrorKind) -> Self {
        Self { error, patience: Box::pin(sleep(PATIENCE)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::Traffic;
    use crate::wire::Wire;
    use std::sync::Arc;
    use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

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

    fn wire<T>(transport: T) -> Wire<T> {
        Wire::new(transport, Arc::new(Traffic::new()), Arc::default()).0
    }

    #[tokio::test]
    async fn what_had_arrived_is_read_after_a_write_has_failed() {
        let mut io = wire(Script { readable: b"GOAWAY".to_vec(), ends: true });
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
        let mut io = wire(client);
        io.write_all(b"a").await.unwrap();
        { half }.shutdown().await.unwrap();
        assert_eq!(io.read_to_end(&mut Vec::new()).await.unwrap(), 0);
        io.write_all(b"more than there is room for").await.unwrap();
        io.shutdown().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_says_nothing_more_is_not_waited_for() {
        let mut io = wire(Script::default());
        io.write_all(b"a call").await.unwrap();
        let error = io.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
