//! The Go program agrees with itself, on every etcd: the ground on which Waypost is compared with it.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "what a test sets up must be there")]

use std::time::Duration;

use waypost_testkit::{Etcd, EtcdVersion, GoInterop, for_each_etcd};

const SOON: Duration = Duration::from_secs(30);

for_each_etcd! {
    async fn go_resolves_what_go_registers(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let go = GoInterop::build().await;
        let (one, two) = (go.serve("greeter").await, go.serve("greeter").await);
        // A string: the round robin of grpc-go 1.33 panics on metadata that is a JSON object (an unhashable map).
        let metadata = serde_json::json!("zone a");
        let _first = go.register(&etcd.url(), "greeter", &one.address, Some(&metadata), 10).await;
        let _second = go.register(&etcd.url(), "greeter", &two.address, None, 10).await;
        let seen = go.resolve(&etcd.url(), "greeter", 10, 2).await;
        let mut expected = [one.address, two.address];
        expected.sort();
        assert_eq!(seen.addresses, expected);
        assert_eq!(seen.failures, Vec::<String>::new());
        assert!(seen.calls.values().all(|calls| *calls == 5), "not round robin: {:?}", seen.calls);
    }

    async fn go_watches_what_go_registers_and_removes(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let go = GoInterop::build().await;
        let watch = go.watch(&etcd.url(), "greeter").await;
        let metadata = serde_json::json!({"zone": "a"});
        let registration = go.register(&etcd.url(), "greeter", "10.0.0.1:80", Some(&metadata), 10).await;
        let key = "services/greeter/10.0.0.1:80";
        let line = watch.wait_for_line(|line| line.contains(r#""op":"add""#), SOON).await;
        let added: serde_json::Value = serde_json::from_str(&line).unwrap();
        let expected = serde_json::json!({"op": "add", "key": key, "addr": "10.0.0.1:80", "metadata": {"zone": "a"}});
        assert_eq!(added, expected);
        assert!(etcd.etcdctl(["get", key]).await.contains(r#""Addr":"10.0.0.1:80""#));

        registration.terminate();
        assert!(registration.exited(SOON).await.success());
        let line = watch.wait_for_line(|line| line.contains(r#""op":"delete""#), SOON).await;
        assert!(line.contains(key), "{line}");
        assert_eq!(etcd.etcdctl(["lease", "list"]).await.trim(), "found 0 leases");
        watch.terminate();
        assert!(watch.exited(SOON).await.success());
    }
}
