//! Each hazard of discovery, made to happen to real servers.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says so when what it needs is not there")]

mod support;

mod h20_compacted;
mod h21_went_back;
mod h22_half_open;
mod h23_leader_lost;
mod h24_etcd_away;
mod h25_cold_start;
mod h26_names;
mod h27_malformed;
mod h28_empty;
mod h30_auth;
mod h31_slow_subscriber;
mod h32_flapping;
mod metrics;
