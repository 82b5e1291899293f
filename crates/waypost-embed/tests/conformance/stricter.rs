//! Rights that the embedded server asks for and etcd 3.5.1 does not: each is a hole that a later version of etcd closed.
//!
//! | what 3.5.1 lets through | closed by etcd in |
//! |---|---|
//! | compaction, alarms and leases by anyone (CVE-2026-33413) | 3.5.28, 3.6.9 |
//! | transactions in transactions (CVE-2026-33343) | 3.5.28, 3.6.9 |
//! | previous value and lease of a put in a transaction (CVE-2026-44283) | 3.5.30, 3.6.11 |
//! | names of a lease's keys (CVE-2023-32082) | 3.5.9 |
//! | watches without an end (CVE-2026-73499) | 3.5.33, 3.6.14 |
//!
//! Nothing of that goes uncompared. What an operation needs is asked of etcd in another way, in which 3.5.1 does look at the
//! rights and which changes nothing whatever the answer. If that is refused, the embedded server must refuse the operation
//! in the same words; if it is not, both are asked, and must answer the same.

use bytes::Bytes;
use waypost_proto::etcdserverpb::request_op::Request;
use waypost_proto::etcdserverpb::watch_request::RequestUnion;
use waypost_proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, WatchCreateRequest,
};
use waypost_proto::mvccpb::Event;

use crate::call::Answer;
use crate::generate::NO_LEASE;
use crate::identity::Shown;
use crate::op::Op;
use crate::server::Kind;
use crate::session::{Difference, Session};
use crate::stream::FORBIDDEN;

/// A right that an operation needs.
#[derive(Clone, Debug)]
pub(crate) enum Need {
    /// To be any user.
    User,
    Root,
    Read(Bytes, Bytes),
    Write(Bytes, Bytes),
    /// To read all keys of the lease, or of all leases.
    ReadLease(Option<i64>),
    /// To write all keys of the lease.
    WriteLease(i64),
}

/// A question that etcd 3.5.1 answers by the same rights.
pub(crate) struct Probe {
    pub(crate) op: Op,
    /// Whether it matters only that a user asks, whatever its rights.
    any_user: bool,
}

/// What an operation needs at the embedded server, if 3.5.1 does not ask for all of that.
pub(crate) fn needs(op: &Op) -> Vec<Need> {
    match op {
        Op::Compact(_) | Op::HashKv(_) | Op::MoveLeader(_) => vec![Need::Root],
        Op::Alarm(request) => vec![if request.action == 0 { Need::User } else { Need::Root }],
        Op::Revoke(id) | Op::KeepAlive(id) => vec![Need::User, Need::WriteLease(*id)],
        Op::TimeToLive(request) if request.keys => vec![Need::User, Need::ReadLease(Some(request.id))],
        Op::TimeToLive(_) | Op::Grant(_) | Op::GrantAny { .. } => vec![Need::User],
        Op::Leases => vec![Need::User, Need::ReadLease(None)],
        Op::Lock { lease, .. } | Op::Campaign { lease, .. } => vec![Need::WriteLease(*lease)],
        Op::Txn(txn) if is_loose(txn) => {
            let mut needs = vec![Need::User];
            of_txn(txn, &mut needs);
            needs
        }
        _ => Vec::new(),
    }
}

/// What a watch needs, if 3.5.1 does not ask for all of that.
pub(crate) fn needs_of_watch(create: &WatchCreateRequest) -> Vec<Need> {
    if &create.range_end[..] != b"\0" {
        return Vec::new();
    }
    let key = if create.key.is_empty() { Bytes::from_static(b"\0") } else { create.key.clone() };
    vec![Need::Read(key, create.range_end.clone())]
}

/// Why etcd refused, if it did so for rights.
pub(crate) fn refusal(answer: &Answer) -> Option<&'static str> {
    FORBIDDEN.into_iter().find(|reason| message(answer) == format!("{reason:?}"))
}

/// The words of a refusal, without the code: where a lock meets it, that is another.
pub(crate) fn message(answer: &Answer) -> &str {
    answer.text.split_once(' ').map_or("", |(_, message)| message)
}

/// Whether 3.5.1 does not look at all of a transaction.
fn is_loose(txn: &TxnRequest) -> bool {
    *txn == TxnRequest::default()
        || txn.success.iter().chain(&txn.failure).any(|operation| match &operation.request {
            Some(Request::RequestTxn(_)) => true,
            Some(Request::RequestPut(put)) => put.prev_kv || put.lease != 0,
            _ => false,
        })
}

fn of_txn(txn: &TxnRequest, needs: &mut Vec<Need>) {
    for compare in &txn.compare {
        needs.push(Need::Read(compare.key.clone(), compare.range_end.clone()));
    }
    for operation in txn.success.iter().chain(&txn.failure) {
        match &operation.request {
            Some(Request::RequestRange(range)) => {
                needs.push(Need::Read(range.key.clone(), range.range_end.clone()));
            }
            Some(Request::RequestPut(put)) => {
                needs.push(Need::Write(put.key.clone(), Bytes::new()));
                if put.prev_kv {
                    needs.push(Need::Read(put.key.clone(), Bytes::new()));
                }
                if put.lease != 0 {
                    needs.push(Need::WriteLease(put.lease));
                }
            }
            Some(Request::RequestDeleteRange(delete)) => {
                needs.push(Need::Write(delete.key.clone(), delete.range_end.clone()));
                if delete.prev_kv {
                    needs.push(Need::Read(delete.key.clone(), delete.range_end.clone()));
                }
            }
            Some(Request::RequestTxn(nested)) => of_txn(nested, needs),
            None => {}
        }
    }
}

// === impl Need ===

impl Need {
    /// The questions, of which none may be refused. `log` has all events.
    pub(crate) fn probes(&self, log: &[Event]) -> Vec<Probe> {
        match self {
            Self::User => {
                vec![Probe { op: read(&Bytes::from_static(b"none"), &Bytes::new()), any_user: true }]
            }
            Self::Root => vec![Probe::of(Op::UserList)],
            Self::Read(key, range_end) => vec![Probe::of(read(key, range_end))],
            Self::Write(key, range_end) => vec![Probe::of(write(key, range_end))],
            Self::ReadLease(lease) => {
                let keys = attached(log, *lease);
                keys.iter().map(|key| Probe::of(read(key, &Bytes::new()))).collect()
            }
            Self::WriteLease(lease) => {
                let keys = attached(log, Some(*lease));
                keys.iter().map(|key| Probe::of(write(key, &Bytes::new()))).collect()
            }
        }
    }
}

/// Counts keys.
fn read(key: &Bytes, range_end: &Bytes) -> Op {
    let (key, range_end) = (key.clone(), range_end.clone());
    Op::Range(RangeRequest { key, range_end, count_only: true, ..RangeRequest::default() })
}

/// Puts a key with a lease that there is not, which fails; and would delete the range otherwise, which never happens but is
/// looked at.
fn write(key: &Bytes, range_end: &Bytes) -> Op {
    let put = PutRequest { key: key.clone(), lease: NO_LEASE, ..PutRequest::default() };
    let delete = DeleteRangeRequest { key: key.clone(), range_end: range_end.clone(), prev_kv: false };
    let operation = |request| vec![RequestOp { request: Some(request) }];
    Op::Txn(TxnRequest {
        compare: Vec::new(),
        success: operation(Request::RequestPut(put)),
        failure: operation(Request::RequestDeleteRange(delete)),
    })
}

/// The keys of a lease, or of all.
fn attached(log: &[Event], lease: Option<i64>) -> Vec<Bytes> {
    let mut leases = std::collections::BTreeMap::new();
    for kv in log.iter().filter_map(|event| event.kv.as_ref()) {
        // A deletion has none.
        leases.insert(&kv.key, kv.lease);
    }
    let wanted = |of: i64| lease.map_or(of != 0, |lease| of != 0 && of == lease);
    leases.into_iter().filter(|(_, of)| wanted(*of)).map(|(key, _)| key.clone()).collect()
}

// === impl Session ===

impl Session {
    /// Where the embedded server and etcd stand, if these two are compared.
    fn embedded_and_etcd(&self) -> Option<[usize; 2]> {
        let embedded = self.kinds().iter().position(|kind| *kind == Kind::Embedded)?;
        Some([embedded, 1 - embedded])
    }

    /// Asks etcd for what an operation needs; why it must be refused, if it must.
    async fn forbidden(&mut self, shown: &Shown, needs: &[Need]) -> Result<Option<&'static str>, Difference> {
        let Some([_, etcd]) = self.embedded_and_etcd() else { return Ok(None) };
        for probe in needs.iter().flat_map(|need| need.probes(&self.log)) {
            let answer = self.sides[etcd].clients.call_showing(shown, &probe.op).await;
            if answer.revision > self.current {
                return Err(Difference(format!("it changed something: {}: {answer}", probe.op)));
            }
            if let Some(reason) = probe.verdict(&answer) {
                return Ok(Some(reason));
            }
        }
        Ok(None)
    }

    /// Asks for what needs more rights at the embedded server than etcd 3.5.1 asks for. `false`: it is permitted, and
    /// remains to be asked of both.
    pub(crate) async fn is_refused(&mut self, op: &Op) -> Result<bool, Difference> {
        let (Some(who), asked) = op.asked() else { return Ok(false) };
        let (needs, Some([embedded, etcd])) = (needs(asked), self.embedded_and_etcd()) else {
            return Ok(false);
        };
        if !self.auth || who == "root" || needs.is_empty() {
            return Ok(false);
        }
        let shown = self.sides[etcd].clients.shown(Some(who));
        let Some(reason) = self.forbidden(&shown, &needs).await? else { return Ok(false) };
        let answer = self.sides[embedded].clients.call(op).await;
        match refusal(&answer) {
            Some(given) if given == reason => {}
            None if !answer.done => {
                // Refused for its form, before anyone looks at rights.
                let other = self.sides[etcd].clients.call(op).await;
                if answer != other {
                    return Err(self.difference(&format!("answers to {op}"), &answer, &other));
                }
            }
            _ => return Err(Difference(format!("{op} must be refused ({reason}), but: {answer}"))),
        }
        *self.stricter.entry(reason).or_default() += 1;
        Ok(true)
    }

    /// The same for a watch.
    pub(crate) async fn is_refused_watch(
        &mut self,
        stream: usize,
        create: &WatchCreateRequest,
    ) -> Result<bool, Difference> {
        let Some([embedded, etcd]) = self.embedded_and_etcd().filter(|_| self.auth) else { return Ok(false) };
        let shown = self.sides[etcd].streams[stream].as_ref().map(|stream| stream.shown.clone());
        let needs = needs_of_watch(create);
        let Some(reason) = self.forbidden(&shown.unwrap_or_default(), &needs).await? else {
            return Ok(false);
        };
        let Some(stream) = &mut self.sides[embedded].streams[stream] else { return Ok(false) };
        stream.send(Some(RequestUnion::CreateRequest(create.clone()))).await;
        let created = stream.control().await.map_err(Difference)?;
        if !(created.created && created.canceled && created.cancel_reason == "forbidden") {
            return Err(Difference(format!("{create:?} must be refused ({reason}), but: {created:?}")));
        }
        *self.stricter.entry(reason).or_default() += 1;
        Ok(true)
    }
}

// === impl Probe ===

impl Probe {
    fn of(op: Op) -> Self {
        Self { op, any_user: false }
    }

    /// Why the operation must be refused, if it must.
    pub(crate) fn verdict(&self, answer: &Answer) -> Option<&'static str> {
        refusal(answer).filter(|reason| !(self.any_user && *reason == "etcdserver: permission denied"))
    }
}

#[test]
fn the_keys_of_a_lease_are_those_that_were_put_last_with_it() {
    let event = |key: &str, lease| {
        let kv = waypost_proto::mvccpb::KeyValue { key: key.to_owned().into(), lease, ..Default::default() };
        Event { kv: Some(kv), ..Event::default() }
    };
    let log = [event("a", 1), event("b", 1), event("c", 2), event("b", 0), event("c", 1)];
    assert_eq!(attached(&log, Some(1)), [Bytes::from("a"), Bytes::from("c")]);
    assert!(attached(&log, Some(2)).is_empty());
    assert_eq!(attached(&log, None).len(), 2);
}
