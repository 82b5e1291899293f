//! Registration against real etcd, the tests named after the hazards that they rule out.

mod address;
mod crowd;
mod edit;
mod healing;
mod leaving;
mod ownership;
mod support;
