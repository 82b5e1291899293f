//! Where versions of etcd differ in what a user may do. As in [`versions`](crate::versions), it is not asked.

use waypost_proto::etcdserverpb::TxnRequest;
use waypost_proto::etcdserverpb::request_op::Request;

use crate::identity::Shown;
use crate::op::Op;
use crate::server::Kind;
use crate::session::Session;

/// A difference between versions while auth is on.
struct Rights {
    /// What differs, and how.
    reason: &'static str,
    /// Whether it matters to this operation of someone who is not `root`.
    concerns: fn(&Op, Who) -> bool,
}

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    /// Without a token.
    Nobody,
    /// With one, be it good or not.
    Someone,
}

const RIGHTS: &[Rights] = &[
    Rights {
        reason: "compaction: 3.6 wants root for it, 3.5.1 lets anyone",
        concerns: |op, _| matches!(op, Op::Compact(_)),
    },
    Rights {
        reason: "maintenance: 3.5.1 refuses with the inner error, 3.6 in the words of gRPC",
        concerns: |op, _| matches!(op, Op::HashKv(_) | Op::MoveLeader(_)),
    },
    Rights {
        reason: "leases and alarms: 3.6 wants a user, and rights to keys that it names, 3.5.1 nothing",
        concerns: |op, _| matches!(op, Op::TimeToLive(_) | Op::Leases | Op::Alarm(_)),
    },
    Rights {
        // No version: a search of etcd's tree of permissions for such a range does or does not find one, depending on
        // the shape that the tree has from the order in which they were inserted.
        reason: "rights to a range that ends before it starts: chance in etcd, those to its first key here",
        concerns: |op, _| match op {
            Op::Range(range) => reversed(&range.key, &range.range_end),
            Op::Delete(delete) => reversed(&delete.key, &delete.range_end),
            Op::Watch { create, .. } => reversed(&create.key, &create.range_end),
            Op::Txn(txn) => {
                txn.compare.iter().any(|compare| reversed(&compare.key, &compare.range_end))
                    || any(txn, |request| match request {
                        Request::RequestRange(range) => reversed(&range.key, &range.range_end),
                        Request::RequestDeleteRange(delete) => reversed(&delete.key, &delete.range_end),
                        _ => false,
                    })
            }
            _ => false,
        },
    },
    Rights {
        // No version: etcd forgets the end of the range before it looks, and so tells of keys that may not be read.
        reason: "watch without an end: etcd looks at the rights to its first key, the embedded server to all keys",
        concerns: |op, _| matches!(op, Op::Watch { create, .. } if &create.range_end[..] == b"\0"),
    },
    Rights {
        reason: "renewal of a lease: 3.6 wants rights to its keys, 3.5.1 a token at most",
        concerns: |op, _| matches!(op, Op::KeepAlive(_)),
    },
    Rights {
        reason: "a lease of nobody: 3.6 refuses, 3.5.1 grants it, and revokes it if it has no keys",
        concerns: |op, who| {
            who == Who::Nobody && matches!(op, Op::Grant(_) | Op::GrantAny { .. } | Op::Revoke(_))
        },
    },
    Rights {
        reason: "transaction without operations by nobody: 3.6 refuses, 3.5.1 answers",
        concerns: |op, who| who == Who::Nobody && matches!(op, Op::Txn(txn) if *txn == TxnRequest::default()),
    },
    Rights {
        reason: "transactions in a transaction: 3.5.1 does not look at them",
        concerns: |op, _| matches!(op, Op::Txn(txn) if any(txn, |request| matches!(request, Request::RequestTxn(_)))),
    },
    Rights {
        reason: "previous value or lease of a put in a transaction, such as a lock's: 3.5.1 does not look at them",
        concerns: |op, _| {
            matches!(op, Op::Lock { .. } | Op::Campaign { .. })
                || matches!(op, Op::Txn(txn) if any(txn, |request| {
                    matches!(request, Request::RequestPut(put) if put.prev_kv || put.lease != 0)
                }))
        },
    },
];

/// Why this operation is not asked of these two, if it is not.
pub(crate) fn differ(kinds: [Kind; 2], op: &Op, session: &Session) -> Option<&'static str> {
    let (Some(who), op) = op.asked() else { return None };
    if !kinds.contains(&Kind::Embedded) {
        return None;
    }
    if matches!(op, Op::RoleGet(request) if request.role == "root") {
        return Some("permissions of role root: 3.6 gives all, 3.5.1 none");
    }
    if !session.auth {
        return Some(
            "token while auth is off: 3.6 does not look at it, 3.5.1 refuses one that it does not know",
        );
    }
    let who = match who {
        "root" => return None,
        who if who == Shown::STRANGER || session.logged_in.contains(who) => Who::Someone,
        _ => Who::Nobody,
    };
    RIGHTS.iter().find(|rights| (rights.concerns)(op, who)).map(|rights| rights.reason)
}

fn any(txn: &TxnRequest, is: impl Fn(&Request) -> bool) -> bool {
    txn.success.iter().chain(&txn.failure).any(|operation| operation.request.as_ref().is_some_and(&is))
}

fn reversed(key: &[u8], range_end: &[u8]) -> bool {
    !matches!(range_end, [] | [0]) && range_end <= key
}
