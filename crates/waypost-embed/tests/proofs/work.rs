//! What goes on while the server is killed. Each worker asks for one thing after the other until an answer fails to come.

use std::sync::Arc;

use fastrand::Rng;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use waypost_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use waypost_proto::etcdserverpb::request_op::Request;
use waypost_proto::etcdserverpb::watch_request::RequestUnion;
use waypost_proto::etcdserverpb::{
    CompactionRequest, Compare, DefragmentRequest, DeleteRangeRequest, LeaseGrantRequest,
    LeaseKeepAliveRequest, LeaseRevokeRequest, PutRequest, RangeRequest, RequestOp, ResponseHeader,
    SnapshotRequest, TxnRequest, WatchCreateRequest, WatchRequest,
};

use crate::node::Node;
use crate::promises::{Keys, Leases, Promise};

/// Keys of a writer.
const KEYS: u32 = 6;
/// Leases of a worker at most.
const LEASES: usize = 8;
/// Seconds; far more than a test takes.
pub(crate) const TTL: i64 = 5000;

/// Compactions of the whole store: by one worker.
#[derive(Debug, Default)]
pub(crate) struct Compactions {
    /// The newest that was acknowledged.
    pub(crate) acknowledged: i64,
    /// The newest that was asked for.
    pub(crate) asked: i64,
}

/// What a worker has learned before the answers ended.
pub(crate) struct Learned<P> {
    pub(crate) promise: P,
    /// The newest revision that it was told of.
    pub(crate) revision: i64,
}

/// The end of the answers. Panics at an answer that no kill explains.
fn ended(status: &Status) {
    let explained =
        matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal);
    assert!(explained && !status.message().starts_with("etcdserver"), "{status:?}");
}

fn revision(header: Option<&ResponseHeader>) -> i64 {
    header.expect("a header").revision
}

/// The keys of writer `number`.
pub(crate) fn prefix(number: usize) -> String {
    format!("w/{number}/")
}

/// Puts, transactions and deletions of the keys under a prefix.
pub(crate) async fn write(
    node: Arc<Node>,
    number: usize,
    mut promise: Promise<Keys>,
    mut rng: Rng,
    acknowledged: Arc<Semaphore>,
) -> Learned<Promise<Keys>> {
    let channel = node.connect();
    let mut kv = waypost_proto::etcdserverpb::kv_client::KvClient::new(channel);
    let mut last = 0;
    loop {
        let mut state = promise.known().clone();
        let key = format!("{}{}", prefix(number), rng.u32(..KEYS));
        // Now and then longer than a page of anything.
        let length = if rng.u32(..20) == 0 { rng.usize(..40_000) } else { rng.usize(..64) };
        let value = format!("{:016x}{}", rng.u64(..), "v".repeat(length));
        let outcome = match rng.u32(..10) {
            0..4 => {
                state.insert(key.clone(), value.clone());
                promise.begin(state);
                let put = PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() };
                kv.put(put).await.map(|response| revision(response.get_ref().header.as_ref()))
            }
            4..8 => {
                let request = transaction(&mut state, number, &key, &value, &mut rng);
                promise.begin(state);
                kv.txn(request).await.map(|response| {
                    assert!(response.get_ref().succeeded, "nobody else writes these keys");
                    revision(response.get_ref().header.as_ref())
                })
            }
            kind => {
                let range_end = if kind == 8 { String::new() } else { format!("{}~", prefix(number)) };
                let before = state.len();
                state.retain(|held, _| *held < key || (if kind == 8 { *held != key } else { false }));
                let gone = before - state.len();
                promise.begin(state);
                let delete =
                    DeleteRangeRequest { key: key.into(), range_end: range_end.into(), prev_kv: false };
                kv.delete_range(delete).await.map(|response| {
                    assert_eq!(response.get_ref().deleted, i64::try_from(gone).unwrap());
                    revision(response.get_ref().header.as_ref())
                })
            }
        };
        match outcome {
            Ok(revision) => {
                promise.acknowledged(revision);
                last = revision;
                acknowledged.add_permits(1);
            }
            Err(status) => {
                ended(&status);
                return Learned { promise, revision: last };
            }
        }
    }
}

/// Puts several keys and deletes one, if a key is as it is known to be.
fn transaction(state: &mut Keys, number: usize, key: &str, value: &str, rng: &mut Rng) -> TxnRequest {
    let compare = match state.get(key) {
        Some(known) => (CompareTarget::Value, TargetUnion::Value(known.clone().into())),
        None => (CompareTarget::Version, TargetUnion::Version(0)),
    };
    let compare = Compare {
        result: CompareResult::Equal.into(),
        target: compare.0.into(),
        key: key.to_owned().into(),
        range_end: bytes::Bytes::new(),
        target_union: Some(compare.1),
    };
    let deleted = rng.u32(..KEYS);
    let mut success = Vec::new();
    for other in 0..KEYS {
        let key = format!("{}{other}", prefix(number));
        let request = if other == deleted {
            state.remove(&key);
            Request::RequestDeleteRange(DeleteRangeRequest {
                key: key.into(),
                ..DeleteRangeRequest::default()
            })
        } else if rng.bool() {
            state.insert(key.clone(), value.to_owned());
            let value = value.to_owned().into();
            Request::RequestPut(PutRequest { key: key.into(), value, ..PutRequest::default() })
        } else {
            continue;
        };
        success.push(RequestOp { request: Some(request) });
    }
    TxnRequest { compare: vec![compare], success, failure: Vec::new() }
}

/// The key that a lease holds.
pub(crate) fn key_of(lease: i64) -> String {
    format!("l/{lease}")
}

/// Grants, renewals, attached keys and revocations. Ids are those from `first` on.
pub(crate) async fn lease(
    node: Arc<Node>,
    first: i64,
    mut promise: Promise<Leases>,
    mut rng: Rng,
    acknowledged: Arc<Semaphore>,
) -> Learned<Promise<Leases>> {
    let (mut leases, mut kv) = (node.lease(), node.kv());
    let mut last = 0;
    loop {
        let mut state = promise.known().clone();
        let picked = state.keys().copied().nth(rng.usize(..state.len().max(1)));
        let outcome = match (rng.u32(..8), picked) {
            (0 | 1, _) | (_, None) if state.len() < LEASES => {
                let id = first + rng.i64(0..900_000);
                if state.insert(id, false).is_some() {
                    continue;
                }
                promise.begin(state);
                let granted = leases.lease_grant(LeaseGrantRequest { id, ttl: TTL }).await;
                granted.map(|response| revision(response.get_ref().header.as_ref()))
            }
            (2..=4, Some(id)) => {
                state.insert(id, true);
                promise.begin(state);
                let put = PutRequest {
                    key: key_of(id).into(),
                    value: "held".into(),
                    lease: id,
                    ..PutRequest::default()
                };
                kv.put(put).await.map(|response| revision(response.get_ref().header.as_ref()))
            }
            (5, Some(id)) => {
                promise.begin(state);
                let request = tokio_stream::iter([LeaseKeepAliveRequest { id }]);
                match leases.lease_keep_alive(request).await {
                    Ok(answers) => match answers.into_inner().message().await {
                        Ok(Some(answer)) => {
                            assert_eq!((answer.id, answer.ttl), (id, TTL), "an acknowledged lease");
                            Ok(revision(answer.header.as_ref()))
                        }
                        Ok(None) => Err(Status::unavailable("the stream ended")),
                        Err(status) => Err(status),
                    },
                    Err(status) => Err(status),
                }
            }
            (_, Some(id)) => {
                state.remove(&id);
                promise.begin(state);
                let revoked = leases.lease_revoke(LeaseRevokeRequest { id }).await;
                revoked.map(|response| revision(response.get_ref().header.as_ref()))
            }
            (_, None) => continue,
        };
        match outcome {
            Ok(revision) => {
                promise.acknowledged(revision);
                last = revision;
                acknowledged.add_permits(1);
            }
            Err(status) => {
                ended(&status);
                return Learned { promise, revision: last };
            }
        }
    }
}

/// Compacts once for so many acknowledgements.
pub(crate) async fn compact(
    node: Arc<Node>,
    mut compactions: Compactions,
    mut rng: Rng,
) -> Learned<Compactions> {
    let mut kv = node.kv();
    let mut last = 0;
    loop {
        let current = match kv.range(RangeRequest { key: "w".into(), ..RangeRequest::default() }).await {
            Ok(response) => revision(response.get_ref().header.as_ref()),
            Err(status) => {
                ended(&status);
                return Learned { promise: compactions, revision: last };
            }
        };
        last = current;
        let wanted = current - rng.i64(0..30);
        if wanted <= compactions.asked {
            tokio::task::yield_now().await;
            continue;
        }
        compactions.asked = wanted;
        match kv.compact(CompactionRequest { revision: wanted, physical: rng.bool() }).await {
            Ok(_) => compactions.acknowledged = wanted,
            Err(status) => {
                ended(&status);
                return Learned { promise: compactions, revision: last };
            }
        }
    }
}

/// Watches everything; gives the newest revision that it was told of.
pub(crate) async fn watch(node: Arc<Node>, from: i64) -> i64 {
    let (sender, receiver) = mpsc::channel(1);
    let create = WatchCreateRequest {
        key: "\0".into(),
        range_end: "\0".into(),
        start_revision: from,
        ..WatchCreateRequest::default()
    };
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    sender.send(request).await.expect("the receiver is here");
    let mut seen = from - 1;
    let Ok(responses) = node.watch().watch(ReceiverStream::new(receiver)).await else { return seen };
    let mut responses = responses.into_inner();
    while let Ok(Some(response)) = responses.message().await {
        for event in &response.events {
            let revision = event.kv.as_ref().expect("an event has a key").mod_revision;
            assert!(revision >= seen, "revision {revision} after {seen}");
            seen = revision;
        }
    }
    seen
}

/// Takes a snapshot, or defragments.
pub(crate) async fn maintain(node: Arc<Node>, snapshot: bool) {
    let mut maintenance = node.maintenance();
    if snapshot {
        let Ok(pieces) = maintenance.snapshot(SnapshotRequest {}).await else { return };
        let mut pieces = pieces.into_inner();
        while let Ok(Some(_)) = pieces.message().await {}
    } else if let Err(status) = maintenance.defragment(DefragmentRequest {}).await {
        ended(&status);
    }
}
