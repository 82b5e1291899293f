//! Sequences out of a seed by several users while auth is on.
//!
//! `root` makes users and roles, changes them all the time, and everyone asks for keys, leases and watches: some of it is
//! permitted. Each has a watch stream of its own, which shows the token that its user had when it was opened.

use fastrand::Rng;
use waypost_proto::authpb::{Permission, UserAddOptions};
use waypost_proto::etcdserverpb::{
    AlarmRequest, AuthRoleAddRequest, AuthRoleDeleteRequest, AuthRoleGetRequest,
    AuthRoleGrantPermissionRequest, AuthRoleRevokePermissionRequest, AuthUserAddRequest,
    AuthUserChangePasswordRequest, AuthUserDeleteRequest, AuthUserGetRequest, AuthUserGrantRoleRequest,
    AuthUserRevokeRoleRequest, MemberAddRequest,
};

use crate::generate::{
    clean_up, compact, contended, delete, lease, once_in, pick, put, range, span, txn, watch,
};
use crate::identity::Shown;
use crate::op::Op;

/// Everyone who asks; the last two have no token, and one that nobody was given.
const WHO: [&str; 6] = ["root", "ann", "bob", "cy", "", Shown::STRANGER];
/// One for each.
pub(crate) const STREAMS: usize = WHO.len();

const USERS: [&str; 3] = ["ann", "bob", "cy"];
/// Of these, `root` is a role that need not exist.
const ROLES: [&str; 5] = ["r", "s", "t", "ann", "root"];
const PASSWORDS: [&str; 2] = ["secret", "other"];

/// A sequence of about `len` operations. It ends with those that leave nothing behind but revisions.
pub(crate) fn sequence(seed: u64, len: usize) -> Vec<Op> {
    let mut rng = Rng::with_seed(seed);
    let mut ops = Vec::with_capacity(len + 64);
    begin(&mut rng, &mut ops);
    while ops.len() < len {
        let who = if rng.bool() { pick(&mut rng, &USERS) } else { pick(&mut rng, &WHO) };
        let op = match rng.u32(..1000) {
            0..200 => Op::Put(put(&mut rng)),
            200..350 => Op::Range(range(&mut rng)),
            350..430 => Op::Delete(delete(&mut rng)),
            430..560 => {
                let depth = rng.u32(..2);
                Op::Txn(txn(&mut rng, depth))
            }
            560..660 => lease(&mut rng),
            660..740 => watch(&mut rng, stream_of(who)),
            740..752 => compact(&mut rng),
            752..765 => contended(&mut rng),
            765..785 => administration(&mut rng),
            785..830 => {
                let op = management(&mut rng);
                ops.push(Op::As(who, Box::new(op)));
                continue;
            }
            830..950 => {
                let op = management(&mut rng);
                ops.push(by_root(op));
                continue;
            }
            950..995 => {
                ops.push(Op::LogIn((pick(&mut rng, &USERS), pick(&mut rng, &PASSWORDS))));
                continue;
            }
            _ => {
                again(&mut rng, &mut ops);
                continue;
            }
        };
        ops.push(Op::As(who, Box::new(op)));
    }
    end(&mut ops);
    ops
}

/// Users with roles that have permissions, and auth on.
fn begin(rng: &mut Rng, ops: &mut Vec<Op>) {
    ops.push(user("root", "secret", false));
    let grant = |user: &str, role: &str| {
        Op::UserGrantRole(AuthUserGrantRoleRequest { user: user.into(), role: role.into() })
    };
    ops.push(grant("root", "root"));
    for name in USERS {
        ops.push(user(name, "secret", false));
    }
    for role in &ROLES[..4] {
        ops.push(Op::RoleAdd(AuthRoleAddRequest { name: (*role).into() }));
        ops.push(permission(rng, role));
        ops.push(permission(rng, role));
        ops.push(grant(pick(rng, &USERS), role));
    }
    ops.push(Op::AuthEnable);
    for name in &WHO[..4] {
        ops.push(Op::LogIn((name, "secret")));
    }
}

/// Auth off and on again: tokens end. Meanwhile they are good for nothing, and needed for nothing.
fn again(rng: &mut Rng, ops: &mut Vec<Op>) {
    ops.push(by_root(Op::AuthDisable));
    for _ in 0..rng.usize(..8) {
        let op = match rng.u32(..8) {
            0 | 1 => Op::Put(put(rng)),
            2 => Op::Range(range(rng)),
            3 => Op::Delete(delete(rng)),
            4 => Op::Txn(txn(rng, 1)),
            5 => lease(rng),
            6 => compact(rng),
            _ => Op::UserList,
        };
        ops.push(Op::As(pick(rng, &WHO), Box::new(op)));
    }
    ops.push(Op::AuthEnable);
    ops.push(Op::LogIn(("root", "secret")));
    if rng.bool() {
        ops.push(Op::LogIn(("ann", "secret")));
    }
}

fn end(ops: &mut Vec<Op>) {
    ops.push(by_root(Op::AuthDisable));
    for name in ["root", "ann", "bob", "cy"] {
        ops.push(Op::UserDelete(AuthUserDeleteRequest { name: name.into() }));
    }
    for role in ROLES {
        ops.push(Op::RoleDelete(AuthRoleDeleteRequest { role: role.into() }));
    }
    ops.extend(clean_up());
}

fn stream_of(who: &str) -> usize {
    WHO.iter().position(|each| *each == who).unwrap_or_default()
}

fn by_root(op: Op) -> Op {
    Op::As("root", Box::new(op))
}

fn user(name: &str, password: &str, no_password: bool) -> Op {
    Op::UserAdd(AuthUserAddRequest {
        name: name.into(),
        password: password.into(),
        options: Some(UserAddOptions { no_password }),
        ..AuthUserAddRequest::default()
    })
}

fn permission(rng: &mut Rng, role: &str) -> Op {
    let (key, range_end) = span(rng);
    let perm = Permission { perm_type: rng.i32(0..3), key: key.into(), range_end: range_end.into() };
    Op::RoleGrant(AuthRoleGrantPermissionRequest { name: role.into(), perm: Some(perm) })
}

/// A change of users or roles, or a question about them.
fn management(rng: &mut Rng) -> Op {
    let name: String = pick(rng, &USERS).into();
    let role: String = pick(rng, &ROLES).into();
    match rng.u32(..24) {
        0..6 => permission(rng, &role),
        6..8 => {
            let (key, range_end) = span(rng);
            let (key, range_end) = (key.into(), range_end.into());
            Op::RoleRevoke(AuthRoleRevokePermissionRequest { role, key, range_end })
        }
        8..12 => Op::UserGrantRole(AuthUserGrantRoleRequest { user: name, role }),
        12 | 13 => Op::UserRevokeRole(AuthUserRevokeRoleRequest { name, role }),
        14 => Op::RoleAdd(AuthRoleAddRequest { name: role }),
        15 => Op::RoleDelete(AuthRoleDeleteRequest { role }),
        16 => user(&name, pick(rng, &PASSWORDS), once_in(rng, 3)),
        17 => Op::UserDelete(AuthUserDeleteRequest { name }),
        18 => {
            let password = pick(rng, &PASSWORDS).into();
            Op::ChangePassword(AuthUserChangePasswordRequest { name, password, ..Default::default() })
        }
        19 => Op::UserGet(AuthUserGetRequest { name: pick(rng, &WHO).into() }),
        20 => Op::RoleGet(AuthRoleGetRequest { role }),
        21 => Op::UserList,
        22 => Op::RoleList,
        // Of `root`, whom nothing may happen to.
        _ => match rng.u32(..3) {
            0 => Op::UserDelete(AuthUserDeleteRequest { name: "root".into() }),
            1 => Op::UserRevokeRole(AuthUserRevokeRoleRequest { name: "root".into(), role: "root".into() }),
            _ => Op::AuthStatus,
        },
    }
}

/// What only `root` may do, and what any user may.
fn administration(rng: &mut Rng) -> Op {
    match rng.u32(..7) {
        0 => Op::HashKv(0),
        1 => Op::Alarm(AlarmRequest::default()),
        2 => Op::Alarm(AlarmRequest { action: 2, member_id: 0, alarm: 1 }),
        3 => Op::MoveLeader(5),
        4 => Op::MemberAdd(MemberAddRequest { peer_urls: vec!["nonsense".into()], is_learner: false }),
        5 => Op::MemberRemove(5),
        _ => Op::AuthEnable,
    }
}

#[test]
fn a_seed_gives_one_sequence() {
    assert_eq!(sequence(7, 300), sequence(7, 300));
    assert_ne!(sequence(7, 300), sequence(8, 300));
}
