//! What cannot be compared while auth is on, or with a token while it is off. As in [`versions`](crate::versions), it is not
//! asked. Where the embedded server is stricter than 3.5.1 it is asked: see [`stricter`](crate::stricter).

use waypost_proto::etcdserverpb::TxnRequest;
use waypost_proto::etcdserverpb::request_op::Request;

use crate::op::Op;
use crate::server::Kind;
use crate::session::Session;

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
        return watches(op).then_some(
            "watch stream with a token while auth is off: 3.6 does not look at it, 3.5.1 refuses one that it does not know",
        );
    }
    // No version: a search of etcd's tree of permissions for such a range does or does not find one, depending on the shape
    // that the tree has from the order in which they were inserted.
    (who != "root" && asks_reversed(op)).then_some(
        "rights to a range that ends before it starts: chance in etcd, those to its first key here",
    )
}

fn watches(op: &Op) -> bool {
    matches!(op, Op::Watch { .. } | Op::Cancel { .. } | Op::Progress { .. } | Op::Nothing { .. })
}

fn asks_reversed(op: &Op) -> bool {
    match op {
        Op::Range(range) => reversed(&range.key, &range.range_end),
        Op::Delete(delete) => reversed(&delete.key, &delete.range_end),
        Op::Watch { create, .. } => reversed(&create.key, &create.range_end),
        Op::Txn(txn) => txn_asks_reversed(txn),
        _ => false,
    }
}

fn txn_asks_reversed(txn: &TxnRequest) -> bool {
    txn.compare.iter().any(|compare| reversed(&compare.key, &compare.range_end))
        || txn.success.iter().chain(&txn.failure).any(|operation| match &operation.request {
            Some(Request::RequestRange(range)) => reversed(&range.key, &range.range_end),
            Some(Request::RequestDeleteRange(delete)) => reversed(&delete.key, &delete.range_end),
            Some(Request::RequestTxn(nested)) => txn_asks_reversed(nested),
            _ => false,
        })
}

fn reversed(key: &[u8], range_end: &[u8]) -> bool {
    !matches!(range_end, [] | [0]) && range_end <= key
}
