//! How a server ends, and what is there when it starts again.

use std::time::Duration;

use waypost_etcd::{Put, Range};
use waypost_proto::etcdserverpb as pb;
use waypost_proto::etcdserverpb::watch_client::WatchClient;
use waypost_proto::etcdserverpb::watch_request::RequestUnion;

use crate::support::{Fixture, PATIENCE};

#[tokio::test]
async fn everything_is_there_after_an_orderly_restart() {
    let fixture = Fixture::start().await;
    let client = fixture.client();
    let lease = client.lease_grant(Duration::from_secs(1000), None).await.unwrap();
    client.put(Put::new("leased", "v").lease(lease.id)).await.unwrap();
    client.put(Put::new("a", "1")).await.unwrap();
    client.compact(2, true).await.unwrap();
    let before = client.status().await.unwrap();
    drop(client);

    let fixture = fixture.restart().await;
    let client = fixture.client();
    let read = client.range(Range::key("a")).await.unwrap();
    let header = read.header.unwrap();
    assert_eq!((header.revision, &read.kvs[0].value[..]), (3, &b"1"[..]));
    let after = client.status().await.unwrap();
    let (old, new) = (before.header.unwrap(), after.header.unwrap());
    assert_eq!((new.cluster_id, new.member_id), (old.cluster_id, old.member_id));
    assert_eq!(new.raft_term, old.raft_term + 1);
    assert!(client.range(Range::key("a").revision(1)).await.is_err(), "compacted");
    assert!(client.lease_time_to_live(lease.id, true).await.is_ok());
    client.lease_revoke(lease.id).await.unwrap();
    assert!(client.range(Range::key("leased")).await.unwrap().kvs.is_empty());
}

#[tokio::test]
async fn an_open_watch_does_not_keep_a_server_from_ending() {
    let fixture = Fixture::start().await;
    let mut watch = WatchClient::new(fixture.channel().await);
    let create = pb::WatchCreateRequest { key: "a".into(), ..pb::WatchCreateRequest::default() };
    let request = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let (sender, requests) = tokio::sync::mpsc::channel(1);
    sender.send(request).await.unwrap();
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let mut answers = watch.watch(requests).await.unwrap().into_inner();
    assert!(answers.message().await.unwrap().unwrap().created);
    tokio::time::timeout(PATIENCE, fixture.server.shutdown()).await.expect("it ends");
    assert!(answers.message().await.is_err(), "the watch was told");
}
