//! Client libraries of four languages, in programs of their own under `interop/`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use waypost_testkit::{Etcd, EtcdVersion, GoInterop, Process, for_peer_etcd};

/// No part of a program takes so long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(90);

for_peer_etcd! {
    /// `clientv3`, as Debian packages it: KV, transactions, watches, leases, `concurrency`, `namespace`, `leasing`, `mirror`.
    /// Its naming packages have tests of their own, in `waypost-testkit` and `waypost`.
    async fn go_clientv3(version: EtcdVersion) {
        let go = GoInterop::build().await;
        passes(version, |url| go.spawn(["clientv3", "-etcd", url])).await;
    }

    /// npm's `etcd3`.
    async fn node_etcd3(version: EtcdVersion) {
        let packages = prepared("node/install.sh").await;
        passes(version, |url| {
            Process::spawn(Command::new("node").arg(interop("node/main.js")).arg(url).arg(&packages))
        })
        .await;
    }

    /// `PyPI`'s `etcetra`.
    async fn python_etcetra(version: EtcdVersion) {
        let python = prepared("python/install.sh").await;
        passes(version, |url| {
            Process::spawn(Command::new(&python).arg(interop("python/with_etcetra.py")).arg(url))
        })
        .await;
    }

    /// Over HTTP and JSON: as APISIX calls etcd (`lua-resty-etcd`), and `etcd3-py`.
    async fn python_over_http(version: EtcdVersion) {
        let python = prepared("python/install.sh").await;
        passes(version, |url| {
            Process::spawn(Command::new(&python).arg(interop("python/with_gateway.py")).arg(url))
        })
        .await;
    }

    /// The crate `etcd-client`.
    async fn rust_etcd_client(version: EtcdVersion) {
        let program = prepared("rust/build.sh").await;
        passes(version, |url| Process::spawn(Command::new(&program).arg(url))).await;
    }
}

/// Runs a program at a new server until it says `done`. When it says `restart KEY`, the server is killed and started
/// again, and then the key is put.
async fn passes(version: EtcdVersion, start: impl FnOnce(&str) -> Process) {
    let mut etcd = Etcd::start(version).await;
    let program = start(&etcd.url());
    let mut parts = 0;
    for seen in 0.. {
        let line = program.wait_for_line_after(seen, |_| true, PATIENCE).await;
        if let Some(key) = line.strip_prefix("restart ") {
            etcd.restart().await;
            etcd.etcdctl(["put", key, "back"]).await;
        } else if line == "done" {
            break;
        } else {
            assert!(line.starts_with("ok "), "{line}");
            parts += 1;
        }
    }
    assert!(program.exited(PATIENCE).await.success());
    assert!(parts >= 6, "only {parts} parts");
}

fn interop(path: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../interop")).join(path)
}

/// What a script of `interop/` has built or installed.
async fn prepared(script: &str) -> PathBuf {
    let script = interop(script);
    let output = tokio::process::Command::new(&script).kill_on_drop(true).output().await;
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", script.display()));
    assert!(
        output.status.success(),
        "{} failed; scripts/install-test-tools installs what it needs:\n{}",
        script.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().into()
}
