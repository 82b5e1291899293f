//! Growing up: a store of 100,000 keys goes from the embedded server to three nodes of etcd by a snapshot, and back, and
//! every read is answered as before. The steps are those of `docs/operations.md`.
#![forbid(unsafe_code)]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on must fail at once"
)]

mod fill;
mod state;

use std::path::Path;
use std::time::Duration;

use waypost_etcd::{Client, ClientOptions};
use waypost_testkit::{Cluster, Etcd, EtcdVersion, run_within};

use crate::state::State;

/// What `etcdctl` is told of the one who may do everything.
const ROOT: &str = "--user=root:secret";

/// It takes less than a minute alone.
const PATIENCE: Duration = Duration::from_secs(600);

#[test]
fn a_store_of_100_000_keys_grows_up_and_comes_back() {
    run_within(PATIENCE, async {
        let folder = tempfile::tempdir().unwrap();
        let mut embedded = Etcd::start(EtcdVersion::Embedded).await;
        let revisions = fill::everything(&embedded).await;
        let before = State::of(&embedded, &revisions).await;
        assert_eq!(before.keys(), fill::KEYS_LEFT);

        // To three nodes.
        let file = folder.path().join("embedded.db");
        save(&embedded, &file).await;
        embedded.stop().await;
        let mut cluster = Cluster::builder(EtcdVersion::V3_5).prepare().await;
        cluster.restore_from(&file).await;
        cluster.leader().await;
        let there = State::of(cluster.node(0), &revisions).await;
        there.assert_same(&before, "three nodes, made of the embedded server's snapshot");
        for node in 1..cluster.len() {
            assert_eq!(State::hash(cluster.node(node)).await, before.hash, "node {node}");
        }

        // It lives on there, and comes back.
        let revisions = fill::more(cluster.node(1), &revisions, 1).await;
        let before = State::of(cluster.node(2), &revisions).await;
        let file = folder.path().join("cluster.db");
        save(cluster.node(2), &file).await;
        drop(cluster);
        embedded.restore_from(&file).await;
        let back = State::of(&embedded, &revisions).await;
        back.assert_same(&before, "the embedded server, made of the cluster's snapshot");

        // And it goes on from there.
        let revision = fill::more(&embedded, &revisions, 2).await.last;
        assert!(revision > revisions.last);
    });
}

async fn save(etcd: &Etcd, file: &Path) {
    etcd.etcdctl([ROOT, "snapshot", "save", file.to_str().unwrap()]).await;
}

/// A client of one user; `None`: of nobody.
fn client(etcd: &Etcd, user: Option<(&str, &str)>) -> Client {
    let options = ClientOptions::new([etcd.url()]).max_receive_bytes(256 << 20);
    let options = match user {
        Some((name, password)) => options.user(name, password),
        None => options,
    };
    Client::new(options.request_timeout(Duration::from_secs(60))).unwrap()
}

fn root(etcd: &Etcd) -> Client {
    client(etcd, Some(("root", "secret")))
}
