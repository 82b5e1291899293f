//! Whether someone may do something. With auth off, everyone may do everything.
//!
//! A check of one request is made at one [`Policy`]; it answers [`Refusal::UserEmpty`] to someone without a token,
//! [`Refusal::AuthOldRevision`] where users or roles have changed since the token was looked up, and
//! [`Refusal::PermissionDenied`].

use waypost_proto::etcdserverpb::request_op::Request;
use waypost_proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest, WatchCreateRequest,
};

use super::Identity;
use super::policy::{Policy, User};
use super::rights::{Intervals, Rights};
use crate::error::Refusal;

/// What someone may do to keys.
#[derive(Debug, Clone, Copy)]
enum Reach<'a> {
    Everything,
    Limited(&'a Rights),
}

// === impl Reach ===

impl Reach<'_> {
    fn read(self, key: &[u8], range_end: &[u8]) -> Result<(), Refusal> {
        self.allows(key, range_end, |rights| &rights.read)
    }

    fn write(self, key: &[u8], range_end: &[u8]) -> Result<(), Refusal> {
        self.allows(key, range_end, |rights| &rights.write)
    }

    fn allows(
        self,
        key: &[u8],
        range_end: &[u8],
        pick: impl FnOnce(&Rights) -> &Intervals,
    ) -> Result<(), Refusal> {
        match self {
            Self::Limited(rights) if !pick(rights).cover(key, range_end) => Err(Refusal::PermissionDenied),
            _ => Ok(()),
        }
    }

    fn write_all<K: AsRef<[u8]>>(self, keys: impl IntoIterator<Item = K>) -> Result<(), Refusal> {
        match self {
            Self::Everything => Ok(()),
            Self::Limited(_) => keys.into_iter().try_for_each(|key| self.write(key.as_ref(), b"")),
        }
    }

    fn read_all<K: AsRef<[u8]>>(self, keys: impl IntoIterator<Item = K>) -> Result<(), Refusal> {
        match self {
            Self::Everything => Ok(()),
            Self::Limited(_) => keys.into_iter().try_for_each(|key| self.read(key.as_ref(), b"")),
        }
    }

    /// `lease_keys` gives the keys of a lease; it is not asked about a request without one.
    fn put<K: AsRef<[u8]>>(
        self,
        request: &PutRequest,
        lease_keys: &impl Fn(i64) -> Vec<K>,
    ) -> Result<(), Refusal> {
        let Self::Limited(_) = self else { return Ok(()) };
        self.write(&request.key, b"")?;
        if request.lease != 0 {
            self.write_all(lease_keys(request.lease))?;
        }
        if request.prev_kv { self.read(&request.key, b"") } else { Ok(()) }
    }

    fn delete(self, request: &DeleteRangeRequest) -> Result<(), Refusal> {
        self.write(&request.key, &request.range_end)?;
        if request.prev_kv { self.read(&request.key, &request.range_end) } else { Ok(()) }
    }
}

// === impl Policy ===

impl Policy {
    /// Range: READ on all of it.
    pub fn may_range(&self, who: &Identity, request: &RangeRequest) -> Result<(), Refusal> {
        self.reach(who)?.read(&request.key, &request.range_end)
    }

    /// Put: WRITE on the key; READ too with `prev_kv`; and WRITE on every key of the lease that it attaches to, which
    /// `lease_keys` names, since otherwise one could make keys last that one may not write.
    pub fn may_put<K: AsRef<[u8]>>(
        &self,
        who: &Identity,
        request: &PutRequest,
        lease_keys: impl Fn(i64) -> Vec<K>,
    ) -> Result<(), Refusal> {
        self.reach(who)?.put(request, &lease_keys)
    }

    /// Delete: WRITE on all of the range, READ too with `prev_kv`.
    pub fn may_delete(&self, who: &Identity, request: &DeleteRangeRequest) -> Result<(), Refusal> {
        self.reach(who)?.delete(request)
    }

    /// Transaction: READ on what is compared, and the rights to every operation of both branches, whichever is taken, at
    /// any depth. The cost is in the number of operations; nesting takes no stack.
    pub fn may_txn<K: AsRef<[u8]>>(
        &self,
        who: &Identity,
        request: &TxnRequest,
        lease_keys: impl Fn(i64) -> Vec<K>,
    ) -> Result<(), Refusal> {
        let reach = self.reach(who)?;
        let Reach::Limited(_) = reach else { return Ok(()) };
        let mut open = vec![request];
        while let Some(txn) = open.pop() {
            for compare in &txn.compare {
                reach.read(&compare.key, &compare.range_end)?;
            }
            for operation in txn.success.iter().chain(&txn.failure) {
                match &operation.request {
                    Some(Request::RequestRange(range)) => reach.read(&range.key, &range.range_end)?,
                    Some(Request::RequestPut(put)) => reach.put(put, &lease_keys)?,
                    Some(Request::RequestDeleteRange(delete)) => reach.delete(delete)?,
                    Some(Request::RequestTxn(nested)) => open.push(nested),
                    None => {}
                }
            }
        }
        Ok(())
    }

    /// Watch: READ on all of it.
    pub fn may_watch(&self, who: &Identity, request: &WatchCreateRequest) -> Result<(), Refusal> {
        let key = if request.key.is_empty() { b"\0" } else { &request.key[..] };
        self.reach(who)?.read(key, &request.range_end)
    }

    /// Revocation and renewal of a lease: WRITE on all of its keys.
    pub fn may_use_lease<K: AsRef<[u8]>>(
        &self,
        who: &Identity,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<(), Refusal> {
        self.reach(who)?.write_all(keys)
    }

    /// Keys of a lease, and the list of leases: READ on all keys of it, or of them.
    pub fn may_see_leases<K: AsRef<[u8]>>(
        &self,
        who: &Identity,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<(), Refusal> {
        self.reach(who)?.read_all(keys)
    }

    /// What any user may do: grant a lease, ask for its time to live, for the members, for status and alarms.
    pub fn may_ask(&self, who: &Identity) -> Result<(), Refusal> {
        match who {
            Identity::Anonymous if self.enabled => Err(Refusal::UserEmpty),
            _ => Ok(()),
        }
    }

    /// What only those with role `root` may do: users, roles, maintenance, members.
    pub fn may_administer(&self, who: &Identity) -> Result<(), Refusal> {
        if !self.enabled {
            return Ok(());
        }
        let Identity::User { name, .. } = who else { return Err(Refusal::UserEmpty) };
        if self.user(name)?.root { Ok(()) } else { Err(Refusal::PermissionDenied) }
    }

    /// `UserGet`: oneself, or as `root`. Nobody is the user without a name, as in etcd, and learns that there is none.
    pub fn may_get_user(&self, who: &Identity, user: &str) -> Result<(), Refusal> {
        match (self.may_administer(who), who) {
            (Err(_), Identity::Anonymous) if user.is_empty() => Ok(()),
            (Err(_), Identity::User { name, .. }) if **name == *user => Ok(()),
            (verdict, _) => verdict,
        }
    }

    /// `RoleGet`: a role that one has, or as `root`.
    pub fn may_get_role(&self, who: &Identity, role: &str) -> Result<(), Refusal> {
        let has = |user: &User| user.record.roles.iter().any(|held| held == role);
        match (self.may_administer(who), who) {
            (Err(_), Identity::User { name, .. }) if self.user(name).is_ok_and(|user| has(user)) => Ok(()),
            (verdict, _) => verdict,
        }
    }

    fn reach(&self, who: &Identity) -> Result<Reach<'_>, Refusal> {
        if !self.enabled {
            return Ok(Reach::Everything);
        }
        let Identity::User { name, revision } = who else { return Err(Refusal::UserEmpty) };
        if *revision < self.revision {
            return Err(Refusal::AuthOldRevision);
        }
        let user = self.users.get(&**name).ok_or(Refusal::PermissionDenied)?;
        Ok(if user.root { Reach::Everything } else { Reach::Limited(&user.rights) })
    }
}
