//! A connection's bytes on their way between the socket and HTTP: looked at, counted, and paced.
//!
//! *Reading*: of a client that asks much at once a portion is taken, then those requests are answered, then the next portion is
//! taken. So client and server work at the same time instead of by turns. The first request is looked at: see
//! [`authority`](super::authority).
//!
//! *Writing*: what is to be flushed is when everyone has run who could, with all that they answered. HTTP/2 by itself flushes
//! after every answer that is longer than a few hundred bytes, and a system call costs as much as an answer.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::authority::Opening;
use super::lanes::Seat;
use super::metrics::Tallies;

/// A connection.
pub(super) struct Wire<S> {
    inner: S,
    opening: Opening,
    pace: Pace,
    /// What is to be written.
    outbox: BytesMut,
    /// The turn in which it was to be flushed, which it is in the next.
    late: Option<usize>,
    tallies: Arc<Tallies>,
    seat: Arc<Seat>,
}

/// What the task of a connection tells about its work.
#[derive(Clone, Debug, Default)]
pub(super) struct Work(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// Requests that have begun.
    begun: AtomicUsize,
    /// Turns that the task had.
    turns: AtomicUsize,
}

/// How much is read before what was read is answered. Knows no socket.
#[derive(Debug)]
struct Pace {
    work: Work,
    /// Requests that had begun at the last pause.
    before: usize,
    /// Bytes that were read since then.
    bytes: usize,
    /// Bytes of a portion.
    portion: usize,
    /// The turn in which what was read is being answered.
    pausing: Option<usize>,
}

/// Requests in a portion.
const PORTION: usize = 16;
/// Bytes of a portion at least.
const LEAST: usize = 512;
/// Bytes that wait to be written at most.
const OUTBOX: usize = 64 << 10;
/// From so many bytes on they are written at once.
const LARGE: usize = 32 << 10;
/// Bytes that are read at once where not as many as there are.
const CHUNK: usize = 4096;

// === impl Work ===

impl Work {
    /// One more request has begun.
    pub(super) fn begin(&self) {
        self.0.begun.fetch_add(1, Ordering::Relaxed);
    }

    /// It is the task's turn again: everyone has run who could.
    pub(super) fn turn(&self) {
        self.0.turns.fetch_add(1, Ordering::Relaxed);
    }

    fn begun(&self) -> usize {
        self.0.begun.load(Ordering::Relaxed)
    }

    fn turns(&self) -> usize {
        self.0.turns.load(Ordering::Relaxed)
    }
}

// === impl Pace ===

impl Default for Pace {
    /// At first as much is read as there is.
    fn default() -> Self {
        Self { work: Work::default(), before: 0, bytes: 0, portion: usize::MAX, pausing: None }
    }
}

impl Pace {
    /// Bytes that may be read now; 0: none before what was read is answered.
    fn next(&mut self) -> usize {
        let turn = self.work.turns();
        if self.pausing.is_some_and(|pause| pause != turn) {
            self.go_on();
        }
        let left = self.portion.saturating_sub(self.bytes);
        if left == 0 {
            self.pausing = Some(turn);
        }
        left
    }

    /// Notes that so much has been read.
    fn read(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// There was nothing more to read.
    fn drained(&mut self) {
        self.pausing = Some(self.work.turns());
    }

    /// Learns from the requests that were in what was read what a portion of them has. With none, it was something else than
    /// many requests, of which to read little at a time would only be slow.
    fn go_on(&mut self) {
        self.pausing = None;
        if self.bytes == 0 {
            return;
        }
        let begun = self.work.begun();
        self.portion = match self.bytes.checked_div(begun.wrapping_sub(self.before)) {
            Some(request) => request.saturating_mul(PORTION).max(LEAST),
            None => self.portion.saturating_mul(2),
        };
        self.before = begun;
        self.bytes = 0;
    }
}

// === impl Wire ===

impl<S> Wire<S> {
    /// A connection, and what its task is to tell.
    pub(super) fn new(inner: S, tallies: Arc<Tallies>, seat: Arc<Seat>) -> (Self, Work) {
        let (opening, pace) = (Opening::default(), Pace::default());
        let work = pace.work.clone();
        (Self { inner, opening, pace, outbox: BytesMut::new(), late: None, tallies, seat }, work)
    }

    fn received(&mut self, bytes: usize) {
        self.seat.vigil.work();
        self.pace.read(bytes);
        self.tallies.received.inc_by(bytes as u64);
    }
}

impl<S: AsyncWrite + Unpin> Wire<S> {
    /// Writes what waits.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outbox.is_empty() {
            let written = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.outbox))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.tallies.sent.inc_by(written as u64);
            self.outbox.advance(written);
        }
        self.late = None;
        if self.outbox.try_reclaim(LARGE + 1) {
            self.outbox = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.late.is_some_and(|late| late != this.pace.work.turns())
            && let Poll::Ready(outcome) = this.poll_send(cx)
        {
            outcome?;
        }
        loop {
            if this.opening.pass(out) {
                return Poll::Ready(Ok(()));
            }
            // What a connection of HTTP/1 becomes may have no turns.
            let limit = if this.opening.is_http2() { this.pace.next() } else { usize::MAX };
            if limit == 0 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let looks = !this.opening.is_over();
            if !looks && limit >= out.remaining() {
                let before = out.filled().len();
                let Poll::Ready(outcome) = Pin::new(&mut this.inner).poll_read(cx, out) else { break };
                outcome?;
                let bytes = out.filled().len() - before;
                this.received(bytes);
                return Poll::Ready(Ok(()));
            }
            let mut chunk = [0; CHUNK];
            let length = if looks { CHUNK } else { limit.min(out.remaining()).min(CHUNK) };
            let mut chunk = ReadBuf::new(&mut chunk[..length]);
            let Poll::Ready(outcome) = Pin::new(&mut this.inner).poll_read(cx, &mut chunk) else { break };
            outcome?;
            let chunk = chunk.filled();
            this.received(chunk.len());
            if !looks {
                out.put_slice(chunk);
                return Poll::Ready(Ok(()));
            }
            this.opening.read(chunk);
            if this.opening.is_over() {
                // It ended.
                return Poll::Ready(Ok(()));
            }
        }
        this.pace.drained();
        Poll::Pending
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.outbox.is_empty() {
            return Pin::new(&mut self.inner).poll_flush(cx);
        }
        if self.late.is_none() {
            // Whoever serves HTTP/2 reads first when it is its turn again, which is when this is written.
            self.late = Some(self.pace.work.turns());
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = slices.iter().map(|slice| slice.len()).sum::<usize>();
        // Of HTTP/1, and what becomes of it, not all is flushed.
        let directly = length >= LARGE || !self.opening.is_http2();
        if directly || self.outbox.len() + length > OUTBOX {
            ready!(self.poll_send(cx))?;
        }
        if directly {
            let written = ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, slices))?;
            self.tallies.sent.inc_by(written as u64);
            return Poll::Ready(Ok(written));
        }
        for slice in slices {
            self.outbox.extend_from_slice(slice);
        }
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::server::lanes::Lanes;

    /// The next turn, after so many requests have begun.
    fn turn(pace: &Pace, requests: usize) {
        for _ in 0..requests {
            pace.work.begin();
        }
        pace.work.turn();
    }

    /// What the other side has got by now.
    async fn got(peer: &mut tokio::io::DuplexStream) -> Vec<u8> {
        let mut bytes = vec![0; 1 << 20];
        let read = tokio::time::timeout(Duration::ZERO, peer.read(&mut bytes)).await;
        bytes.truncate(read.map_or(0, Result::unwrap));
        bytes
    }

    #[tokio::test]
    async fn answers_of_one_turn_are_written_together_in_the_next() {
        let lanes = Lanes::start().unwrap();
        let (inner, mut peer) = tokio::io::duplex(1 << 20);
        let (mut wire, work) = Wire::new(inner, Arc::default(), Arc::new(lanes.seat()));
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        peer.write_all(preface).await.unwrap();
        work.turn();
        wire.read_exact(&mut [0; 24]).await.unwrap();
        for _ in 0..3 {
            wire.write_all(&[7; 500]).await.unwrap();
            wire.flush().await.unwrap();
        }
        assert!(got(&mut peer).await.is_empty());
        // A turn begins with a look for more.
        work.turn();
        assert!(tokio::time::timeout(Duration::ZERO, wire.read_u8()).await.is_err());
        assert_eq!(got(&mut peer).await, [7; 1500]);
        // What is not flushed for long is written when there is too much of it.
        for _ in 0..200 {
            wire.write_all(&[8; 500]).await.unwrap();
        }
        assert!(got(&mut peer).await.len() >= 100_000 - OUTBOX);
        wire.shutdown().await.unwrap();
        assert!(!wire.outbox.try_reclaim(LARGE + 1), "an idle connection keeps little");
        let mut rest = Vec::new();
        peer.read_to_end(&mut rest).await.unwrap();
        assert!(rest.iter().all(|byte| *byte == 8));
    }

    #[tokio::test]
    async fn http_1_is_written_at_once_and_read_without_turns() {
        let lanes = Lanes::start().unwrap();
        let (inner, mut peer) = tokio::io::duplex(1 << 20);
        let (mut wire, work) = Wire::new(inner, Arc::default(), Arc::new(lanes.seat()));
        peer.write_all(&vec![b'G'; 100_000]).await.unwrap();
        work.begin();
        wire.read_exact(&mut vec![0; 100_000]).await.unwrap();
        wire.write_all(b"HTTP/1.1 200 OK").await.unwrap();
        assert_eq!(got(&mut peer).await, b"HTTP/1.1 200 OK");
    }

    #[test]
    fn many_requests_are_read_in_portions() {
        let mut pace = Pace::default();
        assert_eq!(pace.next(), usize::MAX);
        pace.read(64 * 100);
        pace.drained();
        turn(&pace, 64);
        assert_eq!(pace.next(), 1600);
        pace.read(1000);
        assert_eq!(pace.next(), 600);
        pace.read(600);
        assert_eq!(pace.next(), 0, "those are answered first");
        assert_eq!(pace.next(), 0);
        turn(&pace, 16);
        assert_eq!(pace.next(), 1600);
    }

    #[test]
    fn one_large_request_after_many_small_ones_is_soon_read_at_full_speed() {
        let mut pace = Pace::default();
        pace.read(64 * 100);
        pace.drained();
        turn(&pace, 64);
        let (mut left, mut reads) = (1_usize << 20, 0);
        while left > 0 {
            let limit = pace.next().min(8192).min(left);
            if limit == 0 {
                turn(&pace, 0);
            }
            pace.read(limit);
            left -= limit;
            reads += 1;
        }
        assert!(reads < 160, "{reads} reads");
    }
}
