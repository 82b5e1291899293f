//! `waypost kv` answers as etcdctl does.

use waypost_testkit::{Etcd, EtcdVersion, Process, for_each_etcd};

use crate::support::{PATIENCE, at, json, ok, parse, run, run_with_input};

/// What both print, once each on a store that the other has not touched in between.
async fn same(etcd: &Etcd, args: &[&str]) {
    let theirs = etcd.etcdctl(args).await;
    let ran = run(at(etcd, &[&["kv"], args].concat())).await;
    assert_eq!(ran.stdout, theirs, "{args:?}");
}

for_each_etcd! {
    async fn reads_are_those_of_etcdctl(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        for (key, value) in [("a/1", "x"), ("a/2", "w"), ("a/3", ""), ("b", "two\nlines"), ("a/2", "v")] {
            etcdctl_and_we_agree_on_put(&etcd, key, value).await;
        }
        for args in [
            &["get", "a/1"][..],
            &["get", "none"],
            &["get", "a/", "--prefix"],
            &["get", "", "--prefix"],
            &["get", "a/1", "a/3"],
            &["get", "a/2", "--from-key"],
            &["get", "a/", "--prefix", "--limit=2"],
            &["get", "a/", "--prefix", "--limit", "1", "--sort-by=MODIFY", "--order=DESCEND"],
            &["get", "a/", "--prefix", "--sort-by=VALUE", "--order=ASCEND"],
            &["get", "a/", "--prefix", "--sort-by=CREATE"],
            &["get", "a/", "--prefix", "--sort-by=VERSION", "--order=DESCEND"],
            &["get", "a/", "--prefix", "--keys-only"],
            &["get", "a/", "--prefix", "--print-value-only"],
            &["get", "a/", "--prefix", "--rev=3"],
            &["get", "a/1", "--consistency=s"],
        ] {
            same(&etcd, args).await;
        }
        assert_eq!(ok(&etcd, &["kv", "get", "a/", "--prefix", "--count-only"]).await, "3\n");
    }

    async fn writes_and_deletes_are_those_of_etcdctl(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        // Each line is run by both, one after the other, from the same state.
        for (prepare, args) in [
            (&["put", "a", "1"][..], &["put", "a", "2", "--prev-kv"][..]),
            (&["put", "a", "1"], &["put", "a", "--ignore-value", "--prev-kv"]),
            (&["put", "a", "1"], &["put", "a", "3", "--ignore-lease"]),
            (&["put", "a", "1"], &["del", "a"]),
            (&["put", "a", "1"], &["del", "a", "--prev-kv"]),
            (&["del", "a"], &["del", "a"]),
            (&["put", "a/b", "1"], &["del", "a/", "--prefix", "--prev-kv"]),
            (&["put", "x", "1"], &["del", "x", "--from-key"]),
            (&["put", "x", "1"], &["del", "x", "y"]),
        ] {
            etcd.etcdctl(prepare).await;
            let theirs = etcd.etcdctl(args).await;
            etcd.etcdctl(prepare).await;
            assert_eq!(ok(&etcd, &[&["kv"], args].concat()).await, theirs, "{args:?}");
        }

        let grant = etcd.etcdctl(["lease", "grant", "600"]).await;
        let lease = grant.split_whitespace().nth(1).unwrap().to_owned();
        ok(&etcd, &["kv", "put", "leased", "1", "--lease", &lease]).await;
        assert!(etcd.etcdctl(["lease", "timetolive", &lease, "--keys"]).await.contains("leased"));
        assert_eq!(json(&etcd, &["kv", "get", "leased"]).await["kvs"][0]["lease"], lease.as_str());

        let ran = run_with_input(at(&etcd, &["kv", "put", "piped"]), Some(b"from a pipe")).await;
        assert_eq!(ran.stdout, "OK\n");
        assert_eq!(ok(&etcd, &["kv", "get", "piped", "--print-value-only"]).await, "from a pipe\n");
    }

    async fn json_has_texts_or_base64(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        run_with_input(at(&etcd, &["kv", "put", "binary"]), Some(&[0xff, 0xfe])).await;
        let put = json(&etcd, &["kv", "put", "text", "é"]).await;
        let put_again = json(&etcd, &["kv", "put", "text", "ê", "--prev-kv"]).await;
        assert_eq!(put_again["prev_kv"]["value"], "é");
        assert_eq!(put_again["revision"].as_i64().unwrap(), put["revision"].as_i64().unwrap() + 1);

        let all = json(&etcd, &["kv", "get", "", "--prefix"]).await;
        assert_eq!((all["count"].as_i64(), all["more"].as_bool()), (Some(2), Some(false)));
        assert_eq!(all["kvs"][0]["key"], "binary");
        assert_eq!(all["kvs"][0]["value_base64"], "//4=");
        assert!(all["kvs"][0].get("value").is_none());
        assert_eq!(all["kvs"][1]["value"], "ê");
        assert_eq!(all["kvs"][1]["version"], 2);

        let deleted = json(&etcd, &["kv", "del", "", "--prefix", "--prev-kv"]).await;
        assert_eq!(deleted["deleted"], 2);
        assert_eq!(deleted["prev_kvs"].as_array().unwrap().len(), 2);
        let none = run(at(&etcd, &["kv", "get", "text", "-o", "json"])).await;
        assert_eq!((none.code, parse(&none.stdout)["kvs"].as_array().unwrap().len()), (3, 0));
    }

    async fn watch_follows_from_a_revision_and_ends_with_0_when_interrupted(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let first = json(&etcd, &["kv", "put", "w/a", "1"]).await["revision"].to_string();
        let args = ["kv", "watch", "w/", "--prefix", "--rev", &first, "--prev-kv"];
        let text = Process::spawn(&mut at(&etcd, &args));
        let lines = Process::spawn(&mut at(&etcd, &[&args[..], &["-o", "json"]].concat()));
        ok(&etcd, &["kv", "put", "w/a", "2"]).await;
        ok(&etcd, &["kv", "del", "w/a"]).await;
        text.wait_for_line(|line| line == "DELETE", PATIENCE).await;
        let deleted = lines.wait_for_line(|line| line.contains("DELETE"), PATIENCE).await;
        assert_eq!(parse(&deleted)["prev_kv"]["value"], "2");
        text.interrupt();
        lines.terminate();
        assert_eq!(text.exited(PATIENCE).await.code(), Some(0));
        assert_eq!(lines.exited(PATIENCE).await.code(), Some(0));
        let told = text.lines().join("\n");
        assert_eq!(told, "PUT\nw/a\n1\nPUT\nw/a\n1\nw/a\n2\nDELETE\nw/a\n2\nw/a\n");
        assert_eq!(parse(&lines.lines()[0])["event"], "PUT");

        etcd.etcdctl(["compact", &json(&etcd, &["kv", "get", "w/", "--prefix", "--count-only"]).await["revision"].to_string()]).await;
        let gone = run(at(&etcd, &args)).await;
        assert_eq!(gone.code, 1);
        assert!(gone.stderr.contains("history begins at revision"), "{}", gone.stderr);
    }
}

async fn etcdctl_and_we_agree_on_put(etcd: &Etcd, key: &str, value: &str) {
    assert_eq!(ok(etcd, &["kv", "put", key, value]).await, "OK\n");
    assert_eq!(etcd.etcdctl(["get", key, "--print-value-only"]).await, format!("{value}\n"));
}
