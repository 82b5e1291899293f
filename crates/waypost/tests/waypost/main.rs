//! Servers, clients and real etcd, as a program uses them. One program, so that the libraries are linked once.
#![forbid(unsafe_code)]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "what the tests share is no less a test than they are"
)]

mod client_number;
#[cfg(feature = "embed")]
mod embed;
mod grows_up;
mod h10_rolling_restart;
mod h40_channel;
mod interop_go;
mod serve;
mod service_config;
mod support;
mod zone;
