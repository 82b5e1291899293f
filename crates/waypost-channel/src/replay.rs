//! A request that is still being made while it is sent: what has come of it is kept until its call is committed, as in gRFC A6, so
//! that it can be sent anew.

use crate::length::Lengths;
use bytes::Bytes;
use h2::Reason;
use http_body::{Body as _, Frame};
use std::collections::VecDeque;
use std::mem;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use tonic::Status;
use tonic::body::Body;

/// The body of a request, as one attempt after the other reads it. Whoever reads it last is the only one who gets anything.
#[derive(Debug)]
pub(crate) struct Replay(Mutex<Made>);

#[derive(Debug)]
struct Made {
    /// While the call is not committed all that has come; then what the reader has not got yet.
    kept: VecDeque<Bytes>,
    /// How many of these the reader has got. 0 once the call is committed.
    next: usize,
    /// Bytes that are kept, which the store knows of. None once the call is committed.
    size: usize,
    /// The most of them.
    limit: usize,
    store: Arc<Store>,
    committed: bool,
    /// Somebody has read.
    begun: bool,
    reader: Reader,
    /// The reader will read no more.
    left: bool,
    /// Of the reader, while it waits.
    waker: Option<Waker>,
    lengths: Lengths,
    rest: Rest,
}

/// What may be kept of all requests of a channel together. Shared by them, lock-free.
#[derive(Debug)]
pub(crate) struct Store {
    used: AtomicUsize,
    most: usize,
}

/// What is still to come.
#[derive(Debug)]
enum Rest {
    More(Body),
    Nothing,
    /// It cannot go on.
    Failed(Status),
}

/// Which attempt reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Reader(u32);

// === impl Store ===

impl Store {
    /// With room for so many bytes.
    pub(crate) fn new(most: usize) -> Self {
        Self { used: AtomicUsize::new(0), most }
    }

    /// Whether there is room for so much more, which is then taken.
    fn take(&self, bytes: usize) -> bool {
        let more = |used: usize| used.checked_add(bytes).filter(|used| *used <= self.most);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

// === impl Replay ===

impl Replay {
    /// What has come of a body so far, and the rest. Committed at once if it is more than `limit`, or more than the store has room
    /// for.
    pub(crate) fn new(
        kept: VecDeque<Bytes>,
        rest: Body,
        lengths: Lengths,
        limit: usize,
        store: &Arc<Store>,
    ) -> Self {
        let size: usize = kept.iter().map(Bytes::len).sum();
        let keeps = size <= limit && store.take(size);
        Self(Mutex::new(Made {
            kept,
            next: 0,
            size: if keeps { size } else { 0 },
            limit,
            store: Arc::clone(store),
            committed: !keeps,
            begun: false,
            reader: Reader::default(),
            left: false,
            waker: None,
            lengths,
            rest: Rest::More(rest),
        }))
    }

    /// Nothing is kept from here on: there will be no further attempt.
    pub(crate) fn commit(&self) {
        let gone = {
            let mut made = self.made();
            made.commit();
            made.abandoned()
        };
        drop(gone);
    }

    /// This attempt reads no more. If there is no other, whoever makes the request is told.
    pub(crate) fn leave(&self, reader: Reader) {
        let gone = {
            let mut made = self.made();
            made.left |= made.reader == reader;
            made.abandoned()
        };
        // Not under the lock: what ends with it is the caller's.
        drop(gone);
    }

    /// Begins anew for another attempt, which takes the place of the one before. `None` if a part is no longer there.
    pub(crate) fn rewind(&self) -> Option<Reader> {
        let mut made = self.made();
        if made.committed && made.begun {
            return None;
        }
        (made.next, made.left) = (0, false);
        made.reader.0 += 1;
        if let Some(waiting) = made.waker.take() {
            waiting.wake();
        }
        Some(made.reader)
    }

    /// Why it could not be made to its end: an error of the caller's, or a message that is too long.
    pub(crate) fn failure(&self) -> Option<Status> {
        match &self.made().rest {
            Rest::Failed(status) => Some(status.clone()),
            Rest::More(_) | Rest::Nothing => None,
        }
    }

    pub(crate) fn is_end(&self, reader: Reader) -> bool {
        let made = self.made();
        let ended = match &made.rest {
            Rest::More(body) => body.is_end_stream(),
            Rest::Nothing => true,
            Rest::Failed(_) => false,
        };
        ended && made.reader == reader && made.next == made.kept.len()
    }

    pub(crate) fn poll(
        &self,
        reader: Reader,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut made = self.made();
        if made.reader != reader {
            return Poll::Ready(Some(Err(cancelling(Status::cancelled("another attempt goes on")))));
        }
        made.begun = true;
        match made.again() {
            Some(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
            None => made.poll(cx),
        }
    }

    fn made(&self) -> MutexGuard<'_, Made> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Made ===

impl Made {
    /// What was kept and the reader has not got.
    fn again(&mut self) -> Option<Bytes> {
        if self.committed {
            return self.kept.pop_front();
        }
        let data = self.kept.get(self.next).cloned()?;
        self.next += 1;
        Some(data)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let body = match &mut self.rest {
            Rest::More(body) => body,
            Rest::Nothing => return Poll::Ready(None),
            Rest::Failed(status) => return Poll::Ready(Some(Err(cancelling(status.clone())))),
        };
        let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) else {
            self.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        // gRPC's requests have no trailers: they end the body and are left out.
        let failure = match frame.map(|frame| frame.map(Frame::into_data)) {
            None | Some(Ok(Err(_))) => {
                self.rest = Rest::Nothing;
                return Poll::Ready(None);
            }
            Some(Ok(Ok(data))) => match self.lengths.pass(&data) {
                Ok(()) => {
                    self.keep(&data);
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Err(long) => Status::resource_exhausted(format!("the request has {long}")),
            },
            Some(Err(status)) => status,
        };
        self.rest = Rest::Failed(failure.clone());
        Poll::Ready(Some(Err(cancelling(failure))))
    }

    /// The reader gets this now.
    fn keep(&mut self, data: &Bytes) {
        if self.committed {
            return;
        }
        let size = self.size.saturating_add(data.len());
        if size > self.limit || !self.store.take(data.len()) {
            self.commit();
            return;
        }
        self.size = size;
        self.kept.push_back(data.clone());
        self.next += 1;
    }

    fn commit(&mut self) {
        if !self.committed {
            self.committed = true;
            self.kept = self.kept.split_off(self.next);
            self.next = 0;
            self.store.give_back(mem::take(&mut self.size));
        }
    }

    /// What nobody will read.
    fn abandoned(&mut self) -> Option<(Rest, VecDeque<Bytes>)> {
        let abandoned = self.committed && self.left && matches!(self.rest, Rest::More(_));
        abandoned.then(|| (mem::replace(&mut self.rest, Rest::Nothing), mem::take(&mut self.kept)))
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        self.store.give_back(self.size);
    }
}

/// The server is told that the call is cancelled, rather than of an internal error.
fn cancelling(mut status: Status) -> Status {
    status.set_source(Arc::new(h2::Error::from(Reason::CANCEL)));
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::length::Limit;
    use futures::channel::mpsc::{UnboundedSender, unbounded};
    use http_body_util::StreamBody;
    use proptest::prelude::*;

    type Item = Result<Frame<Bytes>, Status>;

    /// Keeps up to four bytes, and lets messages of up to seven bytes pass.
    fn replay() -> (UnboundedSender<Item>, Replay) {
        let (sender, receiver) = unbounded();
        let lengths = Lengths::new(Limit::lower(Some(7), None));
        (sender, Replay::new(VecDeque::new(), Body::new(StreamBody::new(receiver)), lengths, 4, &store(100)))
    }

    fn store(most: usize) -> Arc<Store> {
        Arc::new(Store::new(most))
    }

    fn send(sender: &UnboundedSender<Item>, data: &'static [u8]) {
        sender.unbounded_send(Ok(Frame::data(Bytes::from_static(data)))).unwrap();
    }

    fn read(replay: &Replay, reader: Reader) -> Poll<Option<Result<Bytes, Status>>> {
        let frame = replay.poll(reader, &mut Context::from_waker(Waker::noop()));
        frame.map_ok(|frame| frame.into_data().unwrap())
    }

    fn has(replay: &Replay, reader: Reader, expected: &[u8]) {
        assert_eq!(
            read(replay, reader).map(|frame| frame.unwrap().unwrap()),
            Poll::Ready(Bytes::copy_from_slice(expected))
        );
    }

    #[test]
    fn another_attempt_gets_all_from_the_beginning_and_the_one_before_nothing_more() {
        let (sender, replay) = replay();
        let first = Reader::default();
        send(&sender, b"\0\0");
        has(&replay, first, b"\0\0");
        assert!(read(&replay, first).is_pending());
        let second = replay.rewind().unwrap();
        send(&sender, b"\0\0");
        drop(sender);
        assert!(
            matches!(read(&replay, first), Poll::Ready(Some(Err(status))) if status.code() == tonic::Code::Cancelled)
        );
        has(&replay, second, b"\0\0");
        assert!(!replay.is_end(second));
        has(&replay, second, b"\0\0");
        assert!(matches!(read(&replay, second), Poll::Ready(None)));
        assert!(replay.is_end(second));
        let third = replay.rewind().unwrap();
        assert!(!replay.is_end(third));
        has(&replay, third, b"\0\0");
    }

    #[test]
    fn a_committed_call_keeps_nothing_and_what_a_reader_has_not_got_it_still_gets() {
        let (sender, replay) = replay();
        let first = Reader::default();
        for data in [b"\0", b"\0", b"\0"] {
            send(&sender, data);
            has(&replay, first, data);
        }
        let second = replay.rewind().unwrap();
        has(&replay, second, b"\0");
        assert_eq!(replay.made().kept.len(), 3);
        replay.commit();
        assert_eq!(replay.made().kept.len(), 2);
        assert_eq!(replay.rewind(), None);
        has(&replay, second, b"\0");
        has(&replay, second, b"\0");
        assert!(replay.made().kept.is_empty());
        send(&sender, b"\0\0");
        has(&replay, second, b"\0\0");
        assert!(replay.made().kept.is_empty());
    }

    #[test]
    fn what_does_not_fit_commits() {
        let (sender, replay) = replay();
        send(&sender, b"\0\0\0\0");
        has(&replay, Reader::default(), b"\0\0\0\0");
        let second = replay.rewind().unwrap();
        has(&replay, second, b"\0\0\0\0");
        send(&sender, b"\x01");
        has(&replay, second, b"\x01");
        assert_eq!(replay.rewind(), None);
    }

    #[test]
    fn a_large_beginning_that_nobody_has_read_is_still_there() {
        let (_sender, receiver) = unbounded::<Item>();
        let kept = VecDeque::from([Bytes::from_static(&[0; 9])]);
        let lengths = Lengths::new(Limit::NONE);
        let replay = Replay::new(kept, Body::new(StreamBody::new(receiver)), lengths, 4, &store(100));
        let second = replay.rewind().unwrap();
        has(&replay, second, &[0; 9]);
        assert_eq!(replay.rewind(), None);
    }

    #[test]
    fn all_requests_together_keep_no_more_than_the_store_has_room_for() {
        let store = store(5);
        let used = || store.used.load(Ordering::Relaxed);
        let begin = |kept: &'static [u8]| {
            let (sender, receiver) = unbounded::<Item>();
            let kept = VecDeque::from([Bytes::from_static(kept)]);
            let lengths = Lengths::new(Limit::NONE);
            (sender, Replay::new(kept, Body::new(StreamBody::new(receiver)), lengths, 4, &store))
        };
        let (sender, first) = begin(&[0; 3]);
        has(&first, Reader::default(), &[0; 3]);
        let (_sender, second) = begin(&[0; 3]);
        has(&second, Reader::default(), &[0; 3]);
        assert_eq!((second.rewind(), used()), (None, 3), "there was no room for the second");
        let (_sender, third) = begin(&[0; 2]);
        assert_eq!(used(), 5);
        send(&sender, b"\0");
        has(&first, Reader::default(), b"\0");
        assert_eq!((first.rewind(), used()), (None, 2), "it would have to be kept as a whole");
        drop((first, second));
        third.commit();
        assert_eq!(used(), 0);
        third.commit();
        drop(third);
        assert_eq!(used(), 0);
        let (_sender, fourth) = begin(&[0; 4]);
        drop(fourth);
        assert_eq!(used(), 0);
    }

    #[test]
    fn a_failure_is_remembered() {
        let (sender, replay) = replay();
        assert!(replay.failure().is_none());
        send(&sender, &[0, 0, 0, 0, 8]);
        assert!(matches!(read(&replay, Reader::default()), Poll::Ready(Some(Err(_)))));
        assert_eq!(replay.failure().unwrap().code(), tonic::Code::ResourceExhausted);
        assert!(sender.is_closed(), "the caller is told that nobody reads any more");
        let second = replay.rewind().unwrap();
        assert!(matches!(read(&replay, second), Poll::Ready(Some(Err(_)))));
    }

    #[test]
    fn the_caller_is_told_once_nobody_will_read() {
        let (sender, replay) = replay();
        let first = Reader::default();
        send(&sender, b"\0");
        has(&replay, first, b"\0");
        replay.leave(first);
        assert!(!sender.is_closed(), "another attempt may");
        let second = replay.rewind().unwrap();
        replay.commit();
        replay.leave(first);
        assert!(!sender.is_closed(), "another attempt does");
        replay.leave(second);
        assert!(sender.is_closed());
    }

    #[test]
    fn a_reader_that_waits_is_woken_when_another_takes_its_place() {
        struct Woken(std::sync::atomic::AtomicBool);
        impl std::task::Wake for Woken {
            fn wake(self: Arc<Self>) {
                self.0.store(true, std::sync::atomic::Ordering::Relaxed);
            }
        }
        let (_sender, replay) = replay();
        let woken = Arc::new(Woken(false.into()));
        let waker = Waker::from(Arc::clone(&woken));
        assert!(replay.poll(Reader::default(), &mut Context::from_waker(&waker)).is_pending());
        replay.rewind().unwrap();
        assert!(woken.0.load(std::sync::atomic::Ordering::Relaxed));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Send(usize),
        Read,
        ReadOld,
        Rewind,
        Commit,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0_usize..4).prop_map(Step::Send),
            6 => Just(Step::Read),
            1 => Just(Step::ReadOld),
            2 => Just(Step::Rewind),
            1 => Just(Step::Commit),
        ]
    }

    proptest! {
        /// Every attempt gets all of the request, in order, and once; or there is no such attempt.
        #[test]
        fn an_attempt_gets_all_or_is_none(steps in prop::collection::vec(step(), 0..60), limit in 0_usize..20) {
            let (sender, receiver) = unbounded::<Item>();
            let lengths = Lengths::new(Limit::NONE);
            let body = Body::new(StreamBody::new(receiver));
            let replay = Replay::new(VecDeque::new(), body, lengths, limit, &store(100));
            let (mut sent, mut next, mut pulled) = (Vec::new(), 0, 0);
            let (mut committed, mut begun) = (false, false);
            let mut readers = vec![Reader::default()];
            for (number, step) in (0_u8..).zip(steps) {
                match step {
                    Step::Send(length) => {
                        let data = Bytes::from(vec![number; length]);
                        sender.unbounded_send(Ok(Frame::data(data.clone()))).unwrap();
                        sent.push(data);
                    }
                    Step::Read => {
                        begun = true;
                        match read(&replay, readers[readers.len() - 1]) {
                            Poll::Pending => prop_assert_eq!(next, sent.len()),
                            Poll::Ready(frame) => {
                                prop_assert_eq!(&frame.unwrap().unwrap(), &sent[next]);
                                next += 1;
                                pulled = pulled.max(next);
                            }
                        }
                        committed |= sent[..pulled].iter().map(Bytes::len).sum::<usize>() > limit;
                    }
                    Step::ReadOld => {
                        for old in &readers[..readers.len() - 1] {
                            prop_assert!(matches!(read(&replay, *old), Poll::Ready(Some(Err(_)))));
                        }
                    }
                    Step::Rewind => {
                        let renewed = replay.rewind();
                        prop_assert_eq!(renewed.is_none(), committed && begun);
                        if let Some(reader) = renewed {
                            readers.push(reader);
                            next = 0;
                        }
                    }
                    Step::Commit => {
                        replay.commit();
                        committed = true;
                    }
                }
                // No more is kept than may be, but for what a reader of a committed request has still to get.
                let kept: usize = replay.made().kept.iter().map(Bytes::len).sum();
                prop_assert!(kept <= limit);
            }
        }
    }
}
