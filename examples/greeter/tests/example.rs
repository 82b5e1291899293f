//! The example does what it is an example of, and is as short as it says.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "what a test asks for must be there")]

use std::process::Command;
use std::time::Duration;

use waypost_testkit::{Etcd, EtcdVersion, Process, eventually, for_each_etcd};

const PATIENCE: Duration = Duration::from_secs(60);

fn program(path: &str, etcd: &Etcd) -> Command {
    let mut command = Command::new(path);
    command.env("WAYPOST_ENDPOINTS", etcd.url());
    command
}

async fn registered(etcd: &Etcd, servers: usize) {
    eventually("the servers are registered", PATIENCE, async || {
        let keys = etcd.etcdctl(["get", "services/greeter/", "--prefix", "--keys-only"]).await;
        (keys.split_whitespace().count() == servers).then_some(())
    })
    .await;
}

for_each_etcd! {
    async fn the_client_is_greeted_by_both_servers(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let server = || Process::spawn(&mut program(env!("CARGO_BIN_EXE_greeter-server"), &etcd));
        let servers = [server(), server()];
        registered(&etcd, 2).await;
        let client = Process::spawn(program(env!("CARGO_BIN_EXE_greeter-client"), &etcd).arg("Ada"));
        assert!(client.exited(PATIENCE).await.success(), "{:?}", client.error_lines());
        let lines = client.lines();
        assert_eq!(lines.len(), 10);
        assert!(lines.iter().all(|line| line.starts_with("Hello, Ada! (from 127.0.0.1:")), "{lines:?}");

        for server in servers {
            server.terminate();
            assert!(server.exited(PATIENCE).await.success(), "{:?}", server.error_lines());
        }
        assert_eq!(etcd.etcdctl(["get", "", "--prefix"]).await, "");
        let client = Process::spawn(&mut program(env!("CARGO_BIN_EXE_greeter-client"), &etcd));
        assert!(!client.exited(PATIENCE).await.success());
        assert!(client.error_lines()[0].contains("no instance is registered"), "{:?}", client.error_lines());
    }
}

#[test]
fn each_program_is_under_forty_lines() {
    for source in [include_str!("../src/bin/server.rs"), include_str!("../src/bin/client.rs")] {
        assert!(source.lines().count() < 40);
    }
}
