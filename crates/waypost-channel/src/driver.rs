//! The one task of a pool: follows discovery, keeps connections, ejects, publishes tables. With or without traffic.

use crate::connection::{Attempt, Event, What};
use crate::dial::Dial;
use crate::fleet::{Action, ConnectionId, Fleet};
use crate::pool::Board;
use crate::publisher::Publisher;
use crate::settings::Tuning;
use crate::table::Connection;
use crate::wards::Wards;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use waypost_balance::EndpointState;
use waypost_discovery::Subscription;
use waypost_model::Endpoint;

/// The driver of one pool, with all that it needs to start.
pub(crate) struct Driver<D: Dial> {
    pub(crate) subscription: Subscription,
    pub(crate) fleet: Fleet,
    pub(crate) wards: Wards,
    pub(crate) publisher: Publisher<D::Connection>,
    pub(crate) tuned: watch::Receiver<Tuning>,
    pub(crate) dialer: Arc<D>,
    pub(crate) connect_timeout: Duration,
    pub(crate) board: Arc<Board<D::Connection>>,
    pub(crate) inbox: Inbox,
    /// Cancelled when the last clone of the pool is gone.
    pub(crate) stop: CancellationToken,
}

/// What calls tell the driver.
pub(crate) struct Inbox {
    /// Endpoints that they would go to, were they connected to.
    pub(crate) wanted: mpsc::UnboundedReceiver<Endpoint>,
    /// Endpoints that they failed on once too often.
    pub(crate) suspects: mpsc::Receiver<Arc<EndpointState>>,
}

/// A connection, or an attempt to make one.
struct Handle<C> {
    abort: CancellationToken,
    retired: CancellationToken,
    stage: Stage<C>,
}

enum Stage<C> {
    Connecting,
    Live(Arc<Connection<C>>),
    /// It takes no more calls; some may go on.
    Leaving,
}

type Handles<C> = HashMap<ConnectionId, Handle<C>>;

/// Events that are taken before the next table is published: one table for many connections.
const BATCH: usize = 256;

/// How soon it is looked again whether a call still reads a table that was replaced: a pick takes less than a microsecond.
const READING: Duration = Duration::from_millis(5);

// === impl Driver ===

impl<D: Dial> Driver<D> {
    /// Runs until the pool is gone.
    pub(crate) async fn run(mut self) {
        let (events, mut arrivals) = mpsc::unbounded_channel();
        let mut handles = Handles::new();
        let mut snapshot = self.subscription.mark_seen();
        self.fleet.apply(&snapshot, now());
        let (mut changed, mut anew) = (false, false);
        loop {
            self.perform(&mut handles, &events);
            self.wards.tick(&mut self.fleet, now());
            changed |= self.fleet.take_changed();
            let mut later = None;
            if changed || anew {
                later = self.publisher.not_before(&self.fleet, now());
                if later.is_none() {
                    let policy = self.tuned.borrow().policy().clone();
                    self.publisher.publish(&mut self.fleet, &policy, anew).await;
                    anew = false;
                    // Gates have opened.
                    self.wards.weigh(&mut self.fleet, now());
                    changed = self.fleet.has_changed();
                    if changed {
                        continue;
                    }
                }
            }
            if later.is_none() && !Arc::ptr_eq(&snapshot, &self.board.applied.load()) {
                self.board.applied.store(Arc::clone(&snapshot));
                self.publisher.wake.send_replace(());
            }
            if self.publisher.forget_past() {
                later = Some(later.unwrap_or_else(|| now() + READING));
            }
            let wakes = [self.fleet.next_wake(), self.wards.next_wake(), later];
            let wake = wakes.into_iter().flatten().min().map(Instant::from_std);
            tokio::select! {
                () = self.stop.cancelled() => break,
                newest = self.subscription.changed() => {
                    snapshot = newest;
                    self.fleet.apply(&snapshot, now());
                }
                Ok(()) = self.tuned.changed() => {
                    let outliers = self.tuned.borrow_and_update().outliers().cloned();
                    self.wards.retune(outliers.as_ref(), &mut self.fleet, now());
                    anew = true;
                }
                Some(event) = arrivals.recv() => {
                    self.on_event(event, &mut handles);
                    for _ in 1..BATCH {
                        let Ok(event) = arrivals.try_recv() else { break };
                        self.on_event(event, &mut handles);
                    }
                }
                Some(endpoint) = self.inbox.wanted.recv() => self.fleet.wanted(&endpoint, now()),
                Some(suspect) = self.inbox.suspects.recv() => {
                    self.wards.examine(&suspect, &mut self.fleet, now());
                }
                // Who else is due has a turn with every round.
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {
                    if self.fleet.next_wake().is_some_and(|due| due <= now()) {
                        self.fleet.tick(now());
                    }
                }
            }
        }
        // Connections end by themselves when their last call has: only unfinished attempts are stopped.
        for handle in handles.into_values().filter(|handle| matches!(handle.stage, Stage::Connecting)) {
            handle.abort.cancel();
        }
        self.publisher.end(self.tuned.borrow().policy());
    }

    fn on_event(&mut self, event: Event<D::Connection>, handles: &mut Handles<D::Connection>) {
        let Event { id, endpoint, what } = event;
        match what {
            What::Connected(over, fitness) => {
                let state = self.fleet.state_of(&endpoint, id);
                if let (Some(handle), Some(state)) = (handles.get_mut(&id), state) {
                    let suspicion = self.wards.suspicion();
                    handle.stage = Stage::Live(Arc::new(Connection { over, state, suspicion }));
                    self.fitness(&endpoint, id, fitness);
                }
            }
            What::Fitness(fitness) => self.fitness(&endpoint, id, fitness),
            What::Failed(error) => {
                handles.remove(&id);
                tracing::debug!(%endpoint, %error, "cannot connect");
                self.fleet.failed(&endpoint, id, error, now());
            }
            What::Closed(cause) => {
                // Streams of a connection that took leave in peace go on without us, so nothing is aborted here.
                if let Some(handle) = handles.get_mut(&id) {
                    handle.stage = Stage::Leaving;
                }
                self.fleet.closed(&endpoint, id, cause, now());
            }
            What::Over => {
                handles.remove(&id);
                self.fleet.over(&endpoint, id);
            }
        }
    }

    fn fitness(&mut self, endpoint: &Endpoint, id: ConnectionId, fitness: Result<(), Arc<str>>) {
        match fitness {
            Ok(()) => self.fleet.connected(endpoint, id, now()),
            Err(cause) => {
                tracing::debug!(%endpoint, %cause, "not fit for calls");
                self.fleet.unfit(endpoint, id, cause, now());
            }
        }
    }

    /// Does what the fleet wants done.
    fn perform(
        &mut self,
        handles: &mut Handles<D::Connection>,
        events: &mpsc::UnboundedSender<Event<D::Connection>>,
    ) {
        for action in self.fleet.take_actions() {
            match action {
                Action::Connect { id, state } => {
                    let abort = CancellationToken::new();
                    let retired = CancellationToken::new();
                    let handle =
                        Handle { abort: abort.clone(), retired: retired.clone(), stage: Stage::Connecting };
                    handles.insert(id, handle);
                    let attempt = Attempt {
                        id,
                        state,
                        dialer: Arc::clone(&self.dialer),
                        limit: self.connect_timeout,
                        events: events.clone(),
                        abort,
                        retired,
                    };
                    tokio::spawn(attempt.run());
                }
                Action::Retire { id } => {
                    if let Some(handle) = handles.get_mut(&id) {
                        handle.stage = Stage::Leaving;
                        handle.retired.cancel();
                    }
                }
                Action::Abort { id } => {
                    if let Some(handle) = handles.remove(&id) {
                        handle.abort.cancel();
                    }
                }
                Action::Observe { state } => self.wards.observe(&state),
                Action::Forget { state } => self.wards.forget(&state),
            }
        }
        for endpoint in self.fleet.take_stirred() {
            let live = self.fleet.ready_at(&endpoint).and_then(|id| match &handles.get(&id)?.stage {
                Stage::Live(connection) => Some(Arc::clone(connection)),
                Stage::Connecting | Stage::Leaving => None,
            });
            self.publisher.place(&endpoint, live);
        }
    }
}

/// Time as tokio tells it, so that tests can stop the clock.
pub(crate) fn now() -> std::time::Instant {
    Instant::now().into_std()
}
