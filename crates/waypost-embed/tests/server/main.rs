//! The server as clients meet it: `etcdctl` of two versions, our own client, and plain gRPC.
#![forbid(unsafe_code)]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on must fail at once"
)]

mod alarms;
mod clients;
mod ends;
mod full_disk;
mod gateway;
mod hostile;
mod limits;
mod listen;
mod metrics;
mod reflection;
mod restore;
mod shared;
mod support;
mod tls;
mod watching;
mod web;
