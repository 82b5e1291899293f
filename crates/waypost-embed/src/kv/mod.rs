//! The key space as clients see it: requests in, answers and changes out.
//!
//! A request goes through two steps, since authorization comes between them: the `check_*` functions look at the request
//! alone; [`KeySpace`] then applies it. What is applied is atomic: a request that is refused, or that fails because the
//! backend does, has changed nothing.
//!
//! One writer applies requests one after another, commits what [`KeySpace::take_batch`] gives, and says how that went
//! ([`KeySpace::committed`], [`KeySpace::roll_back`]). Readers need `&KeySpace` only to [plan](KeySpace::plan_range) a
//! read; values are [fetched](RangePlan::fetch) from the backend without it.
//!
//! ```
//! use waypost_embed::backend::{Backend, MemoryBackend};
//! use waypost_embed::kv::{KeySpace, check_put, check_range};
//! use waypost_proto::etcdserverpb::{PutRequest, RangeRequest};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let backend = MemoryBackend::new();
//! let mut space = KeySpace::load(&backend, 2, 0)?;
//!
//! let put = PutRequest { key: "a".into(), value: "1".into(), ..PutRequest::default() };
//! check_put(&put)?;
//! let applied = space.put(&backend, put)?;
//! let range = RangeRequest { key: "a".into(), ..RangeRequest::default() };
//! check_range(&range)?;
//! assert_eq!(space.plan_range(&range)?.fetch(&backend)?.count, 0, "not committed yet");
//!
//! backend.commit(space.take_batch())?;
//! space.committed();
//! assert_eq!(applied.answer.header.map(|header| header.revision), Some(2));
//! assert_eq!(space.plan_range(&range)?.fetch(&backend)?.kvs[0].value, "1");
//! # Ok(())
//! # }
//! ```

mod check;
mod compare;
mod intervals;
mod leases;
mod range;
mod space;
#[cfg(test)]
mod tests;
mod txn;

pub use check::{
    DEFAULT_MAX_OPS, MAX_DEPTH, check_delete_range, check_put, check_range, check_txn, has_put, is_read_only,
};
pub use range::RangePlan;
pub use space::{Applied, KeySpace};
