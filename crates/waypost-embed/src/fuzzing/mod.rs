//! The bodies of the fuzz targets, and the invariants that they and the property tests check.
//!
//! Nothing here is an interface: it is compiled for tests and under the feature `fuzzing`.

#![expect(clippy::expect_used, clippy::panic, reason = "a broken invariant is reported by panicking")]

mod bytes;
mod json;
mod requests;
mod sequence;
mod watches;

pub(crate) use bytes::Choices;
pub use json::json;
pub use requests::requests;
pub use sequence::sequence;
pub use watches::watches;

use std::io::Cursor;
use std::ops::ControlFlow;

use crate::bolt::{ReadError, Reader, WriteError, Writer, seal};

/// Arbitrary bytes as the log in front of the database.
pub fn log(data: &[u8]) {
    crate::storage::fuzzed::log(data);
}

/// Arbitrary bytes as a file of bbolt. What can be read of it must be writable, and is then read as the same.
pub fn bolt(file: &[u8]) {
    drop(seal::check(&mut Cursor::new(file)));
    let Ok(read) = read(file) else { return };
    let mut again = match write(&read) {
        Ok(file) => file,
        // bbolt itself does not write such keys.
        Err(WriteError::KeyLength(_)) => return,
        // A finding: this is what the target is run for, and no server has this code.
        Err(error) => panic!("what was read is not written: {error}"),
    };
    let read_again = self::read(&again);
    assert!(matches!(&read_again, Ok(buckets) if *buckets == read), "{read_again:?} after {read:?}");
    let mut sealed = Cursor::new(std::mem::take(&mut again));
    assert!(seal::append(&mut sealed).is_ok());
    assert!(matches!(seal::check(&mut sealed), Ok(seal::Seal::Intact)));
}

type Entries = Vec<(Vec<u8>, Vec<u8>)>;

fn read(file: &[u8]) -> Result<Vec<(Vec<u8>, u64, Entries)>, ReadError> {
    let mut reader = Reader::new(Cursor::new(file), "fuzz")?;
    let mut buckets = Vec::new();
    // Many buckets may share the pages of one: what is read is bounded by a few times the file.
    for info in reader.buckets()?.into_iter().take(16) {
        let mut entries = Entries::new();
        reader.for_each(&info.name, &mut |key, value| {
            entries.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        })?;
        buckets.push((info.name, info.sequence, entries));
    }
    Ok(buckets)
}

fn write(buckets: &[(Vec<u8>, u64, Entries)]) -> Result<Vec<u8>, WriteError> {
    let mut writer = Writer::new(Cursor::new(Vec::new()))?;
    for (name, sequence, entries) in buckets {
        writer.bucket(name, *sequence, |bucket| {
            entries.iter().try_for_each(|(key, value)| bucket.put(key, value))
        })?;
    }
    Ok(writer.finish()?.0.into_inner())
}
