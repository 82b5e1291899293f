//! One test per rule of auth.

mod change;
mod check;
mod login;

use bytes::Bytes;
use prost::Message as _;
use waypost_proto::authpb::{self, Permission, permission::Type};
use waypost_proto::etcdserverpb::request_op::Request;
use waypost_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, WatchCreateRequest,
};

use super::*;
use crate::backend::{Backend, Bucket, MemoryBackend, WriteBatch};
use crate::error::Refusal;

/// Auth over a backend, each change committed at once.
struct Bench {
    backend: MemoryBackend,
    auth: Auth,
}

impl Bench {
    /// Auth off, nobody there.
    fn new() -> Self {
        let backend = MemoryBackend::new();
        let mut batch = WriteBatch::new();
        let auth = Auth::load(&backend, &mut batch).unwrap();
        backend.commit(batch).unwrap();
        Self { backend, auth }
    }

    /// Auth on, with `root` and a user `u` whose role `r` reads `r*`, writes `w*` and does both to `b*`.
    fn enabled() -> Self {
        let mut bench = Self::new();
        bench.change(|auth, batch| auth.user_add(batch, "root", hash("root"))).unwrap();
        bench.change(|auth, batch| auth.user_grant_role(batch, "root", "root")).unwrap();
        bench.change(|auth, batch| auth.user_add(batch, "u", hash("u"))).unwrap();
        bench.change(|auth, batch| auth.role_add(batch, "r")).unwrap();
        bench.change(|auth, batch| auth.user_grant_role(batch, "u", "r")).unwrap();
        for (kind, key, end) in [(Type::Read, "r", "s"), (Type::Write, "w", "x"), (Type::Readwrite, "b", "c")]
        {
            bench.grant("r", kind, key, end).unwrap();
        }
        bench.change(Auth::enable).unwrap();
        bench
    }

    fn change<T>(&mut self, change: impl FnOnce(&mut Auth, &mut WriteBatch) -> T) -> T {
        let mut batch = WriteBatch::new();
        let answer = change(&mut self.auth, &mut batch);
        self.backend.commit(batch).unwrap();
        self.auth.committed();
        answer
    }

    fn grant(&mut self, role: &str, kind: Type, key: &'static str, end: &'static str) -> Result<(), Refusal> {
        let permission = Permission { perm_type: kind.into(), key: key.into(), range_end: end.into() };
        self.change(|auth, batch| auth.role_grant_permission(batch, role, Some(permission)))
    }

    fn log_in(&mut self, user: &str, now: u64) -> String {
        let check = self.auth.password_check(user).unwrap();
        match self.auth.log_in(check, true, 42, now).unwrap() {
            Login::Token(token) => token,
            Login::CheckAgain(_) => panic!("the password was not changed"),
        }
    }

    fn user(&mut self, name: &str) -> Identity {
        let token = self.log_in(name, 0);
        self.auth.identify(Some(&token), 0).unwrap()
    }

    fn reload(&self) -> Auth {
        let mut batch = WriteBatch::new();
        let auth = Auth::load(&self.backend, &mut batch).unwrap();
        assert!(batch.is_empty());
        auth
    }

    fn revision(&self) -> u64 {
        self.auth.policy().revision()
    }
}

fn hash(of: &'static str) -> Secret {
    Secret::Hash(of.into())
}

fn no_lease(_: i64) -> Vec<Bytes> {
    panic!("the request has no lease")
}

fn range(key: &'static str, end: &'static str) -> RangeRequest {
    RangeRequest { key: key.into(), range_end: end.into(), ..RangeRequest::default() }
}

fn put(key: &'static str) -> PutRequest {
    PutRequest { key: key.into(), ..PutRequest::default() }
}

fn delete(key: &'static str, end: &'static str) -> DeleteRangeRequest {
    DeleteRangeRequest { key: key.into(), range_end: end.into(), ..DeleteRangeRequest::default() }
}

fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

const DENIED: Result<(), Refusal> = Err(Refusal::PermissionDenied);

fn allowed(key: &'static str, end: &'static str) -> Permission {
    Permission { perm_type: Type::Readwrite.into(), key: key.into(), range_end: end.into() }
}
