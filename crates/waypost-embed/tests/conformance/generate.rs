//! Sequences of operations out of a seed.
//!
//! Keys, leases, names and revisions are few, so that operations meet; each kind of invalid request has its place.
//! No more than [`KEYS`] keys: etcd 3.5.1 sorts more of them with a sort that is not stable.

use fastrand::Rng;
use waypost_proto::authpb::{Permission, UserAddOptions};
use waypost_proto::etcdserverpb::compare::TargetUnion;
use waypost_proto::etcdserverpb::request_op::Request;
use waypost_proto::etcdserverpb::{
    AlarmRequest, AuthRoleAddRequest, AuthRoleDeleteRequest, AuthRoleGetRequest,
    AuthRoleGrantPermissionRequest, AuthRoleRevokePermissionRequest, AuthUserAddRequest,
    AuthUserDeleteRequest, AuthUserGetRequest, AuthUserGrantRoleRequest, AuthUserRevokeRoleRequest,
    AuthenticateRequest, CompactionRequest, Compare, DeleteRangeRequest, DowngradeRequest, LeaseGrantRequest,
    LeaseTimeToLiveRequest, MemberAddRequest, MemberUpdateRequest, PutRequest, RangeRequest, RequestOp,
    TxnRequest, WatchCreateRequest,
};

use crate::op::{COMPACTED, CURRENT, Op};

/// Watch streams of a sequence.
const STREAMS: usize = 2;

/// Go up to 1.18 sorts by plain insertion, which is stable, up to six elements (from 1.19 on up to twelve).
const KEYS: [&[u8]; 6] = [b"\0", b"a", b"aa", b"b", b"b\0", b"\xff\xff"];
const ENDS: [&[u8]; 9] = [b"\0", b"\0", b"b", b"c", b"e", b"aa\0", b"a\0", b"\xff", b"a"];
const VALUES: [&[u8]; 6] = [b"", b"x", b"y", b"yy", b"\0", b"a longer value than the others"];
const LEASES: [i64; 4] = [1, 2, 3, -4];
/// A lease that is never granted.
pub(crate) const NO_LEASE: i64 = 99;
const NAMES: [&str; 4] = ["ann", "bob", "cy", ""];
const LOCKS: [&str; 2] = ["b", "z"];
/// Not -1, which is etcd's own for "no watch": a watch of that id would hang after the next one that is refused.
const WATCH_IDS: [i64; 9] = [-2, 0, 1, 2, 3, 4, 5, 6, 7];
/// Seconds: time plays no part.
const TTLS: [i64; 4] = [5000, 7000, 9_000_000_000, 9_000_000_001];

/// A sequence of about `len` operations. It ends with those that leave nothing behind but revisions.
pub(crate) fn sequence(seed: u64, len: usize) -> Vec<Op> {
    let mut rng = Rng::with_seed(seed);
    let mut ops: Vec<Op> = Vec::with_capacity(len + 32);
    while ops.len() < len {
        match rng.u32(..1000) {
            0..290 => ops.push(Op::Put(put(&mut rng))),
            290..470 => ops.push(Op::Range(range(&mut rng))),
            470..560 => ops.push(Op::Delete(delete(&mut rng))),
            560..760 => {
                let depth = rng.u32(..3);
                ops.push(Op::Txn(txn(&mut rng, depth)));
            }
            760..870 => ops.push(lease(&mut rng)),
            870..940 => {
                let stream = rng.usize(..STREAMS);
                ops.push(watch(&mut rng, stream));
            }
            940..952 => {
                ops.push(compact(&mut rng));
                ops.push(Op::HashKv(revision(&mut rng)));
            }
            952..954 => alarmed(&mut rng, &mut ops),
            954..956 => ops.push(large(&mut rng)),
            956..982 => ops.push(users(&mut rng)),
            982..985 => ops.push(Op::HashKv(revision(&mut rng))),
            985..990 => ops.push(contended(&mut rng)),
            _ => ops.push(other(&mut rng)),
        }
    }
    ops.extend(clean_up());
    ops
}

/// What removes keys, leases, alarms, users and roles.
pub(crate) fn clean_up() -> Vec<Op> {
    let all = DeleteRangeRequest { key: "\0".into(), range_end: "\0".into(), prev_kv: true };
    let mut ops = vec![alarm(2, 0, 1), alarm(2, 0, 2), alarm(2, 7, 1), alarm(2, 7, 2), Op::Delete(all)];
    ops.extend(LEASES.map(Op::Revoke));
    for name in &NAMES[..3] {
        ops.push(Op::UserDelete(AuthUserDeleteRequest { name: (*name).into() }));
        ops.push(Op::RoleDelete(AuthRoleDeleteRequest { role: (*name).into() }));
    }
    ops.push(Op::Leases);
    ops
}

pub(crate) fn pick<T: Copy>(rng: &mut Rng, of: &[T]) -> T {
    of[rng.usize(..of.len())]
}

pub(crate) fn once_in(rng: &mut Rng, n: u32) -> bool {
    rng.u32(..n) == 0
}

fn key(rng: &mut Rng) -> Vec<u8> {
    if once_in(rng, 60) { Vec::new() } else { pick(rng, &KEYS).to_vec() }
}

pub(crate) fn span(rng: &mut Rng) -> (Vec<u8>, Vec<u8>) {
    let end = if rng.bool() { Vec::new() } else { pick(rng, &ENDS).to_vec() };
    (key(rng), end)
}

fn value(rng: &mut Rng) -> Vec<u8> {
    pick(rng, &VALUES).to_vec()
}

pub(crate) fn lease_id(rng: &mut Rng) -> i64 {
    if once_in(rng, 30) { NO_LEASE } else { pick(rng, &LEASES) }
}

/// Often the newest; the past, the future, around the compaction, and what is no revision.
fn revision(rng: &mut Rng) -> i64 {
    match rng.u32(..100) {
        0..55 => 0,
        55..80 => CURRENT - rng.i64(0..10),
        80..84 => CURRENT + rng.i64(1..4),
        84..94 => COMPACTED + rng.i64(-2..4),
        94..97 => -rng.i64(1..4),
        97 => i64::MAX,
        98 => i64::MIN,
        _ => 1,
    }
}

fn bound(rng: &mut Rng) -> i64 {
    if once_in(rng, 8) { revision(rng) } else { 0 }
}

pub(crate) fn put(rng: &mut Rng) -> PutRequest {
    let (ignore_value, ignore_lease) = (once_in(rng, 8), once_in(rng, 8));
    // Along with its flag only now and then: that is refused.
    let value = if ignore_value && !once_in(rng, 6) { Vec::new() } else { value(rng) };
    let lease = if (ignore_lease && !once_in(rng, 6)) || rng.u32(..3) != 0 { 0 } else { lease_id(rng) };
    PutRequest {
        key: key(rng).into(),
        value: value.into(),
        lease,
        prev_kv: once_in(rng, 3),
        ignore_value,
        ignore_lease,
    }
}

pub(crate) fn range(rng: &mut Rng) -> RangeRequest {
    let (key, range_end) = span(rng);
    RangeRequest {
        key: key.into(),
        range_end: range_end.into(),
        limit: if rng.bool() { 0 } else { rng.i64(-1..6) },
        revision: revision(rng),
        sort_order: if once_in(rng, 60) { 3 } else { rng.i32(0..3) },
        sort_target: if once_in(rng, 60) { 5 } else { rng.i32(0..5) },
        serializable: once_in(rng, 4),
        keys_only: once_in(rng, 5),
        count_only: once_in(rng, 8),
        min_mod_revision: bound(rng),
        max_mod_revision: bound(rng),
        min_create_revision: bound(rng),
        max_create_revision: bound(rng),
    }
}

pub(crate) fn delete(rng: &mut Rng) -> DeleteRangeRequest {
    let (key, range_end) = span(rng);
    DeleteRangeRequest { key: key.into(), range_end: range_end.into(), prev_kv: rng.bool() }
}

pub(crate) fn txn(rng: &mut Rng, depth: u32) -> TxnRequest {
    let mut request = TxnRequest {
        compare: (0..rng.usize(..3)).map(|_| compare(rng)).collect(),
        success: operations(rng, depth),
        failure: operations(rng, depth),
    };
    // Too many in one of the lists; at a depth of one, together with the parent's.
    if once_in(rng, 80) {
        let many = rng.usize(126..130);
        match rng.u32(..3) {
            0 => request.compare = (0..many).map(|_| compare(rng)).collect(),
            1 => request.success = (0..many).map(|_| read(rng)).collect(),
            _ => request.failure = (0..many).map(|_| read(rng)).collect(),
        }
    }
    request
}

fn read(rng: &mut Rng) -> RequestOp {
    let request = RangeRequest { key: key(rng).into(), ..RangeRequest::default() };
    RequestOp { request: Some(Request::RequestRange(request)) }
}

fn operations(rng: &mut Rng, depth: u32) -> Vec<RequestOp> {
    (0..rng.usize(..4))
        .map(|_| {
            let request = match rng.u32(..100) {
                40..65 => {
                    let mut request = range(rng);
                    // Half of the transactions would fail for their revisions alone.
                    if !once_in(rng, 3) {
                        request.revision = 0;
                    }
                    Request::RequestRange(request)
                }
                65..85 => Request::RequestDeleteRange(delete(rng)),
                85..99 if depth > 0 => Request::RequestTxn(txn(rng, depth - 1)),
                99 => return RequestOp { request: None },
                _ => Request::RequestPut(put(rng)),
            };
            RequestOp { request: Some(request) }
        })
        .collect()
}

fn compare(rng: &mut Rng) -> Compare {
    let target = rng.i32(0..5);
    // The operand of another target, or none, now and then.
    let operand = if once_in(rng, 20) { rng.i32(0..6) } else { target };
    let target_union = match operand {
        0 => Some(TargetUnion::Version(rng.i64(0..4))),
        1 => Some(TargetUnion::CreateRevision(revision(rng))),
        2 => Some(TargetUnion::ModRevision(revision(rng))),
        3 => Some(TargetUnion::Value(value(rng).into())),
        4 => Some(TargetUnion::Lease(if rng.bool() { 0 } else { lease_id(rng) })),
        _ => None,
    };
    let (key, range_end) = span(rng);
    Compare {
        result: if once_in(rng, 60) { 4 } else { rng.i32(0..4) },
        target: if once_in(rng, 60) { 5 } else { target },
        key: key.into(),
        range_end: range_end.into(),
        target_union,
    }
}

pub(crate) fn lease(rng: &mut Rng) -> Op {
    match rng.u32(..100) {
        0..35 => Op::Grant(LeaseGrantRequest { id: pick(rng, &LEASES), ttl: pick(rng, &TTLS) }),
        35..38 => Op::GrantAny { ttl: pick(rng, &TTLS) },
        38..55 => Op::Revoke(lease_id(rng)),
        55..70 => Op::KeepAlive(lease_id(rng)),
        70..92 => Op::TimeToLive(LeaseTimeToLiveRequest { id: lease_id(rng), keys: rng.bool() }),
        _ => Op::Leases,
    }
}

pub(crate) fn watch(rng: &mut Rng, stream: usize) -> Op {
    match rng.u32(..100) {
        0..60 => {
            let (mut key, mut range_end) = span(rng);
            if once_in(rng, 4) {
                (key, range_end) = (b"\0".to_vec(), b"\0".to_vec());
            }
            let create = WatchCreateRequest {
                key: key.into(),
                range_end: range_end.into(),
                start_revision: revision(rng),
                progress_notify: once_in(rng, 8),
                // Not both: that watch could not be seen to have read the past.
                filters: if once_in(rng, 5) { vec![rng.i32(0..2)] } else { Vec::new() },
                prev_kv: rng.bool(),
                watch_id: if rng.bool() { 0 } else { pick(rng, &WATCH_IDS) },
                fragment: once_in(rng, 8),
            };
            Op::Watch { stream, create }
        }
        60..85 => Op::Cancel { stream, id: pick(rng, &WATCH_IDS) },
        85..97 => Op::Progress { stream },
        _ => Op::Nothing { stream },
    }
}

pub(crate) fn compact(rng: &mut Rng) -> Op {
    let revision = match rng.u32(..10) {
        0..6 => CURRENT - rng.i64(0..12),
        6 => CURRENT,
        _ => revision(rng),
    };
    Op::Compact(CompactionRequest { revision, physical: rng.bool() })
}

fn alarm(action: i32, member_id: u64, alarm: i32) -> Op {
    Op::Alarm(AlarmRequest { action, member_id, alarm })
}

/// A few operations while an alarm is on.
fn alarmed(rng: &mut Rng, ops: &mut Vec<Op>) {
    let (member, kind) = (pick(rng, &[0, 7]), rng.i32(0..3));
    ops.extend([alarm(1, member, kind), alarm(0, 0, 0), alarm(0, 7, 1)]);
    for _ in 0..rng.usize(2..8) {
        ops.push(match rng.u32(..6) {
            0 => Op::Put(put(rng)),
            1 => Op::Range(range(rng)),
            2 => Op::Delete(delete(rng)),
            3 => Op::Txn(txn(rng, 1)),
            4 => compact(rng),
            _ => lease(rng),
        });
    }
    ops.extend([alarm(2, member, kind), alarm(0, 0, 0)]);
}

/// Above the limit of a request, above that of a message, and below both.
fn large(rng: &mut Rng) -> Op {
    Op::PutLarge(pick(rng, &[200_000, 1_600_000, 2_200_000]))
}

fn users(rng: &mut Rng) -> Op {
    let name = pick(rng, &NAMES).to_owned();
    let role = pick(rng, &NAMES).to_owned();
    let (key, range_end) = span(rng);
    match rng.u32(..14) {
        0 | 1 => {
            let options = Some(UserAddOptions { no_password: true });
            Op::UserAdd(AuthUserAddRequest { name, options, ..AuthUserAddRequest::default() })
        }
        2 => Op::UserGet(AuthUserGetRequest { name }),
        3 => Op::UserList,
        4 => Op::UserDelete(AuthUserDeleteRequest { name }),
        5 => Op::UserGrantRole(AuthUserGrantRoleRequest { user: name, role }),
        6 => Op::UserRevokeRole(AuthUserRevokeRoleRequest { name, role }),
        7 | 8 => Op::RoleAdd(AuthRoleAddRequest { name }),
        9 => Op::RoleGet(AuthRoleGetRequest { role }),
        10 => Op::RoleList,
        11 => Op::RoleDelete(AuthRoleDeleteRequest { role }),
        12 => {
            let perm = Permission { perm_type: rng.i32(0..3), key: key.into(), range_end: range_end.into() };
            let perm = (!once_in(rng, 10)).then_some(perm);
            Op::RoleGrant(AuthRoleGrantPermissionRequest { name, perm })
        }
        _ => Op::RoleRevoke(AuthRoleRevokePermissionRequest {
            role,
            key: key.into(),
            range_end: range_end.into(),
        }),
    }
}

/// Locks and elections.
pub(crate) fn contended(rng: &mut Rng) -> Op {
    let name = pick(rng, &LOCKS);
    match rng.u32(..6) {
        0 => Op::Lock { name, lease: lease_id(rng) },
        1 => Op::Campaign { name, lease: lease_id(rng) },
        2 => Op::Leader(name),
        3 => Op::ProclaimStale(name),
        4 => Op::ProclaimNobody,
        _ => Op::ResignNobody,
    }
}

/// What the rest of the API refuses, and what it answers of what is the same everywhere.
fn other(rng: &mut Rng) -> Op {
    let urls = vec![pick(rng, &["nonsense", "ftp://127.0.0.1:1", "http://127.0.0.1", ""]).to_owned()];
    match rng.u32(..14) {
        0 => Op::HashKv(revision(rng)),
        1 => Op::MemberAdd(MemberAddRequest { peer_urls: urls, is_learner: rng.bool() }),
        2 => Op::MemberRemove(5),
        3 => Op::MemberUpdate(MemberUpdateRequest { id: 5, peer_urls: urls }),
        4 => Op::MemberUpdate(MemberUpdateRequest { id: 5, peer_urls: vec!["http://127.0.0.1:1".into()] }),
        5 => Op::MemberPromote(5),
        6 => Op::MemberRemoveSelf,
        7 => Op::MemberPromoteSelf,
        8 => Op::MoveLeader(5),
        9 => Op::Downgrade(DowngradeRequest { action: 0, version: "nonsense".into() }),
        10 => Op::AuthEnable,
        11 => Op::AuthStatus,
        12 => Op::Authenticate(AuthenticateRequest { name: "ann".into(), password: "secret".into() }),
        13 if rng.bool() => Op::AuthDisable,
        _ => Op::UnknownMethod(pick(rng, &["/etcdserverpb.KV/Rage", "/etcdserverpb.Nothing/Range"])),
    }
}

#[test]
fn a_seed_gives_one_sequence() {
    assert_eq!(sequence(7, 300), sequence(7, 300));
    assert_ne!(sequence(7, 300), sequence(8, 300));
}
