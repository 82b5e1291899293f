//! A store that several share.

use std::time::Duration;

use waypost_embed::server::{Server, StartError};
use waypost_embed::shared::{OpenError, SharedServer};
use waypost_etcd::{Client, ClientOptions, KeyRange, Put, Range, WatchEvent, WatchSpec};

use crate::support::PATIENCE;

fn client_of(url: &str) -> Client {
    Client::new(ClientOptions::new([url]).wait_for_socket(true).connect_timeout(PATIENCE)).unwrap()
}

async fn serves(shared: &SharedServer) {
    let mut serving = shared.serving();
    tokio::time::timeout(PATIENCE, serving.wait_for(|serving| *serving)).await.unwrap().unwrap();
}

#[tokio::test]
async fn each_takes_over_from_the_one_before_and_no_client_loses_its_watch() {
    let folder = tempfile::tempdir().unwrap();
    let mut shares = Vec::new();
    for _ in 0..4 {
        shares.push(SharedServer::open(folder.path()).await.unwrap());
    }
    assert_eq!(shares.iter().filter(|share| share.is_serving()).count(), 1);
    let last = shares.pop().unwrap();
    let client = client_of(last.url());
    let mut watcher = client.watch();
    watcher.add(WatchSpec::new(KeyRange::key("k")).from(1));
    for (round, share) in shares.into_iter().enumerate() {
        client.put(Put::new("k", round.to_string()).idempotent()).await.unwrap();
        let value = loop {
            match tokio::time::timeout(PATIENCE, watcher.next()).await.unwrap() {
                WatchEvent::Events { events, .. } => break events[0].kv.value.clone(),
                WatchEvent::Reset { .. } | WatchEvent::Refused { .. } => panic!("the watch did not go on"),
                _ => {}
            }
        };
        assert_eq!(value, round.to_string());
        share.close().await;
    }
    serves(&last).await;
    assert_eq!(client.range(Range::key("k")).await.unwrap().kvs[0].version, 3);
    last.close().await;
    assert!(!folder.path().join("waypost.sock").exists());
}

#[tokio::test]
async fn an_ordinary_server_is_joined_and_succeeded() {
    let folder = tempfile::tempdir().unwrap();
    let server =
        Server::builder().data_dir(folder.path()).listen(["http://127.0.0.1:0"]).start().await.unwrap();
    let client = client_of(&server.urls()[0]);
    client.put(Put::new("k", "v")).await.unwrap();
    let share = SharedServer::open(folder.path()).await.unwrap();
    assert!(!share.is_serving());
    let of_share = client_of(share.url());
    assert_eq!(&of_share.range(Range::key("k")).await.unwrap().kvs[0].value[..], b"v");
    server.shutdown().await;
    serves(&share).await;
    assert_eq!(&of_share.range(Range::key("k")).await.unwrap().kvs[0].value[..], b"v");
}

#[tokio::test]
async fn a_folder_with_a_long_name_is_shared_too() {
    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join("d".repeat(150)).join("data");
    let first = SharedServer::open(&deep).await.unwrap();
    let second = SharedServer::open(&deep).await.unwrap();
    client_of(second.url()).put(Put::new("k", "v")).await.unwrap();
    let members = client_of(first.url()).member_list().await.unwrap();
    assert_eq!(members[0].client_urls, [format!("unix://{}/waypost.sock", deep.display())]);
}

#[tokio::test]
async fn what_cannot_be_opened_is_told() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("notes"), "mine").unwrap();
    let error = SharedServer::open(folder.path()).await.unwrap_err();
    assert!(matches!(error, OpenError::Start(StartError::Backend(_))), "{error}");
    assert!(error.to_string().contains("notes"), "{error}");
    let error = SharedServer::open(folder.path().join("notes")).await.unwrap_err();
    assert!(matches!(error, OpenError::Socket { .. }), "{error}");
}

#[test]
fn it_needs_no_runtime_and_leaves_with_its_last_client() {
    let folder = tempfile::tempdir().unwrap();
    let share = SharedServer::open_blocking(folder.path()).unwrap();
    let url = share.url().to_owned();
    let client = Client::new(ClientOptions::new([url]).holding(share)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { client.put(Put::new("k", "v")).await }).unwrap();
    let socket = folder.path().join("waypost.sock");
    assert!(socket.exists());
    drop(client);
    drop(runtime);
    waypost_testkit::run(async {
        waypost_testkit::eventually("the socket is gone", Duration::from_secs(60), async || {
            (!socket.exists()).then_some(())
        })
        .await;
    });
}
