//! The single etcd does what its methods say, in every version.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "what a test asks of etcd must be there")]

use waypost_testkit::{Etcd, EtcdVersion, Tls, for_each_etcd};

async fn get(etcd: &Etcd, key: &str) -> String {
    etcd.etcdctl(["get", key, "--print-value-only"]).await.trim().to_owned()
}

async fn cluster_id(etcd: &Etcd) -> u64 {
    let status = etcd.etcdctl(["endpoint", "status", "-w", "json"]).await;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    status[0]["Status"]["header"]["cluster_id"].as_u64().unwrap()
}

for_each_etcd! {
    async fn kill_and_restart_keep_data_and_port(version: EtcdVersion) {
        let mut etcd = Etcd::start(version).await;
        let url = etcd.url();
        etcd.etcdctl(["put", "a", "1"]).await;
        etcd.kill().await;
        assert_eq!(etcd.pid(), None);
        etcd.restart().await;
        assert_eq!(get(&etcd, "a").await, "1");
        etcd.stop().await;
        etcd.restart().await;
        assert_eq!(get(&etcd, "a").await, "1");
        assert_eq!(etcd.url(), url);
    }

    async fn runs_the_version_that_was_asked_for(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let answer = etcd.etcdctl(["endpoint", "status", "-w", "fields"]).await;
        let expected = match version {
            EtcdVersion::V3_4 => "\"Version\" : \"3.4.",
            EtcdVersion::V3_5 => "\"Version\" : \"3.5.",
            EtcdVersion::Embedded => "waypost-embed",
        };
        assert!(answer.contains(expected), "{answer}");
    }

    async fn wiped_it_is_empty_and_its_cluster_id_changes_on_demand(version: EtcdVersion) {
        let mut etcd = Etcd::start(version).await;
        let id = cluster_id(&etcd).await;
        etcd.etcdctl(["put", "a", "1"]).await;
        etcd.wipe_and_restart().await;
        assert_eq!(get(&etcd, "a").await, "");
        assert_eq!(cluster_id(&etcd).await, id);
        etcd.change_cluster_id();
        etcd.wipe_and_restart().await;
        assert_ne!(cluster_id(&etcd).await, id);
    }

    async fn restored_it_has_the_state_of_the_snapshot(version: EtcdVersion) {
        let mut etcd = Etcd::start(version).await;
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("snapshot.db");
        etcd.etcdctl(["put", "a", "before"]).await;
        etcd.snapshot_to(&file).await;
        etcd.etcdctl(["put", "a", "after"]).await;
        etcd.restore_from(&file).await;
        assert_eq!(get(&etcd, "a").await, "before");
    }

    async fn paused_it_answers_nobody_until_it_is_resumed(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        etcd.pause().await;
        let refused = etcd.try_etcdctl(["--dial-timeout=200ms", "--command-timeout=200ms", "get", "a"]).await;
        assert!(refused.is_err());
        etcd.resume();
        etcd.etcdctl(["put", "a", "1"]).await;
    }

    async fn serves_mutual_tls_with_authentication(version: EtcdVersion) {
        let tls = Tls::new();
        let mut etcd = Etcd::builder(version).mutual_tls(&tls).auth("secret").start().await;
        assert!(etcd.url().starts_with("https://"));
        etcd.etcdctl(["put", "a", "1"]).await;
        etcd.restart().await;
        assert_eq!(get(&etcd, "a").await, "1");
        etcd.wipe_and_restart().await;
        assert!(etcd.etcdctl(["user", "list"]).await.contains("root"));
        etcd.disable_auth().await;
        assert_eq!(get(&etcd, "a").await, "");
    }
}
