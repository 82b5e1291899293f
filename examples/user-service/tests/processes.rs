//! Servers and a client as processes: one server is killed, one leaves in order, no call fails, and no key stays behind.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "what a test asks for must be there")]

use std::process::Command;
use std::time::Duration;

use waypost_testkit::{Etcd, EtcdVersion, Process, eventually, for_each_etcd};

const PATIENCE: Duration = Duration::from_secs(60);
const PREFIX: &str = "/myrpc/services/UserService/";

fn spawn(etcd: &Etcd, arguments: &[&str]) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_user-service"));
    Process::spawn(command.env("WAYPOST_ENDPOINTS", etcd.url()).args(arguments))
}

/// The addresses that are registered.
async fn registered(etcd: &Etcd) -> Vec<String> {
    let keys = etcd.etcdctl(["get", PREFIX, "--prefix", "--keys-only"]).await;
    keys.split_whitespace().map(|key| key.strip_prefix(PREFIX).unwrap().to_owned()).collect()
}

/// Registers one more server, and tells its address.
async fn start(etcd: &Etcd) -> (Process, String) {
    let before = registered(etcd).await;
    let server = spawn(etcd, &["serve"]);
    let address = eventually("the server is registered", PATIENCE, async || {
        registered(etcd).await.into_iter().find(|address| !before.contains(address))
    })
    .await;
    (server, address)
}

for_each_etcd! {
    async fn no_caller_is_hurt_by_a_server_that_is_killed_or_leaves(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let (killed, at_killed) = start(&etcd).await;
        let (leaving, at_leaving) = start(&etcd).await;
        let (staying, at_staying) = start(&etcd).await;
        let value = etcd.etcdctl(["get", &format!("{PREFIX}{at_staying}"), "--print-value-only"]).await;
        assert_eq!(value.trim(), at_staying);

        let client = spawn(&etcd, &["call", "3", "0"]);
        // Every server answers, so that what follows is noticed.
        for address in [&at_killed, &at_leaving, &at_staying] {
            client.wait_for_line(|line| line.ends_with(&format!("from {address}")), PATIENCE).await;
        }
        killed.kill().await;
        let calls = client.lines().len();
        eventually("calls go on", PATIENCE, async || (client.lines().len() > calls + 50).then_some(())).await;
        leaving.terminate();
        assert!(leaving.exited(PATIENCE).await.success(), "{:?}", leaving.error_lines());
        assert!(!registered(&etcd).await.contains(&at_leaving));
        let calls = client.lines().len();
        eventually("calls go on", PATIENCE, async || (client.lines().len() > calls + 50).then_some(())).await;
        let last = client.lines().split_off(calls + 25);
        assert!(last.iter().all(|line| line.ends_with(&format!("from {at_staying}"))), "{last:?}");

        client.terminate();
        assert!(client.exited(PATIENCE).await.success(), "{:?}", client.error_lines());
        staying.terminate();
        assert!(staying.exited(PATIENCE).await.success(), "{:?}", staying.error_lines());
        // The killed one's key goes with its lease; those that left have taken theirs with them.
        let left = registered(&etcd).await;
        assert!(left.is_empty() || left == [at_killed], "{left:?}");
    }
}
