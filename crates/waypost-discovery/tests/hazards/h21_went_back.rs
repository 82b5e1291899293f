//! H21: etcd is restored from a snapshot, or wiped.

use std::time::Duration;

use prometheus_client::{encoding::text::encode, registry::Registry};
use waypost_discovery::{Discovery, DiscoveryOptions};
use waypost_etcd::Client;
use waypost_testkit::{Etcd, EtcdVersion, Proxy, for_each_etcd};

use crate::support::{Follower, client, delete, discovery, grpc, is_live, name, put};

/// With pages so small that three instances are a large set.
fn large_set(client: &Client) -> Discovery {
    Discovery::new(client.clone(), DiscoveryOptions::new(grpc()).page_size(1))
}

/// Cuts a reader of 1, 2, 3 off, wipes the store, refills it to 1, 3, 7 and moves its revision past the reader's.
async fn moved_past<F: Future<Output = ()>>(
    version: EtcdVersion,
    discovery: fn(&Client) -> Discovery,
    refill: impl FnOnce(Client) -> F,
) {
    let mut etcd = Etcd::start(version).await;
    let proxy = Proxy::start(&etcd.url()).await;
    let writer = client(&etcd.url());
    for host in 1..=3 {
        put(&writer, "greeter", host, 0).await;
    }
    let mut follower = Follower::new(discovery(&client(&proxy.url())).service(name("greeter")));
    let before = follower.until_hosts(&[1, 2, 3]).await;

    proxy.refuse().await;
    follower.until("stale", |snapshot| !is_live(snapshot)).await;
    etcd.wipe_and_restart().await;
    refill(writer.clone()).await;
    while put(&writer, "unrelated", 1, 0).await <= before.revision() + 10 {}
    proxy.restore().await;
    follower.until_hosts(&[1, 3, 7]).await;
}

for_each_etcd! {
    async fn h21_restored_from_a_snapshot(version: EtcdVersion) {
        let mut etcd = Etcd::start(version).await;
        let client = client(&etcd.url());
        put(&client, "greeter", 1, 0).await;
        put(&client, "greeter", 2, 0).await;
        let directory = tempfile::tempdir().unwrap();
        let backup = directory.path().join("backup");
        etcd.snapshot_to(&backup).await;
        put(&client, "greeter", 3, 0).await;
        delete(&client, "greeter", 1).await;
        let mut follower = Follower::new(discovery(&client).service(name("greeter")));
        let before = follower.until_hosts(&[2, 3]).await;

        follower.may_go_back = true;
        etcd.restore_from(&backup).await;
        let after = follower.until_hosts(&[1, 2]).await;
        assert!(after.revision() < before.revision());

        follower.may_go_back = false;
        put(&client, "greeter", 4, 0).await;
        follower.until_hosts(&[1, 2, 4]).await;
    }

    async fn h21_wiped(version: EtcdVersion) {
        let mut etcd = Etcd::start(version).await;
        let client = client(&etcd.url());
        for host in 1..=5 {
            put(&client, "greeter", host, 0).await;
        }
        let mut follower = Follower::new(discovery(&client).service(name("greeter")));
        follower.until_hosts(&[1, 2, 3, 4, 5]).await;
        follower.may_go_back = true;
        etcd.wipe_and_restart().await;
        put(&client, "greeter", 9, 0).await;
        follower.until_hosts(&[9]).await;
    }

    /// The watch can be resumed without anyone noticing: the same cluster id, and a revision beyond ours. A small set
    /// is read again, and even one that looks alike is found out: as many keys, and the same one changed last.
    async fn h21_wiped_and_moved_past_our_revision(version: EtcdVersion) {
        moved_past(version, discovery, |writer| async move {
            put(&writer, "greeter", 1, 0).await;
            put(&writer, "greeter", 7, 0).await;
            put(&writer, "greeter", 3, 0).await;
        })
        .await;
    }

    /// A set larger than a page is recognised, or not, by its newest key: here it has another revision.
    async fn h21_wiped_and_moved_past_our_revision_with_a_large_set(version: EtcdVersion) {
        moved_past(version, large_set, |writer| async move {
            put(&writer, "greeter", 3, 0).await;
            put(&writer, "greeter", 1, 0).await;
            put(&writer, "greeter", 7, 0).await;
        })
        .await;
    }

    /// The same keys at the same revisions under leases that are not the same.
    async fn h21_wiped_and_refilled_in_the_same_order(version: EtcdVersion) {
        moved_past(version, large_set, |writer| async move {
            put(&writer, "greeter", 1, 0).await;
            put(&writer, "greeter", 7, 0).await;
            let lease = writer.lease_grant(Duration::from_secs(600), None).await.unwrap().id;
            put(&writer, "greeter", 3, lease).await;
        })
        .await;
    }

    /// After an outage in which nothing happened a large set goes on where it was.
    async fn h21_a_large_set_is_recognised(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let proxy = Proxy::start(&etcd.url()).await;
        let writer = client(&etcd.url());
        for host in 1..=3 {
            put(&writer, "greeter", host, 0).await;
        }
        let discovery = large_set(&client(&proxy.url()));
        let mut registry = Registry::default();
        discovery.register_metrics(&mut registry);
        let mut follower = Follower::new(discovery.service(name("greeter")));
        follower.until_hosts(&[1, 2, 3]).await;
        for host in 4..=6 {
            proxy.sever();
            put(&writer, "greeter", host, 0).await;
            follower.until("live, with the next", |snapshot| is_live(snapshot) && snapshot.len() == host as usize).await;
        }
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        assert!(text.contains("waypost_discovery_resets_total 0"), "{text}");
    }

    async fn h21_another_cluster_at_the_same_address(version: EtcdVersion) {
        let mut etcd = Etcd::start(version).await;
        let proxy = Proxy::start(&etcd.url()).await;
        let writer = client(&etcd.url());
        put(&writer, "greeter", 1, 0).await;
        let mut follower = Follower::new(discovery(&client(&proxy.url())).service(name("greeter")));
        let before = follower.until_hosts(&[1]).await;

        proxy.refuse().await;
        follower.until("stale", |snapshot| !is_live(snapshot)).await;
        etcd.change_cluster_id();
        etcd.wipe_and_restart().await;
        put(&writer, "greeter", 2, 0).await;
        while put(&writer, "unrelated", 1, 0).await <= before.revision() + 10 {}
        proxy.restore().await;
        follower.until_hosts(&[2]).await;
    }
}
