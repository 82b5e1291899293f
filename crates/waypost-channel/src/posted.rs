//! Knows which requests have left: what the transport has taken, a server may work on, and what it has not taken no server ever will.
//!
//! The library keeps requests in queues of its own, and tells of none whether it is still there. So the frames are followed on their way
//! out, below whatever discards what cannot be written.

use crate::frames::{Frames, HEADERS, Piece};
use crate::traffic::Traffic;
use pin_project_lite::pin_project;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pin_project! {
    /// Passes everything through; notes the requests whose headers the transport has taken to the end.
    pub(crate) struct Posted<T> {
        #[pin]
        inner: T,
        out: Out,
    }
}

/// What has gone out.
struct Out {
    /// Of what a client says before its first frame, how much is still to come.
    preface: usize,
    frames: Frames,
    /// Whose headers go on in the next frame.
    opening: u32,
    traffic: Arc<Traffic>,
}

/// RFC 9113, 3.4.
const PREFACE: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();

// === impl Posted ===

impl<T> Posted<T> {
    pub(crate) fn new(inner: T, traffic: Arc<Traffic>) -> Self {
        let out = Out { preface: PREFACE, frames: Frames::default(), opening: 0, traffic };
        Self { inner, out }
    }
}

impl<T: AsyncRead> AsyncRead for Posted<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.project().inner.poll_read(cx, buffer)
    }
}

impl<T: AsyncWrite> AsyncWrite for Posted<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.project();
        let taken = ready!(this.inner.poll_write(cx, bytes))?;
        this.out.take(bytes, taken);
        Poll::Ready(Ok(taken))
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
        let this = self.project();
        let taken = ready!(this.inner.poll_write_vectored(cx, slices))?;
        let mut left = taken;
        for slice in slices {
            left -= this.out.take(slice, left);
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

// === impl Out ===

impl Out {
    /// As many of these bytes as there are, and `most` at most. Says how many that are.
    fn take(&mut self, bytes: &[u8], most: usize) -> usize {
        let taken = &bytes[..bytes.len().min(most)];
        let preface = taken.len().min(self.preface);
        self.preface -= preface;
        let Self { frames, opening, traffic, .. } = self;
        frames.read(&taken[preface..], |piece| {
            if let Piece::Ends(head) = piece {
                if head.kind == HEADERS {
                    *opening = head.stream;
                }
                // A server knows nothing of a request before the last byte of its headers.
                if head.completes_headers() {
                    traffic.post(*opening);
                }
            }
        });
        taken.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
    }

    #[tokio::test]
    async fn a_request_has_left_with_the_last_byte_of_its_headers() {
        let sent = [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            frame(4, 0, 0, &[]),
            frame(1, 4, 1, &[1, 2, 3]),
            frame(0, 1, 1, b"data"),
            frame(1, 0, 3, &[1, 2, 3]),
            frame(9, 4, 3, &[4, 5]),
        ];
        let posted = [0, 0, 1, 1, 1, 3];
        let traffic = Arc::new(Traffic::new());
        let (client, mut server) = tokio::io::duplex(1024);
        let mut client = Posted::new(client, Arc::clone(&traffic));
        let mut before = 0;
        for (bytes, after) in sent.iter().zip(posted) {
            let (last, others) = bytes.split_last().unwrap();
            for byte in others {
                client.write_all(&[*byte]).await.unwrap();
                assert_eq!((traffic.has_posted(before), traffic.has_posted(before + 1)), (true, false));
            }
            let slices = [io::IoSlice::new(&[]), io::IoSlice::new(std::slice::from_ref(last))];
            assert_eq!(client.write_vectored(&slices).await.unwrap(), 1);
            assert_eq!((traffic.has_posted(after), traffic.has_posted(after + 1)), (true, false));
            before = after;
        }
        let mut all = vec![0; sent.concat().len()];
        server.read_exact(&mut all).await.unwrap();
        assert_eq!(all, sent.concat());
    }

    /// What is not taken has not left.
    #[tokio::test]
    async fn a_request_that_lies_in_front_of_a_full_socket_has_not_left() {
        let traffic = Arc::new(Traffic::new());
        let (client, _server) = tokio::io::duplex(PREFACE + 11);
        let mut client = Posted::new(client, Arc::clone(&traffic));
        client.write_all(&[0; PREFACE]).await.unwrap();
        let headers = frame(1, 4, 1, &[1, 2, 3]);
        assert_eq!(client.write(&headers).await.unwrap(), 11);
        assert!(!traffic.has_posted(1));
    }
}
