//! A server that is killed at any moment starts again with every write that it acknowledged, and no other.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use waypost_etcd::{Client, ClientOptions, Put, Range};
use waypost_testkit::Process;

use crate::support::PATIENCE;

const ROUNDS: u64 = 30;
const WRITERS: usize = 8;

/// The example, which cargo builds before the tests.
fn embedded() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.ancestors().nth(2).expect("target/PROFILE/deps/TEST");
    let example = profile.join("examples/embedded");
    assert!(example.is_file(), "{} is missing: cargo build -p waypost-embed --examples", example.display());
    example
}

async fn start(folder: &Path) -> (Process, Client) {
    let mut command = Command::new(embedded());
    let process = Process::spawn(command.arg(folder).arg("http://127.0.0.1:0"));
    let line = process.wait_for_line(|line| line.starts_with("listening on "), PATIENCE).await;
    let url = line.trim_start_matches("listening on ").to_owned();
    (process, Client::new(ClientOptions::new([url]).request_timeout(Duration::from_secs(5))).unwrap())
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_by_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    // Per writer: the last number that was acknowledged.
    let acknowledged: Arc<Vec<AtomicU64>> = Arc::new((0..WRITERS).map(|_| AtomicU64::new(0)).collect());
    for round in 0..=ROUNDS {
        let (process, client) = start(&data).await;
        let mut next = Vec::new();
        for writer in 0..WRITERS {
            let read = client.range(Range::key(format!("w/{writer}"))).await.unwrap();
            let found: u64 =
                read.kvs.first().map_or(0, |kv| std::str::from_utf8(&kv.value).unwrap().parse().unwrap());
            let last = acknowledged[writer].load(Ordering::SeqCst);
            // One write may have been under way when the server was killed.
            assert!(
                found == last || found == last + 1,
                "round {round}: {found} was found, {last} acknowledged"
            );
            acknowledged[writer].store(found, Ordering::SeqCst);
            next.push(found + 1);
        }
        if round == ROUNDS {
            break;
        }
        let enough = Arc::new(tokio::sync::Semaphore::new(0));
        let writers: Vec<_> = next
            .into_iter()
            .enumerate()
            .map(|(writer, first)| {
                let (client, acknowledged, enough) =
                    (client.clone(), Arc::clone(&acknowledged), Arc::clone(&enough));
                tokio::spawn(async move {
                    for number in first.. {
                        // Not tried again: it may have been done.
                        let put = Put::new(format!("w/{writer}"), number.to_string());
                        if client.put(put).await.is_err() {
                            return;
                        }
                        acknowledged[writer].store(number, Ordering::SeqCst);
                        enough.add_permits(1);
                    }
                })
            })
            .collect();
        // A number of writes that differs from round to round, so that kills meet different moments.
        let wanted = u32::try_from(5 + round * 37 % 101).unwrap();
        tokio::time::timeout(PATIENCE, enough.acquire_many(wanted)).await.expect("writes").unwrap().forget();
        process.kill().await;
        for writer in writers {
            tokio::time::timeout(PATIENCE, writer).await.expect("the writer ends").unwrap();
        }
    }
}
