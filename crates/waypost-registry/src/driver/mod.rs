//! The task that drives one group: one lease and the registrations under it.
//!
//! It carries out what the [machines](crate::machine) ask for and tells them what came of it. One iteration of its
//! loop: start everything that can be started ([`flush`](Driver::flush)), then wait for the first thing to happen.

mod exchange;
mod seat;
mod tenure;
mod work;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{sync::mpsc, time::Instant};
use waypost_etcd::{Backoff, EventKind, WatchEvent, WatchId, Watcher};

pub(crate) use self::seat::{Published, Replies, Reply, Seat, SeatId};
use self::{
    tenure::{LINGER, Tenure},
    work::Done,
};
use crate::{
    context::Context,
    error::RegisterError,
    machine::{Event, GroupId, Sight, edit::Amendment},
};

/// Watch events that are taken in before writes are started again.
const COALESCED: usize = 256;

/// The task's own state.
pub(crate) struct Driver {
    context: Arc<Context>,
    group: GroupId,
    commands: mpsc::UnboundedReceiver<Command>,
    seats: BTreeMap<SeatId, Seat>,
    tenure: Tenure,
    /// The lease outlives its last registration, until [`Command::Close`].
    hold_lease: bool,
    /// Since when the lease that is held has no registration.
    vacated: Option<Instant>,
    watcher: Watcher,
    watches: HashMap<WatchId, (SeatId, u8)>,
    /// To be asked for their next step.
    ready: BTreeSet<SeatId>,
    /// To be asked when the retry is due.
    failed: BTreeSet<SeatId>,
    /// Whose keys must be read, since their watch has lost its history.
    unchecked: BTreeSet<SeatId>,
    grant: Retry,
    write: Retry,
    check: Retry,
    work: FuturesUnordered<BoxFuture<'static, Done>>,
}

/// Registrations on their way to a group.
pub(crate) type Seats = Vec<(SeatId, Seat)>;

/// What the owners of registrations ask of a group.
pub(crate) enum Command {
    Join(Seats),
    Amend {
        who: Who,
        amendments: Vec<Amendment>,
        reply: Replies,
    },
    Deregister {
        who: Who,
        reply: Option<Replies>,
        hold_lease: bool,
    },
    /// Everything that is still registered goes, the lease is revoked, the task ends.
    Close,
}

/// Whom a command is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    One(SeatId),
    All,
}

/// When something that failed may be tried again.
struct Retry {
    backoff: Backoff,
    at: Option<Instant>,
}

// === impl Driver ===

impl Driver {
    pub(crate) fn new(
        context: Arc<Context>,
        group: GroupId,
        commands: mpsc::UnboundedReceiver<Command>,
    ) -> Self {
        let (first, longest) = context.options.backoff;
        let retry = || Retry { backoff: Backoff::new(first, longest), at: None };
        Self {
            watcher: context.client.watch(),
            context,
            group,
            commands,
            seats: BTreeMap::new(),
            tenure: Tenure::Vacant,
            hold_lease: false,
            vacated: None,
            watches: HashMap::new(),
            ready: BTreeSet::new(),
            failed: BTreeSet::new(),
            unchecked: BTreeSet::new(),
            grant: retry(),
            write: retry(),
            check: retry(),
            work: FuturesUnordered::new(),
        }
    }

    pub(crate) async fn run(mut self) {
        loop {
            self.flush();
            if self.is_over() {
                return;
            }
            let wake = self.wake_at();
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return,
                },
                Some(done) = self.work.next(), if !self.work.is_empty() => self.done(done),
                event = self.watcher.next(), if !self.watches.is_empty() => {
                    self.watched(event);
                    for _ in 0..COALESCED {
                        let Some(event) = self.watcher.try_next() else { break };
                        self.watched(event);
                    }
                }
                state = self.tenure.changed() => self.lease_changed(state),
                () = sleep_until(wake) => {}
            }
        }
    }

    /// Nobody is here, nothing is left on the server, and nobody is on the way.
    fn is_over(&self) -> bool {
        self.seats.is_empty()
            && !self.hold_lease
            && matches!(self.tenure, Tenure::Vacant)
            && self.context.roster().placement.close(self.group)
    }

    fn wake_at(&self) -> Option<Instant> {
        let revoke = self.vacated.filter(|_| !self.hold_lease).map(|vacated| vacated + LINGER);
        let retries = [&self.grant, &self.write, &self.check].into_iter().filter_map(|retry| retry.at);
        retries.chain(revoke).min()
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Join(seats) => {
                let lease = self.tenure.lease();
                for (id, seat) in seats {
                    self.seats.insert(id, seat);
                    if let Some(lease) = lease {
                        self.tell(id, Event::Granted { lease });
                    }
                }
            }
            Command::Amend { who, amendments, mut reply } => {
                for id in self.chosen(who) {
                    let Some(seat) = self.seats.get_mut(&id) else { continue };
                    match seat.member.amend(amendments.clone()) {
                        Ok(()) => seat.when_written(reply()),
                        Err(source) => reply()(Err(RegisterError::Encode {
                            instance: Arc::clone(&seat.published.name),
                            layout: self.context.options.layout.name(),
                            source: Arc::new(source),
                        })),
                    }
                    self.after(id);
                }
            }
            Command::Deregister { who, mut reply, hold_lease } => {
                self.hold_lease |= hold_lease;
                for id in self.chosen(who) {
                    if let (Some(seat), Some(reply)) = (self.seats.get_mut(&id), &mut reply) {
                        seat.when_removed(reply());
                    }
                    self.tell(id, Event::Deregister);
                }
            }
            Command::Close => {
                self.hold_lease = false;
                for id in self.chosen(Who::All) {
                    self.tell(id, Event::Deregister);
                }
            }
        }
    }

    fn chosen(&self, who: Who) -> Vec<SeatId> {
        match who {
            Who::One(id) => vec![id],
            Who::All => self.seats.keys().copied().collect(),
        }
    }

    fn tell(&mut self, id: SeatId, event: Event) {
        if let Some(seat) = self.seats.get_mut(&id) {
            seat.member.handle(event);
            self.after(id);
        }
    }

    fn tell_all(&mut self, event: &Event) {
        for id in self.chosen(Who::All) {
            self.tell(id, event.clone());
        }
    }

    /// Whatever a change of a registration entails: it is published, watched, asked again, or forgotten.
    fn after(&mut self, id: SeatId) {
        let Some(seat) = self.seats.get_mut(&id) else { return };
        if seat.member.is_over() {
            self.forget(id);
            return;
        }
        seat.publish(&self.context.metrics);
        if seat.watches.is_empty()
            && !seat.checking
            && let Some((entries, at)) = seat.member.watchable()
        {
            for (part, entry) in (0..).zip(entries) {
                let range = waypost_etcd::KeyRange::key(entry.key.clone());
                let watch = self.watcher.add(waypost_etcd::WatchSpec::new(range).from(at + 1));
                self.watches.insert(watch, (id, part));
                seat.watches.push(watch);
            }
        }
        self.ready.insert(id);
    }

    /// Its place is free before anybody is told that it has gone.
    fn forget(&mut self, id: SeatId) {
        let Some(mut seat) = self.seats.remove(&id) else { return };
        self.unwatch(&seat.watches);
        self.ready.remove(&id);
        self.failed.remove(&id);
        self.unchecked.remove(&id);
        {
            let mut roster = self.context.roster();
            roster.placement.leave(self.group, seat.member.keys());
            if let Some(taken) = &seat.published.taken {
                roster.placement.give_back(taken);
            }
        }
        seat.publish(&self.context.metrics);
    }

    fn watched(&mut self, event: WatchEvent) {
        match event {
            WatchEvent::Events { watch, events, .. } => {
                let Some(&(id, part)) = self.watches.get(&watch) else { return };
                for event in events {
                    let held = match event.kind {
                        EventKind::Put => {
                            let lease = self.tenure.lease();
                            Some(exchange::held(&event.kv, &self.context.owned(), lease))
                        }
                        EventKind::Delete => None,
                    };
                    self.tell(id, Event::Seen { part, sight: Sight { at: event.kv.mod_revision, held } });
                }
            }
            WatchEvent::Reset { watch, reason } => {
                if let Some(id) = self.lose_watch(watch) {
                    tracing::debug!(seat = id.0, %reason, "the watch of a registration is reset");
                }
            }
            WatchEvent::Refused { watch, error } => {
                if let Some(id) = self.lose_watch(watch) {
                    let name = self.seats.get(&id).map(|seat| &*seat.published.name);
                    tracing::warn!(instance = name, %error, "etcd refuses to let a registration watch its own key");
                    self.check.later();
                }
            }
            WatchEvent::Interrupted { cause } => {
                tracing::debug!(%cause, "the watch of registrations is interrupted and will resume");
            }
            _ => {}
        }
    }

    /// A watch has ended by itself; those of the same instance end with it, and its keys are to be read.
    fn lose_watch(&mut self, watch: WatchId) -> Option<SeatId> {
        let (id, _) = self.watches.remove(&watch)?;
        self.unchecked.insert(id);
        if let Some(seat) = self.seats.get_mut(&id) {
            seat.checking = true;
            let watches = std::mem::take(&mut seat.watches);
            self.unwatch(&watches);
        }
        Some(id)
    }

    fn unwatch(&mut self, watches: &[WatchId]) {
        for watch in watches {
            if self.watches.remove(watch).is_some() {
                self.watcher.remove(*watch);
            }
        }
    }
}

impl Drop for Driver {
    /// Ended by force, or with its runtime: nothing is renewed any more.
    fn drop(&mut self) {
        for seat in self.seats.values() {
            seat.published.abandon(&self.context.metrics);
        }
    }
}

// === impl Retry ===

impl Retry {
    /// A failure: not before a random time within the ceiling. What fails while that is not over is the same failure.
    fn later(&mut self) {
        if self.at.is_none() {
            self.at = Some(Instant::now() + self.backoff.fail(fastrand::f64()));
        }
    }

    fn succeed(&mut self) {
        self.backoff.succeed();
        self.at = None;
    }

    /// Forgets a time that has come.
    fn advance(&mut self, now: Instant) {
        self.at = self.at.filter(|at| *at > now);
    }

    fn is_due(&self) -> bool {
        self.at.is_none()
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
