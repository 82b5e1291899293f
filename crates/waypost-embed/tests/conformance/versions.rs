//! Where versions of etcd differ: the embedded server follows 3.6, and is compared with 3.5.1.
//!
//! An operation of these lists is not asked, and so not compared at all. Everything else has to be the same.

use crate::op::Op;
use crate::rights;
use crate::server::Kind;
use crate::session::Session;
use waypost_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use waypost_proto::etcdserverpb::request_op::Request;
use waypost_proto::etcdserverpb::{RangeRequest, TxnRequest};

/// A difference between versions.
struct Version {
    /// What differs, and how.
    reason: &'static str,
    /// Whether it matters to these two servers.
    between: fn([Kind; 2]) -> bool,
    /// Whether it matters to this operation.
    concerns: fn(&Op, &Session) -> bool,
}

const VERSIONS: &[Version] = &[
    Version {
        reason: "sort order or target out of the enumeration: etcd up to 3.5.1 crashes, 3.6 refuses",
        between: |_| true,
        concerns: |op, _| match op {
            Op::Range(range) => unsortable(range),
            Op::Txn(txn) => txn_unsortable(txn),
            _ => false,
        },
    },
    Version {
        reason: "transaction that deletes a key whose value or lease it keeps: etcd 3.5.1 crashes",
        between: |_| true,
        concerns: |op, _| matches!(op, Op::Txn(txn) if keeps_what_it_deletes(txn)),
    },
    Version {
        reason: "watch from a negative revision: etcd up to 3.5.1 creates a watch without events, 3.6 refuses",
        between: |_| true,
        concerns: |op, _| matches!(op, Op::Watch { create, .. } if create.start_revision < 0),
    },
    Version {
        reason: "progress of a stream without watches, with one from the future or one that was compacted: 3.5.1 always \
                 answers, 3.6 only where every watch is in step",
        between: |kinds| kinds.contains(&Kind::Embedded),
        concerns: |op, session| match op {
            Op::Progress { stream } => !session.may_tell_progress(*stream),
            _ => false,
        },
    },
    Version {
        // etcd's pull request 18274, in 3.6 and in 3.5 from 3.5.16 on.
        reason: "watch from just the compact revision, in which keys were deleted: only 3.6 still tells of that",
        between: |kinds| kinds.contains(&Kind::Embedded),
        concerns: |op, session| match op {
            Op::Watch { create, .. } => {
                create.start_revision == session.compacted && session.deletes_in(session.compacted)
            }
            _ => false,
        },
    },
    Version {
        reason: "HashKV at just the compact revision: 3.5.1 refuses, 3.6 only below",
        between: |kinds| kinds.contains(&Kind::Embedded),
        concerns: |op, session| matches!(op, Op::HashKv(revision) if *revision == session.compacted),
    },
    Version {
        reason: "HashKV of a revision without keys while a compaction goes on: in etcd it depends on how far that has come",
        between: |_| true,
        concerns: |op, session| matches!(op, Op::HashKv(revision) if !session.has_one_hash(*revision)),
    },
    Version {
        reason: "permission on an empty key or range: only 3.6 refuses",
        between: |kinds| kinds.contains(&Kind::Embedded),
        concerns: |op, _| match op {
            Op::RoleGrant(request) => request.perm.as_ref().is_some_and(|perm| {
                let end = &perm.range_end[..];
                perm.key.is_empty() || !(end.is_empty() || end == b"\0" || end > &perm.key[..])
            }),
            _ => false,
        },
    },
];

/// Why this operation is not asked of these two, if it is not.
pub(crate) fn differ(kinds: [Kind; 2], op: &Op, session: &Session) -> Option<&'static str> {
    let version =
        VERSIONS.iter().find(|version| (version.between)(kinds) && (version.concerns)(op.asked().1, session));
    version.map(|version| version.reason).or_else(|| rights::differ(kinds, op, session))
}

fn unsortable(range: &RangeRequest) -> bool {
    SortOrder::try_from(range.sort_order).is_err() || SortTarget::try_from(range.sort_target).is_err()
}

fn txn_unsortable(txn: &TxnRequest) -> bool {
    any(txn, &|operation| matches!(operation, Request::RequestRange(range) if unsortable(range)))
}

fn keeps_what_it_deletes(txn: &TxnRequest) -> bool {
    any(txn, &|kept| {
        let Request::RequestPut(put) = kept else { return false };
        (put.ignore_value || put.ignore_lease)
            && any(txn, &|deleted| match deleted {
                Request::RequestDeleteRange(delete) => is_inside(&put.key, &delete.key, &delete.range_end),
                _ => false,
            })
    })
}

/// Whether a key is one of a range.
pub(crate) fn is_inside(key: &[u8], start: &[u8], range_end: &[u8]) -> bool {
    match range_end {
        [] => key == start,
        [0] => key >= start,
        end => key >= start && key < end,
    }
}

/// Whether an operation at any depth is such a one.
fn any(txn: &TxnRequest, is: &impl Fn(&Request) -> bool) -> bool {
    txn.success.iter().chain(&txn.failure).any(|operation| match &operation.request {
        Some(Request::RequestTxn(nested)) => any(nested, is),
        Some(operation) => is(operation),
        None => false,
    })
}
