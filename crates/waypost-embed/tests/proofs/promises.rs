//! What was promised to those who write: the state that was acknowledged last, or that with all of the one write which was
//! under way when the server was killed.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;

/// Keys and values of one writer, who is the only one to write them.
pub(crate) type Keys = BTreeMap<String, String>;

/// Leases of one worker by id, and whether each has its key.
pub(crate) type Leases = BTreeMap<i64, bool>;

/// Earlier states that are remembered.
const PAST: usize = 32;

/// What one worker knows.
#[derive(Debug)]
pub(crate) struct Promise<S> {
    /// As it was acknowledged last.
    known: S,
    /// The revision that was acknowledged last.
    revision: i64,
    /// As the write would make it that is under way.
    pending: Option<S>,
    /// States by the revision from which on they held.
    past: VecDeque<(i64, S)>,
}

// === impl Promise ===

impl<S: Clone + Debug + Default + PartialEq> Promise<S> {
    pub(crate) fn new() -> Self {
        Self { known: S::default(), revision: 0, pending: None, past: VecDeque::new() }
    }

    pub(crate) fn known(&self) -> &S {
        &self.known
    }

    /// Revisions and what was there at each.
    pub(crate) fn past(&self) -> impl DoubleEndedIterator<Item = &(i64, S)> {
        self.past.iter()
    }

    /// A write begins that would make the state this one.
    pub(crate) fn begin(&mut self, state: S) {
        assert!(self.pending.is_none(), "one write at a time");
        self.pending = Some(state);
    }

    /// It was acknowledged, with this revision.
    pub(crate) fn acknowledged(&mut self, revision: i64) {
        assert!(revision >= self.revision, "revision {revision} after {}", self.revision);
        self.known = self.pending.take().expect("a write is under way");
        self.revision = revision;
        self.past.push_back((revision, self.known.clone()));
        if self.past.len() > PAST {
            self.past.pop_front();
        }
    }

    /// Panics unless this may be found after a kill; takes it for known. `newest` is the newest revision of what was found
    /// (0: none).
    pub(crate) fn found(&mut self, found: S, newest: i64) {
        let pending = self.pending.take();
        if found == self.known {
            assert!(newest <= self.revision, "{found:?} of {newest} was known at {}", self.revision);
            return;
        }
        assert!(
            pending.as_ref() == Some(&found),
            "found {found:#?}\nacknowledged at {} was {:#?}\nunder way was {pending:#?}",
            self.revision,
            self.known
        );
        self.known = found;
        self.revision = self.revision.max(newest);
        // From which revision on it holds is not known.
        self.past.clear();
    }
}

mod tests {
    use super::*;

    fn keys(of: &[(&str, &str)]) -> Keys {
        of.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn after_two_writes() -> Promise<Keys> {
        let mut promise = Promise::new();
        promise.begin(keys(&[("a", "1"), ("b", "1")]));
        promise.acknowledged(2);
        promise.begin(keys(&[("a", "2"), ("b", "2")]));
        promise
    }

    #[test]
    fn the_known_and_the_pending_state_may_be_found() {
        after_two_writes().found(keys(&[("a", "1"), ("b", "1")]), 2);
        after_two_writes().found(keys(&[("a", "2"), ("b", "2")]), 3);
    }

    #[test]
    #[should_panic(expected = "under way was")]
    fn half_of_a_write_is_noticed() {
        after_two_writes().found(keys(&[("a", "2"), ("b", "1")]), 3);
    }

    #[test]
    #[should_panic(expected = "under way was")]
    fn a_lost_write_is_noticed() {
        after_two_writes().found(Keys::new(), 0);
    }
}
