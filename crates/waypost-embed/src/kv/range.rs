//! Reads: which versions to give is decided on the index; their values come from the backend.

use std::cmp::Ordering;

use bytes::Bytes;
use waypost_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use waypost_proto::etcdserverpb::{RangeRequest, RangeResponse, ResponseHeader};
use waypost_proto::mvccpb::KeyValue;

use super::space::KeySpace;
use crate::backend::{Backend, BackendError};
use crate::error::Refusal;
use crate::mvcc::{Found, Revision, Span, Store, StoreError};

/// A read that only lacks its values. Can be fetched without the [`KeySpace`].
#[derive(Debug)]
#[must_use]
pub struct RangePlan {
    /// Revision of the answer's header.
    revision: i64,
    found: Vec<Found>,
    count: i64,
    keys_only: bool,
    /// Keys to give at most.
    limit: usize,
    /// Set if the order is that of the values, which are not known yet.
    by_value: Option<Direction>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Ascending,
    Descending,
}

// === impl RangePlan ===

impl RangePlan {
    /// Number of values that will be read.
    pub fn len(&self) -> usize {
        self.found.len()
    }

    /// Whether no value will be read.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Reads the values of committed versions. [`StoreError::Moved`]: a compaction came between; plan again.
    pub fn fetch(self, backend: &dyn Backend) -> Result<RangeResponse, StoreError> {
        self.resolve(|revision| crate::mvcc::fetch(backend, revision))
    }

    /// As [`fetch`](Self::fetch), from records of the bucket of keys that `get` finds: in one state of the backend, say.
    pub fn fetch_with(
        self,
        get: impl Fn(&[u8]) -> Result<Option<Bytes>, BackendError>,
    ) -> Result<RangeResponse, StoreError> {
        self.resolve(|revision| crate::mvcc::fetch_with(&get, revision))
    }

    /// Plans a read at revision `at`, for an answer that carries `revision`.
    pub(super) fn new(store: &Store, request: &RangeRequest, at: i64, revision: i64) -> Self {
        let span = Span::new(&request.key, &request.range_end);
        let limit = match usize::try_from(request.limit) {
            Ok(limit) if limit > 0 => limit,
            _ => usize::MAX,
        };
        let mut plan = Self {
            revision,
            found: Vec::new(),
            count: 0,
            keys_only: request.keys_only,
            limit,
            by_value: None,
        };
        if request.count_only {
            plan.count = count(store.range(span, at).count());
            return plan;
        }
        // One more than the limit tells whether there is more. Where results are to be sorted or filtered all are needed,
        // except that etcd sorts by another target without an explicit order only after cutting.
        let order = SortOrder::try_from(request.sort_order).unwrap_or(SortOrder::None);
        let target = SortTarget::try_from(request.sort_target).unwrap_or(SortTarget::Key);
        let whole = is_filtered(request)
            || !(order == SortOrder::None || (order == SortOrder::Ascend && target == SortTarget::Key));
        let wanted = if whole { usize::MAX } else { limit.saturating_add(1) };
        let mut total = 0;
        for (_, found) in store.range(span, at) {
            if total < wanted && passes(request, found) {
                plan.found.push(found);
            }
            total += 1;
        }
        plan.count = count(total);
        plan.sort(order, target);
        plan
    }

    /// Sorts as far as that is possible without values; equal ones stay in the order of their keys.
    fn sort(&mut self, order: SortOrder, target: SortTarget) {
        let direction = match (order, target) {
            (SortOrder::None | SortOrder::Ascend, SortTarget::Key) => return,
            (SortOrder::Descend, SortTarget::Key) => {
                self.found.reverse();
                return;
            }
            (SortOrder::Descend, _) => Direction::Descending,
            _ => Direction::Ascending,
        };
        let by: fn(&Found) -> i64 = match target {
            SortTarget::Value => {
                self.by_value = Some(direction);
                return;
            }
            SortTarget::Version => |found| found.version,
            SortTarget::Create => |found| found.created,
            SortTarget::Mod | SortTarget::Key => |found| found.revision.main,
        };
        self.found.sort_by(|a, b| direction.apply(by(a).cmp(&by(b))));
    }

    /// Reads the values with `value`.
    pub(super) fn resolve(
        mut self,
        value: impl Fn(Revision) -> Result<KeyValue, StoreError>,
    ) -> Result<RangeResponse, StoreError> {
        let more = self.found.len() > self.limit;
        if self.by_value.is_none() {
            self.found.truncate(self.limit);
        }
        let mut kvs = Vec::with_capacity(self.found.len());
        for found in &self.found {
            kvs.push(value(found.revision)?);
        }
        if let Some(direction) = self.by_value {
            kvs.sort_by(|a, b| direction.apply(a.value.cmp(&b.value)));
            kvs.truncate(self.limit);
        }
        if self.keys_only {
            for kv in &mut kvs {
                kv.value.clear();
            }
        }
        let header = Some(ResponseHeader { revision: self.revision, ..ResponseHeader::default() });
        Ok(RangeResponse { header, kvs, more, count: self.count })
    }
}

// === impl Direction ===

impl Direction {
    fn apply(self, order: Ordering) -> Ordering {
        match self {
            Self::Ascending => order,
            Self::Descending => order.reverse(),
        }
    }
}

// === impl KeySpace ===

impl KeySpace {
    /// Decides which committed versions a range gives. Refuses a revision that is compacted or still to come.
    pub fn plan_range(&self, request: &RangeRequest) -> Result<RangePlan, Refusal> {
        let revision = self.store().revision();
        let at = read_revision(request.revision, revision, self.store().compacted())?;
        Ok(RangePlan::new(self.store(), request, at, revision))
    }
}

/// The revision to read at; 0 or less asks for the newest.
pub(super) fn read_revision(asked: i64, newest: i64, compacted: i64) -> Result<i64, Refusal> {
    if asked <= 0 {
        Ok(newest)
    } else if asked > newest {
        Err(Refusal::FutureRevision)
    } else if asked < compacted {
        Err(Refusal::Compacted)
    } else {
        Ok(asked)
    }
}

fn is_filtered(request: &RangeRequest) -> bool {
    request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0
}

/// A bound of 0 is none; a negative one is a bound like any other.
fn passes(request: &RangeRequest, found: Found) -> bool {
    let modified = found.revision.main;
    (request.max_mod_revision == 0 || modified <= request.max_mod_revision)
        && (request.min_mod_revision == 0 || modified >= request.min_mod_revision)
        && (request.max_create_revision == 0 || found.created <= request.max_create_revision)
        && (request.min_create_revision == 0 || found.created >= request.min_create_revision)
}

fn count(keys: usize) -> i64 {
    i64::try_from(keys).unwrap_or(i64::MAX)
}
