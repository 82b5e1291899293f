//! The streams of a connection whose responses have not ended: found by their numbers, without a lock.

use std::sync::atomic::{AtomicU32, Ordering};

/// Each stream has its number in one of the few slots of its set; 0 is in those that are free.
#[derive(Debug)]
pub(crate) struct Streams([Set; SETS]);

/// In one line of the cache.
#[derive(Debug)]
#[repr(align(16))]
struct Set([AtomicU32; SLOTS]);

/// With [`SLOTS`], a kibibyte for each connection: as many streams as begin one after the other, or fewer of which some go on for long.
const SETS: usize = 64;
const SLOTS: usize = 4;

// === impl Streams ===

impl Streams {
    pub(crate) fn new() -> Self {
        Self([const { Set([const { AtomicU32::new(0) }; SLOTS]) }; SETS])
    }

    /// Adds one that has begun; `false` if there is no slot for it.
    pub(crate) fn add(&self, stream: u32) -> bool {
        self.slots(stream).iter().any(|slot| swap(slot, 0, stream))
    }

    /// Whether it was there: of several who remove it, this is told to one.
    pub(crate) fn remove(&self, stream: u32) -> bool {
        // 0 is the connection's, and here no stream's.
        stream != 0 && self.slots(stream).iter().any(|slot| swap(slot, stream, 0))
    }

    fn slots(&self, stream: u32) -> &[AtomicU32; SLOTS] {
        // Those of requests are odd.
        &self.0[(stream / 2) as usize % SETS].0
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
        for stream in numbers(SETS * SLOTS) {
            assert!(streams.add(stream), "{stream}");
        }
        for stream in numbers(SETS * SLOTS) {
            assert!(!streams.add(stream + 2 * 256));
            assert!(streams.remove(stream), "{stream}");
            assert!(!streams.remove(stream), "{stream}");
            assert!(streams.add(stream + 2 * 256));
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
