//! Where the embedded server keeps everything: a durable [`Backend`](crate::backend::Backend).

mod engine;
mod error;
#[cfg(test)]
mod failures;
mod faulty;
mod folder;
mod medium;
#[cfg(test)]
mod simulated;
mod store;
#[cfg(test)]
mod tests;

pub use faulty::FaultyBackend;
pub use store::{Store, StoreOptions, View};
