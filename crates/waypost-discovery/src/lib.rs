//! Discovery of instances in etcd.

#![forbid(unsafe_code)]

pub mod subscription;

pub use subscription::{Publisher, Subscription};
