//! One key as a register, and histories of what several clients asked of it.

use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};

/// What a key holds. Values are never written twice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Register(Option<u64>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Operation {
    Get,
    /// Without being told what was there before.
    Put(u64),
    /// A put that is told.
    Replace(u64),
    Delete,
    CompareAndSwap {
        from: Option<u64>,
        to: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Outcome {
    Written,
    /// What there is, or was before.
    Value(Option<u64>),
    /// Whether something was deleted, or swapped.
    Happened(bool),
}

/// A client; after a kill it goes by another number, since its last operation may still be under way.
pub(crate) type ClientId = u64;

#[derive(Clone, Copy, Debug)]
enum Event {
    Began(ClientId, Operation),
    Ended(ClientId, Outcome),
}

/// What was asked of one key, in the order in which it began and ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct History(Vec<Event>);

impl SequentialSpec for Register {
    type Op = Operation;
    type Ret = Outcome;

    fn invoke(&mut self, operation: &Operation) -> Outcome {
        match *operation {
            Operation::Get => Outcome::Value(self.0),
            Operation::Put(value) => {
                self.0 = Some(value);
                Outcome::Written
            }
            Operation::Replace(value) => Outcome::Value(self.0.replace(value)),
            Operation::Delete => Outcome::Happened(self.0.take().is_some()),
            Operation::CompareAndSwap { from, to } => {
                let equal = self.0 == from;
                if equal {
                    self.0 = Some(to);
                }
                Outcome::Happened(equal)
            }
        }
    }
}

// === impl History ===

impl History {
    pub(crate) fn began(&mut self, client: ClientId, operation: Operation) {
        self.0.push(Event::Began(client, operation));
    }

    /// An operation that never ends may or may not have happened.
    pub(crate) fn ended(&mut self, client: ClientId, outcome: Outcome) {
        self.0.push(Event::Ended(client, outcome));
    }

    /// Number of operations.
    pub(crate) fn len(&self) -> usize {
        self.0.iter().filter(|event| matches!(event, Event::Began(..))).count()
    }

    /// Whether there is an order in which the operations could have happened one after the other, each between its
    /// beginning and its end.
    pub(crate) fn is_linearizable(&self) -> bool {
        let mut tester = LinearizabilityTester::new(Register::default());
        for (position, event) in self.0.iter().enumerate() {
            let recorded = match *event {
                // A read that never ended says nothing, and would only be one more thing to try everywhere.
                Event::Began(client, Operation::Get) if self.end_of(client, position).is_none() => continue,
                Event::Began(client, operation) => tester.on_invoke(client, operation),
                Event::Ended(client, outcome) => tester.on_return(client, outcome),
            };
            recorded.expect("a client does one thing at a time");
        }
        tester.is_consistent()
    }

    /// The history up to a read after this many operations, of which a stale answer is made: a value that was replaced
    /// before the read began. `None` if no read came after a replacement.
    pub(crate) fn with_stale_read(&self, after: usize) -> Option<Self> {
        let mut begun = 0;
        for (begin, event) in self.0.iter().enumerate() {
            let Event::Began(client, operation) = *event else { continue };
            begun += 1;
            if begun < after || operation != Operation::Get {
                continue;
            }
            if let (Some(end), Some(stale)) = (self.end_of(client, begin), self.replaced_before(begin)) {
                let mut events = self.0[..end].to_vec();
                events.push(Event::Ended(client, Outcome::Value(Some(stale))));
                return Some(Self(events));
            }
        }
        None
    }

    /// Where the operation ends that the client began here.
    fn end_of(&self, client: ClientId, begin: usize) -> Option<usize> {
        let is_end = |event: &Event| matches!(event, Event::Ended(who, _) if *who == client);
        self.0[begin..].iter().position(is_end).map(|after| begin + after)
    }

    /// A value of which someone was told before this event that it has been replaced.
    fn replaced_before(&self, position: usize) -> Option<u64> {
        self.0[..position].iter().enumerate().rev().find_map(|(end, event)| {
            let Event::Ended(client, Outcome::Value(Some(old))) = *event else { return None };
            let begun = self.0[..end]
                .iter()
                .rev()
                .find(|event| matches!(event, Event::Began(who, _) if *who == client));
            matches!(begun, Some(Event::Began(_, Operation::Replace(_)))).then_some(old)
        })
    }
}

#[test]
fn a_read_of_what_was_overwritten_is_noticed() {
    let mut history = History::default();
    history.began(1, Operation::Put(1));
    history.ended(1, Outcome::Written);
    history.began(2, Operation::Put(2));
    history.began(1, Operation::Get);
    history.ended(1, Outcome::Value(Some(1)));
    assert!(history.is_linearizable(), "the second put is under way");
    history.ended(2, Outcome::Written);
    assert!(history.is_linearizable());
    history.began(1, Operation::Get);
    history.ended(1, Outcome::Value(Some(1)));
    assert!(!history.is_linearizable());
}

#[test]
fn what_never_ended_may_have_happened_or_not() {
    let mut history = History::default();
    history.began(1, Operation::Put(1));
    history.began(2, Operation::Get);
    history.ended(2, Outcome::Value(None));
    let mut seen = history.clone();
    seen.began(2, Operation::Get);
    seen.ended(2, Outcome::Value(Some(1)));
    assert!(seen.is_linearizable());
    seen.began(2, Operation::Get);
    seen.ended(2, Outcome::Value(None));
    assert!(!seen.is_linearizable(), "it cannot be undone");
}
