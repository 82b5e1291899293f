//! Every key at every revision: an index in memory, values in the [`backend`](crate::backend).
//!
//! A write makes one revision, however many keys it touches. [`Store`] keeps, for each key, the revisions at which it
//! changed; a value is found in the backend by its revision. What is written is first *uncommitted*: the requests of the
//! same batch see it, readers do not, until [`Store::committed`] says that the disk has it, or [`Store::roll_back`]
//! that it never will.
//!
//! Records are etcd's: bucket `key`, 8 bytes of revision, `_`, 8 bytes of position within the revision, then `t` for a
//! deletion; the value is a `mvccpb.KeyValue`, of a deletion with nothing but the key.

mod changes;
mod error;
mod history;
mod index;
mod past;
mod reload;
mod revision;
mod span;
mod store;
#[cfg(test)]
mod tests;

pub use changes::{Change, changes, previous};
pub use error::{Malformed, StoreError};
pub use index::{Found, Key};
pub use past::Past;
pub use revision::Revision;
pub use span::Span;
pub use store::{CompactionProgress, Savepoint, Store, Write};
pub(crate) use store::{fetch, fetch_with};
