//! An etcd v3 server of one node: the deterministic core.
//!
//! Nothing in this crate's core knows a clock, a runtime or a disk: it takes `now`, requests and a
//! [`backend::Backend`], and gives answers and effects.
#![forbid(unsafe_code)]

pub mod auth;
pub mod backend;
pub mod bolt;
pub mod error;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod kv;
pub mod lease;
pub mod mvcc;
pub mod server;
pub mod shared;
pub mod storage;
pub mod watch;
