//! `drain` and `deregister`.

use waypost_testkit::{Etcd, EtcdVersion, eventually, for_each_etcd};

use crate::support::{PATIENCE, at, json, ok, registered, run};

for_each_etcd! {
    async fn drain_keeps_the_lease_and_undo_brings_it_back(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let _process = registered(&etcd, &["greeter", "10.0.0.1:1", "--zone", "a"]).await;
        let lease = json(&etcd, &["kv", "get", "services/greeter/10.0.0.1:1"]).await["kvs"][0]["lease"].clone();

        let text = ok(&etcd, &["drain", "greeter", "10.0.0.1:1"]).await;
        assert!(text.starts_with("greeter/10.0.0.1:1 is draining, was up"), "{text}");
        let none = run(at(&etcd, &["resolve", "greeter"])).await;
        assert_eq!(none.code, 3);
        assert!(none.stderr.contains("1 are registered"), "{}", none.stderr);
        assert_eq!(ok(&etcd, &["resolve", "greeter", "--all"]).await, "10.0.0.1:1\n");
        let drained = json(&etcd, &["ls", "greeter"]).await;
        assert_eq!(drained["instances"][0]["zone"], "a");
        assert_eq!(json(&etcd, &["kv", "get", "services/greeter/10.0.0.1:1"]).await["kvs"][0]["lease"], lease);

        let again = json(&etcd, &["drain", "greeter", "10.0.0.1:1"]).await;
        assert_eq!((again["before"].as_str(), again.get("revision")), (Some("draining"), None));
        let undone = json(&etcd, &["drain", "greeter", "10.0.0.1:1", "--undo"]).await;
        assert_eq!((undone["status"].as_str(), undone["before"].as_str()), (Some("up"), Some("draining")));
        assert!(undone["revision"].as_i64().is_some());
        assert_eq!(ok(&etcd, &["resolve", "greeter"]).await, "10.0.0.1:1\n");
    }

    async fn drain_says_what_it_cannot_do(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        etcd.etcdctl(["put", "/myrpc/services/s/10.0.0.1:1", "10.0.0.1:1"]).await;
        let no_status = run(at(&etcd, &["drain", "s", "10.0.0.1:1", "--layout", "addr-key"])).await;
        assert_eq!(no_status.code, 1);
        assert!(no_status.stderr.contains("layout addr-key has no place for a status"), "{}", no_status.stderr);
        let nobody = run(at(&etcd, &["drain", "greeter", "10.0.0.1:1"])).await;
        assert_eq!(nobody.code, 3, "{nobody:?}");
        etcd.etcdctl(["put", "services/s/bad", "nonsense"]).await;
        let bad = run(at(&etcd, &["drain", "s", "bad"])).await;
        assert_eq!(bad.code, 1);
        assert!(bad.stderr.contains("services/s/bad"), "{}", bad.stderr);
    }

    async fn foreign_fields_that_are_lost_are_said(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let foreign = r#"{"Op":0,"Addr":"10.0.0.1:1","Metadata":null,"Extra":[1]}"#;
        etcd.etcdctl(["put", "services/s/x", foreign]).await;
        let ran = run(at(&etcd, &["drain", "s", "x"])).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(ran.stderr.contains("other software"), "{}", ran.stderr);
        etcd.etcdctl(["put", "services/s/y", r#"{ "Metadata" : null, "Addr":"10.0.0.2:1", "Op":0 }"#]).await;
        let ran = run(at(&etcd, &["drain", "s", "y"])).await;
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    }

    async fn deregister_deletes_all_keys_of_the_instance_and_no_other(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        for (key, value) in [("s", "s"), ("s.ip", "10.0.0.1"), ("s.port", "1"), ("s.protocol", "grpc"), ("s.other", "x")] {
            etcd.etcdctl(["put", key, value]).await;
        }
        let listed = json(&etcd, &["ls", "s", "--layout", "fields"]).await;
        let id = listed["instances"][0]["id"].as_str().unwrap().to_owned();
        let gone = json(&etcd, &["deregister", "s", &id, "--layout", "fields"]).await;
        assert_eq!(gone["deleted"], 4);
        assert_eq!(etcd.etcdctl(["get", "", "--prefix"]).await, "s.other\nx\n");
        let nobody = run(at(&etcd, &["deregister", "s", &id, "--layout", "fields"])).await;
        assert_eq!(nobody.code, 3);
    }

    async fn a_registration_that_lives_comes_back(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let _process = registered(&etcd, &["greeter", "10.0.0.1:1"]).await;
        let ran = run(at(&etcd, &["deregister", "greeter", "10.0.0.1:1"])).await;
        assert_eq!(ran.code, 0);
        assert!(ran.stdout.starts_with("greeter/10.0.0.1:1 is deregistered"), "{}", ran.stdout);
        assert!(ran.stderr.contains("registers again within one round trip"), "{}", ran.stderr);
        eventually("it is back", PATIENCE, async || {
            (run(at(&etcd, &["resolve", "greeter"])).await.code == 0).then_some(())
        })
        .await;
    }
}
