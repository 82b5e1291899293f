//! Sequences of good and bad requests, and what must hold of the answers whatever they are.

use waypost_proto::etcdserverpb::compare::TargetUnion;
use waypost_proto::etcdserverpb::request_op::Request;
use waypost_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, Compare, DeleteRangeRequest, DeleteRangeResponse,
    LeaseGrantRequest, LeaseGrantResponse, LeaseRevokeRequest, LeaseRevokeResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, RequestOp, ResponseHeader, TxnRequest, TxnResponse,
};

use super::bytes::Choices;
use crate::server::Server;
use crate::server::inside::Inside;
use crate::storage::Store;

const KEYS: [&[u8]; 6] = [b"a", b"b", b"", b"\0", b"aa", b"\xff\xff"];
const ENDS: [&[u8]; 5] = [b"", b"\0", b"b", b"a", b"\xff"];
const NUMBERS: [i64; 12] = [0, 1, 2, 3, 4, 5, 10, -1, -2, i64::MAX, i64::MIN, 1 << 32];
/// Requests of one input.
const REQUESTS: usize = 48;
/// Transactions in a transaction in a transaction.
const DEPTH: u32 = 3;

/// A sequence of requests about keys and leases: revisions go up one at a time, answers agree with themselves, and what is
/// there is found again when the store is opened anew.
pub fn sequence(data: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime for the test").block_on(async {
        let server = start(folder.path());
        let mut choices = Choices::new(data);
        let mut revision = 1;
        for _ in 0..REQUESTS {
            if choices.is_empty() {
                break;
            }
            if let Some(header) = ask(&server, &mut choices).await {
                let steps = header.revision - revision;
                assert!((0..=1).contains(&steps), "revision {} after {revision}", header.revision);
                revision = header.revision;
            }
        }
        let before = everything(&server).await;
        assert!(server.end().await, "something goes on, or the writer has panicked");
        let server = start(folder.path());
        assert_eq!(everything(&server).await, before, "the store was opened anew");
        assert!(server.end().await);
    });
}

fn start(folder: &std::path::Path) -> Inside {
    let store = Store::open(folder).expect("the store can be opened");
    Inside::start(store, Server::builder()).expect("what was written can be loaded")
}

async fn everything(server: &Inside) -> RangeResponse {
    let request = RangeRequest { key: "\0".into(), range_end: "\0".into(), ..RangeRequest::default() };
    let answer = server.unary("/etcdserverpb.KV/Range", &request).await;
    let mut answer: RangeResponse = answer.expect("everything can be read");
    if let Some(header) = &mut answer.header {
        // A restart counts as a term.
        header.raft_term = 0;
    }
    answer
}

/// Asks for something; the header, if it was not refused.
async fn ask(server: &Inside, choices: &mut Choices<'_>) -> Option<ResponseHeader> {
    match choices.byte() % 8 {
        0 | 1 => {
            let answer = server.unary::<PutResponse>("/etcdserverpb.KV/Put", &put(choices)).await;
            answer.ok()?.header
        }
        2 => {
            let request = range(choices);
            let answer = server.unary::<RangeResponse>("/etcdserverpb.KV/Range", &request).await.ok()?;
            check(&request, &answer);
            answer.header
        }
        3 => {
            let answer = server.unary("/etcdserverpb.KV/DeleteRange", &delete(choices)).await;
            let answer: DeleteRangeResponse = answer.ok()?;
            assert!(answer.deleted >= 0 && answer.prev_kvs.len() <= 6, "{answer:?}");
            answer.header
        }
        4 | 5 => {
            let answer = server.unary::<TxnResponse>("/etcdserverpb.KV/Txn", &txn(choices, DEPTH)).await;
            answer.ok()?.header
        }
        6 => {
            let request = CompactionRequest { revision: choices.pick(&NUMBERS), physical: choices.flag() };
            let answer = server.unary::<CompactionResponse>("/etcdserverpb.KV/Compact", &request).await;
            answer.ok()?.header
        }
        _ => {
            let id = choices.pick(&NUMBERS);
            if choices.flag() {
                let request = LeaseRevokeRequest { id };
                let answer = server.unary("/etcdserverpb.Lease/LeaseRevoke", &request).await;
                answer.ok().and_then(|answer: LeaseRevokeResponse| answer.header)
            } else {
                let request = LeaseGrantRequest { id, ttl: 1000 };
                let answer = server.unary("/etcdserverpb.Lease/LeaseGrant", &request).await;
                answer.ok().and_then(|answer: LeaseGrantResponse| answer.header)
            }
        }
    }
}

fn check(request: &RangeRequest, answer: &RangeResponse) {
    let found = i64::try_from(answer.kvs.len()).unwrap_or(i64::MAX);
    assert!(found <= answer.count, "{answer:?}");
    assert!(request.limit <= 0 || found <= request.limit, "{answer:?} to {request:?}");
    if request.sort_order == 0 && request.sort_target == 0 {
        assert!(answer.kvs.is_sorted_by(|a, b| a.key < b.key), "{answer:?}");
    }
    for kv in &answer.kvs {
        assert!(kv.create_revision <= kv.mod_revision && kv.version >= 1, "{kv:?}");
    }
}

fn put(choices: &mut Choices<'_>) -> PutRequest {
    let key = choices.pick(&KEYS).to_vec().into();
    let flags = choices.byte();
    PutRequest {
        key,
        value: if flags & 1 == 0 { vec![flags; 3].into() } else { bytes::Bytes::new() },
        lease: if flags & 2 == 0 { 0 } else { choices.pick(&NUMBERS) },
        prev_kv: flags & 4 != 0,
        ignore_value: flags & 8 != 0,
        ignore_lease: flags & 16 != 0,
    }
}

fn range(choices: &mut Choices<'_>) -> RangeRequest {
    let flags = choices.byte();
    RangeRequest {
        key: choices.pick(&KEYS).to_vec().into(),
        range_end: choices.pick(&ENDS).to_vec().into(),
        limit: if flags & 1 == 0 { 0 } else { choices.pick(&NUMBERS) },
        revision: if flags & 2 == 0 { 0 } else { choices.pick(&NUMBERS) },
        sort_order: if flags & 4 == 0 { 0 } else { i32::from(choices.byte()) - 1 },
        sort_target: if flags & 8 == 0 { 0 } else { i32::from(choices.byte()) - 1 },
        keys_only: flags & 16 != 0,
        count_only: flags & 32 != 0,
        min_mod_revision: if flags & 64 == 0 { 0 } else { choices.pick(&NUMBERS) },
        max_create_revision: if flags & 128 == 0 { 0 } else { choices.pick(&NUMBERS) },
        ..RangeRequest::default()
    }
}

fn delete(choices: &mut Choices<'_>) -> DeleteRangeRequest {
    DeleteRangeRequest {
        key: choices.pick(&KEYS).to_vec().into(),
        range_end: choices.pick(&ENDS).to_vec().into(),
        prev_kv: choices.flag(),
    }
}

fn txn(choices: &mut Choices<'_>, depth: u32) -> TxnRequest {
    let compare = (0..choices.byte() % 3).map(|_| compare(choices)).collect();
    let success = (0..choices.byte() % 4).map(|_| operation(choices, depth)).collect();
    let failure = (0..choices.byte() % 4).map(|_| operation(choices, depth)).collect();
    TxnRequest { compare, success, failure }
}

fn operation(choices: &mut Choices<'_>, depth: u32) -> RequestOp {
    let request = match choices.byte() % 8 {
        0..3 => Some(Request::RequestPut(put(choices))),
        3 => Some(Request::RequestRange(range(choices))),
        4 | 5 => Some(Request::RequestDeleteRange(delete(choices))),
        6 if depth > 0 => Some(Request::RequestTxn(txn(choices, depth - 1))),
        _ => None,
    };
    RequestOp { request }
}

fn compare(choices: &mut Choices<'_>) -> Compare {
    let number = choices.pick(&NUMBERS);
    let target_union = match choices.byte() % 6 {
        0 => None,
        1 => Some(TargetUnion::Version(number)),
        2 => Some(TargetUnion::CreateRevision(number)),
        3 => Some(TargetUnion::ModRevision(number)),
        4 => Some(TargetUnion::Value(vec![0; 3].into())),
        _ => Some(TargetUnion::Lease(number)),
    };
    Compare {
        result: i32::from(choices.byte() % 6),
        target: i32::from(choices.byte() % 6),
        key: choices.pick(&KEYS).to_vec().into(),
        range_end: choices.pick(&ENDS).to_vec().into(),
        target_union,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn any_sequence_of_requests(data in prop::collection::vec(any::<u8>(), 0..600)) {
            super::sequence(&data);
        }
    }
}
