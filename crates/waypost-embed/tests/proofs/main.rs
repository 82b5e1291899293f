//! What holds of a server in a process of its own whatever happens to it: kills at random moments, and whatever is sent.
#![forbid(unsafe_code)]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "what a test asks for must be there"
)]

mod crash;
mod linear;
mod node;
mod promises;
mod register;
mod rest;
mod work;
