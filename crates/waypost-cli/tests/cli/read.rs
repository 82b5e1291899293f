//! `ls`, `resolve`, `watch`.

use waypost_testkit::{Etcd, EtcdVersion, Process, for_each_etcd};

use crate::support::{PATIENCE, at, json, ok, parse, registered, run};

for_each_etcd! {
    async fn what_is_registered_is_listed_and_resolved(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let _one = registered(&etcd, &["greeter", "10.0.0.1:50051", "--zone", "a", "--version", "1.2", "--metadata", "team=x"]).await;
        let _two = registered(&etcd, &["greeter", "grpc://[fd00::1]:50051", "--id", "second", "--weight", "7"]).await;
        let _other = registered(&etcd, &["greeterworld", "10.0.0.3:1"]).await;

        let table = ok(&etcd, &["ls"]).await;
        let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[0], ["SERVICE", "INSTANCES", "UP", "DRAINING", "DOWN"]);
        assert_eq!(rows[1], ["greeter", "2", "2", "0", "0"]);
        assert_eq!(rows[2], ["greeterworld", "1", "1", "0", "0"]);
        assert!(table.lines().all(|line| line == line.trim()), "no blanks at the ends: {table:?}");
        let services = json(&etcd, &["ls"]).await;
        assert_eq!(services["services"][0]["service"], "greeter");
        assert_eq!(services["services"][0]["up"], 2);

        let table = ok(&etcd, &["ls", "greeter"]).await;
        let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[1], ["10.0.0.1:50051", "grpc://10.0.0.1:50051", "up", "100", "a", "1.2", "grpc", "team=x"]);
        assert_eq!(rows[2], ["second", "grpc://[fd00::1]:50051", "up", "7", "-", "-", "grpc", "-"]);
        let instances = json(&etcd, &["ls", "greeter"]).await;
        assert_eq!(instances["instances"][1]["id"], "second");
        assert_eq!(instances["instances"][0]["metadata"]["team"], "x");
        assert_eq!(instances["instances"][0]["layout"], "grpc");
        assert!(ok(&etcd, &["ls", "greeter", "--color", "always"]).await.contains("\u{1b}["));

        assert_eq!(ok(&etcd, &["resolve", "greeter"]).await, "10.0.0.1:50051\n[fd00::1]:50051\n");
        let resolved = json(&etcd, &["resolve", "greeter"]).await;
        assert_eq!(resolved["addresses"].as_array().unwrap().len(), 2);
    }

    async fn nothing_is_exit_code_3_and_says_where_it_looked(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        for args in [&["ls"][..], &["ls", "greeter"], &["resolve", "greeter"], &["kv", "get", "greeter"]] {
            let ran = run(at(&etcd, args)).await;
            assert_eq!((ran.code, ran.stdout.as_str()), (3, ""), "{args:?}: {}", ran.stderr);
        }
        let ran = run(at(&etcd, &["resolve", "greeter", "--output", "json"])).await;
        assert_eq!((ran.code, parse(&ran.stdout)["addresses"].as_array().unwrap().len()), (3, 0));
        assert!(ran.stderr.contains("layout grpc, prefix services"), "{}", ran.stderr);
    }

    async fn other_layouts_and_prefixes_are_named_before_or_after_the_command(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        etcd.etcdctl(["put", "/microservices/hello/7", r#"{"id":"7","name":"hello","version":"v1","metadata":null,"endpoints":["grpc://10.0.0.7:9000"]}"#]).await;
        etcd.etcdctl(["put", "elsewhere/hello/10.0.0.8:1", r#"{"Op":0,"Addr":"10.0.0.8:1"}"#]).await;
        assert_eq!(ok(&etcd, &["resolve", "hello", "--layout", "grpc,kratos"]).await, "10.0.0.7:9000\n");
        assert_eq!(ok(&etcd, &["--layout", "kratos", "resolve", "hello"]).await, "10.0.0.7:9000\n");
        assert_eq!(ok(&etcd, &["--prefix", "elsewhere", "resolve", "hello"]).await, "10.0.0.8:1\n");
        assert_eq!(ok(&etcd, &["--prefix", "nowhere", "resolve", "hello", "--prefix", "elsewhere"]).await, "10.0.0.8:1\n");
        let mut by_environment = at(&etcd, &["resolve", "hello"]);
        by_environment.env("WAYPOST_PREFIX", "elsewhere");
        assert_eq!(run(by_environment).await.stdout, "10.0.0.8:1\n");
        let no_catalog = run(at(&etcd, &["ls", "--layout", "fields"])).await;
        assert_eq!(no_catalog.code, 2, "{no_catalog:?}");
    }

    async fn a_value_that_is_no_instance_is_named_and_the_rest_is_listed(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        etcd.etcdctl(["put", "services/s/bad", "nonsense"]).await;
        etcd.etcdctl(["put", "services/s/10.0.0.8:1", r#"{"Op":0,"Addr":"10.0.0.8:1"}"#]).await;
        let ran = run(at(&etcd, &["resolve", "s"])).await;
        assert_eq!((ran.code, ran.stdout.as_str()), (0, "10.0.0.8:1\n"));
        assert!(ran.stderr.contains("1 values are not instances"), "{}", ran.stderr);
    }

    async fn watch_tells_what_comes_changes_and_goes(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let text = Process::spawn(&mut at(&etcd, &["watch", "greeter"]));
        let lines = Process::spawn(&mut at(&etcd, &["watch", "--output", "json"]));
        lines.wait_for_line(|line| line.contains(r#""event":"live""#) || line.contains("added"), PATIENCE).await;
        text.wait_for_line(|line| line.contains("following"), PATIENCE).await;

        let one = registered(&etcd, &["greeter", "10.0.0.1:50051"]).await;
        text.wait_for_line(|line| line.starts_with("+ greeter 10.0.0.1:50051"), PATIENCE).await;
        let added = parse(&lines.wait_for_line(|line| line.contains("added"), PATIENCE).await);
        assert_eq!(added["instance"]["id"], "10.0.0.1:50051");
        ok(&etcd, &["drain", "greeter", "10.0.0.1:50051"]).await;
        text.wait_for_line(|line| line.contains("status up → draining"), PATIENCE).await;
        let updated = parse(&lines.wait_for_line(|line| line.contains("updated"), PATIENCE).await);
        assert_eq!((updated["before"]["status"].as_str(), updated["instance"]["status"].as_str()), (Some("up"), Some("draining")));
        one.terminate();
        text.wait_for_line(|line| line.starts_with("- greeter"), PATIENCE).await;
        lines.wait_for_line(|line| line.contains("removed"), PATIENCE).await;

        text.interrupt();
        lines.terminate();
        assert_eq!(text.exited(PATIENCE).await.code(), Some(0));
        assert_eq!(lines.exited(PATIENCE).await.code(), Some(0));
    }
}
