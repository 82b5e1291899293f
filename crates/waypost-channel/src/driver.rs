//! The one task of a pool: follows discovery, keeps connections, publishes tables. With or without traffic.

use crate::connection::{Attempt, Event, What};
use crate::dial::Dial;
use crate::fleet::{Action, ConnectionId, Fleet, Outlook};
use crate::policy::Front;
use crate::pool::Board;
use crate::settings::Tuning;
use crate::table::{Connection, Table};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use waypost_discovery::Subscription;

/// The driver of one pool, with all that it needs to start.
pub(crate) struct Driver<D: Dial> {
    pub(crate) subscription: Subscription,
    pub(crate) fleet: Fleet,
    pub(crate) tuned: watch::Receiver<Tuning>,
    pub(crate) front: Front,
    pub(crate) dialer: Arc<D>,
    pub(crate) connect_timeout: Duration,
    pub(crate) board: Arc<Board<D::Connection>>,
    /// Tells that there is a newer table. Calls that wait learn from its end that there will be none.
    pub(crate) wake: watch::Sender<()>,
    /// Cancelled when the last clone of the pool is gone.
    pub(crate) stop: CancellationToken,
}

/// A connection, or an attempt to make one.
struct Handle<C> {
    abort: CancellationToken,
    stage: Stage<C>,
}

enum Stage<C> {
    Connecting,
    Live(Connection<C>),
    /// It takes no more calls.
    Leaving,
}

type Handles<C> = HashMap<ConnectionId, Handle<C>>;

/// Events that are taken before the next table is published: one table for many connections.
const BATCH: usize = 256;

// === impl Driver ===

impl<D: Dial> Driver<D> {
    /// Runs until the pool is gone.
    pub(crate) async fn run(mut self) {
        let (events, mut arrivals) = mpsc::unbounded_channel();
        let mut handles = HashMap::new();
        let mut snapshot = self.subscription.mark_seen();
        self.fleet.apply(&snapshot, now());
        loop {
            self.perform(&mut handles, &events);
            let applied = Arc::ptr_eq(&snapshot, &self.board.applied.load());
            if self.fleet.take_changed() {
                self.publish(&handles, false);
            }
            if !applied {
                self.board.applied.store(Arc::clone(&snapshot));
                self.wake.send_replace(());
            }
            let wake = self.fleet.next_wake().map(Instant::from_std);
            tokio::select! {
                () = self.stop.cancelled() => break,
                newest = self.subscription.changed() => {
                    snapshot = newest;
                    self.fleet.apply(&snapshot, now());
                }
                Ok(()) = self.tuned.changed() => self.publish(&handles, true),
                Some(event) = arrivals.recv() => {
                    self.on_event(event, &mut handles);
                    for _ in 1..BATCH {
                        let Ok(event) = arrivals.try_recv() else { break };
                        self.on_event(event, &mut handles);
                    }
                }
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => self.fleet.tick(now()),
            }
        }
        // Connections end by themselves when their last call has: only unfinished attempts are stopped.
        for handle in handles.into_values().filter(|handle| matches!(handle.stage, Stage::Connecting)) {
            handle.abort.cancel();
        }
        let policy = self.tuned.borrow().policy().clone();
        self.board.table.store(Arc::new(Table::empty(&policy, Outlook::Unavailable)));
    }

    fn on_event(&mut self, event: Event<D::Connection>, handles: &mut Handles<D::Connection>) {
        let Event { id, endpoint, what } = event;
        match what {
            What::Connected(over) => {
                let state = self.fleet.state_of(&endpoint, id);
                if let (Some(handle), Some(state)) = (handles.get_mut(&id), state) {
                    handle.stage = Stage::Live(Connection { over, state });
                    self.fleet.connected(&endpoint, id, now());
                }
            }
            What::Failed(error) => {
                handles.remove(&id);
                tracing::debug!(%endpoint, %error, "cannot connect");
                self.fleet.failed(&endpoint, id, error, now());
            }
            What::Closed(cause) => {
                // Streams of a connection that took leave in peace go on without us, so nothing is aborted here.
                if handles.get(&id).is_some_and(|handle| matches!(handle.stage, Stage::Live(_))) {
                    handles.remove(&id);
                }
                self.fleet.closed(&endpoint, id, cause, now());
            }
        }
    }

    fn perform(
        &mut self,
        handles: &mut Handles<D::Connection>,
        events: &mpsc::UnboundedSender<Event<D::Connection>>,
    ) {
        for action in self.fleet.take_actions() {
            match action {
                Action::Connect { id, state } => {
                    let abort = CancellationToken::new();
                    handles.insert(id, Handle { abort: abort.clone(), stage: Stage::Connecting });
                    let attempt = Attempt {
                        id,
                        state,
                        dialer: Arc::clone(&self.dialer),
                        limit: self.connect_timeout,
                        events: events.clone(),
                        abort,
                    };
                    tokio::spawn(attempt.run());
                }
                Action::Retire { id } => {
                    if let Some(handle) = handles.get_mut(&id) {
                        handle.stage = Stage::Leaving;
                    }
                }
                Action::Abort { id } => {
                    if let Some(handle) = handles.remove(&id) {
                        handle.abort.cancel();
                    }
                }
            }
        }
    }

    /// Makes the fleet of this instant what calls see from now on.
    fn publish(&mut self, handles: &Handles<D::Connection>, retuned: bool) {
        let live = |id| match &handles.get(&id)?.stage {
            Stage::Live(connection) => Some(connection.clone()),
            Stage::Connecting | Stage::Leaving => None,
        };
        let connections: Box<[Connection<D::Connection>]> =
            self.fleet.ready().filter_map(|(id, _)| live(id)).collect();
        let before = self.board.table.load();
        let same = before.connections.len() == connections.len()
            && before
                .connections
                .iter()
                .zip(&connections)
                .all(|(old, new)| Arc::ptr_eq(&old.state, &new.state));
        let policy = self.tuned.borrow_and_update().policy().clone();
        let reweighed = self.fleet.take_reweighed();
        let picker = if same && !reweighed && !retuned {
            Arc::clone(&before.picker)
        } else {
            let ready = connections.iter().map(|connection| Arc::clone(&connection.state)).collect();
            self.front.of(&policy).build(ready, Some(&*before.picker))
        };
        let hash_header = policy.hash_header().cloned();
        let table = Table {
            picker,
            hash_header,
            connections,
            outlook: self.fleet.outlook(),
            census: self.fleet.census(),
        };
        drop(before);
        self.board.table.store(Arc::new(table));
        // After the store: whoever is woken finds at least this table.
        self.wake.send_replace(());
    }
}

/// Time as tokio tells it, so that tests can stop the clock.
pub(crate) fn now() -> std::time::Instant {
    Instant::now().into_std()
}
