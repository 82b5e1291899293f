//! One registration as a state machine.
//!
//! It is level-triggered: events only say what is known (a lease, what the keys hold, what failed), and
//! [`Member::next`] compares that with what is wanted. Losing an event can therefore delay a step but never lead to a
//! wrong one, and every write of an existing key is guarded by the revision at which the key was last seen.

use std::{collections::VecDeque, sync::Arc};

use waypost_model::{EncodeError, Entry, Instance, Layout};

use crate::{
    error::holder,
    machine::{
        edit::{self, Amendment},
        event::{Event, Guard, Outcome, Removal, Step, Ticket, Write},
        view::{Held, Holder, Sight, View},
    },
    options::Conflict,
    state::RegistrationState,
};

/// One registration.
#[derive(Debug)]
pub(crate) struct Member {
    layout: Arc<dyn Layout>,
    rules: Rules,
    /// What is wanted in etcd: what the program registered, with its changes and those of operators.
    instance: Arc<Instance>,
    phase: Phase,
    /// Was in etcd once. From then on a stranger's key is a successor's, and is yielded to.
    established: bool,
    /// What was last known to be in etcd by our hand or an operator's: the base of the next difference.
    acknowledged: Option<Arc<[Entry]>>,
    /// What was sent since, answered or not, at most [`ATTEMPTS`]: an operator's edit is none of these.
    attempted: VecDeque<Arc<[Entry]>>,
    ticket: Ticket,
    failures: u32,
    cause: Option<Arc<str>>,
    lease_trouble: Option<Arc<str>>,
}

/// How many unanswered writes of different content are remembered.
const ATTEMPTS: usize = 16;

/// How a registration treats others.
#[derive(Debug, Clone, Copy)]
struct Rules {
    conflict: Conflict,
    /// The first write must not overwrite blindly: [`Layout::exclusive`].
    exclusive: bool,
}

/// Each phase has what it needs and nothing else: there is no write without a lease.
#[derive(Debug)]
enum Phase {
    /// No lease. `past` is what the last one left behind, which may not have expired on the server.
    Waiting {
        past: Option<(i64, Arc<[Entry]>)>,
    },
    Leased(Leased),
    /// The owner has ended it; the keys are to be removed.
    Leaving {
        lease: i64,
        entries: Arc<[Entry]>,
        in_flight: Option<Ticket>,
    },
    Refused {
        key: Arc<str>,
        lease: i64,
        cause: Arc<str>,
    },
    Gone,
}

#[derive(Debug)]
struct Leased {
    lease: i64,
    /// The instance as this lease writes it.
    entries: Arc<[Entry]>,
    view: View,
    in_flight: Option<(Ticket, Arc<[Entry]>)>,
}

// === impl Member ===

impl Member {
    pub(crate) fn new(layout: Arc<dyn Layout>, instance: Arc<Instance>, conflict: Conflict) -> Self {
        let rules = Rules { conflict, exclusive: layout.exclusive() };
        Self {
            layout,
            rules,
            instance,
            phase: Phase::Waiting { past: None },
            established: false,
            acknowledged: None,
            attempted: VecDeque::new(),
            ticket: Ticket::default(),
            failures: 0,
            cause: None,
            lease_trouble: None,
        }
    }

    pub(crate) fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// Keys that it takes up in its group.
    pub(crate) fn keys(&self) -> usize {
        usize::from(self.layout.parts())
    }

    /// Whether it can be forgotten.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Gone | Phase::Refused { .. })
    }

    /// Whether its owner has ended it.
    pub(crate) fn is_leaving(&self) -> bool {
        matches!(self.phase, Phase::Leaving { .. } | Phase::Gone | Phase::Refused { .. })
    }

    /// The key and the lease that holds it, when it was refused.
    pub(crate) fn refusal(&self) -> Option<(Arc<str>, i64)> {
        match &self.phase {
            Phase::Refused { key, lease, .. } => Some((Arc::clone(key), *lease)),
            _ => None,
        }
    }

    /// The keys to watch, and the revision up to which they are known.
    pub(crate) fn watchable(&self) -> Option<(&[Entry], i64)> {
        match &self.phase {
            Phase::Leased(leased) => leased.view.known_up_to().map(|at| (&*leased.entries, at)),
            _ => None,
        }
    }

    /// The keys to read when the watch has lost its history.
    pub(crate) fn leased_entries(&self) -> Option<&Arc<[Entry]>> {
        match &self.phase {
            Phase::Leased(leased) => Some(&leased.entries),
            _ => None,
        }
    }

    /// Changes what is wanted. An error changes nothing.
    pub(crate) fn amend(&mut self, amendments: Vec<Amendment>) -> Result<(), EncodeError> {
        let mut instance = Instance::clone(&self.instance);
        for amendment in amendments {
            amendment.apply(&mut instance);
        }
        match &mut self.phase {
            Phase::Leased(leased) => {
                leased.entries = encode(&*self.layout, &instance, leased.lease)?;
            }
            // No lease is at hand; any number shows whether the instance can be written.
            _ => drop(encode(&*self.layout, &instance, 1)?),
        }
        self.instance = Arc::new(instance);
        Ok(())
    }

    /// Takes in what happened. [`next`](Self::next), [`state`](Self::state) and [`outcome`](Self::outcome) tell what
    /// follows from it.
    pub(crate) fn handle(&mut self, event: Event) {
        match event {
            Event::Granted { lease } => self.granted(lease),
            Event::GrantFailed { cause } => self.failed(cause),
            Event::Written { ticket, revision } => self.written(ticket, revision),
            Event::Refused { ticket, at, found } => {
                if self.answered(ticket) {
                    self.observe(found.into_iter().map(|held| Sight { at, held }).enumerate());
                }
            }
            Event::Failed { ticket, cause } => {
                if self.answered(ticket) {
                    self.failed(cause);
                }
            }
            Event::Seen { part, sight } => self.observe([(usize::from(part), sight)]),
            Event::Checked { at, found } => {
                if let Phase::Leased(leased) = &mut self.phase {
                    leased.in_flight = None;
                    leased.view.forget_revisions();
                }
                self.observe(found.into_iter().map(|held| Sight { at, held }).enumerate());
            }
            Event::LeaseSuspect { cause } => self.lease_trouble = Some(cause),
            Event::LeaseAlive => self.lease_trouble = None,
            Event::LeaseLost { cause } => self.lease_lost(cause),
            Event::Deregister => self.deregister(),
            Event::Removed => self.phase = Phase::Gone,
        }
    }

    /// What to do next. A write or removal that is answered counts as in flight until an event ends it.
    pub(crate) fn next(&mut self) -> Step {
        match &mut self.phase {
            Phase::Leaving { lease, entries, in_flight: in_flight @ None } => {
                self.ticket = self.ticket.following();
                *in_flight = Some(self.ticket);
                Step::Remove(Removal { ticket: self.ticket, lease: *lease, entries: Arc::clone(entries) })
            }
            Phase::Leased(leased) if leased.in_flight.is_none() && !leased.is_settled() => {
                let stranger = leased.view.stranger();
                if let Some((part, lease)) = stranger {
                    if self.established {
                        return Step::Rest;
                    }
                    if self.rules.conflict == Conflict::Reject {
                        let key = leased.entries.get(part).map_or(&[][..], |entry| &entry.key);
                        let key: Arc<str> = String::from_utf8_lossy(key).into();
                        let cause = format!("{key} exists already, {}", holder(lease)).into();
                        self.phase = Phase::Refused { key, lease, cause };
                        return Step::Rest;
                    }
                }
                let blind =
                    !self.established && self.rules.conflict == Conflict::Replace && !self.rules.exclusive;
                let guard = if blind { Guard::Nothing } else { Guard::Unchanged(leased.view.revisions()) };
                let entries = Arc::clone(&leased.entries);
                self.ticket = self.ticket.following();
                leased.in_flight = Some((self.ticket, Arc::clone(&entries)));
                if self.attempted.back() != Some(&entries) {
                    self.attempted.push_back(Arc::clone(&entries));
                    if self.attempted.len() > ATTEMPTS {
                        self.attempted.pop_front();
                    }
                }
                Step::Put(Write { ticket: self.ticket, lease: leased.lease, entries, guard })
            }
            _ => Step::Rest,
        }
    }

    /// The state to publish; `None`: as it was (while it is being removed).
    pub(crate) fn state(&self) -> Option<RegistrationState> {
        let suspect = |cause: &str| RegistrationState::Suspect {
            cause: self.cause.clone().unwrap_or_else(|| cause.into()),
        };
        let registering =
            || RegistrationState::Registering { attempt: self.failures, cause: self.cause.clone() };
        Some(match &self.phase {
            Phase::Waiting { .. } if self.established => suspect("the lease is lost"),
            Phase::Waiting { .. } => registering(),
            Phase::Leased(_) if !self.established => registering(),
            Phase::Leased(leased) => match (leased.view.stranger(), leased.view.ours()) {
                (Some((_, lease)), _) => RegistrationState::Suspect { cause: replaced_by(lease) },
                (None, None) => suspect("the key is gone, it is being put again"),
                (None, Some(revision)) => match &self.lease_trouble {
                    Some(cause) => RegistrationState::Suspect { cause: Arc::clone(cause) },
                    None => RegistrationState::Registered { lease: leased.lease, revision },
                },
            },
            Phase::Leaving { .. } => return None,
            Phase::Refused { cause, .. } => RegistrationState::Refused { cause: Arc::clone(cause) },
            Phase::Gone => RegistrationState::Deregistered,
        })
    }

    /// What came of the last [`amend`](Self::amend).
    pub(crate) fn outcome(&self) -> Outcome {
        match &self.phase {
            Phase::Waiting { .. } => Outcome::Pending,
            Phase::Leased(leased) => match leased.view.stranger() {
                Some((_, lease)) if self.established => Outcome::Superseded(replaced_by(lease)),
                _ if leased.is_settled() => Outcome::Written,
                _ => Outcome::Pending,
            },
            Phase::Leaving { .. } | Phase::Refused { .. } | Phase::Gone => Outcome::Ended,
        }
    }

    fn granted(&mut self, lease: i64) {
        let Phase::Waiting { .. } = self.phase else { return };
        match encode(&*self.layout, &self.instance, lease) {
            Ok(entries) => {
                let view = View::unseen(entries.len());
                self.lease_trouble = None;
                self.phase = Phase::Leased(Leased { lease, entries, view, in_flight: None });
            }
            // It could be written under another lease when it was registered; a lease for which it cannot is
            // reported, and the next one may do.
            Err(error) => self.failed(error.to_string().into()),
        }
    }

    /// Whether `ticket` was in flight; it is not any more.
    fn answered(&mut self, ticket: Ticket) -> bool {
        match &mut self.phase {
            Phase::Leased(Leased { in_flight, .. }) => {
                in_flight.take_if(|(sent, _)| *sent == ticket).is_some()
            }
            Phase::Leaving { in_flight, .. } => in_flight.take_if(|sent| *sent == ticket).is_some(),
            _ => false,
        }
    }

    fn written(&mut self, ticket: Ticket, revision: i64) {
        let Phase::Leased(leased) = &mut self.phase else {
            self.answered(ticket);
            return;
        };
        let Some((_, entries)) = leased.in_flight.take_if(|(sent, _)| *sent == ticket) else { return };
        for (part, entry) in entries.iter().enumerate() {
            let held = Held { revision, holder: Holder::Us, value: entry.value.clone() };
            leased.view.take(part, Sight { at: revision, held: Some(held) });
        }
        self.acknowledged = Some(entries);
        self.settle();
    }

    fn observe(&mut self, sights: impl IntoIterator<Item = (usize, Sight)>) {
        let Phase::Leased(leased) = &mut self.phase else { return };
        let mut edited = false;
        for (part, sight) in sights {
            let by_us = matches!(&sight.held, Some(held) if !matches!(held.holder, Holder::Other(_)));
            if leased.view.take(part, sight) && by_us {
                let value = leased.view.held(part).map(|held| held.value.as_slice());
                edited |= ![Some(&leased.entries), self.acknowledged.as_ref()]
                    .into_iter()
                    .flatten()
                    .chain(&self.attempted)
                    .any(|entries| entries.get(part).map(|entry| entry.value.as_slice()) == value);
            }
        }
        if edited {
            self.take_over_edit();
        }
        self.settle();
    }

    /// A value under our lease that we did not write is an operator's edit: its difference becomes part of what is
    /// wanted. One that does not decode, or changes what is not an operator's to change, is overwritten.
    fn take_over_edit(&mut self) {
        let Phase::Leased(leased) = &mut self.phase else { return };
        let base = self.acknowledged.as_ref().or(self.attempted.back()).unwrap_or(&leased.entries);
        let after: Arc<[Entry]> = leased
            .entries
            .iter()
            .enumerate()
            .map(|(part, entry)| Entry {
                key: entry.key.clone(),
                value: leased.view.held(part).map_or_else(
                    || base.get(part).map_or_else(Vec::new, |entry| entry.value.clone()),
                    |held| held.value.clone(),
                ),
            })
            .collect();
        let Some(amendments) = edit::difference(&*self.layout, base, &after) else { return };
        if self.amend(amendments).is_err() {
            return;
        }
        if let Phase::Leased(leased) = &mut self.phase
            && edit::same(&*self.layout, &leased.entries, &after)
        {
            leased.entries = Arc::clone(&after);
        }
        self.acknowledged = Some(after);
    }

    fn settle(&mut self) {
        let Phase::Leased(leased) = &self.phase else { return };
        self.established |= leased.view.ours().is_some();
        if leased.is_settled() {
            self.acknowledged = Some(Arc::clone(&leased.entries));
            if leased.in_flight.is_none() {
                self.attempted.clear();
            }
            self.failures = 0;
            self.cause = None;
        }
    }

    fn failed(&mut self, cause: Arc<str>) {
        self.failures = self.failures.saturating_add(1);
        self.cause = Some(cause);
    }

    fn lease_lost(&mut self, cause: Arc<str>) {
        self.lease_trouble = None;
        self.cause = Some(cause);
        if let Phase::Leased(leased) = &self.phase {
            self.phase = Phase::Waiting { past: Some((leased.lease, Arc::clone(&leased.entries))) };
        }
    }

    fn deregister(&mut self) {
        self.phase = match std::mem::replace(&mut self.phase, Phase::Gone) {
            Phase::Leased(Leased { lease, entries, in_flight, .. }) => {
                Phase::Leaving { lease, entries, in_flight: in_flight.map(|(ticket, _)| ticket) }
            }
            Phase::Waiting { past: Some((lease, entries)) } => {
                Phase::Leaving { lease, entries, in_flight: None }
            }
            Phase::Waiting { past: None } => Phase::Gone,
            over => over,
        };
    }
}

// === impl Leased ===

impl Leased {
    /// Every key is attached to our lease and holds what is wanted.
    fn is_settled(&self) -> bool {
        self.view.ours().is_some() && self.view.holds(self.entries.iter().map(|entry| entry.value.as_slice()))
    }
}

fn encode(layout: &dyn Layout, instance: &Instance, lease: i64) -> Result<Arc<[Entry]>, EncodeError> {
    Ok(layout.encode(instance, lease)?.entries.into())
}

fn replaced_by(lease: i64) -> Arc<str> {
    if lease == 0 {
        "replaced by a key without a lease".into()
    } else {
        format!("replaced by lease {lease:x}").into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member() -> Member {
        let instance = Instance::new("greeter".parse().unwrap(), "10.0.0.1:50051".parse().unwrap());
        Member::new(waypost_model::layout("grpc", None).unwrap(), Arc::new(instance), Conflict::Replace)
    }

    fn put(member: &mut Member) -> Write {
        match member.next() {
            Step::Put(write) => write,
            step => panic!("{step:?}"),
        }
    }

    #[test]
    fn the_answer_of_an_abandoned_write_is_not_taken_for_that_of_the_next() {
        let mut member = member();
        member.handle(Event::Granted { lease: 1 });
        let first = put(&mut member);
        member.handle(Event::LeaseLost { cause: "lost".into() });
        member.handle(Event::Granted { lease: 2 });
        let second = put(&mut member);
        assert_eq!(second.lease, 2);
        member.handle(Event::Written { ticket: first.ticket, revision: 5 });
        assert!(!member.state().unwrap().is_registered());
        member.handle(Event::Failed { ticket: first.ticket, cause: "late".into() });
        assert_eq!(member.next(), Step::Rest);
        member.handle(Event::Written { ticket: second.ticket, revision: 6 });
        assert_eq!(member.state(), Some(RegistrationState::Registered { lease: 2, revision: 6 }));
    }

    #[test]
    fn a_history_that_starts_again_is_believed() {
        let mut member = member();
        member.handle(Event::Granted { lease: 1 });
        let ticket = put(&mut member).ticket;
        member.handle(Event::Written { ticket, revision: 1_000 });
        // An event of the past is not.
        member.handle(Event::Seen { part: 0, sight: Sight { at: 7, held: None } });
        assert!(member.state().unwrap().is_registered());
        member.handle(Event::Checked { at: 7, found: vec![None] });
        assert_eq!(put(&mut member).guard, Guard::Unchanged(vec![0]));
    }

    #[test]
    fn only_the_first_write_is_blind_even_if_something_else_is_wanted_by_then() {
        let mut member = member();
        member.handle(Event::Granted { lease: 1 });
        let first = put(&mut member);
        assert_eq!(first.guard, Guard::Nothing);
        member.amend(vec![Amendment::Weight(7)]).unwrap();
        member.handle(Event::Written { ticket: first.ticket, revision: 5 });
        assert_eq!(put(&mut member).guard, Guard::Unchanged(vec![5]));
    }

    #[test]
    fn leaving_waits_for_the_write_in_flight() {
        let mut member = member();
        member.handle(Event::Granted { lease: 1 });
        let ticket = put(&mut member).ticket;
        member.handle(Event::Deregister);
        assert_eq!(member.next(), Step::Rest);
        member.handle(Event::Written { ticket, revision: 5 });
        let Step::Remove(removal) = member.next() else { panic!("{member:?}") };
        assert_eq!(removal.lease, 1);
        member.handle(Event::Removed);
        assert_eq!(member.state(), Some(RegistrationState::Deregistered));
    }
}
