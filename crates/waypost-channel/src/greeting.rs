//! Notices the server's first frame.
//!
//! A TCP connection says little: the kernel of a stopped process accepts them, and so does a load balancer without a backend.
//! HTTP/2 has the server speak first, with SETTINGS; only after that is a connection ready (so says gRPC too). The HTTP
//! library does not tell when it came, so the bytes are looked at on their way.

use pin_project_lite::pin_project;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

pin_project! {
    /// Passes everything through; tells once when the server's first frame has begun to arrive.
    pub(crate) struct Greeted<T> {
        #[pin]
        inner: T,
        seen: usize,
        heard: Option<oneshot::Sender<Greeting>>,
    }
}

/// What a server's first bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Greeting {
    /// A SETTINGS frame: it speaks HTTP/2.
    Settings,
    /// Something else.
    Foreign,
}

/// Where an HTTP/2 frame has its type: after three bytes of length.
const FRAME_TYPE_AT: usize = 3;
const SETTINGS: u8 = 4;

// === impl Greeted ===

impl<T> Greeted<T> {
    pub(crate) fn new(inner: T) -> (Self, oneshot::Receiver<Greeting>) {
        let (sender, receiver) = oneshot::channel();
        (Self { inner, seen: 0, heard: Some(sender) }, receiver)
    }
}

impl<T: AsyncRead> AsyncRead for Greeted<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.project();
        let before = buffer.filled().len();
        let polled = this.inner.poll_read(cx, buffer);
        if this.heard.is_some() {
            let fresh = &buffer.filled()[before..];
            if let Some(kind) = fresh.get(FRAME_TYPE_AT - *this.seen) {
                let greeting = if *kind == SETTINGS { Greeting::Settings } else { Greeting::Foreign };
                if let Some(heard) = this.heard.take() {
                    // Nobody listens any more: the attempt was given up.
                    let _ = heard.send(greeting);
                }
            }
            *this.seen = (*this.seen + fresh.len()).min(FRAME_TYPE_AT);
        }
        polled
    }
}

impl<T: AsyncWrite> AsyncWrite for Greeted<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.project().inner.poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().inner.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().inner.poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.project().inner.poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn greeting(chunks: &[&[u8]]) -> Option<Greeting> {
        let (mut server, client) = tokio::io::duplex(1024);
        let (mut client, mut heard) = Greeted::new(client);
        for chunk in chunks {
            server.write_all(chunk).await.unwrap();
            let mut read = vec![0; chunk.len()];
            client.read_exact(&mut read).await.unwrap();
            assert_eq!(read, *chunk);
        }
        heard.try_recv().ok()
    }

    #[tokio::test]
    async fn a_settings_frame_is_known_however_it_is_cut() {
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        assert_eq!(greeting(&[&settings]).await, Some(Greeting::Settings));
        assert_eq!(
            greeting(&[&settings[..1], &settings[1..3], &settings[3..]]).await,
            Some(Greeting::Settings)
        );
        assert_eq!(greeting(&[&settings[..3]]).await, None);
        assert_eq!(greeting(&[b"HTTP/1.1 400 Bad Request\r\n"]).await, Some(Greeting::Foreign));
        assert_eq!(greeting(&[]).await, None);
    }
}
