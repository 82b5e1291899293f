//! Clients that nobody here wrote: each does the same at etcd 3.5, which proves the client's program, and at the
//! embedded server.
#![forbid(unsafe_code)]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on must fail at once"
)]

mod both;
mod etcdctl;
mod libraries;
