//! A process that is killed at any moment leaves every acknowledged batch behind, and half of none.
#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test reports by failing, its child on standard output"
)]

use std::io::{BufRead, BufReader, Lines};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use waypost_embed::backend::{Backend, BackendError, Bucket, WriteBatch};
use waypost_embed::storage::Store;

const FOLDER: &str = "WAYPOST_TEST_CRASH_FOLDER";
/// Entries of a batch.
const BATCH: u64 = 8;

/// What [`child`] does in a process of its own: commits numbered batches for ever and reports each.
#[test]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let store = Store::open(Path::new(&folder)).unwrap();
    println!("\nopen");
    for number in last(&store) + 1.. {
        store.commit(batch(number)).unwrap();
        println!("acknowledged {number}");
        if number.is_multiple_of(64) {
            store.defragment().unwrap();
        }
    }
}

/// Batch `number`: eight entries, and the removal of those of a batch long before.
fn batch(number: u64) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for entry in 0..BATCH {
        let size = if (number + entry).is_multiple_of(23) { 20_000 } else { 256 };
        batch.put(Bucket::Key, key(number, entry), vec![number.to_le_bytes()[0]; size]);
    }
    if let Some(old) = number.checked_sub(100) {
        batch.delete_range(Bucket::Key, key(old, 0), key(old + 1, 0));
    }
    batch.put(Bucket::Meta, "last", number.to_be_bytes().to_vec());
    batch
}

fn key(number: u64, entry: u64) -> Vec<u8> {
    [number.to_be_bytes(), entry.to_be_bytes()].concat()
}

fn last(store: &Store) -> u64 {
    let last = store.get(Bucket::Meta, b"last").unwrap();
    last.map_or(0, |last| u64::from_be_bytes(*last.first_chunk().unwrap()))
}

fn start(folder: &Path) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, lines)
}

/// Panics unless the store holds the batches up to `last` as wholes, and nothing else.
fn check(store: &Store, last: u64) {
    let mut expected = Vec::new();
    for number in (last + 1).saturating_sub(100).max(1)..=last {
        expected.extend((0..BATCH).map(|entry| key(number, entry)));
    }
    let mut found = Vec::new();
    let visit = &mut |key: &[u8], value: &[u8]| {
        assert!(value.iter().all(|byte| *byte == key[7]));
        found.push(key.to_vec());
        ControlFlow::Continue(())
    };
    store.scan(Bucket::Key, &[], &[], visit).unwrap();
    assert!(found == expected, "{} entries up to batch {last}", found.len());
}

#[test]
fn killed_at_any_moment_it_keeps_every_acknowledged_batch_whole() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for round in 0..30_u64 {
        let (mut child, mut lines) = start(folder.path());
        // From within the opening of the store to a few defragmentations later.
        let wait_for = (round * 37) % 180;
        let mut seen = 0;
        while seen < wait_for {
            let line = lines.next().expect("the child runs until it is killed").unwrap();
            seen += u64::from(line.starts_with("acknowledged") || line == "open");
            if let Some(number) = line.strip_prefix("acknowledged ") {
                acknowledged = number.parse().unwrap();
            }
        }
        // A moment within the commit that is under way.
        std::thread::sleep(Duration::from_micros(round * 331 % 3000));
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines.map_while(Result::ok) {
            if let Some(number) = line.strip_prefix("acknowledged ") {
                acknowledged = number.parse().unwrap();
            }
        }
        let store = Store::open(folder.path()).unwrap();
        let last = last(&store);
        assert!((acknowledged..=acknowledged + 1).contains(&last), "{last} after {acknowledged}");
        check(&store, last);
        acknowledged = last;
    }
    assert!(acknowledged > 1000, "{acknowledged}");
}

#[test]
fn a_second_process_is_refused_while_the_first_lives() {
    let folder = tempfile::tempdir().unwrap();
    let (mut child, mut lines) = start(folder.path());
    while lines.next().unwrap().unwrap() != "open" {}
    let error = Store::open(folder.path()).unwrap_err();
    assert!(matches!(&error, BackendError::Locked { path } if path == folder.path()), "{error}");
    child.kill().unwrap();
    child.wait().unwrap();
    Store::open(folder.path()).unwrap();
}
