//! The one task of a channel: follows discovery, keeps connections, publishes tables. With or without traffic.

use crate::connection::{Attempt, Event, What};
use crate::connector::Connector;
use crate::fleet::{Action, ConnectionId, Fleet, Outlook};
use crate::outgoing::Outgoing;
use crate::settings::{Settings, Tuning};
use crate::shared::Shared;
use crate::table::{Connection, Table};
use http::uri::{Authority, Scheme};
use hyper::client::conn::http2::SendRequest;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use waypost_balance::EndpointState;
use waypost_discovery::Subscription;

/// The driver of one channel, with all that it needs to start.
pub(crate) struct Driver {
    pub(crate) subscription: Subscription,
    pub(crate) fleet: Fleet,
    pub(crate) tuned: watch::Receiver<Tuning>,
    pub(crate) connector: Arc<dyn Connector>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) shared: Arc<Shared>,
    /// Tells that there is a newer table. Calls that wait learn from its end that there will be none.
    pub(crate) wake: watch::Sender<()>,
    /// Cancelled when the last clone of the channel is gone.
    pub(crate) stop: CancellationToken,
}

/// A connection, or an attempt to make one.
struct Handle {
    abort: CancellationToken,
    stage: Stage,
}

enum Stage {
    Connecting,
    Live(Connection),
    /// It takes no more calls.
    Leaving,
}

/// Events that are taken before the next table is published: one table for many connections.
const BATCH: usize = 256;

// === impl Driver ===

impl Driver {
    /// Runs until the channel is gone.
    pub(crate) async fn run(mut self) {
        let (events, mut arrivals) = mpsc::unbounded_channel();
        let mut handles = HashMap::new();
        let mut snapshot = self.subscription.mark_seen();
        self.fleet.apply(&snapshot, now());
        loop {
            self.perform(&mut handles, &events);
            let applied = Arc::ptr_eq(&snapshot, &self.shared.applied.load());
            if self.fleet.take_changed() {
                self.publish(&handles, false);
            }
            if !applied {
                self.shared.applied.store(Arc::clone(&snapshot));
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
        let policy = self.tuned.borrow().policy.clone();
        self.shared.table.store(Arc::new(Table::empty(&policy, Outlook::Unavailable)));
    }

    fn on_event(&mut self, event: Event, handles: &mut HashMap<ConnectionId, Handle>) {
        let Event { id, endpoint, what } = event;
        match what {
            What::Connected(sender) => {
                let state = self.fleet.state_of(&endpoint, id);
                if let (Some(handle), Some(state)) = (handles.get_mut(&id), state) {
                    match connection(sender, state) {
                        Ok(connection) => {
                            handle.stage = Stage::Live(connection);
                            self.fleet.connected(&endpoint, id, now());
                        }
                        Err(error) => {
                            handle.abort.cancel();
                            handles.remove(&id);
                            self.fleet.failed(&endpoint, id, error, now());
                        }
                    }
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
        handles: &mut HashMap<ConnectionId, Handle>,
        events: &mpsc::UnboundedSender<Event>,
    ) {
        for action in self.fleet.take_actions() {
            match action {
                Action::Connect { id, state } => {
                    let abort = CancellationToken::new();
                    handles.insert(id, Handle { abort: abort.clone(), stage: Stage::Connecting });
                    let attempt = Attempt {
                        id,
                        state,
                        connector: Arc::clone(&self.connector),
                        settings: Arc::clone(&self.settings),
                        pace: Arc::clone(&self.shared.pace),
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
    fn publish(&mut self, handles: &HashMap<ConnectionId, Handle>, retuned: bool) {
        let live = |id| match &handles.get(&id)?.stage {
            Stage::Live(connection) => Some(connection.clone()),
            Stage::Connecting | Stage::Leaving => None,
        };
        let connections: Box<[Connection]> = self.fleet.ready().filter_map(|(id, _)| live(id)).collect();
        let before = self.shared.table.load();
        let same = before.connections.len() == connections.len()
            && before
                .connections
                .iter()
                .zip(&connections)
                .all(|(old, new)| Arc::ptr_eq(&old.state, &new.state));
        let policy = self.tuned.borrow_and_update().policy.clone();
        let reweighed = self.fleet.take_reweighed();
        let picker = if same && !reweighed && !retuned {
            Arc::clone(&before.picker)
        } else {
            let ready = connections.iter().map(|connection| Arc::clone(&connection.state)).collect();
            self.settings.front.of(&policy).build(ready, Some(&*before.picker))
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
        self.shared.table.store(Arc::new(table));
        // After the store: whoever is woken finds at least this table.
        self.wake.send_replace(());
    }
}

fn connection(sender: SendRequest<Outgoing>, state: Arc<EndpointState>) -> Result<Connection, Arc<str>> {
    let endpoint = state.endpoint();
    let authority = Authority::try_from(endpoint.authority())
        .map_err(|error| Arc::from(format!("{endpoint} cannot stand in a URI: {error}")))?;
    let scheme = if endpoint.scheme.is_secure() { Scheme::HTTPS } else { Scheme::HTTP };
    Ok(Connection { sender, state, scheme, authority })
}

/// Time as tokio tells it, so that tests can stop the clock.
pub(crate) fn now() -> std::time::Instant {
    Instant::now().into_std()
}
