//! Notices that a server has begun to serve.
//!
//! A TCP connection says little: the kernel of a stopped process accepts them, and so does a load balancer without a backend.
//! HTTP/2 has the server speak first, with SETTINGS, and acknowledge ours. The first alone is what gRPC asks for; the second
//! says that the server has read our greeting too. Until then a server that shuts down may close the connection without GOAWAY,
//! so that a call sent on it would be lost. The HTTP library tells neither, so the bytes are looked at on their way.
//!
//! Nor does it tell of a GOAWAY while a stream goes on, though no new call is taken from then on, nor of a change in how many requests
//! the server takes at a time, nor of the end of a response before that is read: these are looked for as well.

use crate::traffic::Traffic;
use pin_project_lite::pin_project;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

pin_project! {
    /// Passes everything through; tells once when the server has begun to serve, or turned out to be something else. Notes when something
    /// was heard, a GOAWAY, how many requests the server takes at a time, and the end of each response.
    pub(crate) struct Greeted<T> {
        #[pin]
        inner: T,
        frames: Frames,
        heard: Option<oneshot::Sender<Greeting>>,
        traffic: Arc<Traffic>,
    }
}

/// What a server's first frames are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Greeting {
    /// SETTINGS, and the acknowledgement of ours.
    Http2,
    /// It does not begin with SETTINGS.
    Foreign,
}

/// What frames say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Greeting(Greeting),
    GoAway,
    /// So many requests at a time.
    Limit(usize),
    /// The response on this stream is complete, or will not be.
    Ended(u32),
}

/// Follows the frames.
#[derive(Debug, Default)]
struct Frames {
    /// Three bytes of length, the type, the flags, four bytes of stream.
    header: [u8; HEADER],
    /// How much of the header is there.
    known: usize,
    /// How much of the payload is still to come.
    payload: usize,
    /// What follows are settings.
    settings: bool,
    /// Two bytes of name, four of value; their number is in `known`.
    setting: [u8; SETTING],
    greeted: bool,
    /// What follows are no frames.
    foreign: bool,
}

const HEADER: usize = 9;
const SETTING: usize = 6;
const MAX_CONCURRENT_STREAMS: u16 = 3;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;

// === impl Frames ===

impl Frames {
    fn read(&mut self, mut bytes: &[u8], mut tell: impl FnMut(Word)) {
        if self.foreign {
            return;
        }
        while let Some((first, rest)) = bytes.split_first() {
            if self.payload > 0 && self.settings {
                self.payload -= 1;
                bytes = rest;
                self.setting[self.known] = *first;
                self.known += 1;
                if self.known == SETTING || self.payload == 0 {
                    let whole = std::mem::take(&mut self.known) == SETTING;
                    let [a, b, value @ ..] = self.setting;
                    if whole && u16::from_be_bytes([a, b]) == MAX_CONCURRENT_STREAMS {
                        // As many as there can be, where that is less.
                        let limit = usize::try_from(u32::from_be_bytes(value));
                        tell(Word::Limit(limit.unwrap_or(usize::MAX)));
                    }
                }
                continue;
            }
            if self.payload > 0 {
                let skipped = self.payload.min(bytes.len());
                self.payload -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            bytes = rest;
            self.header[self.known] = *first;
            self.known += 1;
            if self.known == HEADER {
                self.known = 0;
                let [high, mid, low, kind, flags, stream @ ..] = self.header;
                self.payload = usize::from(high) << 16 | usize::from(mid) << 8 | usize::from(low);
                let settings = kind == SETTINGS;
                self.settings = settings;
                if settings && flags & ACK != 0 {
                    tell(Word::Greeting(Greeting::Http2));
                }
                if !settings && !self.greeted {
                    self.foreign = true;
                    return tell(Word::Greeting(Greeting::Foreign));
                }
                self.greeted = true;
                if kind == RST_STREAM || (matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0) {
                    // The first bit is reserved.
                    tell(Word::Ended(u32::from_be_bytes(stream) & (u32::MAX >> 1)));
                }
                if kind == GOAWAY {
                    tell(Word::GoAway);
                }
            }
        }
    }
}

// === impl Greeted ===

impl<T> Greeted<T> {
    /// With what tells of the greeting.
    pub(crate) fn new(inner: T, traffic: Arc<Traffic>) -> (Self, oneshot::Receiver<Greeting>) {
        let (heard, greeting) = oneshot::channel();
        (Self { inner, frames: Frames::default(), heard: Some(heard), traffic }, greeting)
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
        let read = &buffer.filled()[before..];
        if !read.is_empty() {
            this.traffic.hear();
            this.frames.read(read, |word| match word {
                // Nobody listens any more: the attempt was given up.
                Word::Greeting(greeting) => drop(this.heard.take().map(|heard| heard.send(greeting))),
                Word::GoAway => this.traffic.leave(),
                Word::Limit(limit) => this.traffic.set_limit(limit),
                Word::Ended(stream) => this.traffic.ended(stream),
            });
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
        let (mut client, mut heard) = Greeted::new(client, Arc::new(Traffic::new()));
        for chunk in chunks {
            server.write_all(chunk).await.unwrap();
            let mut read = vec![0; chunk.len()];
            client.read_exact(&mut read).await.unwrap();
            assert_eq!(read, *chunk);
        }
        heard.try_recv().ok()
    }

    #[tokio::test]
    async fn a_goaway_is_heard_after_whatever_came_before() {
        let (mut server, client) = tokio::io::duplex(1024);
        let traffic = Arc::new(Traffic::new());
        let (mut client, _heard) = Greeted::new(client, Arc::clone(&traffic));
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0];
        let data = [0, 0, 3, 0, 0, 0, 0, 0, 1, 7, 7, 7];
        let goaway = [0, 0, 8, 7, 0, 0, 0, 0, 0, 127, 255, 255, 255, 0, 0, 0, 0];
        for (bytes, heard) in
            [(&settings[..], false), (&data, false), (&goaway[..4], false), (&goaway[4..], true)]
        {
            server.write_all(bytes).await.unwrap();
            let mut read = vec![0; bytes.len()];
            client.read_exact(&mut read).await.unwrap();
            assert_eq!(traffic.left.is_cancelled(), heard, "{bytes:?}");
        }
    }

    #[test]
    fn how_many_requests_a_server_takes_is_read_however_its_frames_are_cut() {
        let entry = |name: u8, value: u32| [&[0, name][..], &value.to_be_bytes()].concat();
        let settings = |entries: &[Vec<u8>]| {
            let payload = entries.concat();
            [&[0, 0, u8::try_from(payload.len()).unwrap(), 4, 0, 0, 0, 0, 0][..], &payload].concat()
        };
        let all = [
            settings(&[entry(4, 3), entry(3, 100), entry(5, 16_384)]),
            [0, 0, 0, 4, 1, 0, 0, 0, 0].to_vec(),
            // None but in SETTINGS, and only whole ones.
            [&[0, 0, 6, 0, 0, 0, 0, 0, 1][..], &entry(3, 1)].concat(),
            [&[0, 0, 4, 4, 0, 0, 0, 0, 0][..], &entry(3, 2)[..4]].concat(),
            settings(&[entry(3, 0), entry(3, u32::MAX)]),
        ]
        .concat();
        for portion in 1..all.len() {
            let (mut frames, mut limits) = (Frames::default(), Vec::new());
            for bytes in all.chunks(portion) {
                frames.read(bytes, |word| {
                    if let Word::Limit(limit) = word {
                        limits.push(limit);
                    }
                });
            }
            assert_eq!(limits, [100, 0, 4_294_967_295]);
        }
    }

    #[tokio::test]
    async fn a_server_serves_when_it_has_acknowledged_our_settings_however_its_frames_are_cut() {
        let settings = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 100];
        let window = [0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 255, 255];
        let ack = [0, 0, 0, 4, 1, 0, 0, 0, 0];
        let all = [&settings[..], &window, &ack].concat();
        assert_eq!(greeting(&[&all]).await, Some(Greeting::Http2));
        let bytes: Vec<_> = all.chunks(1).collect();
        assert_eq!(greeting(&bytes).await, Some(Greeting::Http2));
        assert_eq!(greeting(&bytes[..bytes.len() - 5]).await, None);
        assert_eq!(greeting(&[&settings, &window]).await, None);
        assert_eq!(greeting(&[&window, &ack]).await, Some(Greeting::Foreign));
        assert_eq!(greeting(&[b"HTTP/1.1 400 Bad Request\r\n"]).await, Some(Greeting::Foreign));
        assert_eq!(greeting(&[]).await, None);
    }
}
