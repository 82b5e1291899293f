//! `waypost demo`: no call fails, and nobody is left behind.

use std::collections::BTreeSet;

use waypost_testkit::{Etcd, EtcdVersion, Process, eventually, for_each_etcd};

use crate::support::{PATIENCE, at, command, parse, run};

for_each_etcd! {
    async fn no_call_fails_while_one_is_killed_one_drained_and_one_joins(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let ran = run(at(&etcd, &["demo", "--duration", "6", "--rate", "400", "--output", "json"])).await;
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
        let summary = parse(&ran.stdout);
        assert_eq!(summary["failed_calls"], 0);
        let calls = summary["calls"].as_u64().unwrap();
        let by_instance = summary["calls_by_instance"].as_object().unwrap();
        assert_eq!(by_instance.len(), 4, "{summary}");
        assert_eq!(by_instance.values().map(|calls| calls.as_u64().unwrap()).sum::<u64>(), calls);

        let mut seen = BTreeSet::new();
        for event in summary["events"].as_array().unwrap() {
            assert!(by_instance.contains_key(event["instance"].as_str().unwrap()), "{event}");
            assert!(event["at_ms"].as_u64().is_some() && event["effect_after_ms"].as_f64().is_some(), "{event}");
            seen.insert((event["event"].as_str().unwrap(), event["effect"].as_str().unwrap()));
        }
        for expected in [("kill", "out of the picker"), ("drain", "last call served"), ("join", "first call served")] {
            assert!(seen.contains(&expected), "{expected:?}: {summary}");
        }
    }

    async fn servers_die_with_the_demo_even_when_it_is_killed(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let demo = Process::spawn(&mut at(&etcd, &["demo", "--duration", "600"]));
        demo.wait_for_line(|line| line.contains("calls a second"), PATIENCE).await;
        let addresses: Vec<String> = demo
            .lines()
            .iter()
            .filter_map(|line| line.trim().strip_prefix("greeter-")?.split_once(" at ").map(|(_, address)| address.to_owned()))
            .collect();
        assert_eq!(addresses.len(), 3);
        demo.kill().await;
        for address in addresses {
            eventually("the server is gone", PATIENCE, async || {
                tokio::net::TcpStream::connect(&address).await.is_err().then_some(())
            })
            .await;
        }
        eventually("the servers have deregistered", PATIENCE, async || {
            etcd.etcdctl(["get", "services/", "--prefix"]).await.is_empty().then_some(())
        })
        .await;
    }

    async fn interrupted_it_sums_up_and_cleans_up(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let demo = Process::spawn(&mut at(&etcd, &["demo", "--keep", "--duration", "600"]));
        demo.wait_for_line(|line| line.contains("calls, 0 failed"), PATIENCE).await;
        demo.interrupt();
        assert_eq!(demo.exited(PATIENCE).await.code(), Some(0));
        assert!(demo.lines().iter().any(|line| line.ends_with("0 failed")), "{:?}", demo.lines());
        assert_eq!(etcd.etcdctl(["get", "services/", "--prefix"]).await, "");
    }
}

#[test]
fn without_endpoints_it_needs_nothing_and_leaves_nothing() {
    waypost_testkit::run(async {
        let temporary = tempfile::tempdir().unwrap();
        let mut demo = command(&["demo", "--duration", "4", "--rate", "200", "--output", "json"]);
        demo.env("TMPDIR", temporary.path());
        let ran = run(demo).await;
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
        let summary = parse(&ran.stdout);
        assert_eq!(summary["failed_calls"], 0);
        assert_eq!(summary["calls_by_instance"].as_object().unwrap().len(), 4, "{summary}");
        assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
    });
}
