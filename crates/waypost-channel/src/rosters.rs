//! The connections that take calls, and their endpoints, as tables have them.
//!
//! A copy of ten thousand of each is twenty thousand counts that are in no cache, and as many when it is dropped. So there are two that
//! take turns: while a table has one, the other, that of the table before, is brought up to date.

use crate::table::Connection;
use std::collections::BTreeMap;
use std::sync::Arc;
use waypost_balance::{EndpointState, Roster};
use waypost_model::Endpoint;

/// The two of a pool.
pub(crate) struct Rosters<C> {
    shown: Shown<C>,
    /// What was shown before, until nobody reads it any more.
    last: Option<Shown<C>>,
    /// The same as what is shown.
    spare: Option<Lists<C>>,
    /// By what the shown one differs from the last.
    behind: Changes<C>,
    /// By what the next one will differ from the shown.
    ahead: Changes<C>,
}

/// In the order of addresses; the same endpoint has the same place in both.
pub(crate) struct Shown<C> {
    pub(crate) connections: Arc<Vec<Arc<Connection<C>>>>,
    pub(crate) ready: Roster,
}

type Lists<C> = (Vec<Arc<Connection<C>>>, Roster);
type Changes<C> = BTreeMap<Endpoint, Option<Arc<Connection<C>>>>;

/// Changes that are made one by one, each of which moves half of a list on average. More are made in one pass.
const FEW: usize = 16;

// === impl Rosters ===

impl<C> Rosters<C> {
    pub(crate) fn new() -> Self {
        let shown = Shown { connections: Arc::default(), ready: Roster::default() };
        Self { shown, last: None, spare: None, behind: Changes::new(), ahead: Changes::new() }
    }

    /// What is shown.
    pub(crate) fn shown(&self) -> &Shown<C> {
        &self.shown
    }

    /// Whether the next one differs from the shown.
    pub(crate) fn has_changed(&self) -> bool {
        !self.ahead.is_empty()
    }

    /// The connection that takes the calls of this endpoint in the next one.
    pub(crate) fn place(&mut self, endpoint: &Endpoint, connection: Option<Arc<Connection<C>>>) {
        let shown = &self.shown;
        let at = shown.ready.binary_search_by(|known| known.endpoint().cmp(endpoint));
        let same = match (at, &connection) {
            (Ok(at), Some(connection)) => Arc::ptr_eq(&shown.connections[at], connection),
            (Err(_), None) => true,
            _ => false,
        };
        if same {
            self.ahead.remove(endpoint);
        } else {
            self.ahead.insert(endpoint.clone(), connection);
        }
    }

    /// Shows the next one.
    pub(crate) fn turn(&mut self) {
        let copy = || (self.shown.connections.to_vec(), self.shown.ready.clone());
        let mut lists = self.spare.take().unwrap_or_else(copy);
        let changes = std::mem::take(&mut self.ahead);
        apply(&mut lists, &changes);
        let (connections, ready) = lists;
        let next = Shown { connections: Arc::new(connections), ready };
        self.last = Some(std::mem::replace(&mut self.shown, next));
        self.behind = changes;
    }

    /// What was shown before is read no more, unless it is `kept` by somebody: what has left it is let go.
    pub(crate) fn reclaim(&mut self, kept: bool) {
        if kept {
            return;
        }
        let changes = std::mem::take(&mut self.behind);
        let Some(Shown { connections, mut ready }) = self.last.take() else { return };
        if let Some(connections) = Arc::into_inner(connections)
            && !ready.is_shared()
        {
            let mut lists = (connections, ready);
            apply(&mut lists, &changes);
            self.spare = Some(lists);
        }
    }
}

fn apply<C>((connections, ready): &mut Lists<C>, changes: &Changes<C>) {
    if changes.len() > FEW {
        let endpoints = std::mem::take(ready).into();
        *connections = merged(
            std::mem::take(connections),
            changes,
            |connection| connection.state.endpoint(),
            Arc::clone,
        );
        *ready = merged(
            endpoints,
            changes,
            |state: &Arc<EndpointState>| state.endpoint(),
            |connection| Arc::clone(&connection.state),
        )
        .into();
        return;
    }
    for (endpoint, connection) in changes {
        match (ready.binary_search_by(|known| known.endpoint().cmp(endpoint)), connection) {
            (Ok(at), Some(connection)) => {
                connections[at] = Arc::clone(connection);
                ready.replace(at, Arc::clone(&connection.state));
            }
            (Ok(at), None) => {
                connections.remove(at);
                ready.remove(at);
            }
            (Err(at), Some(connection)) => {
                connections.insert(at, Arc::clone(connection));
                ready.insert(at, Arc::clone(&connection.state));
            }
            (Err(_), None) => {}
        }
    }
}

fn merged<C, T>(
    list: Vec<T>,
    changes: &Changes<C>,
    endpoint_of: impl Fn(&T) -> &Endpoint,
    of: impl Fn(&Arc<Connection<C>>) -> T,
) -> Vec<T> {
    let mut merged = Vec::with_capacity(list.len() + changes.len());
    let mut before = list.into_iter().peekable();
    for (endpoint, connection) in changes {
        while let Some(unchanged) = before.next_if(|known| endpoint_of(known) < endpoint) {
            merged.push(unchanged);
        }
        drop(before.next_if(|known| endpoint_of(known) == endpoint));
        merged.extend(connection.as_ref().map(&of));
    }
    merged.extend(before);
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wards::Suspicion;
    use proptest::prelude::*;
    use std::time::Instant;
    use waypost_model::{Instance, InstanceKey};

    fn connection(port: u16) -> Arc<Connection<()>> {
        let endpoint = Endpoint::new("127.0.0.1", port).unwrap();
        let instance = Arc::new(Instance::new("s".parse().unwrap(), endpoint.clone()));
        let state = EndpointState::new(InstanceKey::of(&instance, 0), endpoint, instance, Instant::now());
        Arc::new(Connection { over: (), state: Arc::new(state), suspicion: Arc::new(Suspicion::new(None).0) })
    }

    /// Ports and whether they come or go, whether a table is made then, and whether somebody still reads the last.
    type Turn = (Vec<(u16, bool)>, bool, bool);

    fn turns() -> impl Strategy<Value = Vec<Turn>> {
        let changes = prop::collection::vec((1_u16..40, any::<bool>()), 0..30);
        prop::collection::vec((changes, any::<bool>(), any::<bool>()), 1..12)
    }

    proptest! {
        #[test]
        fn what_is_shown_is_what_was_placed_and_what_has_left_is_let_go(turns in turns()) {
            let mut rosters = Rosters::new();
            let mut placed = BTreeMap::new();
            let mut shown = BTreeMap::new();
            for (changes, shows, kept) in turns {
                for (port, comes) in changes {
                    let endpoint = Endpoint::new("127.0.0.1", port).unwrap();
                    let connection = comes.then(|| connection(port));
                    rosters.place(&endpoint, connection.clone());
                    match connection {
                        Some(connection) => drop(placed.insert(endpoint, connection)),
                        None => drop(placed.remove(&endpoint)),
                    }
                }
                if shows {
                    rosters.turn();
                    prop_assert!(!rosters.has_changed());
                    rosters.reclaim(kept);
                    shown.clone_from(&placed);
                }
                let Shown { connections, ready } = rosters.shown();
                prop_assert!(connections.iter().map(Arc::as_ptr).eq(shown.values().map(Arc::as_ptr)));
                let states = shown.values().map(|connection| Arc::as_ptr(&connection.state));
                prop_assert!(ready.iter().map(Arc::as_ptr).eq(states));
                // In the two maps here, and in the two lists.
                let held = |connection: &Arc<_>| Arc::strong_count(connection) <= 4;
                prop_assert!(!shows || kept || placed.values().all(held));
            }
        }
    }
}
