//! The command as its users run it: the real binary against real etcd.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what a test asks of the command must be there"
)]

mod call;
mod demo;
mod errors;
mod kv;
mod operate;
mod read;
mod register;
mod serve;
mod shared;
mod support;
