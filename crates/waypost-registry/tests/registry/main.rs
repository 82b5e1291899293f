//! Registration against real etcd, the tests named after the hazards that they rule out.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "what the tests share is no less a test than they are"
)]

mod address;
mod crowd;
mod edit;
mod healing;
mod leaving;
mod ownership;
mod support;
