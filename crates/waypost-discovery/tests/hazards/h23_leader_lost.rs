//! H23: the leader of a cluster of three is killed, or cut off.

use waypost_etcd::{Client, EndpointOrder, Put};
use waypost_testkit::{Cluster, EtcdVersion, eventually, for_each_real_etcd};

use crate::support::{Follower, PATIENCE, discovery, entry, hosts, name, options};

/// Puts an instance, for as long as the election takes.
async fn put(client: &Client, host: u32) {
    eventually("the cluster takes a write", PATIENCE, async || {
        let (key, value) = entry("greeter", host, 0);
        client.put(Put::new(key, value).idempotent()).await.ok()
    })
    .await;
}

/// The URLs, beginning with that of `first`.
fn beginning_with(cluster: &Cluster, first: usize) -> Vec<String> {
    let mut urls = cluster.urls();
    urls.swap(0, first);
    urls
}

for_each_real_etcd! {
    async fn h23_leader_killed(version: EtcdVersion) {
        let mut cluster = Cluster::start(version, 3).await;
        let leader = cluster.leader().await;
        let writer = Client::new(options(cluster.urls())).unwrap();
        put(&writer, 1).await;
        put(&writer, 2).await;
        let reader = options(beginning_with(&cluster, leader)).endpoint_order(EndpointOrder::Listed);
        let mut follower = Follower::new(discovery(&Client::new(reader).unwrap()).service(name("greeter")));
        follower.until_hosts(&[1, 2]).await;

        cluster.kill(leader).await;
        put(&writer, 3).await;
        let seen = follower.until("the change", |snapshot| snapshot.len() != 2).await;
        assert_eq!(hosts(&seen), [1, 2, 3], "nobody was lost on the way");
        follower.until_hosts(&[1, 2, 3]).await;
    }

    /// Clients still reach the leader that was cut off. It must not keep us.
    async fn h23_leader_partitioned_while_we_are_connected_to_it(version: EtcdVersion) {
        let cluster = Cluster::start(version, 3).await;
        let leader = cluster.leader().await;
        let others: Vec<String> = beginning_with(&cluster, leader).split_off(1);
        let writer = Client::new(options(others)).unwrap();
        put(&writer, 1).await;
        put(&writer, 2).await;
        let reader = options(beginning_with(&cluster, leader)).endpoint_order(EndpointOrder::Listed);
        let mut follower = Follower::new(discovery(&Client::new(reader).unwrap()).service(name("greeter")));
        follower.until_hosts(&[1, 2]).await;

        cluster.partition(leader);
        put(&writer, 3).await;
        let seen = follower.until("the change", |snapshot| snapshot.len() != 2).await;
        assert_eq!(hosts(&seen), [1, 2, 3]);
        follower.until_hosts(&[1, 2, 3]).await;

        cluster.heal(leader);
        put(&writer, 4).await;
        follower.until_hosts(&[1, 2, 3, 4]).await;
    }
}
