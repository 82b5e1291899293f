//! H20: history is compacted while the watch is down.

use waypost_testkit::{Etcd, EtcdVersion, Proxy, for_each_etcd};

use crate::support::{Follower, client, delete, discovery, is_live, put};

for_each_etcd! {
    async fn h20_ranges_again_and_publishes_the_difference(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let proxy = Proxy::start(&etcd.url()).await;
        let writer = client(&etcd.url());
        for host in 1..=5 {
            put(&writer, "greeter", host, 0).await;
        }
        let mut follower = Follower::new(discovery(&client(&proxy.url())).service("greeter".parse().unwrap()));
        follower.until_hosts(&[1, 2, 3, 4, 5]).await;

        proxy.refuse().await;
        follower.until("stale", |snapshot| !is_live(snapshot)).await;
        delete(&writer, "greeter", 2).await;
        put(&writer, "greeter", 9, 0).await;
        delete(&writer, "greeter", 9).await;
        put(&writer, "greeter", 7, 0).await;
        let revision = put(&writer, "greeter", 3, 0).await;
        writer.compact(revision, true).await.unwrap();

        proxy.restore().await;
        let snapshot = follower.until_hosts(&[1, 3, 4, 5, 7]).await;
        assert!(snapshot.revision() >= revision);

        // The watch that follows is whole again.
        delete(&writer, "greeter", 1).await;
        follower.until_hosts(&[3, 4, 5, 7]).await;
    }
}
