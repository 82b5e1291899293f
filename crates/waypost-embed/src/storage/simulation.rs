//! A disk in memory that fails when it is told to, for tests of the whole server.

use std::path::PathBuf;

use super::engine::Engine;
use super::medium::Medium as _;
use super::simulated::{Random, Simulated};
use super::{Store, StoreOptions};

const CACHE: usize = 1 << 20;
/// Small, so that it is full now and then.
const LOG: u64 = 128 << 10;

/// A disk with a store on it.
pub(crate) struct Simulation(Simulated);

// === impl Simulation ===

impl Simulation {
    /// With an empty store.
    pub(crate) fn new() -> Self {
        let disk = Simulated::default();
        drop(Engine::create(disk.begin().unwrap(), PathBuf::from("simulated"), CACHE).unwrap());
        disk.replace().unwrap();
        Self(disk)
    }

    /// Opens the store.
    pub(crate) fn open(&self) -> Store {
        let options = StoreOptions { cache_bytes: CACHE, log_bytes: LOG };
        Store::on(Box::new(self.0.clone()), None, options).unwrap()
    }

    /// From now on there are so many blocks of 4 KiB, beyond those in use; `None`: as many as are wanted.
    pub(crate) fn leave_blocks(&self, blocks: Option<usize>) {
        let taken = usize::try_from(self.0.bytes().unwrap() / 4096).unwrap();
        self.0.faults().blocks = blocks.map(|blocks| blocks + taken);
    }

    /// So many syncs fail from now on.
    pub(crate) fn fail_syncs(&self, syncs: u32) {
        self.0.faults().failing_syncs = syncs;
    }

    /// The power goes at one of the next operations.
    pub(crate) fn lose_power_within(&self, seed: u64, operations: usize) {
        let mut faults = self.0.faults();
        faults.power_until = Some(faults.operations + Random(seed).below(operations) as u64);
    }

    /// The disk when the power is back.
    pub(crate) fn after_power_loss(&self, seed: u64) -> Self {
        Self(self.0.after_power_loss(&mut Random(seed)))
    }
}
