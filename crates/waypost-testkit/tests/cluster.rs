//! The cluster elects, survives the loss of its leader, and heals.
#![forbid(unsafe_code)]

use waypost_testkit::{Cluster, EtcdVersion, for_each_real_etcd};

for_each_real_etcd! {
    async fn three_nodes_elect_and_share_their_data(version: EtcdVersion) {
        let cluster = Cluster::builder(version).client_proxies().start().await;
        let leader = cluster.leader().await;
        let other = (leader + 1) % cluster.len();
        cluster.node(leader).etcdctl(["put", "a", "1"]).await;
        assert!(cluster.node(other).etcdctl(["get", "a"]).await.contains('1'));
        let members = cluster.node(other).etcdctl(["member", "list"]).await;
        for url in cluster.urls() {
            assert!(members.contains(&url), "{url} is not advertised: {members}");
        }
    }

    async fn a_partitioned_leader_is_replaced_and_comes_back_as_a_follower(version: EtcdVersion) {
        let cluster = Cluster::start(version, 3).await;
        let first = cluster.leader().await;
        cluster.partition(first);
        let second = cluster.leader().await;
        assert_ne!(second, first);
        cluster.node(second).etcdctl(["put", "a", "1"]).await;
        let limits = ["--dial-timeout=500ms", "--command-timeout=500ms"];
        let cut_off = cluster.node(first).try_etcdctl([limits[0], limits[1], "get", "a"]).await;
        assert!(cut_off.is_err(), "a node without a majority answered: {cut_off:?}");
        cluster.heal(first);
        waypost_testkit::eventually("the healed node reads", std::time::Duration::from_secs(30), async || {
            let answer = cluster.node(first).try_etcdctl(["get", "a"]).await.ok()?;
            answer.contains('1').then_some(())
        })
        .await;
    }

    async fn a_killed_leader_is_replaced_and_can_be_restarted(version: EtcdVersion) {
        let mut cluster = Cluster::start(version, 3).await;
        let first = cluster.leader().await;
        cluster.kill(first).await;
        let second = cluster.leader().await;
        assert_ne!(second, first);
        cluster.node(second).etcdctl(["put", "a", "1"]).await;
        cluster.restart(first).await;
        assert!(cluster.node(first).etcdctl(["get", "a"]).await.contains('1'));
        let leader = cluster.leader().await;
        cluster.pause(leader).await;
        assert_ne!(cluster.leader().await, leader);
        cluster.resume(leader);
        cluster.restart_all().await;
        assert!(cluster.node(leader).etcdctl(["get", "a"]).await.contains('1'));
    }
}
