//! `register`: there while it runs, gone when it ends.

use waypost_testkit::{Etcd, EtcdVersion, Process, eventually, for_each_etcd};

use crate::support::{PATIENCE, at, json, ok, parse, registered, run};

for_each_etcd! {
    async fn h09_sigterm_and_sigint_deregister(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let terminated = registered(&etcd, &["greeter", "10.0.0.1:1", "--ttl", "600s"]).await;
        let interrupted = registered(&etcd, &["greeter", "10.0.0.2:1", "--ttl", "600s"]).await;
        assert_eq!(ok(&etcd, &["resolve", "greeter"]).await, "10.0.0.1:1\n10.0.0.2:1\n");
        terminated.terminate();
        assert_eq!(terminated.exited(PATIENCE).await.code(), Some(0));
        interrupted.interrupt();
        assert_eq!(interrupted.exited(PATIENCE).await.code(), Some(0));
        // No waiting: when the process has ended, its key is gone and its lease revoked.
        assert_eq!(etcd.etcdctl(["get", "", "--prefix"]).await, "");
        assert!(etcd.etcdctl(["lease", "list"]).await.contains("found 0 leases"));
        let last = terminated.lines().pop().unwrap();
        assert_eq!(parse(&last)["state"], "deregistered");
    }

    async fn killed_it_goes_with_its_lease(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let process = registered(&etcd, &["greeter", "10.0.0.1:1", "--ttl", "2s"]).await;
        process.kill().await;
        eventually("the key expires", PATIENCE, async || {
            etcd.etcdctl(["get", "", "--prefix"]).await.is_empty().then_some(())
        })
        .await;
    }

    async fn a_key_that_somebody_has_is_replaced_or_refused(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let args = ["greeter", "10.0.0.1:1", "--id", "one"];
        let first = registered(&etcd, &args).await;
        let refused = run(at(&etcd, &["register", "greeter", "10.0.0.2:1", "--id", "one", "--conflict", "reject"])).await;
        assert_eq!(refused.code, 5, "{refused:?}");
        assert!(refused.stderr.contains("services/greeter/one exists already"), "{}", refused.stderr);

        let second = registered(&etcd, &["greeter", "10.0.0.2:1", "--id", "one"]).await;
        assert_eq!(ok(&etcd, &["resolve", "greeter"]).await, "10.0.0.2:1\n");
        first.wait_for_line(|line| line.contains("suspect"), PATIENCE).await;
        second.terminate();
        assert_eq!(second.exited(PATIENCE).await.code(), Some(0));
        first.wait_for_line_after(3, |line| line.contains(r#""state":"registered""#), PATIENCE).await;
        assert_eq!(ok(&etcd, &["resolve", "greeter"]).await, "10.0.0.1:1\n");
    }

    async fn etcd_may_come_later(version: EtcdVersion) {
        let mut etcd = Etcd::start(version).await;
        etcd.kill().await;
        let process = Process::spawn(&mut at(&etcd, &["register", "greeter", ":4242", "--output", "json"]));
        let failing = process.wait_for_line(|line| line.contains("refused"), PATIENCE).await;
        assert_eq!(parse(&failing)["state"], "registering");
        etcd.restart().await;
        process.wait_for_line(|line| line.contains(r#""state":"registered""#), PATIENCE).await;
        // The address of the route to etcd, which is loopback here: never 0.0.0.0.
        assert_eq!(ok(&etcd, &["resolve", "greeter"]).await, "127.0.0.1:4242\n");
    }

    async fn what_the_layout_cannot_carry_is_said(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let args = ["register", "s", "10.0.0.1:1", "--layout", "addr-key", "--zone", "a", "--weight", "7"];
        let process = Process::spawn(&mut at(&etcd, &args));
        let line = process.wait_for_error_line(|_| true, PATIENCE).await;
        assert!(line.contains("layout addr-key has no place for: weight, zone"), "{line}");
        process.wait_for_line(|line| line.contains("registered at revision"), PATIENCE).await;
        assert_eq!(etcd.etcdctl(["get", "/myrpc/services/s/10.0.0.1:1", "--print-value-only"]).await, "10.0.0.1:1\n");
    }

    async fn an_operators_drain_is_kept_and_told(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let process = registered(&etcd, &["greeter", "10.0.0.1:1"]).await;
        ok(&etcd, &["drain", "greeter", "10.0.0.1:1"]).await;
        process.wait_for_line(|line| line.contains(r#""status":"draining""#), PATIENCE).await;
        etcd.etcdctl(["del", "services/", "--prefix"]).await;
        eventually("the registration is back, and still draining", PATIENCE, async || {
            let listed = run(at(&etcd, &["ls", "greeter", "-o", "json"])).await;
            (parse(&listed.stdout)["instances"][0]["status"] == "draining").then_some(())
        })
        .await;
        assert_eq!(json(&etcd, &["ls"]).await["services"][0]["draining"], 1);
    }
}
