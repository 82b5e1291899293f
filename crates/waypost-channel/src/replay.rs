//! A request that is still being made while it is sent: what has come of it is kept until its call is committed, as in gRFC A6, so
//! that it can be sent anew, or to several endpoints.

mod store;

pub(crate) use store::Store;

use crate::length::{Lengths, TooLong};
use bytes::Bytes;
use http_body::{Body as _, Frame};
use std::collections::VecDeque;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use tonic::Status;
use tonic::body::Body;

/// The body of a request, as its attempts read it: each from the beginning, and at its own pace. Once the call is committed there is
/// one of them, which gets the rest.
#[derive(Debug)]
pub(crate) struct Replay(Mutex<Made>);

#[derive(Debug)]
struct Made {
    /// While the call is not committed all that has come; then what its reader has not got yet.
    kept: VecDeque<Bytes>,
    /// Bytes of these that the store knows of. None once the call is committed.
    size: usize,
    /// The most of them.
    limit: usize,
    store: Arc<Store>,
    /// To the reader who alone gets what is still to come.
    committed: Option<Reader>,
    /// Somebody has read.
    begun: bool,
    readers: Vec<Place>,
    newest: Reader,
    lengths: Lengths,
    rest: Rest,
}

/// How far an attempt has come.
#[derive(Debug)]
struct Place {
    reader: Reader,
    /// How many of those that are kept it has got. 0 once the call is committed.
    next: usize,
    /// While it waits.
    waker: Option<Waker>,
}

/// Why a request could not be made to its end.
#[derive(Debug, Clone)]
pub(crate) enum Unmade {
    /// What makes it has failed, which its caller is told as it is.
    Failed(Status),
    TooLong(TooLong),
}

/// What is still to come.
#[derive(Debug)]
enum Rest {
    More(Body),
    /// One of the readers asks for it: what is the caller's is polled, and dropped, without the lock.
    Asked,
    Nothing,
    /// It cannot go on.
    Failed(Unmade),
}

/// What asks for more without the lock.
struct Asking<'a> {
    replay: &'a Replay,
    /// Until what has come of it is told.
    body: Option<Body>,
}

/// Which attempt reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Reader(u32);

// === impl Replay ===

impl Replay {
    /// What has come of a body so far, and the rest; with a [first](Reader::default) reader. Committed at once if it is more than
    /// `limit`, or more than the store has room for.
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
            size: if keeps { size } else { 0 },
            limit,
            store: Arc::clone(store),
            committed: (!keeps).then(Reader::default),
            begun: false,
            readers: vec![Place::of(Reader::default())],
            newest: Reader::default(),
            lengths,
            rest: Rest::More(rest),
        }))
    }

    /// There will be no further attempt, so nothing is kept from here on. Others than this one get nothing more.
    pub(crate) fn commit(&self, reader: Reader) {
        let gone = {
            let mut made = self.made();
            made.commit(reader);
            made.abandoned()
        };
        drop(gone);
    }

    /// This attempt reads no more. If there will be no other, whoever makes the request is told.
    pub(crate) fn leave(&self, reader: Reader) {
        let gone = {
            let mut made = self.made();
            made.readers.retain(|place| place.reader != reader);
            // What makes the request would have woken whoever asked last.
            made.wake(None);
            made.abandoned()
        };
        // Not under the lock: what ends with it is the caller's.
        drop(gone);
    }

    /// Begins anew for another attempt, which takes the place of those before. `None` if a part is no longer there.
    pub(crate) fn rewind(&self) -> Option<Reader> {
        let mut made = self.made();
        if made.committed.is_some() && made.begun {
            return None;
        }
        made.wake(None);
        made.readers.clear();
        let reader = made.join();
        made.committed = made.committed.map(|_| reader);
        Some(reader)
    }

    /// Whether the call is committed to none of its attempts.
    pub(crate) fn is_open(&self) -> bool {
        self.made().committed.is_none()
    }

    /// Begins for another attempt beside those that there are. `None` if the call is committed to one of them.
    pub(crate) fn join(&self) -> Option<Reader> {
        let mut made = self.made();
        made.committed.is_none().then(|| made.join())
    }

    /// Why it could not be made to its end.
    pub(crate) fn failure(&self) -> Option<Unmade> {
        match &self.made().rest {
            Rest::Failed(unmade) => Some(unmade.clone()),
            Rest::More(_) | Rest::Asked | Rest::Nothing => None,
        }
    }

    /// Whether the call is committed to another attempt.
    pub(crate) fn is_for_another(&self, reader: Reader) -> bool {
        self.made().committed.is_some_and(|chosen| chosen != reader)
    }

    pub(crate) fn is_end(&self, reader: Reader) -> bool {
        let made = self.made();
        let ended = match &made.rest {
            Rest::More(body) => body.is_end_stream(),
            Rest::Nothing => true,
            Rest::Asked | Rest::Failed(_) => false,
        };
        let place = made.readers.iter().find(|place| place.reader == reader);
        ended && place.is_some_and(|place| place.next == made.kept.len())
    }

    pub(crate) fn poll(
        &self,
        reader: Reader,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut made = self.made();
        let Some(at) = made.readers.iter().position(|place| place.reader == reader) else {
            return Poll::Ready(Some(Err(elsewhere())));
        };
        made.begun = true;
        if let Some(data) = made.again(at) {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        match mem::replace(&mut made.rest, Rest::Asked) {
            Rest::More(body) => {
                drop(made);
                Asking { replay: self, body: Some(body) }.poll(reader, cx)
            }
            Rest::Asked => {
                made.wait(at, cx);
                Poll::Pending
            }
            Rest::Nothing => {
                made.rest = Rest::Nothing;
                Poll::Ready(None)
            }
            Rest::Failed(unmade) => {
                made.rest = Rest::Failed(unmade);
                Poll::Ready(Some(Err(broken_off())))
            }
        }
    }

    fn made(&self) -> MutexGuard<'_, Made> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Unmade ===

impl Unmade {
    /// What the caller is told; `context` names the call.
    pub(crate) fn told(self, context: &str) -> Status {
        match self {
            Self::Failed(status) => status,
            Self::TooLong(long) => Status::resource_exhausted(format!("{context}: the request has {long}")),
        }
    }
}

// === impl Made ===

impl Made {
    fn join(&mut self) -> Reader {
        self.newest.0 += 1;
        self.readers.push(Place::of(self.newest));
        self.newest
    }

    /// What was kept and this reader has not got.
    fn again(&mut self, at: usize) -> Option<Bytes> {
        if self.committed.is_some() {
            return self.kept.pop_front();
        }
        let place = self.readers.get_mut(at)?;
        let data = self.kept.get(place.next).cloned()?;
        place.next += 1;
        Some(data)
    }

    /// Until something has come.
    fn wait(&mut self, at: usize, cx: &Context<'_>) {
        match &mut self.readers[at].waker {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            waker => *waker = Some(cx.waker().clone()),
        }
    }

    /// What this reader is the first to get, and what is still to come: left to be dropped if that is nothing any more.
    fn got(
        &mut self,
        reader: Reader,
        body: &mut Option<Body>,
        frame: Poll<Option<Result<Frame<Bytes>, Status>>>,
        cx: &Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        // Another attempt can have taken its place meanwhile.
        let at = self.readers.iter().position(|place| place.reader == reader);
        let Poll::Ready(frame) = frame else {
            self.rest = body.take().map_or(Rest::Nothing, Rest::More);
            let Some(at) = at else {
                self.wake(None);
                return Poll::Ready(Some(Err(elsewhere())));
            };
            self.wait(at, cx);
            return Poll::Pending;
        };
        // There is something for the others as well, or an end.
        self.wake(at);
        // gRPC's requests have no trailers: they end the body and are left out.
        let failure = match frame.map(|frame| frame.map(Frame::into_data)) {
            None | Some(Ok(Err(_))) => {
                self.rest = Rest::Nothing;
                // What was cut off must not seem to be whole.
                return Poll::Ready(at.is_none().then(|| Err(elsewhere())));
            }
            Some(Ok(Ok(data))) => match self.lengths.pass(&data) {
                Ok(()) => {
                    self.rest = body.take().map_or(Rest::Nothing, Rest::More);
                    self.keep(at, &data);
                    return Poll::Ready(Some(at.map_or_else(|| Err(elsewhere()), |_| Ok(Frame::data(data)))));
                }
                Err(long) => Unmade::TooLong(long),
            },
            Some(Err(status)) => Unmade::Failed(status),
        };
        self.rest = Rest::Failed(failure);
        Poll::Ready(Some(Err(broken_off())))
    }

    /// This reader gets it now, and the others later; if it cannot be kept for them, the call is committed to this one. If it is gone,
    /// the newest stands for it, and gets it later.
    fn keep(&mut self, at: Option<usize>, data: &Bytes) {
        if self.committed.is_none() {
            let size = self.size.saturating_add(data.len());
            if size <= self.limit && self.store.take(data.len()) {
                self.size = size;
                self.kept.push_back(data.clone());
                if let Some(at) = at {
                    self.readers[at].next += 1;
                }
                return;
            }
            self.commit(at.map_or(self.newest, |at| self.readers[at].reader));
        }
        if at.is_none() {
            self.kept.push_back(data.clone());
        }
    }

    fn commit(&mut self, reader: Reader) {
        if self.committed.is_some() {
            return;
        }
        self.committed = Some(reader);
        self.store.give_back(mem::take(&mut self.size));
        self.wake(None);
        self.readers.retain(|place| place.reader == reader);
        match self.readers.first_mut() {
            Some(place) => self.kept = self.kept.split_off(mem::take(&mut place.next)),
            None => self.kept = VecDeque::new(),
        }
    }

    /// All that wait look again, but for this one.
    fn wake(&mut self, but: Option<usize>) {
        let others = self.readers.iter_mut().enumerate().filter(|(at, _)| Some(*at) != but);
        for waker in others.filter_map(|(_, place)| place.waker.take()) {
            waker.wake();
        }
    }

    /// What nobody will read.
    fn abandoned(&mut self) -> Option<(Rest, VecDeque<Bytes>)> {
        let abandoned =
            self.committed.is_some() && self.readers.is_empty() && matches!(self.rest, Rest::More(_));
        abandoned.then(|| (mem::replace(&mut self.rest, Rest::Nothing), mem::take(&mut self.kept)))
    }
}

/// What a reader is told that gets nothing more.
fn elsewhere() -> Status {
    Status::cancelled("another attempt goes on")
}

/// For the attempts; the caller learns [why](Replay::failure).
fn broken_off() -> Status {
    Status::cancelled("the request could not be made to its end")
}

// === impl Asking ===

impl Asking<'_> {
    fn poll(mut self, reader: Reader, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = Pin::new(body).poll_frame(cx);
        let (got, gone) = {
            let mut made = self.replay.made();
            let got = made.got(reader, &mut self.body, frame, cx);
            (got, made.abandoned())
        };
        drop((gone, self.body.take()));
        got
    }
}

impl Drop for Asking<'_> {
    /// It has panicked if nobody was told.
    fn drop(&mut self) {
        if self.body.is_some() {
            let mut made = self.replay.made();
            made.rest = Rest::Failed(Unmade::Failed(Status::internal("what makes the request has panicked")));
            made.wake(None);
        }
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        self.store.give_back(self.size);
    }
}

// === impl Place ===

impl Place {
    fn of(reader: Reader) -> Self {
        Self { reader, next: 0, waker: None }
    }
}

#[cfg(test)]
mod tests;
