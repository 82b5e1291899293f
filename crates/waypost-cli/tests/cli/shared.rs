//! `--endpoints embedded:DIR`: commands that share a store in a folder.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use waypost::embed::{SharedServer, client_options};
use waypost::etcd::{Client, Put, Range};
use waypost_testkit::{Process, eventually};

use crate::support::{PATIENCE, Ran, command, parse, run};

/// The command at the store in this folder.
fn at(folder: &Path, args: &[&str]) -> Command {
    let mut command = command(args);
    command.env("WAYPOST_ENDPOINTS", format!("embedded:{}", folder.display()));
    command
}

async fn registered(folder: &Path, args: &[&str]) -> Process {
    let process =
        Process::spawn(&mut at(folder, &[&["register", "--output", "json", "greeter"], args].concat()));
    process.wait_for_line(|line| line.contains(r#""state":"registered""#), PATIENCE).await;
    process
}

/// The addresses of `greeter`.
async fn addresses(folder: &Path) -> Vec<String> {
    let ran = run(at(folder, &["resolve", "greeter"])).await;
    assert!(matches!(ran.code, 0 | 3), "{ran:?}");
    ran.stdout.lines().map(str::to_owned).collect()
}

fn assert_ok(ran: &Ran) {
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
}

/// Reads and writes without a pause until it is told to stop; nothing of it may fail.
fn traffic(client: Client, stop: Arc<AtomicBool>) -> tokio::task::JoinHandle<u64> {
    tokio::spawn(async move {
        let mut written = 0;
        while !stop.load(Ordering::Relaxed) {
            written += 1;
            client.put(Put::new("written", written.to_string()).idempotent()).await.expect("put");
            let read = client.range(Range::key("written")).await.expect("range");
            assert_eq!(read.kvs[0].value, written.to_string());
        }
        written
    })
}

#[test]
fn commands_that_start_at_the_same_moment_in_an_empty_folder_all_work() {
    waypost_testkit::run(async {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let puts = (0..4).map(|number| {
            let key = format!("key/{number}");
            run(at(&data, &["kv", "put", &key, "1"]))
        });
        for ran in futures::future::join_all(puts).await {
            assert_ok(&ran);
        }
        let found = run(at(&data, &["kv", "get", "key/", "--prefix", "--output", "json"])).await;
        assert_ok(&found);
        assert_eq!(parse(&found.stdout)["kvs"].as_array().map(Vec::len), Some(4), "{}", found.stdout);
    });
}

#[test]
fn the_process_that_serves_is_killed_and_the_others_go_on() {
    waypost_testkit::run(async {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let first = registered(folder, &["10.0.0.1:1", "--ttl", "2s"]).await;
        let second = registered(folder, &["10.0.0.2:1"]).await;
        let watch = Process::spawn(&mut at(folder, &["watch", "greeter", "--output", "json"]));
        watch.wait_for_line(|line| line.contains("10.0.0.2:1"), PATIENCE).await;
        let share = SharedServer::open(folder).await.unwrap();
        let client = Client::new(client_options(&share)).unwrap();
        let key =
            || async { client.range(Range::key("services/greeter/10.0.0.2:1")).await.unwrap().kvs.remove(0) };
        let before = key().await;
        let stop = Arc::new(AtomicBool::new(false));
        let traffic = traffic(client.clone(), Arc::clone(&stop));

        assert_eq!(addresses(folder).await, ["10.0.0.1:1", "10.0.0.2:1"]);
        first.kill().await;
        eventually("the one that was killed is gone", PATIENCE, async || {
            let found = addresses(folder).await;
            assert!(found.contains(&"10.0.0.2:1".to_owned()), "{found:?}");
            (found.len() == 1).then_some(())
        })
        .await;
        watch.wait_for_line(|line| line.contains("10.0.0.1:1") && line.contains("removed"), PATIENCE).await;
        let third = registered(folder, &["10.0.0.3:1"]).await;
        watch.wait_for_line(|line| line.contains("10.0.0.3:1"), PATIENCE).await;
        stop.store(true, Ordering::Relaxed);
        assert!(traffic.await.unwrap() > 1);
        let after = key().await;
        assert_eq!((after.create_revision, after.lease), (before.create_revision, before.lease));

        // In good order, too, and each is gone when it says so.
        for (process, others) in [(second, &["10.0.0.3:1"][..]), (third, &[])] {
            process.interrupt();
            assert!(process.exited(PATIENCE).await.success());
            assert_eq!(addresses(folder).await, others);
        }
    });
}

#[test]
fn serve_on_the_same_folder_is_joined() {
    waypost_testkit::run(async {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let data = folder.display().to_string();
        let args = ["serve", "--data-dir", &data, "--listen-client-urls", "http://127.0.0.1:0"];
        let serve = Process::spawn(&mut command(&args));
        let line = serve.wait_for_line(|line| line.starts_with("listening on "), PATIENCE).await;
        let url = line.trim_start_matches("listening on ");
        assert_ok(&run(at(folder, &["kv", "put", "greeting", "hello"])).await);
        let get = run(command(&["--endpoints", url, "kv", "get", "greeting"])).await;
        assert!(get.stdout.contains("hello"), "{get:?}");
        let _stays = registered(folder, &["10.0.0.1:1"]).await;
        let again = run(command(&args)).await;
        assert_eq!(again.code, 1, "{again:?}");
        assert!(again.stderr.contains(&data), "{}", again.stderr);
        serve.terminate();
        assert!(serve.exited(PATIENCE).await.success());
        assert_eq!(addresses(folder).await, ["10.0.0.1:1"]);
    });
}

#[test]
fn what_makes_no_sense_is_told() {
    waypost_testkit::run(async {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("notes"), "mine").unwrap();
        let foreign = format!("embedded:{}", folder.path().display());
        for (args, code, said) in [
            (&["--endpoints", "embedded:", "ls"][..], 2, "name a folder"),
            (&["--endpoints", "embedded:a,http://b:1", "ls"], 2, "no other endpoint"),
            (&["--endpoints", "embedded:a", "--cacert", "ca.pem", "ls"], 2, "name no certificates"),
            (&["--endpoints", &foreign, "ls"], 1, "notes"),
        ] {
            let ran = run(command(args)).await;
            assert_eq!((ran.code, ran.stdout.as_str()), (code, ""), "{args:?}: {}", ran.stderr);
            assert!(ran.stderr.contains(said), "{args:?}: {}", ran.stderr);
        }
    });
}
