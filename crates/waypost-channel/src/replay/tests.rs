use super::*;
use crate::length::Limit;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use http_body_util::StreamBody;
use proptest::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;

type Item = Result<Frame<Bytes>, Status>;

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Woken {
    fn is_woken(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

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
    replay.commit(second);
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
    third.commit(Reader::default());
    assert_eq!(used(), 0);
    third.commit(Reader::default());
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
    assert_eq!(replay.failure().unwrap().told("greeter").code(), tonic::Code::ResourceExhausted);
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
    replay.commit(second);
    replay.leave(first);
    assert!(!sender.is_closed(), "another attempt does");
    replay.leave(second);
    assert!(sender.is_closed());
}

#[test]
fn attempts_side_by_side_get_all_of_it_each_at_its_own_pace() {
    let (sender, replay) = replay();
    let first = Reader::default();
    send(&sender, b"\0");
    has(&replay, first, b"\0");
    let second = replay.join().unwrap();
    send(&sender, b"\0\0");
    has(&replay, second, b"\0");
    has(&replay, second, b"\0\0");
    assert!(read(&replay, second).is_pending());
    has(&replay, first, b"\0\0");
    // What cannot be kept is for the one who asks first; the others end there.
    send(&sender, b"\0\0");
    has(&replay, first, b"\0\0");
    assert!(
        matches!(read(&replay, second), Poll::Ready(Some(Err(status))) if status.code() == tonic::Code::Cancelled)
    );
    assert!(replay.is_for_another(second) && !replay.is_for_another(first));
    assert_eq!((replay.join(), replay.rewind()), (None, None));
    replay.leave(second);
    assert!(!sender.is_closed());
    replay.leave(first);
    assert!(sender.is_closed());
    assert!(replay.is_for_another(second), "also when both have left");
}

#[test]
fn of_several_attempts_the_one_that_is_chosen_gets_the_rest() {
    let (sender, replay) = replay();
    let first = Reader::default();
    send(&sender, b"\0");
    has(&replay, first, b"\0");
    let second = replay.join().unwrap();
    replay.commit(second);
    assert!(matches!(read(&replay, first), Poll::Ready(Some(Err(_)))));
    has(&replay, second, b"\0");
    send(&sender, b"\0\0");
    drop(sender);
    has(&replay, second, b"\0\0");
    assert!(matches!(read(&replay, second), Poll::Ready(None)));
}

/// What makes the request wakes whoever has asked last, who may be gone by then.
#[test]
fn who_waits_is_woken_by_what_the_others_do() {
    let (sender, replay) = replay();
    let first = Reader::default();
    let second = replay.join().unwrap();
    let waits = |reader| {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        assert!(replay.poll(reader, &mut Context::from_waker(&waker)).is_pending());
        woken
    };
    let (one, _other) = (waits(first), waits(second));
    replay.leave(second);
    assert!(one.is_woken());
    let third = replay.join().unwrap();
    let (one, other) = (waits(first), waits(third));
    send(&sender, b"\0");
    assert!(other.is_woken() && !one.is_woken());
    has(&replay, third, b"\0");
    assert!(one.is_woken());
}

#[test]
fn a_reader_that_waits_is_woken_when_another_takes_its_place() {
    let (_sender, replay) = replay();
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    assert!(replay.poll(Reader::default(), &mut Context::from_waker(&waker)).is_pending());
    replay.rewind().unwrap();
    assert!(woken.is_woken());
}

#[derive(Debug, Clone)]
enum Step {
    Send(usize),
    /// By one of the readers that there have been.
    Read(usize),
    Rewind,
    Join,
    Commit(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_usize..4).prop_map(Step::Send),
        8 => any::<usize>().prop_map(Step::Read),
        1 => Just(Step::Rewind),
        2 => Just(Step::Join),
        1 => any::<usize>().prop_map(Step::Commit),
    ]
}

proptest! {
    /// Every attempt gets all of the request, in order, and once; or it is told that it is not wanted.
    #[test]
    fn an_attempt_gets_all_or_is_none(steps in prop::collection::vec(step(), 0..60), limit in 0_usize..20) {
        let (sender, receiver) = unbounded::<Item>();
        let body = Body::new(StreamBody::new(receiver));
        let replay = Replay::new(VecDeque::new(), body, Lengths::new(Limit::NONE), limit, &store(100));
        let (mut sent, mut pulled, mut begun) = (Vec::<Bytes>::new(), 0, false);
        // With how much each has got; none for those that are not wanted any more.
        let mut readers = vec![(Reader::default(), Some(0))];
        let mut committed = false;
        for (number, step) in (0_u8..).zip(steps) {
            match step {
                Step::Send(length) => {
                    let data = Bytes::from(vec![number; length]);
                    sender.unbounded_send(Ok(Frame::data(data.clone()))).unwrap();
                    sent.push(data);
                }
                Step::Read(which) => {
                    let at = which % readers.len();
                    let (reader, got) = readers[at];
                    let frame = read(&replay, reader);
                    let Some(next) = got else {
                        prop_assert!(matches!(frame, Poll::Ready(Some(Err(_)))));
                        continue;
                    };
                    begun = true;
                    let Some(expected) = sent.get(next) else {
                        prop_assert!(frame.is_pending());
                        continue;
                    };
                    let Poll::Ready(Some(Ok(frame))) = frame else { panic!("{frame:?}, expected {expected:?}") };
                    prop_assert_eq!(&frame, expected);
                    readers[at].1 = Some(next + 1);
                    pulled = pulled.max(next + 1);
                    let size: usize = sent[..pulled].iter().map(Bytes::len).sum();
                    if !committed && size > limit {
                        committed = true;
                        for (_, got) in readers.iter_mut().filter(|(other, _)| *other != reader) {
                            *got = None;
                        }
                    }
                }
                Step::Rewind => {
                    let renewed = replay.rewind();
                    prop_assert_eq!(renewed.is_none(), committed && begun);
                    if let Some(reader) = renewed {
                        for (_, got) in &mut readers {
                            *got = None;
                        }
                        readers.push((reader, Some(0)));
                    }
                }
                Step::Join => {
                    let joined = replay.join();
                    prop_assert_eq!((joined.is_none(), replay.is_open()), (committed, !committed));
                    readers.extend(joined.map(|reader| (reader, Some(0))));
                }
                Step::Commit(which) => {
                    let (reader, Some(_)) = readers[which % readers.len()] else { continue };
                    replay.commit(reader);
                    if !committed {
                        committed = true;
                        for (_, got) in readers.iter_mut().filter(|(other, _)| *other != reader) {
                            *got = None;
                        }
                    }
                }
            }
            // No more is kept than may be.
            let kept: usize = replay.made().kept.iter().map(Bytes::len).sum();
            prop_assert!(kept <= limit);
        }
    }
}

type Calls = Arc<std::sync::OnceLock<(std::sync::Weak<Replay>, fn(&Replay))>>;

/// Calls back while it makes a request of so many messages, and when it is dropped.
struct Nosy(Calls, usize);

impl Nosy {
    fn call(&self) {
        let Some((replay, call)) = self.0.get() else { return };
        if let Some(replay) = replay.upgrade() {
            call(&replay);
        }
    }
}

impl http_body::Body for Nosy {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.call();
        let more = self.1.checked_sub(1);
        Poll::Ready(more.map(|more| {
            self.1 = more;
            Ok(Frame::data(Bytes::from_static(&[0; 3])))
        }))
    }
}

impl Drop for Nosy {
    fn drop(&mut self) {
        self.call();
    }
}

fn nosy(messages: usize, call: fn(&Replay)) -> Arc<Replay> {
    let calls = Calls::default();
    let body = Body::new(Nosy(Arc::clone(&calls), messages));
    let replay = Arc::new(Replay::new(VecDeque::new(), body, Lengths::new(Limit::NONE), 4, &store(100)));
    calls.set((Arc::downgrade(&replay), call)).unwrap();
    replay
}

#[test]
fn what_makes_a_request_is_not_under_the_lock() {
    let free = |replay: &Replay| assert!(replay.0.try_lock().is_ok());
    let (replay, first) = (nosy(2, free), Reader::default());
    for _ in 0..2 {
        has(&replay, first, &[0; 3]);
    }
    assert!(matches!(read(&replay, first), Poll::Ready(None)));
}

/// What it gets meanwhile is for the one that has taken its place, whether or not it can be kept.
#[test]
fn an_attempt_can_be_replaced_while_it_asks() {
    let rewind = |replay: &Replay| {
        if replay.made().newest == Reader::default() {
            replay.rewind().unwrap();
        }
    };
    let gone = |replay: &Replay, reader| matches!(read(replay, reader), Poll::Ready(Some(Err(_))));
    let (first, second) = (Reader::default(), Reader(1));
    let replay = nosy(2, rewind);
    assert!(gone(&replay, first));
    for _ in 0..2 {
        has(&replay, second, &[0; 3]);
    }
    assert!(matches!(read(&replay, second), Poll::Ready(None)));
    assert!(gone(&replay, first));
    // The end is not one of what was cut off.
    let replay = nosy(0, rewind);
    assert!(gone(&replay, first));
    assert!(matches!(read(&replay, second), Poll::Ready(None)));
}

#[test]
fn a_request_whose_making_panics_fails_for_all() {
    let replay = nosy(1, |_| assert!(std::thread::panicking(), "as what makes a request may"));
    let other = replay.join().unwrap();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        read(&replay, Reader::default()).is_ready()
    }));
    assert!(panicked.is_err());
    assert!(matches!(read(&replay, other), Poll::Ready(Some(Err(_)))));
    assert_eq!(replay.failure().unwrap().told("greeter").code(), tonic::Code::Internal);
}
