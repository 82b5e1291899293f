//! The channel against servers on real sockets. One program, so that the libraries are linked once.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "what the tests share is no less a test than they are"
)]

mod drain;
mod etcd;
mod hazards;
mod health;
mod http;
mod http2;
mod large_fleets;
mod limits;
mod observed;
mod outliers;
mod panics;
mod policies;
mod retries;
mod rolling;
mod service_config;
mod slow_start;
mod streaming;
mod stuck;
mod support;
mod transport;
mod waiting;
