//! One operation: what is asked of both servers.
//!
//! Requests are the protocol's own. Revisions in them may be relative ([`CURRENT`], [`COMPACTED`]), so that an operation
//! keeps its meaning when those before it are dropped.

use std::fmt;

use waypost_proto::etcdserverpb::compare::TargetUnion;
use waypost_proto::etcdserverpb::request_op::Request;
use waypost_proto::etcdserverpb::{
    AlarmRequest, AuthRoleAddRequest, AuthRoleDeleteRequest, AuthRoleGetRequest,
    AuthRoleGrantPermissionRequest, AuthRoleRevokePermissionRequest, AuthUserAddRequest,
    AuthUserChangePasswordRequest, AuthUserDeleteRequest, AuthUserGetRequest, AuthUserGrantRoleRequest,
    AuthUserRevokeRoleRequest, AuthenticateRequest, CompactionRequest, DeleteRangeRequest, DowngradeRequest,
    LeaseGrantRequest, LeaseTimeToLiveRequest, MemberAddRequest, MemberUpdateRequest, PutRequest,
    RangeRequest, TxnRequest, WatchCreateRequest,
};

/// A revision field of `CURRENT + n` means the current revision plus n, for small n of either sign.
pub(crate) const CURRENT: i64 = 1 << 40;
/// As [`CURRENT`], from the compact revision.
pub(crate) const COMPACTED: i64 = 1 << 41;
/// What n of the two above may be, either way.
const SMALL: i64 = 1 << 20;

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Op {
    Range(RangeRequest),
    Put(PutRequest),
    Delete(DeleteRangeRequest),
    Txn(TxnRequest),
    Compact(CompactionRequest),
    /// A put of a value of this many bytes.
    PutLarge(usize),
    Grant(LeaseGrantRequest),
    /// A grant that leaves the id to the server, and its revocation.
    GrantAny {
        ttl: i64,
    },
    Revoke(i64),
    KeepAlive(i64),
    TimeToLive(LeaseTimeToLiveRequest),
    Leases,
    Watch {
        stream: usize,
        create: WatchCreateRequest,
    },
    Cancel {
        stream: usize,
        id: i64,
    },
    Progress {
        stream: usize,
    },
    /// A request on a watch stream that says nothing.
    Nothing {
        stream: usize,
    },
    Alarm(AlarmRequest),
    HashKv(i64),
    MemberAdd(MemberAddRequest),
    MemberRemove(u64),
    MemberUpdate(MemberUpdateRequest),
    MemberPromote(u64),
    /// Removal of the only member.
    MemberRemoveSelf,
    /// Promotion of the only member, which is a voter.
    MemberPromoteSelf,
    MoveLeader(u64),
    Downgrade(DowngradeRequest),
    AuthEnable,
    AuthDisable,
    AuthStatus,
    Authenticate(AuthenticateRequest),
    /// Asks as a user who has logged in, [`Shown::STRANGER`](crate::identity::Shown::STRANGER), or nobody.
    As(&'static str, Box<Op>),
    /// Logs a user in, with this password; from then on it has the token.
    LogIn((&'static str, &'static str)),
    ChangePassword(AuthUserChangePasswordRequest),
    UserAdd(AuthUserAddRequest),
    UserGet(AuthUserGetRequest),
    UserList,
    UserDelete(AuthUserDeleteRequest),
    UserGrantRole(AuthUserGrantRoleRequest),
    UserRevokeRole(AuthUserRevokeRoleRequest),
    RoleAdd(AuthRoleAddRequest),
    RoleGet(AuthRoleGetRequest),
    RoleList,
    RoleDelete(AuthRoleDeleteRequest),
    RoleGrant(AuthRoleGrantPermissionRequest),
    RoleRevoke(AuthRoleRevokePermissionRequest),
    /// Lock for a lease, then unlock; the lock is free before.
    Lock {
        name: &'static str,
        lease: i64,
    },
    /// Campaign for a lease, ask for the leader, proclaim, resign; there is no leader before.
    Campaign {
        name: &'static str,
        lease: i64,
    },
    Leader(&'static str),
    /// Proclaim of a leader that is none.
    ProclaimStale(&'static str),
    ProclaimNobody,
    ResignNobody,
    /// A unary call of a path that is not served.
    UnknownMethod(&'static str),
}

/// What relative revisions are relative to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) current: i64,
    pub(crate) compacted: i64,
}

// === impl Op ===

impl Op {
    /// Who asks, if it is said, and what.
    pub(crate) fn asked(&self) -> (Option<&'static str>, &Self) {
        match self {
            Self::As(who, op) => (Some(who), op),
            op => (None, op),
        }
    }

    /// The operation with absolute revisions.
    pub(crate) fn resolve(&self, origin: Origin) -> Self {
        let mut op = self.clone();
        match &mut op {
            Self::As(_, op) => **op = op.resolve(origin),
            Self::Range(request) => origin.range(request),
            Self::Txn(request) => origin.txn(request),
            Self::Compact(request) => origin.set(&mut request.revision),
            Self::Watch { create, .. } => origin.set(&mut create.start_revision),
            Self::HashKv(revision) => origin.set(revision),
            _ => {}
        }
        op
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&brief(&format!("{self:?}")))
    }
}

// === impl Origin ===

impl Origin {
    fn set(self, revision: &mut i64) {
        for (base, value) in [(CURRENT, self.current), (COMPACTED, self.compacted)] {
            let offset = revision.wrapping_sub(base);
            if (-SMALL..SMALL).contains(&offset) {
                *revision = value + offset;
                return;
            }
        }
    }

    fn range(self, request: &mut RangeRequest) {
        for revision in [
            &mut request.revision,
            &mut request.min_mod_revision,
            &mut request.max_mod_revision,
            &mut request.min_create_revision,
            &mut request.max_create_revision,
        ] {
            self.set(revision);
        }
    }

    fn txn(self, request: &mut TxnRequest) {
        for compare in &mut request.compare {
            if let Some(TargetUnion::CreateRevision(revision) | TargetUnion::ModRevision(revision)) =
                &mut compare.target_union
            {
                self.set(revision);
            }
        }
        for operation in request.success.iter_mut().chain(&mut request.failure) {
            match &mut operation.request {
                Some(Request::RequestRange(range)) => self.range(range),
                Some(Request::RequestTxn(nested)) => self.txn(nested),
                _ => {}
            }
        }
    }
}

/// `Debug` text without the fields that have the value of a field that is not set, and with relative revisions by name.
pub(crate) fn brief(text: &str) -> String {
    let mut text = text.to_owned();
    for default in ["0", "false", "b\"\"", "\"\"", "None", "[]"] {
        for (end, keep) in [(", ", ""), (" }", " }"), (" })", " })")] {
            let pattern = format!(": {default}{end}");
            let mut from = 0;
            while let Some(at) = text[from..].find(&pattern).map(|at| at + from) {
                let name = text[..at].rfind([' ', '(']).map_or(0, |space| space + 1);
                let start = if keep.is_empty() || !text[..name].ends_with(", ") { name } else { name - 2 };
                text.replace_range(start..at + pattern.len(), keep);
                from = start;
            }
        }
    }
    named(&named(&text, CURRENT, "CURRENT"), COMPACTED, "COMPACTED")
}

/// The text with numbers near `base` written relative to it.
fn named(text: &str, base: i64, name: &str) -> String {
    let mut out = String::new();
    let mut digits = String::new();
    for char in text.chars().chain(std::iter::once(' ')) {
        if char.is_ascii_digit() {
            digits.push(char);
            continue;
        }
        match digits.parse::<i64>().map(|number| number.wrapping_sub(base)) {
            Ok(0) => out.push_str(name),
            Ok(offset) if (-SMALL..SMALL).contains(&offset) => out.extend([name, &format!("{offset:+}")]),
            _ => out.push_str(&digits),
        }
        digits.clear();
        out.push(char);
    }
    out.pop();
    out
}

#[test]
fn an_operation_is_written_as_what_is_set_in_it() {
    let op = Op::Range(RangeRequest { key: "a".into(), revision: CURRENT - 2, ..RangeRequest::default() });
    assert_eq!(op.to_string(), "Range(RangeRequest { key: b\"a\", revision: CURRENT-2, sort_target: Key })");
    let Op::Range(range) = op.resolve(Origin { current: 9, compacted: 4 }) else { panic!("still a range") };
    assert_eq!(range.revision, 7);
    let op = Op::Compact(CompactionRequest { revision: COMPACTED + 1, physical: false });
    assert_eq!(op.to_string(), "Compact(CompactionRequest { revision: COMPACTED+1 })");
}
