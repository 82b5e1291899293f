//! Requests to the key-value store, built step by step. Each wraps the message of the same name in etcd's API.

use bytes::Bytes;

use crate::key_range::KeyRange;
use crate::proto::etcdserverpb as pb;

pub use pb::range_request::{SortOrder, SortTarget};

/// Read keys.
///
/// ```
/// use waypost_etcd::{Range, SortOrder, SortTarget};
/// let newest = Range::prefix("services/").limit(1).sort(SortTarget::Mod, SortOrder::Descend).keys_only();
/// # let _ = newest;
/// ```
#[derive(Clone, Debug)]
pub struct Range(pub(crate) pb::RangeRequest);

/// Write a key.
#[derive(Clone, Debug)]
pub struct Put {
    pub(crate) request: pb::PutRequest,
    pub(crate) idempotent: bool,
}

/// Delete keys.
#[derive(Clone, Debug)]
pub struct Delete {
    pub(crate) request: pb::DeleteRangeRequest,
    pub(crate) idempotent: bool,
}

/// Compare, then do one list of operations or the other, as one revision. etcd takes 128 operations a list.
///
/// ```
/// use waypost_etcd::{Compare, Op, Put, Txn};
/// let create = Txn::new().when([Compare::create_revision("a").equal(0)]).then([Op::put(Put::new("a", "1"))]);
/// # let _ = create;
/// ```
#[derive(Clone, Debug, Default)]
pub struct Txn {
    pub(crate) request: pb::TxnRequest,
    pub(crate) idempotent: bool,
}

/// One operation of a [`Txn`].
#[derive(Clone, Debug)]
pub struct Op(pub(crate) pb::RequestOp);

/// A comparison of a [`Txn`], complete.
#[derive(Clone, Debug)]
pub struct Compare(pb::Compare);

/// What is compared; [`equal`](Comparand::equal) and its siblings complete it.
#[derive(Clone, Debug)]
pub struct Comparand<T> {
    compare: pb::Compare,
    union: fn(T) -> pb::compare::TargetUnion,
}

// === impl Range ===

impl Range {
    /// One key.
    pub fn key(key: impl Into<Bytes>) -> Self {
        Self::new(KeyRange::key(key))
    }

    /// Every key with this prefix.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        Self::new(KeyRange::prefix(prefix))
    }

    /// The keys of a range.
    pub fn new(range: KeyRange) -> Self {
        Self(pb::RangeRequest { key: range.start, range_end: range.end, ..Default::default() })
    }

    /// At most this many keys. Zero: no limit.
    pub fn limit(mut self, limit: i64) -> Self {
        self.0.limit = limit;
        self
    }

    /// As of this revision. Zero: now.
    pub fn revision(mut self, revision: i64) -> Self {
        self.0.revision = revision;
        self
    }

    /// In this order.
    pub fn sort(mut self, target: SortTarget, order: SortOrder) -> Self {
        self.0.sort_target = target.into();
        self.0.sort_order = order.into();
        self
    }

    /// From the asked member's own state, without asking the cluster: faster, may be old, works without a leader.
    pub fn serializable(mut self) -> Self {
        self.0.serializable = true;
        self
    }

    /// Without values.
    pub fn keys_only(mut self) -> Self {
        self.0.keys_only = true;
        self
    }

    /// Only how many there are.
    pub fn count_only(mut self) -> Self {
        self.0.count_only = true;
        self
    }

    /// Only keys last written at or after this revision.
    pub fn min_mod_revision(mut self, revision: i64) -> Self {
        self.0.min_mod_revision = revision;
        self
    }

    /// Only keys last written at or before this revision.
    pub fn max_mod_revision(mut self, revision: i64) -> Self {
        self.0.max_mod_revision = revision;
        self
    }

    /// Only keys created at or after this revision.
    pub fn min_create_revision(mut self, revision: i64) -> Self {
        self.0.min_create_revision = revision;
        self
    }

    /// Only keys created at or before this revision.
    pub fn max_create_revision(mut self, revision: i64) -> Self {
        self.0.max_create_revision = revision;
        self
    }
}

// === impl Put ===

impl Put {
    /// Set `key` to `value`.
    pub fn new(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self {
            request: pb::PutRequest { key: key.into(), value: value.into(), ..Default::default() },
            idempotent: false,
        }
    }

    /// Attach the key to a lease. Zero: none.
    pub fn lease(mut self, lease: i64) -> Self {
        self.request.lease = lease;
        self
    }

    /// Answer with what was there before.
    pub fn prev_kv(mut self) -> Self {
        self.request.prev_kv = true;
        self
    }

    /// Keep the value that is there; the key must exist.
    pub fn ignore_value(mut self) -> Self {
        self.request.ignore_value = true;
        self
    }

    /// Keep the lease that is there; the key must exist.
    pub fn ignore_lease(mut self) -> Self {
        self.request.ignore_lease = true;
        self
    }

    /// It does no harm twice: send it again, at another endpoint, when a connection breaks and it is not known
    /// whether it was carried out.
    pub fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }
}

// === impl Delete ===

impl Delete {
    /// One key.
    pub fn key(key: impl Into<Bytes>) -> Self {
        Self::new(KeyRange::key(key))
    }

    /// Every key with this prefix.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        Self::new(KeyRange::prefix(prefix))
    }

    /// The keys of a range.
    pub fn new(range: KeyRange) -> Self {
        Self {
            request: pb::DeleteRangeRequest { key: range.start, range_end: range.end, prev_kv: false },
            idempotent: false,
        }
    }

    /// Answer with what was deleted.
    pub fn prev_kv(mut self) -> Self {
        self.request.prev_kv = true;
        self
    }

    /// See [`Put::idempotent`].
    pub fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }
}

// === impl Txn ===

impl Txn {
    /// A transaction that compares nothing and does nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// All of these must hold; added to those given before.
    pub fn when(mut self, compares: impl IntoIterator<Item = Compare>) -> Self {
        self.request.compare.extend(compares.into_iter().map(|compare| compare.0));
        self
    }

    /// What is done when they hold; added to what was given before.
    pub fn then(mut self, ops: impl IntoIterator<Item = Op>) -> Self {
        self.request.success.extend(ops.into_iter().map(|op| op.0));
        self
    }

    /// What is done otherwise; added to what was given before.
    pub fn otherwise(mut self, ops: impl IntoIterator<Item = Op>) -> Self {
        self.request.failure.extend(ops.into_iter().map(|op| op.0));
        self
    }

    /// See [`Put::idempotent`].
    pub fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }
}

// === impl Op ===

impl Op {
    /// A read inside the transaction.
    pub fn range(range: Range) -> Self {
        Self::of(pb::request_op::Request::RequestRange(range.0))
    }

    /// A write inside the transaction.
    pub fn put(put: Put) -> Self {
        Self::of(pb::request_op::Request::RequestPut(put.request))
    }

    /// A delete inside the transaction.
    pub fn delete(delete: Delete) -> Self {
        Self::of(pb::request_op::Request::RequestDeleteRange(delete.request))
    }

    /// A transaction inside the transaction. Its operations count against the 128 of the outer one.
    pub fn txn(txn: Txn) -> Self {
        Self::of(pb::request_op::Request::RequestTxn(txn.request))
    }

    fn of(request: pb::request_op::Request) -> Self {
        Self(pb::RequestOp { request: Some(request) })
    }
}

// === impl Compare ===

impl Compare {
    /// The revision at which the key was created; 0 where there is none.
    pub fn create_revision(key: impl Into<Bytes>) -> Comparand<i64> {
        Comparand::new(key, pb::compare::CompareTarget::Create, pb::compare::TargetUnion::CreateRevision)
    }

    /// The revision of the key's last write; 0 where there is none.
    pub fn mod_revision(key: impl Into<Bytes>) -> Comparand<i64> {
        Comparand::new(key, pb::compare::CompareTarget::Mod, pb::compare::TargetUnion::ModRevision)
    }

    /// How many times the key was written since it was created; 0 where there is none.
    pub fn version(key: impl Into<Bytes>) -> Comparand<i64> {
        Comparand::new(key, pb::compare::CompareTarget::Version, pb::compare::TargetUnion::Version)
    }

    /// The lease to which the key is attached; 0 where there is none.
    pub fn lease(key: impl Into<Bytes>) -> Comparand<i64> {
        Comparand::new(key, pb::compare::CompareTarget::Lease, pb::compare::TargetUnion::Lease)
    }

    /// The value. Where there is no key, the comparison is false.
    pub fn value(key: impl Into<Bytes>) -> Comparand<Bytes> {
        Comparand::new(key, pb::compare::CompareTarget::Value, pb::compare::TargetUnion::Value)
    }
}

// === impl Comparand ===

impl<T> Comparand<T> {
    fn new(
        key: impl Into<Bytes>,
        target: pb::compare::CompareTarget,
        union: fn(T) -> pb::compare::TargetUnion,
    ) -> Self {
        let compare = pb::Compare { key: key.into(), target: target.into(), ..Default::default() };
        Self { compare, union }
    }

    /// It must hold for every key from the one given up to `end`; see [`KeyRange`].
    pub fn in_range(mut self, range: KeyRange) -> Self {
        self.compare.key = range.start;
        self.compare.range_end = range.end;
        self
    }

    /// It is `operand`.
    pub fn equal(self, operand: impl Into<T>) -> Compare {
        self.with(pb::compare::CompareResult::Equal, operand.into())
    }

    /// It is not `operand`.
    pub fn not_equal(self, operand: impl Into<T>) -> Compare {
        self.with(pb::compare::CompareResult::NotEqual, operand.into())
    }

    /// It is above `operand`.
    pub fn greater(self, operand: impl Into<T>) -> Compare {
        self.with(pb::compare::CompareResult::Greater, operand.into())
    }

    /// It is below `operand`.
    pub fn less(self, operand: impl Into<T>) -> Compare {
        self.with(pb::compare::CompareResult::Less, operand.into())
    }

    fn with(mut self, result: pb::compare::CompareResult, operand: T) -> Compare {
        self.compare.result = result.into();
        self.compare.target_union = Some((self.union)(operand));
        Compare(self.compare)
    }
}
