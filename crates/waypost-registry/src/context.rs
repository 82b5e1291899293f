//! What all groups of a registry share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64};

use tokio::sync::{Semaphore, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use waypost_etcd::{Client, LeaseKeeper};

use crate::{
    driver::{Command, Driver},
    machine::{GroupId, OwnedLeases, Placement},
    metrics::Metrics,
    options::RegistryOptions,
};

/// What all groups of a registry share.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) options: RegistryOptions,
    pub(crate) metrics: Metrics,
    /// Bounds the requests in flight.
    pub(crate) permits: Arc<Semaphore>,
    pub(crate) next_seat: AtomicU64,
    /// Runs the drivers.
    pub(crate) tasks: TaskTracker,
    /// Ends the drivers where they stand.
    pub(crate) kill: CancellationToken,
    owned: Mutex<OwnedLeases>,
    roster: Mutex<Roster>,
    /// Made with the first registration, since it needs a runtime.
    keeper: Mutex<Option<LeaseKeeper>>,
}

/// Who is where.
#[derive(Debug)]
pub(crate) struct Roster {
    pub(crate) placement: Placement<mpsc::UnboundedSender<Command>>,
    /// Shut down: nobody may join.
    pub(crate) closed: bool,
}

// === impl Context ===

impl Context {
    pub(crate) fn new(client: Client, options: RegistryOptions) -> Self {
        Self {
            client,
            metrics: Metrics::default(),
            permits: Arc::new(Semaphore::new(options.in_flight)),
            next_seat: AtomicU64::new(0),
            tasks: TaskTracker::new(),
            kill: CancellationToken::new(),
            owned: Mutex::default(),
            roster: Mutex::new(Roster {
                placement: Placement::new(crate::options::KEYS_PER_LEASE),
                closed: false,
            }),
            keeper: Mutex::new(None),
            options,
        }
    }

    // None of these locks is held across an await, nor while another is taken, and nothing panics under them.

    pub(crate) fn owned(&self) -> MutexGuard<'_, OwnedLeases> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn roster(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The keeper of all leases. Must be called inside a tokio runtime.
    pub(crate) fn keeper(&self) -> LeaseKeeper {
        let mut keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        keeper.get_or_insert_with(|| LeaseKeeper::new(self.client.clone())).clone()
    }

    /// Starts the driver of a new group on `runtime`.
    pub(crate) fn open_group(
        self: &Arc<Self>,
        group: GroupId,
        runtime: &tokio::runtime::Handle,
    ) -> mpsc::UnboundedSender<Command> {
        let (commands, inbox) = mpsc::unbounded_channel();
        let driver = Driver::new(Arc::clone(self), group, inbox);
        let kill = self.kill.clone();
        self.tasks.spawn_on(
            async move {
                kill.run_until_cancelled_owned(driver.run()).await;
            },
            runtime,
        );
        commands
    }
}
