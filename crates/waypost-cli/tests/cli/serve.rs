//! `waypost serve`, and the other commands at it.

use std::time::Duration;

use waypost_testkit::{Etcd, EtcdVersion, Process};

use crate::support::{PATIENCE, command, run};

/// A server that listens, and where.
async fn serve(args: &[&str]) -> (Process, String) {
    let common = ["serve", "--listen-client-urls", "http://127.0.0.1:0"];
    let process = Process::spawn(&mut command(&[&common[..], args].concat()));
    let line = process.wait_for_line(|line| line.starts_with("listening on "), PATIENCE).await;
    (process, line.trim_start_matches("listening on ").to_owned())
}

#[tokio::test]
async fn what_is_put_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data").display().to_string();
    let (process, url) = serve(&["--data-dir", &data]).await;
    let put = run(command(&["--endpoints", &url, "kv", "put", "greeting", "hello"])).await;
    assert_eq!(put.code, 0, "{}", put.stderr);
    process.terminate();
    assert!(process.exited(PATIENCE).await.success());

    let (process, url) = serve(&["--data-dir", &data]).await;
    let get = run(command(&["--endpoints", &url, "kv", "get", "greeting"])).await;
    assert!(get.stdout.contains("hello"), "{get:?}");
    process.interrupt();
    assert!(process.exited(PATIENCE).await.success());
}

#[tokio::test]
async fn a_snapshot_of_etcd_goes_on_here_once() {
    let etcd = Etcd::start(EtcdVersion::V3_5).await;
    etcd.etcdctl(["put", "greeting", "hello"]).await;
    let folder = tempfile::tempdir().unwrap();
    let snapshot = folder.path().join("snapshot.db");
    etcd.snapshot_to(&snapshot).await;
    let (data, snapshot) = (folder.path().join("data").display().to_string(), snapshot.display().to_string());
    let args = ["--data-dir", &data, "--restore", &snapshot];
    let (process, url) = serve(&args).await;
    let get = run(command(&["--endpoints", &url, "kv", "get", "greeting"])).await;
    assert!(get.stdout.contains("hello"), "{get:?}");
    process.terminate();
    process.exited(Duration::from_secs(60)).await;

    let again = run(command(&[&["serve"], &args[..]].concat())).await;
    assert_eq!(again.code, 1);
    assert!(again.stderr.contains("is not empty"), "{}", again.stderr);
}

#[tokio::test]
async fn tls_with_a_certificate_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data").display().to_string();
    let listen =
        ["--listen-client-urls", "https://127.0.0.1:0", "--listen-metrics-urls", "http://127.0.0.1:0"];
    let args = [&["serve", "--data-dir", &data, "--auto-tls"], &listen[..]].concat();
    let process = Process::spawn(&mut command(&args));
    process.wait_for_line(|line| line.starts_with("metrics at http://127.0.0.1:"), PATIENCE).await;
    let line = process.wait_for_line(|line| line.starts_with("listening on "), PATIENCE).await;
    let url = line.trim_start_matches("listening on ");
    let authority = format!("{data}/fixtures/client/cert.pem");
    let put = run(command(&["--endpoints", url, "--cacert", &authority, "kv", "put", "a", "b"])).await;
    assert_eq!(put.code, 0, "{}", put.stderr);
}

#[tokio::test]
async fn options_that_make_no_sense_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data").display().to_string();
    for (args, said) in [
        (["--listen-client-urls", "ftp://127.0.0.1:0"], "the scheme must be http, https, unix or unixs"),
        (["--listen-client-urls", "http://0.0.0.0:0"], "--advertise-client-urls"),
        (["--listen-client-urls", "https://127.0.0.1:0"], "--cert-file"),
        (["--trusted-ca-file", "ca.pem"], "--cert-file"),
        (["--cert-file", "me.pem"], "--key-file"),
        (["--socket-mode", "rw"], "octal"),
        (["--auto-compaction-retention", "soon"], "--auto-compaction-retention soon"),
    ] {
        let refused = run(command(&[&["serve", "--data-dir", &data], &args[..]].concat())).await;
        assert_eq!(refused.code, 2, "{refused:?}");
        assert!(refused.stderr.contains(said), "{}", refused.stderr);
    }
}
