//! Locks and elections.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on must fail at once")]

use std::time::Duration;

use futures::StreamExt;
use waypost_etcd::{Client, ClientOptions};
use waypost_testkit::{Etcd, EtcdVersion, for_each_etcd};

const TTL: Duration = Duration::from_secs(60);

for_each_etcd! {
    async fn a_lock_is_held_by_one(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let client = Client::new(ClientOptions::new([etcd.url()])).expect("options");
        let (one, two) = (client.lease_grant(TTL, None).await.expect("grant"), client.lease_grant(TTL, None).await.expect("grant"));
        let key = client.lock("lock", one.id).await.expect("lock");
        let waiting = tokio::spawn({
            let client = client.clone();
            async move { client.lock("lock", two.id).await }
        });
        assert_eq!(client.lock("lock", one.id).await.expect("the same holder"), key);
        assert!(!waiting.is_finished());
        client.unlock(key).await.expect("unlock");
        let key = waiting.await.expect("task").expect("lock");
        // A holder whose lease ends holds nothing.
        client.lease_revoke(two.id).await.expect("revoke");
        client.lock("lock", one.id).await.expect("free again");
        client.unlock(key).await.expect("unlocking what is gone");
    }

    async fn an_election_has_one_leader(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let client = Client::new(ClientOptions::new([etcd.url()])).expect("options");
        assert!(client.leader("e").await.expect("nobody yet").is_none());
        let lease = client.lease_grant(TTL, None).await.expect("grant");
        let leadership = client.campaign("e", lease.id, "first").await.expect("campaign");
        let mut seen = client.observe("e").await.expect("observe");
        assert_eq!(&seen.next().await.expect("leader").expect("kv").value[..], b"first");
        client.proclaim(&leadership, "second").await.expect("proclaim");
        assert_eq!(&seen.next().await.expect("leader").expect("kv").value[..], b"second");
        assert_eq!(&client.leader("e").await.expect("leader").expect("kv").value[..], b"second");
        client.resign(leadership).await.expect("resign");
        assert!(client.leader("e").await.expect("nobody").is_none());
    }
}
