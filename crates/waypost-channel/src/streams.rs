//! The streams of a connection whose responses have not ended: found by their numbers, without a lock.

use std::sync::atomic::{AtomicU32, Ordering};

/// Each stream has its number in one of the slots that it may be in; 0 is in those that are free.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Streams {
    /// One for each stream. Where few are under way on each of many connections, nothing else is touched.
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

    /// Adds one that has begun; `false` if there is no slot for it.
    pub(crate) fn add(&self, stream: u32) -> bool {
        self.slots(stream).any(|slot| swap(slot, 0, stream))
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
            assert!(streams.add(stream), "{stream}");
        }
        for stream in numbers(NEAR + SETS * SLOTS) {
            assert!(!streams.add(stream + 2 * 1024));
            assert!(streams.remove(stream), "{stream}");
            assert!(!streams.remove(stream), "{stream}");
            assert!(streams.add(stream + 2 * 1024));
        }
    }

    /// Such as a watch, which has its slot for as long as the connection lives.
    #[test]
    fn a_stream_that_goes_on_leaves_slots_for_all_that_come_and_go() {
        let streams = Streams::new();
        assert!(streams.add(1));
        for stream in numbers(2000).skip(1) {
            assert!(streams.add(stream), "{stream}");
            assert!(streams.remove(stream), "{stream}");
        }
        assert!(streams.remove(1));
    }

    #[test]
    fn the_connection_is_no_stream() {
        assert!(!Streams::new().remove(0));
    }
}
