//! Arbitrary bytes as a log. Compiled for tests and fuzz targets only.

#![expect(clippy::expect_used, reason = "a broken invariant is reported by panicking")]

use redb::StorageBackend as _;
use redb::backends::InMemoryBackend;
use xxhash_rust::xxh64::xxh64;

use super::frame::{self, HEADER};
use super::log::Log;
use super::medium::Disk;
use crate::backend::{Bucket, WriteBatch};
use crate::fuzzing::Choices;

const SALT: u64 = 7;
/// Of the log, in bytes.
const LENGTH: usize = 8 << 10;
/// Batches at most; they fit into one half.
const BATCHES: u64 = 8;

/// A log of whole batches, of frames that are sealed and hold anything, and of bytes that were changed afterwards: it is read
/// up to a batch that was written, or refused.
pub(crate) fn log(data: &[u8]) {
    let mut choices = Choices::new(data);
    let mut bytes = Vec::new();
    let mut sequence = 0_u64;
    let batches = u64::from(choices.byte()) % BATCHES;
    let mut sound = true;
    for _ in 0..batches {
        sequence += 1;
        let mut buffer = Vec::new();
        if choices.byte().is_multiple_of(8) {
            sound = false;
            buffer.resize(HEADER, 0);
            buffer.extend_from_slice(choices.slice());
            let length = u32::try_from(buffer.len() - HEADER).expect("a slice is short");
            buffer[8..16].copy_from_slice(&sequence.to_le_bytes());
            buffer[16..20].copy_from_slice(&length.to_le_bytes());
            let sum = xxh64(&buffer[8..], SALT);
            buffer[..8].copy_from_slice(&sum.to_le_bytes());
            buffer.resize(buffer.len().next_multiple_of(frame::ALIGN), 0);
        } else {
            let mut batch = WriteBatch::new();
            batch.put(Bucket::Key, choices.slice().to_vec(), choices.slice().to_vec());
            batch.delete_range(Bucket::Lease, choices.slice().to_vec(), Vec::new());
            frame::encode(SALT, sequence, &batch, &mut buffer).expect("a short batch has a frame");
        }
        if bytes.len() + buffer.len() > LENGTH / 2 {
            sequence -= 1;
            break;
        }
        bytes.append(&mut buffer);
    }
    bytes.resize(LENGTH, 0);
    for _ in 0..choices.byte() % 4 {
        let at = usize::from(choices.byte()) << 4 | usize::from(choices.byte() & 15);
        let with = choices.byte();
        sound &= with == 0;
        bytes[at % LENGTH] ^= with;
    }
    let medium = InMemoryBackend::new();
    medium.set_len(LENGTH as u64).expect("memory is not full");
    medium.write(0, &bytes).expect("memory is written");
    let log = Log::new(Disk::new(Box::new(medium)), SALT).expect("memory has a length");
    let stored = u64::from(choices.byte()) % (sequence + 1);
    match log.replay(stored) {
        Ok(replayed) => {
            assert!((stored..=sequence).contains(&replayed.sequence), "{replayed:?}");
            assert!(!sound || replayed.sequence == sequence, "{replayed:?} of {sequence}");
        }
        Err(error) => assert!(!sound, "{error}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn any_bytes_as_a_log(data in prop::collection::vec(any::<u8>(), 0..300)) {
            super::log(&data);
        }
    }
}
