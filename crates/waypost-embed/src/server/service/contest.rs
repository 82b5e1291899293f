//! What a lock and an election have in common: a key for each contender, under one prefix; the oldest one holds.
//!
//! Who waits is identified anew for each step: users and roles may change meanwhile.

use bytes::Bytes;
use tonic::metadata::MetadataMap;
use waypost_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use waypost_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use waypost_proto::etcdserverpb::request_op::Request;
use waypost_proto::etcdserverpb::response_op::Response;
use waypost_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, RequestOp, ResponseHeader,
    TxnRequest, WatchCreateRequest,
};
use waypost_proto::mvccpb::KeyValue;
use waypost_proto::mvccpb::event::EventType;

use super::Service;
use crate::error::{Refusal, described};
use crate::mvcc::StoreError;
use crate::server::engine::{Engine, Follow};
use crate::watch::Body;

/// Seconds of a lease that is made for those who bring none.
const SESSION_TTL: i64 = 60;

/// A key in the contest, which goes away with this unless it is [kept](Claim::keep): its owner may stop waiting at any
/// moment.
pub(super) struct Claim {
    engine: Engine,
    pub(super) key: Bytes,
    /// The revision at which the key was made.
    pub(super) revision: i64,
    pub(super) lease: i64,
    pub(super) header: ResponseHeader,
    /// What the key held, if it was there before.
    pub(super) found: Option<KeyValue>,
    kept: bool,
}

// === impl Service ===

impl Service {
    /// Puts a key under the prefix, or finds the one that the lease has there.
    pub(super) async fn claim(
        &self,
        metadata: &MetadataMap,
        prefix: &[u8],
        lease: i64,
        value: Bytes,
    ) -> Result<Claim, Refusal> {
        let lease = if lease == 0 {
            let request = LeaseGrantRequest { ttl: SESSION_TTL, id: 0 };
            self.engine.grant(self.caller(metadata)?, request).await?.id
        } else {
            lease
        };
        let key = Bytes::from([prefix, hex(lease).as_bytes()].concat());
        let put = PutRequest { key: key.clone(), value, lease, ..PutRequest::default() };
        let get = RangeRequest { key: key.clone(), ..RangeRequest::default() };
        let request = TxnRequest {
            compare: vec![made_at(&key, 0)],
            success: vec![operation(Request::RequestPut(put))],
            failure: vec![operation(Request::RequestRange(get))],
        };
        let mut answer = self.engine.txn(self.caller(metadata)?, request).await?;
        let header = answer.header.unwrap_or_default();
        let found = match answer.responses.pop().and_then(|response| response.response) {
            Some(Response::ResponseRange(mut range)) => range.kvs.pop(),
            _ => None,
        };
        let revision = found.as_ref().map_or(header.revision, |kv| kv.create_revision);
        Ok(Claim { engine: self.engine.clone(), key, revision, lease, header, found, kept: false })
    }

    /// Waits until no key under the prefix is older. Gives the header of the answer that said so.
    pub(super) async fn wait_for_turn(
        &self,
        metadata: &MetadataMap,
        prefix: &[u8],
        revision: i64,
    ) -> Result<ResponseHeader, Refusal> {
        loop {
            let request = RangeRequest {
                max_create_revision: revision - 1,
                sort_order: SortOrder::Descend.into(),
                ..oldest(prefix)
            };
            let mut answer = self.engine.range(&self.caller(metadata)?, request).await?;
            let header = answer.header.unwrap_or_default();
            let Some(before) = answer.kvs.pop() else { return Ok(header) };
            self.wait_for_deletion(before.key, header.revision + 1).await?;
        }
    }

    async fn wait_for_deletion(&self, key: Bytes, from: i64) -> Result<(), Refusal> {
        let mut follow = Follow::open(&self.engine);
        let request = WatchCreateRequest { key, start_revision: from, ..WatchCreateRequest::default() };
        follow.create(&request, Ok(()));
        loop {
            let response = tokio::select! {
                () = self.stop.cancelled() => return Err(Refusal::Stopped),
                response = follow.next() => response?,
            };
            match &response.body {
                Body::Events { events, .. }
                    if events.list().iter().any(|event| event.r#type() == EventType::Delete) =>
                {
                    return Ok(());
                }
                // It has to be looked at again.
                Body::Compacted { .. } | Body::Refused(_) => return Ok(()),
                _ => {}
            }
        }
    }

    /// The oldest key under the prefix.
    pub(super) async fn holder(
        &self,
        metadata: &MetadataMap,
        prefix: &[u8],
    ) -> Result<(ResponseHeader, Option<KeyValue>), Refusal> {
        let mut answer = self.engine.range(&self.caller(metadata)?, oldest(prefix)).await?;
        Ok((answer.header.unwrap_or_default(), answer.kvs.pop()))
    }

    /// Changes or deletes the key if it is still the one that was made at this revision. Gives whether it was.
    pub(super) async fn if_made_at(
        &self,
        metadata: &MetadataMap,
        key: &Bytes,
        revision: i64,
        change: Request,
    ) -> Result<(ResponseHeader, bool), Refusal> {
        if key.is_empty() {
            return Err(Refusal::EmptyKey);
        }
        let request = TxnRequest {
            compare: vec![made_at(key, revision)],
            success: vec![operation(change)],
            failure: Vec::new(),
        };
        let answer = self.engine.txn(self.caller(metadata)?, request).await?;
        Ok((answer.header.unwrap_or_default(), answer.succeeded))
    }
}

// === impl Claim ===

impl Claim {
    /// The key stays.
    pub(super) fn keep(mut self) -> (Bytes, i64, i64) {
        self.kept = true;
        (std::mem::take(&mut self.key), self.revision, self.lease)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let request = TxnRequest {
            compare: vec![made_at(&self.key, self.revision)],
            success: vec![operation(deletion(&self.key))],
            failure: Vec::new(),
        };
        // Nobody waits for it; a server that ends leaves the key to its lease.
        let _ = self.engine.submit(0, move |desk| {
            let undone = desk
                .refuse_if_corrupt()
                .map_err(StoreError::from)
                .and_then(|()| desk.space.txn(desk.backend, request))
                .map(|applied| desk.applied(applied));
            if let Err(error) = undone {
                tracing::warn!(
                    error = described(&error),
                    "a key of a caller that has gone stays until its lease ends"
                );
            }
            Box::new(|_| ())
        });
    }
}

/// The prefix of a contest.
pub(super) fn prefix(name: &[u8]) -> Vec<u8> {
    [name, b"/"].concat()
}

pub(super) fn deletion(key: &Bytes) -> Request {
    Request::RequestDeleteRange(DeleteRangeRequest { key: key.clone(), ..DeleteRangeRequest::default() })
}

/// A lease as Go prints it with `%x`.
fn hex(lease: i64) -> String {
    let sign = if lease < 0 { "-" } else { "" };
    format!("{sign}{:x}", lease.unsigned_abs())
}

fn oldest(prefix: &[u8]) -> RangeRequest {
    RangeRequest {
        key: Bytes::copy_from_slice(prefix),
        range_end: after(prefix),
        limit: 1,
        sort_order: SortOrder::Ascend.into(),
        sort_target: SortTarget::Create.into(),
        ..RangeRequest::default()
    }
}

/// The first key after all those that begin with the prefix, which ends with `/`.
pub(super) fn after(prefix: &[u8]) -> Bytes {
    let name = prefix.strip_suffix(b"/").unwrap_or(prefix);
    Bytes::from([name, b"0"].concat())
}

fn made_at(key: &Bytes, revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Create.into(),
        key: key.clone(),
        range_end: Bytes::new(),
        target_union: Some(TargetUnion::CreateRevision(revision)),
    }
}

fn operation(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_named_as_go_does() {
        assert_eq!(hex(0x694d_7fb1), "694d7fb1");
        assert_eq!(hex(-31), "-1f");
    }

    #[test]
    fn a_prefix_ends_before_the_next_name() {
        assert_eq!(after(&prefix(b"lock")), "lock0");
    }
}
