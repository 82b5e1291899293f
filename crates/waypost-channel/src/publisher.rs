//! Makes tables of the fleet and publishes them. A table costs what there is, not what has changed, so the tables of a large
//! fleet are not made for every change: who leaves is out of the choice by its gate at once, without a table.

use crate::driver::now;
use crate::fleet::{Fleet, Outlook};
use crate::policy::{Front, Policy};
use crate::pool::Board;
use crate::rosters::Rosters;
use crate::table::{Connection, OnDemand, Slot, Table};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use waypost_balance::{EndpointState, Picker, Roster};
use waypost_model::Endpoint;

/// The driver's end of the table.
pub(crate) struct Publisher<C> {
    pub(crate) board: Arc<Board<C>>,
    front: Front,
    /// Tells that there is a newer table. Calls that wait learn from its end that there will be none.
    pub(crate) wake: watch::Sender<()>,
    /// Where calls ask for endpoints that are not connected to.
    wanted: mpsc::UnboundedSender<Endpoint>,
    rosters: Rosters<C>,
    /// The roster has turned, and no picker has been built for it.
    stale: bool,
    reach_changed: bool,
    not_before: Option<Instant>,
    /// By which policy a picker for a huge set was last built, and how long that has taken at most.
    building: Option<(&'static str, Duration)>,
    /// Tables that a call was just reading when they were replaced: were they left to it, it would have to take them apart.
    past: Vec<Arc<Table<C>>>,
}

/// From this size on, tables are made at most once in [`GAP_PER_ENDPOINT`] times the size: 50 ms for 10,000 endpoints.
const LARGE: usize = 200;
const GAP_PER_ENDPOINT: Duration = Duration::from_micros(5);
/// From this size on a picker is built on a thread that may block, if that takes longer than [`LONG`]: a ring of a million points takes
/// a tenth of a second.
const HUGE: usize = 2_000;
const LONG: Duration = Duration::from_millis(1);

// === impl Publisher ===

impl<C: Clone> Publisher<C> {
    pub(crate) fn new(
        board: Arc<Board<C>>,
        front: Front,
        wake: watch::Sender<()>,
        wanted: mpsc::UnboundedSender<Endpoint>,
    ) -> Self {
        Self {
            board,
            front,
            wake,
            wanted,
            rosters: Rosters::new(),
            stale: false,
            reach_changed: true,
            not_before: None,
            building: None,
            past: Vec::new(),
        }
    }

    /// The connection that takes the calls of this endpoint from now on.
    pub(crate) fn place(&mut self, endpoint: &Endpoint, connection: Option<Arc<Connection<C>>>) {
        self.reach_changed = true;
        self.rosters.place(endpoint, connection);
    }

    /// When the next table may be published, if not now.
    pub(crate) fn not_before(&self, fleet: &Fleet, now: Instant) -> Option<Instant> {
        let content = |outlook| outlook == Outlook::Ready;
        // Where calls wait, or could, there is no time to lose.
        let patient = content(self.board.table.load().outlook) && content(fleet.outlook());
        self.not_before.filter(|at| patient && *at > now)
    }

    /// Makes the fleet of this instant what calls see from now on. With `anew`, whatever has changed, by a new picker.
    pub(crate) async fn publish(&mut self, fleet: &mut Fleet, policy: &Policy, anew: bool) {
        let before = self.board.table.load_full();
        let anew = fleet.take_reweighed() || anew;
        if anew {
            // It may be another policy, or the same with more to do.
            self.building = None;
        }
        if self.rosters.has_changed() {
            self.stale = true;
            self.rosters.turn();
        }
        let rebuilt = anew || self.stale;
        // Both or none: a place in one is a place in the other.
        let (connections, picker) = if rebuilt {
            let (connections, ready) = {
                let shown = self.rosters.shown();
                (Arc::clone(&shown.connections), shown.ready.clone())
            };
            let Some(picker) = self.build(policy, ready, &before.picker).await else { return };
            (connections, picker)
        } else {
            (Arc::clone(&before.connections), Arc::clone(&before.picker))
        };
        let on_demand = if anew || self.reach_changed {
            match fleet.reachable() {
                None => None,
                Some(states) => {
                    let set = self.on_demand(policy, states, before.on_demand.as_deref()).await;
                    let Some(set) = set else { return };
                    Some(set)
                }
            }
        } else {
            before.on_demand.clone()
        };
        let table = Arc::new(Table {
            picker,
            connections,
            on_demand,
            hash_header: policy.hash_header().cloned(),
            outlook: fleet.outlook(),
            census: fleet.census(),
        });
        drop(before);
        // One that says only that somebody is being connected to costs little, and is not to put off the next, which has the connection.
        if rebuilt || (self.reach_changed && table.on_demand.is_some()) {
            let size = table.connections.len().max(table.on_demand.as_ref().map_or(0, |all| all.slots.len()));
            let gap = GAP_PER_ENDPOINT.saturating_mul(u32::try_from(size).unwrap_or(u32::MAX));
            self.not_before = (size >= LARGE).then(|| now() + gap);
        }
        (self.stale, self.reach_changed) = (false, false);
        self.past.push(self.board.table.swap(table));
        fleet.published();
        self.forget_past();
        // After the store: whoever is woken finds at least this table.
        self.wake.send_replace(());
    }

    /// Takes apart the tables that no call reads any more. Says whether some are left.
    pub(crate) fn forget_past(&mut self) -> bool {
        self.past.retain(|table| Arc::strong_count(table) > 1);
        let kept = !self.past.is_empty();
        self.rosters.reclaim(kept);
        kept
    }

    /// No endpoint will ever be ready again.
    pub(crate) fn end(&self, policy: &Policy) {
        self.board.table.store(Arc::new(Table::empty(policy, Outlook::Unavailable)));
    }

    async fn build(
        &mut self,
        policy: &Policy,
        ready: Roster,
        previous: &Arc<dyn Picker>,
    ) -> Option<Arc<dyn Picker>> {
        let rule = self.front.of(policy);
        if ready.len() < HUGE {
            return Some(rule.build(ready, Some(&**previous)));
        }
        let name = rule.name();
        let takes = self.building.filter(|(known, _)| *known == name).map(|(_, takes)| takes);
        let build = move |previous: &dyn Picker| {
            let begun = Instant::now();
            (rule.build(ready, Some(previous)), begun.elapsed())
        };
        let (picker, took) = if takes.is_some_and(|takes| takes < LONG) {
            build(&**previous)
        } else {
            let previous = Arc::clone(previous);
            // It fails when the runtime ends, and the driver with it.
            tokio::task::spawn_blocking(move || build(&*previous)).await.ok()?
        };
        // One that had little to do is no sign that the next has.
        self.building = Some((name, took.max(takes.unwrap_or_default())));
        Some(picker)
    }

    async fn on_demand(
        &mut self,
        policy: &Policy,
        states: Vec<Arc<EndpointState>>,
        before: Option<&OnDemand<C>>,
    ) -> Option<Arc<OnDemand<C>>> {
        let mut roster = self.rosters.shown().connections.iter().peekable();
        let slots = states.iter().map(|state| {
            while roster.next_if(|connection| connection.state.endpoint() < state.endpoint()).is_some() {}
            let connection = roster.next_if(|connection| Arc::ptr_eq(&connection.state, state));
            Slot {
                endpoint: state.endpoint().clone(),
                connection: connection.cloned(),
                asked: AtomicBool::new(false),
            }
        });
        let slots = slots.collect();
        let nothing = policy.idle();
        let previous = before.map_or(&nothing, |before| &before.picker);
        let picker = self.build(policy, states.into(), previous).await?;
        let number = before.map_or(0, |before| before.number) + 1;
        Some(Arc::new(OnDemand { picker, slots, wanted: self.wanted.clone(), number }))
    }
}
