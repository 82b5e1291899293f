//! Which of the links are connected to, and when: all of them, the first so many in an order of the client's own, or those that
//! calls want.

use super::link::{Link, Phase, Usage};
use super::order::beyond;
use super::{Action, ConnectionId, Fleet, LinkPhase};
use std::sync::Arc;
use std::time::{Duration, Instant};
use waypost_balance::{EndpointState, Gate, Subset};
use waypost_model::{Endpoint, InstanceKey};

/// Which endpoints are connected to, and when.
#[derive(Debug, Clone)]
pub(crate) struct Reach {
    /// Only to these; to all without it. An endpoint of the subset that cannot be connected to is stood in for by the next.
    pub(crate) subset: Option<Subset>,
    /// Only when a call wants them, and until no call has for this long.
    pub(crate) lazy: Option<Duration>,
    /// Connections at a time, for a lazy client.
    pub(crate) most: Option<usize>,
    /// Attempts to connect at a time; not 0.
    pub(crate) attempts: usize,
}

/// In the tickets of attempts that are not the first.
const REPEATED: u64 = 1 << 63;

/// Idle connections are looked for at least this far apart.
const SHORTEST_LOOK: Duration = Duration::from_millis(10);

// === impl Reach ===

impl Reach {
    pub(crate) fn is_lazy(&self) -> bool {
        self.lazy.is_some()
    }

    /// Whether every one of so many links is connected to.
    pub(super) fn covers(&self, links: usize) -> bool {
        !self.is_lazy() && self.subset.as_ref().is_none_or(|subset| subset.size().get() >= links)
    }

    pub(super) fn first_idle_look(&self, now: Instant) -> Option<Instant> {
        self.idle_look_after(now)
    }

    /// Twice in the time after which a connection is closed, so that one is closed after that time and a half at the latest.
    fn idle_look_after(&self, now: Instant) -> Option<Instant> {
        self.lazy.and_then(|idle| now.checked_add((idle / 2).max(SHORTEST_LOOK)))
    }
}

// === impl Fleet ===

impl Fleet {
    /// A link that is new.
    pub(super) fn add(
        &mut self,
        endpoint: &Endpoint,
        state: EndpointState,
        owner: InstanceKey,
        now: Instant,
    ) {
        let rank = self.order.as_mut().map(|order| order.insert(endpoint));
        let link = Link::new(Arc::new(state), owner, rank.unwrap_or_default(), now);
        self.census.add(endpoint.clone(), &link);
        self.links.insert(endpoint.clone(), link);
        if rank.is_none() {
            self.enter(endpoint);
        }
    }

    /// A link that nobody owns any more.
    pub(super) fn drop_link(&mut self, endpoint: &Endpoint, now: Instant) {
        self.leave(endpoint, now);
        if let Some(link) = self.links.remove(endpoint) {
            if let Some(order) = &mut self.order {
                order.remove(&(link.rank, endpoint.clone()));
            }
            self.census.remove(endpoint, &link);
        }
    }

    /// Which links are within: the shortest part of the order, from the client's start on, that has as many sound ones as are asked
    /// for. A connection beyond it is kept until enough others are ready.
    pub(super) fn choose(&mut self, now: Instant) {
        let Some(order) = &self.order else { return };
        let size = order.subset().size().get();
        // Those that are [sound](Link::is_sound), where all are within: while they are too few, as in a fleet that is down, nothing changes.
        let all = self.census.count(LinkPhase::Ready) + self.census.undecided() + self.census.untried();
        if self.within.len() == self.links.len() && all < size {
            return;
        }
        let mut sound = 0;
        let mut last = None;
        let mut new = Vec::new();
        for place in order.round() {
            if sound == size {
                break;
            }
            let Some(link) = self.links.get(&place.1) else { continue };
            sound += usize::from(link.is_sound());
            last = Some(place);
            if !link.within {
                new.push(place.1.clone());
            }
        }
        let beyond: Vec<_> = match (order.start(), last) {
            (Some(start), Some(last)) => beyond(&self.within, start, last).cloned().collect(),
            _ => Vec::new(),
        };
        for endpoint in new {
            self.enter(&endpoint);
        }
        for (_, endpoint) in beyond {
            let needed = self.links.get(&endpoint).is_some_and(Link::is_ready)
                && self.census.count(LinkPhase::Ready) <= size;
            if !needed {
                self.leave(&endpoint, now);
            }
        }
    }

    /// Starts as many attempts as may be under way.
    pub(super) fn start_attempts(&mut self) {
        while self.attempts < self.settings.reach.attempts
            && let Some((_, endpoint)) = self.queue.first().cloned()
        {
            let Some(link) = self.links.get_mut(&endpoint) else { return };
            self.next_connection += 1;
            link.id = ConnectionId(self.next_connection);
            let action = Action::Connect { id: link.id, state: Arc::clone(&link.state) };
            let first = link.phase.is_undecided();
            self.actions.push(action);
            self.shift(&endpoint, Phase::Connecting { first });
        }
    }

    /// A link that is idle is to be connected to, now or when a call wants it.
    pub(super) fn resume(&mut self, endpoint: &Endpoint) {
        if self.settings.reach.is_lazy() {
            // Not connected, and yet to be chosen: that is what makes it wanted.
            self.open_soon(endpoint);
        } else {
            self.enqueue(endpoint);
        }
    }

    pub(super) fn enqueue(&mut self, endpoint: &Endpoint) {
        let Some(link) = self.links.get_mut(endpoint) else { return };
        if !std::mem::replace(&mut link.observed, true) {
            self.actions.push(Action::Observe { state: Arc::clone(&link.state) });
        }
        let first = link.phase == Phase::Idle { first: true };
        // In any order: were it that of the addresses, all clients would come to the first at the same time. But first attempts
        // before repeated ones, of which a fleet that is half dead has enough for ever; and those in the order in which they are due,
        // which their jitter has mixed: by chance, some would never be tried.
        let ticket = if first { self.rng.u64(..) >> 1 } else { REPEATED | self.repeats };
        self.repeats += u64::from(!first);
        self.shift(endpoint, Phase::Queued { first, ticket });
    }

    /// Whether there is room for another connection that a call wants.
    pub(super) fn has_room(&self) -> bool {
        let phases = [LinkPhase::Ready, LinkPhase::Unfit, LinkPhase::Connecting];
        let made: usize = phases.map(|phase| self.census.count(phase)).iter().sum();
        self.settings.reach.is_lazy() && self.settings.reach.most.is_none_or(|most| made < most)
    }

    /// Gives up a connection that no call is picked for: the one that has not been fit for the longest time, or else one that is
    /// set aside for its failures.
    pub(super) fn make_room(&mut self, now: Instant) {
        let connected = || self.connected.iter().filter_map(|at| Some((at, self.links.get(at)?)));
        let unfit = connected().filter_map(|(at, link)| match link.phase {
            Phase::Unfit { told, .. } => Some((told, at.clone())),
            _ => None,
        });
        let unfit = unfit.min().map(|(_, at)| at);
        let ejected = || connected().find(|(_, link)| link.state.gate() == Gate::Ejected);
        let Some(endpoint) = unfit.or_else(|| ejected().map(|(at, _)| at.clone())) else { return };
        self.give_up(&endpoint, now);
    }

    /// Closes connections that no call has used for long, if it is time to look. Says whether there were any.
    pub(super) fn let_go_of_idle(&mut self, now: Instant) -> bool {
        let (Some(idle), Some(look)) = (self.settings.reach.lazy, self.next_idle_look) else { return false };
        if look > now {
            return false;
        }
        self.next_idle_look = self.settings.reach.idle_look_after(now);
        let mut unused = Vec::new();
        for endpoint in &self.connected {
            let Some(link) = self.links.get_mut(endpoint) else { continue };
            // What is set aside has no calls because of that, and would be forgiven with its connection.
            let since = link.usage.idle_since(&link.state, now);
            if now.saturating_duration_since(since) >= idle && link.ejections.cause.is_none() {
                unused.push(endpoint.clone());
            }
        }
        for endpoint in &unused {
            self.give_up(endpoint, now);
        }
        !unused.is_empty()
    }

    /// Closes a connection that was made on demand. What was not fit for calls, or set aside, is wanted again only after a while.
    fn give_up(&mut self, endpoint: &Endpoint, now: Instant) {
        let Some(link) = self.links.get(endpoint) else { return };
        let useless = matches!(link.phase, Phase::Unfit { .. }) || link.state.gate() == Gate::Ejected;
        let useless = useless.then_some(link.failures);
        self.disconnect(endpoint, now);
        match (useless, self.links.get_mut(endpoint)) {
            (Some(failures), Some(link)) => {
                link.failures = failures;
                self.wait(endpoint, now);
            }
            _ => self.resume(endpoint),
        }
    }

    fn enter(&mut self, endpoint: &Endpoint) {
        let Some(link) = self.links.get_mut(endpoint) else { return };
        link.within = true;
        if self.settings.reach.subset.is_some() {
            self.within.insert((link.rank, endpoint.clone()));
        }
        // On demand it is in no phase but the one that it had, and yet calls may want it from now on.
        self.stirred.insert(endpoint.clone());
        self.resume(endpoint);
    }

    fn leave(&mut self, endpoint: &Endpoint, now: Instant) {
        self.disconnect(endpoint, now);
        let Some(link) = self.links.get_mut(endpoint) else { return };
        link.within = false;
        self.within.remove(&(link.rank, endpoint.clone()));
        let parted = std::mem::take(&mut link.parted);
        if parted.iter().any(|(_, state)| Arc::ptr_eq(state, &link.state)) {
            // Their calls are no longer the link's.
            link.renew(now);
            self.census.update(endpoint, link.phase, link);
        }
        for (id, state) in parted {
            self.see_off(id, state, now);
        }
    }

    /// Whatever is under way to this link ends; it is idle then, and takes no calls.
    fn disconnect(&mut self, endpoint: &Endpoint, now: Instant) {
        let Some(link) = self.links.get_mut(endpoint) else { return };
        link.state.close();
        if std::mem::take(&mut link.observed) {
            self.actions.push(Action::Forget { state: Arc::clone(&link.state) });
        }
        link.failures = 0;
        // What is not observed is not set aside.
        link.ejections.cause = None;
        // Late news of what was under way is about nothing that is there.
        let id = std::mem::replace(&mut link.id, ConnectionId::NONE);
        if link.is_connected() {
            link.usage = Usage::new(now);
            let state = link.renew(now);
            self.actions.push(Action::Retire { id });
            self.see_off(id, state, now);
        } else if matches!(link.phase, Phase::Connecting { .. }) {
            link.renew(now);
            self.actions.push(Action::Abort { id });
        }
        self.shift(endpoint, Phase::Idle { first: true });
    }
}
