//! Hashes of what is stored, as etcd computes them: CRC-32C of names, keys and values in order.

use std::ops::ControlFlow;

use prost::Message as _;
use waypost_proto::mvccpb::KeyValue;

use super::engine::{Shared, read};
use crate::backend::{Backend as _, Bucket};
use crate::bolt::Source as _;
use crate::error::Refusal;
use crate::mvcc::{Revision, Span, StoreError};

/// The hash of the keys as of a revision.
pub(super) struct KeysHash {
    pub(super) hash: u32,
    /// The revision that was hashed up to.
    pub(super) revision: i64,
    /// The compacted revision; -1: none.
    pub(super) compacted: i64,
}

/// CRC-32 with Castagnoli's polynomial.
struct Crc(u32);

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "it is below 256")]
        let mut value = index as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { (value >> 1) ^ 0x82F6_3B78 } else { value >> 1 };
            bit += 1;
        }
        table[index] = value;
        index += 1;
    }
    table
};

/// The hash of all buckets.
pub(super) fn of_everything(shared: &Shared) -> Result<u32, StoreError> {
    let view = shared.backend.view()?;
    let mut crc = Crc::new();
    for bucket in Bucket::ALL {
        crc.add(bucket.name().as_bytes());
        view.visit(bucket, &mut |key, value| {
            crc.add(key);
            crc.add(value);
            ControlFlow::Continue(())
        })?;
    }
    Ok(crc.value())
}

/// The hash of the keys as of a revision, 0 for the newest: of what a finished compaction leaves, whether or not it is
/// finished.
pub(super) fn of_keys(shared: &Shared, asked: i64) -> Result<KeysHash, StoreError> {
    loop {
        let (newest, compacted) = {
            let space = read(&shared.space);
            (space.store().revision(), space.store().compacted())
        };
        let revision = if asked == 0 { newest } else { asked };
        if revision > 0 && revision < compacted {
            return Err(Refusal::Compacted.into());
        }
        if revision > newest {
            return Err(Refusal::FutureRevision.into());
        }
        let hash = keys_between(shared, compacted, revision)?;
        // Otherwise something may be gone that the hash is of.
        if read(&shared.space).store().compacted() == compacted {
            return Ok(KeysHash { hash, revision, compacted });
        }
    }
}

/// As etcd does it: of what was written up to the compacted revision only counts what the asked one still shows, unless that
/// shows nothing at all.
fn keys_between(shared: &Shared, compacted: i64, revision: i64) -> Result<u32, StoreError> {
    let mut crc = Crc::new();
    crc.add(Bucket::Key.name().as_bytes());
    let end = revision.saturating_add(1).max(0).to_be_bytes();
    let shows_any = read(&shared.space).store().range(Span::From(b""), revision).next().is_some();
    let shown_at = if shows_any { revision } else { compacted };
    shared.backend.scan(Bucket::Key, &[], &end, &mut |key, value| {
        let Some((at, tombstone)) = Revision::decode(key) else { return ControlFlow::Continue(()) };
        if at.main > compacted || (!tombstone && is_shown(shared, at, value, shown_at)) {
            crc.add(key);
            crc.add(value);
        }
        ControlFlow::Continue(())
    })?;
    Ok(crc.value())
}

/// Whether a version is what a read of its key gave at a revision.
fn is_shown(shared: &Shared, at: Revision, value: &[u8], revision: i64) -> bool {
    let Ok(kv) = KeyValue::decode(value) else { return false };
    read(&shared.space).store().get(&kv.key, revision).is_some_and(|found| found.revision == at)
}

// === impl Crc ===

impl Crc {
    fn new() -> Self {
        Self(u32::MAX)
    }

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let [low, ..] = self.0.to_le_bytes();
            self.0 = (self.0 >> 8) ^ TABLE[usize::from(low ^ byte)];
        }
    }

    fn value(&self) -> u32 {
        !self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_of_crc_32c() {
        let mut crc = Crc::new();
        crc.add(b"1234");
        crc.add(b"56789");
        assert_eq!(crc.value(), 0xE306_9283);
    }
}
