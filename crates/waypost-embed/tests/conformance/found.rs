//! What the comparison has found, cut down to what shows it. Each is asked of both servers again.

use waypost_proto::etcdserverpb::request_op::Request;
use waypost_proto::etcdserverpb::{
    AlarmRequest, AuthUserAddRequest, AuthUserGetRequest, AuthUserGrantRoleRequest, CompactionRequest,
    DeleteRangeRequest, LeaseGrantRequest, MemberUpdateRequest, PutRequest, RangeRequest, RequestOp,
    TxnRequest, WatchCreateRequest,
};

use crate::minimise::attempt;
use crate::op::{CURRENT, Op};
use crate::server::Kind;

/// Drives the embedded server and etcd 3.5, which must agree.
fn agree(ops: &[Op]) {
    waypost_testkit::run(async {
        if let Some(minimal) = attempt([Kind::Embedded, Kind::Etcd35], ops).await {
            panic!("{}", minimal.difference);
        }
    });
}

fn put(key: &'static str) -> Op {
    Op::Put(put_request(key))
}

fn put_request(key: &'static str) -> PutRequest {
    PutRequest { key: key.into(), value: "x".into(), ..PutRequest::default() }
}

fn txn(operations: impl IntoIterator<Item = Request>) -> Op {
    let success = operations.into_iter().map(|request| RequestOp { request: Some(request) }).collect();
    Op::Txn(TxnRequest { success, ..TxnRequest::default() })
}

fn compact_now() -> Op {
    Op::Compact(CompactionRequest { revision: CURRENT, physical: true })
}

fn watch(start_revision: i64, watch_id: i64) -> Op {
    let create = WatchCreateRequest { key: "a".into(), start_revision, watch_id, ..Default::default() };
    Op::Watch { stream: 0, create }
}

fn alarm(action: i32, alarm: i32) -> Op {
    Op::Alarm(AlarmRequest { action, member_id: 0, alarm })
}

/// Everything whose answer an alarm may change.
fn everything_under(alarm_type: i32) -> Vec<Op> {
    let range = Request::RequestRange(RangeRequest { key: "a".into(), ..RangeRequest::default() });
    let delete = DeleteRangeRequest { key: "b".into(), ..DeleteRangeRequest::default() };
    let grant = |id| Op::Grant(LeaseGrantRequest { id, ttl: 5000 });
    vec![
        put("a"),
        put("b"),
        grant(1),
        alarm(1, alarm_type),
        Op::Range(RangeRequest { key: "a".into(), ..RangeRequest::default() }),
        txn([range.clone()]),
        txn([range, Request::RequestPut(put_request("a"))]),
        txn([Request::RequestDeleteRange(delete.clone())]),
        put("a"),
        Op::Delete(delete),
        watch(0, 0),
        grant(2),
        Op::KeepAlive(1),
        Op::Leases,
        Op::Revoke(1),
        Op::HashKv(0),
        compact_now(),
        Op::RoleList,
        Op::Lock { name: "z", lease: 1 },
        alarm(2, alarm_type),
        put("a"),
        compact_now(),
    ]
}

#[test]
fn an_alarm_of_corruption_refuses_writes_and_no_reads() {
    agree(&everything_under(2));
}

#[test]
fn an_alarm_of_space_refuses_what_needs_space() {
    agree(&everything_under(1));
}

#[test]
fn the_urls_of_an_unknown_member_are_not_looked_at() {
    for url in ["nonsense", "ftp://127.0.0.1:1", "http://127.0.0.1:1", ""] {
        agree(&[Op::MemberUpdate(MemberUpdateRequest { id: 5, peer_urls: vec![url.into()] })]);
    }
    agree(&[Op::MemberUpdate(MemberUpdateRequest { id: 5, peer_urls: Vec::new() })]);
}

/// Makes a user `root` and turns auth on.
fn auth_on() -> [Op; 4] {
    let add = AuthUserAddRequest {
        name: "root".into(),
        password: "secret".into(),
        ..AuthUserAddRequest::default()
    };
    let grant = AuthUserGrantRoleRequest { user: "root".into(), role: "root".into() };
    [Op::UserAdd(add), Op::UserGrantRole(grant), Op::AuthEnable, Op::LogIn(("root", "secret"))]
}

#[test]
fn nobody_is_a_user_without_a_name() {
    let get = |who, name: &str| Op::As(who, Box::new(Op::UserGet(AuthUserGetRequest { name: name.into() })));
    let mut ops = auth_on().to_vec();
    ops.extend([get("", ""), get("", "root"), get("root", ""), get("root", "root")]);
    agree(&ops);
}

#[test]
fn a_delete_that_ends_before_it_starts_forbids_no_put() {
    for range_end in ["\0", "a", "b", "c", "d"] {
        let delete = DeleteRangeRequest {
            key: "c".into(),
            range_end: range_end.into(),
            ..DeleteRangeRequest::default()
        };
        agree(&[
            put("c"),
            txn([Request::RequestDeleteRange(delete), Request::RequestPut(put_request("c"))]),
            Op::Range(RangeRequest { key: "c".into(), ..RangeRequest::default() }),
        ]);
    }
}

#[test]
fn a_transaction_that_fails_for_a_range_and_a_put_is_told_of_the_put() {
    let range = RangeRequest { key: "a".into(), revision: 1, ..RangeRequest::default() };
    let kept = PutRequest { value: "".into(), ignore_value: true, ..put_request("absent") };
    let unknown = PutRequest { lease: 99, ..put_request("a") };
    for refused in [kept, unknown] {
        agree(&[
            put("a"),
            compact_now(),
            txn([Request::RequestRange(range.clone()), Request::RequestPut(refused)]),
        ]);
    }
}

#[test]
fn the_id_of_a_watch_that_was_compacted_is_taken_until_it_is_cancelled() {
    let cancel = Op::Cancel { stream: 0, id: 7 };
    agree(&[
        put("a"),
        compact_now(),
        watch(1, 7),
        watch(0, 7),
        cancel.clone(),
        watch(0, 7),
        put("a"),
        cancel,
    ]);
}

#[test]
fn the_quota_does_not_see_puts_of_a_transaction_in_a_transaction() {
    let nested = |request| {
        let success = vec![RequestOp { request: Some(request) }];
        Request::RequestTxn(TxnRequest { success, ..TxnRequest::default() })
    };
    agree(&[
        alarm(1, 1),
        txn([nested(Request::RequestPut(put_request("a")))]),
        txn([nested(Request::RequestPut(put_request("a"))), Request::RequestPut(put_request("b"))]),
        Op::Range(RangeRequest { key: "a".into(), ..RangeRequest::default() }),
    ]);
}

#[test]
fn the_hash_of_the_keys_is_the_same() {
    let hashes = |revisions: std::ops::Range<i64>| revisions.map(|back| Op::HashKv(CURRENT - back));
    let leased = PutRequest { lease: 1, ..put_request("c") };
    let delete = |key: &'static str| Op::Delete(DeleteRangeRequest { key: key.into(), ..Default::default() });
    let mut ops = vec![Op::HashKv(0), Op::Grant(LeaseGrantRequest { id: 1, ttl: 5000 })];
    ops.extend([put("a"), put("b"), Op::Put(leased), put("a"), delete("b"), put("d"), delete("d"), put("a")]);
    ops.extend(hashes(0..8));
    let compact = CompactionRequest { revision: CURRENT - 2, physical: true };
    ops.push(Op::Compact(compact));
    ops.extend(hashes(0..4));
    ops.extend([delete("a"), delete("c"), compact_now(), Op::HashKv(0), put("a"), Op::HashKv(0)]);
    agree(&ops);
}
