//! Whatever is sent over the socket, it is answered, and the server goes on.

use http_body_util::{BodyExt as _, Full};
use prost::Message as _;
use tonic::body::Body;
use tonic::codegen::http::{self, Request};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tower::ServiceExt as _;
use waypost_proto::etcdserverpb as pb;
use waypost_proto::etcdserverpb::kv_client::KvClient;
use waypost_proto::etcdserverpb::lease_client::LeaseClient;
use waypost_proto::etcdserverpb::maintenance_client::MaintenanceClient;

use crate::support::{Fixture, PATIENCE};

const TXN: &str = "/etcdserverpb.KV/Txn";
const EXTREMES: [i64; 5] = [i64::MIN, -1, 1 << 32, i64::MAX - 1, i64::MAX];

/// Sends these bytes as the body of a call; gives its status.
async fn send(channel: &Channel, path: &str, body: Vec<u8>) -> Status {
    let request = Request::post(path)
        .header(http::header::CONTENT_TYPE, "application/grpc")
        .header(http::header::TE, "trailers")
        .body(Body::new(Full::new(bytes::Bytes::from(body))))
        .unwrap();
    let answer = async {
        let response = channel.clone().oneshot(request).await.unwrap();
        if let Some(status) = Status::from_header_map(response.headers()) {
            return status;
        }
        match response.into_body().collect().await {
            Ok(body) => {
                body.trailers().and_then(Status::from_header_map).unwrap_or_else(|| Status::unknown(""))
            }
            Err(status) => status,
        }
    };
    tokio::time::timeout(PATIENCE, answer).await.expect("an answer")
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&[0], &u32::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()
}

/// Transactions in transactions, so deep.
fn nested(depth: usize) -> Vec<u8> {
    // Field 2 of a transaction is an operation, whose field 4 is a transaction.
    let mut message = Vec::new();
    for _ in 0..depth {
        for tag in [4 << 3 | 2, 2 << 3 | 2] {
            let mut outer = vec![tag];
            prost::encoding::encode_varint(message.len() as u64, &mut outer);
            outer.append(&mut message);
            message = outer;
        }
    }
    message
}

/// Panics unless the server writes and reads as ever.
async fn assert_alive(channel: &Channel) {
    let mut kv = KvClient::new(channel.clone());
    let put = pb::PutRequest { key: "alive".into(), value: "yes".into(), ..pb::PutRequest::default() };
    kv.put(put).await.unwrap();
    let range = pb::RangeRequest { key: "alive".into(), ..pb::RangeRequest::default() };
    assert_eq!(kv.range(range).await.unwrap().into_inner().kvs[0].value, "yes");
}

#[tokio::test]
async fn transactions_nested_ten_thousand_deep_are_refused() {
    let fixture = Fixture::start().await;
    let channel = fixture.channel().await;
    for depth in [100, 10_000, 100_000] {
        let status = send(&channel, TXN, framed(&nested(depth))).await;
        assert_ne!(status.code(), Code::Ok, "{depth}: {status:?}");
        assert_alive(&channel).await;
    }
    // As deep as can be read.
    for depth in 1..50 {
        send(&channel, TXN, framed(&nested(depth))).await;
    }
    assert_alive(&channel).await;
}

#[tokio::test]
async fn what_is_no_message_is_refused() {
    let fixture = Fixture::start().await;
    let channel = fixture.channel().await;
    let good = pb::RangeRequest { key: "a".into(), ..pb::RangeRequest::default() }.encode_to_vec();
    let bodies = [
        Vec::new(),
        b"garbage".to_vec(),
        vec![0xff; 1000],
        // Says that 4 GiB follow.
        [&[0, 0xff, 0xff, 0xff, 0xff], &good[..]].concat(),
        // Says that more follows than does.
        [&[0, 0, 0, 0, 200], &good[..]].concat(),
        // Says that it is compressed.
        [&[1, 0, 0, 0, 3], &good[..]].concat(),
        framed(&[0xff; 300]),
        // A length within the message that is longer than it.
        framed(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f]),
    ];
    for path in ["/etcdserverpb.KV/Range", "/etcdserverpb.Watch/Watch", "/etcdserverpb.Lease/LeaseKeepAlive"]
    {
        // Watches end with the client, not with its questions: of a stream without any there is no end to wait for.
        let endless = |body: &Vec<u8>| body.is_empty() && path.ends_with("Watch");
        for body in bodies.iter().filter(|body| !endless(body)) {
            let status = send(&channel, path, body.clone()).await;
            // A stream that says nothing has said nothing wrong.
            let unary = path.ends_with("Range");
            assert!(!unary || status.code() != Code::Ok, "{path} of {body:?}: {status:?}");
        }
        assert_alive(&channel).await;
    }
}

#[tokio::test]
async fn the_ends_of_every_number_are_answered() {
    let fixture = Fixture::start().await;
    let channel = fixture.channel().await;
    let mut kv = KvClient::new(channel.clone());
    let mut lease = LeaseClient::new(channel.clone());
    let mut maintenance = MaintenanceClient::new(channel.clone());
    assert_alive(&channel).await;
    for number in EXTREMES {
        let all = pb::RangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() };
        let limited = pb::RangeRequest { limit: number, ..all.clone() };
        assert_eq!(kv.range(limited).await.unwrap().into_inner().count, 1);
        for revision in [
            kv.range(pb::RangeRequest { revision: number, ..all.clone() }).await.err(),
            kv.compact(pb::CompactionRequest { revision: number, physical: true }).await.err(),
            maintenance.hash_kv(pb::HashKvRequest { revision: number }).await.err(),
        ]
        .into_iter()
        .flatten()
        {
            assert_eq!(revision.code(), Code::OutOfRange, "{revision:?}");
        }
        let bounds = pb::RangeRequest {
            min_mod_revision: number,
            max_mod_revision: number,
            min_create_revision: number,
            max_create_revision: number,
            ..all.clone()
        };
        kv.range(bounds).await.unwrap();
        let granted = lease.lease_grant(pb::LeaseGrantRequest { id: number, ttl: number }).await;
        assert_eq!(granted.is_ok(), number <= 9_000_000_000, "a lease of {number} s");
        if granted.is_ok() {
            lease.lease_revoke(pb::LeaseRevokeRequest { id: number }).await.unwrap();
        }
        let unknown = pb::PutRequest { key: "a".into(), lease: number, ..pb::PutRequest::default() };
        assert_eq!(kv.put(unknown).await.unwrap_err().code(), Code::NotFound);
        lease.lease_time_to_live(pb::LeaseTimeToLiveRequest { id: number, keys: true }).await.unwrap();
    }
    for order in [i32::MIN, -1, 3, i32::MAX] {
        let range = pb::RangeRequest { key: "a".into(), sort_order: order, ..pb::RangeRequest::default() };
        assert_eq!(kv.range(range).await.unwrap_err().code(), Code::InvalidArgument);
    }
    assert_alive(&channel).await;
}

#[tokio::test]
async fn ranges_that_end_before_they_start_are_empty() {
    let fixture = Fixture::start().await;
    let channel = fixture.channel().await;
    assert_alive(&channel).await;
    let mut kv = KvClient::new(channel.clone());
    let (key, range_end) = (bytes::Bytes::from_static(b"z"), bytes::Bytes::from_static(b"a"));
    let range = pb::RangeRequest { key: key.clone(), range_end: range_end.clone(), ..Default::default() };
    assert_eq!(kv.range(range).await.unwrap().into_inner().count, 0);
    let delete = pb::DeleteRangeRequest { key, range_end, prev_kv: true };
    assert_eq!(kv.delete_range(delete).await.unwrap().into_inner().deleted, 0);
    assert_alive(&channel).await;
}

#[tokio::test]
async fn a_key_as_long_as_a_request_may_be_is_a_key() {
    let fixture = Fixture::start().await;
    let channel = fixture.channel().await;
    let mut kv = KvClient::new(channel.clone());
    let key = bytes::Bytes::from(vec![b'k'; 1_500_000]);
    kv.put(pb::PutRequest { key: key.clone(), ..pb::PutRequest::default() }).await.unwrap();
    let all = pb::RangeRequest { key: "\0".into(), range_end: "\0".into(), ..pb::RangeRequest::default() };
    assert_eq!(kv.range(all).await.unwrap().into_inner().kvs[0].key, key);
    assert_alive(&channel).await;
}
