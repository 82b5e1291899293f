//! No key may be put twice, or put and deleted, by one branch of a transaction.
//!
//! These are etcd's rules to the letter, with their gaps: the two branches of one nested transaction may put the same key;
//! a put in a nested transaction is held against the deletes of its parent and of the nested transactions *before* it, not
//! of those after; and a delete whose `range_end` is not above its key forbids no put, which also goes for an open-ended
//! one (`range_end` of one zero byte).
//!
//! Sets are always searched from the smaller side and merged into the larger, so that a request of n operations costs
//! O(n log² n) however it is nested.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use waypost_proto::etcdserverpb::request_op::Request;
use waypost_proto::etcdserverpb::{RequestOp, TxnRequest};

use crate::error::Refusal;

/// What a list of operations puts and deletes.
#[derive(Default)]
struct Touched<'a> {
    puts: BTreeSet<&'a [u8]>,
    deletes: Intervals<'a>,
}

/// Disjoint half-open intervals: start to end.
#[derive(Default)]
struct Intervals<'a>(BTreeMap<&'a [u8], Cow<'a, [u8]>>);

/// Checks a list of operations. The depth of nesting must have been checked: this recurses.
pub(super) fn check_intervals(operations: &[RequestOp]) -> Result<(), Refusal> {
    touched(operations).map(|_| ())
}

fn touched(operations: &[RequestOp]) -> Result<Touched<'_>, Refusal> {
    let mut all = Touched::default();
    for operation in operations {
        if let Some(Request::RequestDeleteRange(request)) = &operation.request {
            all.deletes.insert_request(&request.key, &request.range_end);
        }
    }
    for operation in operations {
        if let Some(Request::RequestTxn(request)) = &operation.request {
            all.nested(request)?;
        }
    }
    for operation in operations {
        if let Some(Request::RequestPut(request)) = &operation.request
            && (all.deletes.contains(&request.key) || !all.puts.insert(&request.key))
        {
            return Err(Refusal::DuplicateKey);
        }
    }
    Ok(all)
}

// === impl Touched ===

impl<'a> Touched<'a> {
    fn nested(&mut self, request: &'a TxnRequest) -> Result<(), Refusal> {
        let branches = [touched(&request.success)?, touched(&request.failure)?];
        for branch in &branches {
            if !disjoint(&self.puts, &branch.puts) || self.deletes.contain_any(&branch.puts) {
                return Err(Refusal::DuplicateKey);
            }
        }
        for branch in branches {
            let mut puts = branch.puts;
            if puts.len() > self.puts.len() {
                std::mem::swap(&mut puts, &mut self.puts);
            }
            self.puts.extend(puts);
            self.deletes.merge(branch.deletes);
        }
        Ok(())
    }
}

fn disjoint(a: &BTreeSet<&[u8]>, b: &BTreeSet<&[u8]>) -> bool {
    let (small, large) = if a.len() < b.len() { (a, b) } else { (b, a) };
    small.iter().all(|key| !large.contains(key))
}

// === impl Intervals ===

impl<'a> Intervals<'a> {
    fn insert_request(&mut self, from: &'a [u8], range_end: &'a [u8]) {
        if range_end.is_empty() {
            // The one key, whose successor is itself with a zero byte.
            self.insert(from, Cow::Owned([from, &[0]].concat()));
        } else if range_end > from {
            self.insert(from, Cow::Borrowed(range_end));
        }
    }

    fn insert(&mut self, mut from: &'a [u8], mut to: Cow<'a, [u8]>) {
        if let Some((&before, end)) =
            self.0.range::<[u8], _>((Bound::Unbounded, Bound::Included(from))).next_back()
            && **end >= *from
        {
            from = before;
        }
        while let Some((&next, _)) =
            self.0.range::<[u8], _>((Bound::Included(from), Bound::Included(&*to))).next()
        {
            if let Some(end) = self.0.remove(next)
                && end > to
            {
                to = end;
            }
        }
        self.0.insert(from, to);
    }

    fn merge(&mut self, mut other: Self) {
        if other.0.len() > self.0.len() {
            std::mem::swap(&mut other, self);
        }
        for (from, to) in other.0 {
            self.insert(from, to);
        }
    }

    fn contains(&self, key: &[u8]) -> bool {
        let before = self.0.range::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back();
        before.is_some_and(|(_, to)| key < &**to)
    }

    fn contain_any(&self, keys: &BTreeSet<&[u8]>) -> bool {
        if keys.len() < self.0.len() {
            return keys.iter().any(|key| self.contains(key));
        }
        self.0.iter().any(|(from, to)| {
            keys.range::<[u8], _>((Bound::Included(*from), Bound::Excluded(&**to))).next().is_some()
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn merged_intervals_contain_what_the_single_ones_do(
            ranges in proptest::collection::vec(("[a-d]{1,2}", "[a-d]{0,2}"), 0..12),
            split in 0_usize..12,
            probe in "[a-d]{1,3}",
        ) {
            let (mut all, mut second) = (Intervals::default(), Intervals::default());
            for (place, (from, to)) in ranges.iter().enumerate() {
                let target = if place < split { &mut all } else { &mut second };
                target.insert_request(from.as_bytes(), to.as_bytes());
            }
            all.merge(second);
            let expected = ranges
                .iter()
                .any(|(from, to)| (to.is_empty() && probe == *from) || (*from <= probe && probe < *to));
            prop_assert_eq!(all.contains(probe.as_bytes()), expected);
            let keys = BTreeSet::from([probe.as_bytes()]);
            prop_assert_eq!(all.contain_any(&keys), expected);
            let ends: Vec<_> = all.0.iter().map(|(from, to)| (from.to_vec(), to.to_vec())).collect();
            prop_assert!(ends.windows(2).all(|pair| pair[0].1 < pair[1].0), "disjoint: {:?}", ends);
        }
    }
}
