//! One batch as the log has it.
//!
//! | bytes | |
//! |---|---|
//! | 0..8 | XXH64 of all that follows, with the log's salt as its seed |
//! | 8..16 | sequence number of the batch |
//! | 16..20 | length of the operations in bytes |
//! | 20..24 | 0 |
//! | 24.. | operations: kind (1 put, 2 delete, 3 delete range), bucket, length of the key, of the value, key, value |
//!
//! Numbers are little-endian, lengths of keys and values 4 bytes; a range has its end in place of the value. A frame
//! starts at a multiple of 8.

use bytes::Bytes;
use xxhash_rust::xxh64::xxh64;

use crate::backend::{Bucket, Operation, WriteBatch};

/// A frame that was read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) sequence: u64,
    /// To the next frame, in bytes.
    pub(crate) length: usize,
    operations: &'a [u8],
}

pub(crate) const ALIGN: usize = 8;
pub(crate) const HEADER: usize = 24;

const PUT: u8 = 1;
const DELETE: u8 = 2;
const DELETE_RANGE: u8 = 3;
/// Kind, bucket, and two lengths.
const OPERATION: usize = 10;

/// Length of the frame that holds this batch.
pub(crate) fn length(batch: &WriteBatch) -> usize {
    (HEADER + batch.len() * OPERATION + batch.bytes()).next_multiple_of(ALIGN)
}

/// Writes the frame of a batch into an empty buffer; `None` if a length does not fit its field.
pub(crate) fn encode(salt: u64, sequence: u64, batch: &WriteBatch, buffer: &mut Vec<u8>) -> Option<()> {
    buffer.reserve(length(batch));
    buffer.resize(HEADER, 0);
    for operation in batch {
        let (kind, bucket, key, value) = match operation {
            Operation::Put { bucket, key, value } => (PUT, bucket, key, &value[..]),
            Operation::Delete { bucket, key } => (DELETE, bucket, key, &[][..]),
            Operation::DeleteRange { bucket, from, to } => (DELETE_RANGE, bucket, from, &to[..]),
        };
        buffer.extend_from_slice(&[kind, code(*bucket)]);
        buffer.extend_from_slice(&u32::try_from(key.len()).ok()?.to_le_bytes());
        buffer.extend_from_slice(&u32::try_from(value.len()).ok()?.to_le_bytes());
        buffer.extend_from_slice(key);
        buffer.extend_from_slice(value);
    }
    let operations = u32::try_from(buffer.len() - HEADER).ok()?;
    buffer[8..16].copy_from_slice(&sequence.to_le_bytes());
    buffer[16..20].copy_from_slice(&operations.to_le_bytes());
    let sum = xxh64(&buffer[8..], salt);
    buffer[..8].copy_from_slice(&sum.to_le_bytes());
    buffer.resize(buffer.len().next_multiple_of(ALIGN), 0);
    Some(())
}

/// Reads the frame that `bytes` start with; `None` if there is no whole frame of this log.
pub(crate) fn decode(salt: u64, bytes: &[u8]) -> Option<Frame<'_>> {
    let sum = number(bytes)?;
    let sequence = number(bytes.get(8..)?)?;
    let length = number(bytes.get(16..)?)?;
    let end = HEADER.checked_add(usize::try_from(length).ok()?)?;
    let operations = bytes.get(HEADER..end)?;
    (xxh64(bytes.get(8..end)?, salt) == sum).then(|| Frame {
        sequence,
        length: end.next_multiple_of(ALIGN),
        operations,
    })
}

fn number(bytes: &[u8]) -> Option<u64> {
    bytes.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

/// The numbers stay what they are: they are on disks.
fn code(bucket: Bucket) -> u8 {
    match bucket {
        Bucket::Key => 0,
        Bucket::Lease => 1,
        Bucket::Auth => 2,
        Bucket::AuthUsers => 3,
        Bucket::AuthRoles => 4,
        Bucket::Meta => 5,
        Bucket::Alarm => 6,
        Bucket::Members => 7,
        Bucket::MembersRemoved => 8,
        Bucket::Cluster => 9,
    }
}

// === impl Frame ===

impl Frame<'_> {
    /// The operations, in order; `None` if they are not what [`encode`] writes.
    pub(crate) fn operations(&self) -> Option<Vec<Operation>> {
        let mut rest = self.operations;
        let mut operations = Vec::new();
        while !rest.is_empty() {
            let (head, body) = rest.split_first_chunk::<OPERATION>()?;
            let [kind, bucket, k0, k1, k2, k3, v0, v1, v2, v3] = *head;
            let (key, body) = split(body, u32::from_le_bytes([k0, k1, k2, k3]))?;
            let (value, body) = split(body, u32::from_le_bytes([v0, v1, v2, v3]))?;
            rest = body;
            let bucket = Bucket::ALL.into_iter().find(|known| code(*known) == bucket)?;
            operations.push(match kind {
                PUT => Operation::Put { bucket, key, value },
                DELETE => Operation::Delete { bucket, key },
                DELETE_RANGE => Operation::DeleteRange { bucket, from: key, to: value },
                _ => return None,
            });
        }
        Some(operations)
    }
}

fn split(bytes: &[u8], at: u32) -> Option<(Bytes, &[u8])> {
    let (head, tail) = bytes.split_at_checked(usize::try_from(at).ok()?)?;
    Some((Bytes::copy_from_slice(head), tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> WriteBatch {
        let mut batch = WriteBatch::new();
        batch.put(Bucket::Key, "key", "value");
        batch.delete(Bucket::Lease, "");
        batch.delete_range(Bucket::Cluster, "a", "");
        batch
    }

    #[test]
    fn a_frame_is_read_as_it_was_written() {
        let mut bytes = Vec::new();
        encode(7, 3, &batch(), &mut bytes).unwrap();
        assert_eq!((bytes.len(), bytes.len() % ALIGN), (length(&batch()), 0));
        let frame = decode(7, &bytes).unwrap();
        assert_eq!((frame.sequence, frame.length), (3, bytes.len()));
        assert_eq!(frame.operations().unwrap(), batch().into_iter().collect::<Vec<_>>());
        assert_eq!(decode(8, &bytes), None, "of another log");
    }

    #[test]
    fn no_changed_bit_goes_unseen() {
        let mut bytes = Vec::new();
        encode(7, 3, &batch(), &mut bytes).unwrap();
        let used = HEADER + batch().len() * OPERATION + batch().bytes();
        for bit in 0..used * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(7, &bytes), None, "{bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        for cut in 0..used {
            assert_eq!(decode(7, &bytes[..cut]), None, "{cut}");
        }
    }
}
