//! bbolt's file format, which etcd's snapshots and databases are in: a [`Writer`] that loads a whole file in order, and
//! a [`Reader`] that trusts nothing it reads.
//!
//! Restoring a snapshot of etcd is [`import`], taking one that etcd restores is [`export`] and then [`seal::append`].
//!
//! # The format
//!
//! A file is a sequence of pages (4096 bytes as written here; a reader takes the size from the file), numbers are
//! little-endian. A page that is too small for what it holds runs on over the `overflow` pages that follow it.
//!
//! | part | bytes |
//! |---|---|
//! | page header | id `u64`, flags `u16` (1 branch, 2 leaf, 4 meta, 16 freelist), count `u16`, overflow `u32` |
//! | branch element | position `u32`, key length `u32`, page `u64` |
//! | leaf element | flags `u32` (1: the value is a bucket), position `u32`, key length `u32`, value length `u32` |
//! | bucket | root page `u64` (0: a leaf page follows, inline), sequence `u64` |
//! | meta | magic `u32`, version `u32`, page size `u32`, flags `u32`, root bucket, freelist `u64`, pages in use `u64`, transaction `u64`, FNV-1a 64 of what precedes `u64` |
//!
//! Positions count from the start of their element. Pages 0 and 1 are metas, of which the valid one with the higher
//! transaction counts. The root bucket's keys are the names of etcd's buckets; theirs are etcd's keys.
//!
//! ```
//! use std::io::Cursor;
//! use std::ops::ControlFlow;
//! use waypost_embed::bolt::{Reader, WriteError, Writer};
//!
//! let mut writer = Writer::new(Cursor::new(Vec::new()))?;
//! writer.bucket(b"lease", 0, |bucket| bucket.put(b"key", b"value"))?;
//! let (file, summary) = writer.finish()?;
//! assert_eq!((summary.entries, summary.bytes), (1, 5 * 4096));
//!
//! let mut reader = Reader::new(file, "example")?;
//! let mut values = Vec::new();
//! reader.for_each(b"lease", &mut |_, value| {
//!     values.push(value.to_vec());
//!     ControlFlow::Continue(())
//! })?;
//! assert_eq!(values, [b"value"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod copy;
mod error;
mod meta;
mod page;
mod reader;
pub mod seal;
#[cfg(test)]
mod tests;
mod writer;

pub use copy::{CopyError, Imported, Source, export, import};
pub use error::{ReadError, WriteError};
pub use reader::{BucketInfo, Reader, VisitEntry};
pub use writer::{BucketWriter, MAX_KEY, MAX_VALUE, Summary, Writer};
