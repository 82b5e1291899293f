//! Each hazard of discovery, made to happen to real servers.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says so when what it needs is not there")]

mod support;

mod h20_compacted;
mod h24_etcd_away;
mod h26_names;
mod h27_malformed;
mod h28_empty;
