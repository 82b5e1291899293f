//! The streams of a connection whose responses have not ended: found by their numbers, without a lock.

use std::sync::atomic::{AtomicU32, Ordering};

/// Each stream has its number in one of the five slots that it may be in; 0 is in those that are free.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Streams {
    /// A stream may be in one of these, which it shares with all whose numbers are the same modulo 8. Where few are under way on each of
    /// many connections, nothing else is touched.
    near: [AtomicU32; NEAR],
    sets: [Set; SETS],
}

/// In one line of the cache.
#[derive(Debug)]
#[repr(align(16))]
struct Set([AtomicU32; SLOTS]);

/// With [`SLOTS`], a kibibyte for each connection: as many streams as begin one after the other, or fewer of which some go on for long.
const SETS: usize = 64;
const SLOTS: usize = 4;
const NEAR: usize = 8;

// === impl Streams ===

impl Streams {
    pub(crate) fn new() -> Self {
        let near = [const { AtomicU32::new(0) }; NEAR];
        Self { near, sets: [const { Set([const { AtomicU32::new(0) }; SLOTS]) }; SETS] }
    }

    /// Adds one that has begun, and says in which of its slots it is; `None` if none is free.
    pub(crate) fn add(&self, stream: u32) -> Option<u8> {
        (0..).zip(self.slots(stream)).find(|(_, slot)| swap(slot, 0, stream)).map(|(nth, _)| nth)
    }

    /// The same as [`remove`](Self::remove), of a stream that was added to the `nth` of its slots.
    pub(crate) fn remove_from(&self, nth: u8, stream: u32) -> bool {
        self.slots(stream).nth(nth.into()).is_some_and(|slot| swap(slot, stream, 0))
    }

    /// Whether it was there: of several who remove it, this is told to one.
    pub(crate) fn remove(&self, stream: u32) -> bool {
        // 0 is the connection's, and here no stream's.
        stream != 0 && self.slots(stream).any(|slot| swap(slot, stream, 0))
    }

    fn slots(&self, stream: u32) -> impl Iterator<Item = &AtomicU32> {
        // Those of requests are odd.
        let number = (stream / 2) as usize;
        std::iter::once(&self.near[number % NEAR]).chain(&self.sets[number % SETS].0)
    }
}

fn swap(slot: &AtomicU32, old: u32, new: u32) -> bool {
    slot.load(Ordering::SeqCst) == old
        && slot.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize) -> impl Iterator<Item = u32> {
        (1..).step_by(2).take(count)
    }

    #[test]
    fn as_many_have_slots_as_there_are_when_they_begin_one_after_the_other() {
        let streams = Streams::new();
        for stream in numbers(NEAR + SETS * SLOTS) {
            assert!(streams.add(stream).is_some(), "{stream}");
        }
        for stream in numbers(NEAR + SETS * SLOTS) {
            assert!(streams.add(stream + 2 * 1024).is_none());
            assert!(streams.remove(stream), "{stream}");
            assert!(!streams.remove(stream), "{stream}");
            assert!(streams.add(stream + 2 * 1024).is_some());
        }
    }

    /// Such as a watch, which has its slot for as long as the connection lives.
    #[test]
    fn a_stream_that_goes_on_leaves_slots_for_all_that_come_and_go() {
        let streams = Streams::new();
        assert!(streams.add(1).is_some());
        for stream in numbers(2000).skip(1) {
            assert!(streams.add(stream).is_some(), "{stream}");
            assert!(streams.remove(stream), "{stream}");
        }
        assert!(streams.remove(1));
    }

    #[test]
    fn a_stream_is_removed_once_from_where_it_is() {
        let streams = Streams::new();
        for stream in [1, 17, 129] {
            let nth = streams.add(stream).unwrap();
            assert!((0..5).filter(|other| *other != nth).all(|other| !streams.remove_from(other, stream)));
            assert!(streams.remove_from(nth, stream));
            assert!(!streams.remove_from(nth, stream) && !streams.remove(stream));
            // The next one finds it taken.
            assert!(streams.add(stream).is_some());
        }
    }

    #[test]
    fn the_connection_is_no_stream() {
        assert!(!Streams::new().remove(0));
    }
}
