//! Measures the storage engines on the pattern of the embedded server: one writer, keys in ascending order of revision,
//! values of 256 B, every commit durable.
//!
//! ```text
//! cargo bench -p waypost-embed --bench storage                 # every engine
//! cargo bench -p waypost-embed --bench storage -- redb /data   # one engine, in a folder on that disk
//! ```
//!
//! Each phase runs in a process of its own, so that memory is that of the engine and a kill is a kill.
#![forbid(unsafe_code)]
#![allow(
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement that fails has no result to report"
)]

use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redb::{Durability, ReadableDatabase, TableDefinition};
use waypost_embed::backend::{Backend, Bucket, WriteBatch};
use waypost_embed::storage::{Store, StoreOptions};

/// Entries of the loaded store.
const ENTRIES: u64 = 1_000_000;
/// Bytes of memory that an engine may use for pages.
const CACHE: usize = 256 << 20;
/// How long each rate is measured.
const SPAN: Duration = Duration::from_secs(5);
/// Commits of each batch size and engine.
const COMMITS: u64 = 2000;
const ENGINES: [&str; 5] = ["log", "fjall", "redb", "redb-quick-repair", "store"];

trait Engine: Send + Sync {
    fn commit(&self, puts: &[(Vec<u8>, Vec<u8>)], deletes: &[Vec<u8>]);
    fn get(&self, key: &[u8]) -> bool;
    /// Gives space back to the file system.
    fn compact(&mut self);
}

struct Redb {
    db: redb::Database,
    quick_repair: bool,
}

struct Fjall {
    db: fjall::Database,
    keys: fjall::Keyspace,
}

/// A bare append-only file: what the disk itself allows.
struct Log {
    file: std::fs::File,
}

const KEYS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("key");

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["phase", phase, engine, folder] => run(phase, engine, Path::new(folder)),
        [] => measure(&ENGINES, &std::env::temp_dir()),
        [engine] => measure(&[engine], &std::env::temp_dir()),
        [engine, folder, ..] => measure(&[engine], Path::new(folder)),
    }
}

fn measure(engines: &[&str], parent: &Path) {
    let folder = parent.join(format!("waypost-storage-{}", std::process::id()));
    rates(engines, &folder);
    for engine in engines.iter().filter(|engine| **engine != "log") {
        let folder = folder.join(engine);
        std::fs::create_dir_all(&folder).unwrap();
        for phase in ["mixed", "load", "memory", "kill", "open", "delete"] {
            spawn(phase, engine, &folder);
        }
    }
    if engines.contains(&"fjall") {
        torn_journal(&folder.join("torn"));
    }
    std::fs::remove_dir_all(folder).unwrap();
}

/// The power goes while a batch is written, and of its pages the disk has all but one. (What `store` does of that kind is in
/// its tests: `every_acknowledged_batch_survives_a_loss_of_power_at_any_operation`.)
fn torn_journal(folder: &Path) {
    let journal = folder.join("0.jnl");
    let end = || std::fs::read(&journal).unwrap().iter().rposition(|byte| *byte != 0).unwrap() as u64;
    let store = open("fjall", folder);
    store.commit(&entries(0, 64), &[]);
    let acknowledged = end();
    store.commit(&[(key(64), (0..200).flat_map(value).collect())], &[]);
    let torn = (acknowledged / 4096 + 2) * 4096;
    assert!(torn + 4096 < end());
    drop(store);
    let mut file = std::fs::File::options().write(true).open(&journal).unwrap();
    file.seek(SeekFrom::Start(torn)).unwrap();
    file.write_all(&[0; 4096]).unwrap();
    let outcome = fjall::Database::builder(folder).open().map(|_| "opens");
    println!("{:18} with a page of its last batch missing: {outcome:?}", "fjall");
}

fn spawn(phase: &str, engine: &str, folder: &Path) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["phase", phase, engine])
        .arg(folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if line == "kill me" {
            child.kill().unwrap();
        } else {
            println!("{engine:18} {line}");
        }
    }
    child.wait().unwrap();
}

fn run(phase: &str, engine: &str, folder: &Path) {
    match phase {
        "mixed" => mixed(engine, folder),
        "load" => {
            let started = Instant::now();
            let store = open(engine, &folder.join("store"));
            for from in (0..ENTRIES).step_by(256) {
                store.commit(&entries(from, 256), &[]);
            }
            drop(store);
            println!("load of {ENTRIES} in batches of 256: {:.1} s", started.elapsed().as_secs_f64());
            println!("file size: {} MiB", allocated(&folder.join("store")) >> 20);
        }
        "memory" => {
            let started = Instant::now();
            let store = open(engine, &folder.join("store"));
            println!("open after a clean end: {:.3} s, RSS {} MiB", started.elapsed().as_secs_f64(), rss());
            let mut random = 1;
            let started = Instant::now();
            let reads = 300_000;
            for _ in 0..reads {
                assert!(store.get(&key(next(&mut random) % ENTRIES)));
            }
            println!(
                "point reads, one thread: {:.0}/s, RSS {} MiB",
                f64::from(reads) / started.elapsed().as_secs_f64(),
                rss()
            );
        }
        "kill" => {
            let store = open(engine, &folder.join("store"));
            for round in 0.. {
                store.commit(&entries(ENTRIES + round * 64, 64), &[]);
                if round == 500 {
                    println!("kill me");
                    std::io::stdout().flush().unwrap();
                }
            }
        }
        "open" => {
            let started = Instant::now();
            let store = open(engine, &folder.join("store"));
            assert!(store.get(&key(0)) && store.get(&key(ENTRIES + 64 * 500)));
            println!("open after SIGKILL: {:.3} s", started.elapsed().as_secs_f64());
        }
        "delete" => {
            let mut store = open(engine, &folder.join("store"));
            let started = Instant::now();
            for from in (0..ENTRIES).step_by(2000) {
                let deletes: Vec<_> = (from..from + 2000).step_by(2).map(key).collect();
                store.commit(&[], &deletes);
            }
            println!(
                "half deleted in {:.1} s, file size {} MiB",
                started.elapsed().as_secs_f64(),
                allocated(&folder.join("store")) >> 20
            );
            let started = Instant::now();
            store.compact();
            println!(
                "compacted in {:.1} s, file size {} MiB",
                started.elapsed().as_secs_f64(),
                allocated(&folder.join("store")) >> 20
            );
        }
        _ => panic!("{phase}"),
    }
}

/// Commits go round the engines one by one, so that what else the disk does meets all of them alike.
fn rates(engines: &[&str], folder: &Path) {
    for batch in [1, 8, 64, 256] {
        let place = folder.join(format!("rates-{batch}"));
        std::fs::create_dir_all(&place).unwrap();
        let stores: Vec<_> = engines.iter().map(|engine| open(engine, &place.join(engine))).collect();
        let mut latencies = vec![Vec::new(); engines.len()];
        let mut revision = 0;
        for _ in 0..COMMITS {
            let puts = entries(revision, batch);
            for (store, latencies) in stores.iter().zip(&mut latencies) {
                let begun = Instant::now();
                store.commit(&puts, &[]);
                latencies.push(begun.elapsed());
            }
            revision += batch;
        }
        for (engine, mut latencies) in engines.iter().zip(latencies) {
            let total: Duration = latencies.iter().sum();
            let rate = revision as f64 / total.as_secs_f64();
            latencies.sort();
            let p = |q: usize| latencies[latencies.len() * q / 1000].as_micros();
            println!(
                "{engine:18} batch {batch:3}: mean {rate:8.0} entries/s, commit p10 {} p50 {} p99 {} us",
                p(100),
                p(500),
                p(990)
            );
        }
        drop(stores);
        std::fs::remove_dir_all(place).unwrap();
    }
}

/// One thread commits batches of 64 and one reads at random what is committed.
fn mixed(engine: &str, folder: &Path) {
    let store = open(engine, &folder.join("mixed"));
    let (stop, reads, visible) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(64));
    store.commit(&entries(0, 64), &[]);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = 7;
            while !stop.load(Ordering::Relaxed) {
                assert!(store.get(&key(next(&mut random) % visible.load(Ordering::Acquire))));
                reads.fetch_add(1, Ordering::Relaxed);
            }
        });
        let mut revision = 64;
        let started = Instant::now();
        while started.elapsed() < SPAN {
            store.commit(&entries(revision, 64), &[]);
            revision += 64;
            visible.store(revision, Ordering::Release);
        }
        stop.store(true, Ordering::Relaxed);
        let seconds = started.elapsed().as_secs_f64();
        println!(
            "one writer, batches of 64, and one reader: {:.0} entries/s and {:.0} reads/s",
            revision as f64 / seconds,
            reads.load(Ordering::Relaxed) as f64 / seconds
        );
    });
}

fn open(engine: &str, path: &Path) -> Box<dyn Engine> {
    match engine {
        "redb" | "redb-quick-repair" => {
            let db = redb::Builder::new().set_cache_size(CACHE).create(path).unwrap();
            Box::new(Redb { db, quick_repair: engine != "redb" })
        }
        "fjall" => {
            let db = fjall::Database::builder(path)
                .manual_journal_persist(true)
                .cache_size(CACHE as u64)
                .open()
                .unwrap();
            let keys = db.keyspace("key", fjall::KeyspaceCreateOptions::default).unwrap();
            Box::new(Fjall { db, keys })
        }
        "store" => Box::new(Store::open_with(path, options()).unwrap()),
        "log" => {
            Box::new(Log { file: std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap() })
        }
        _ => panic!("no engine {engine}"),
    }
}

fn options() -> StoreOptions {
    let mut options = StoreOptions::default();
    options.cache_bytes = CACHE;
    options
}

fn entries(from: u64, count: u64) -> Vec<(Vec<u8>, Vec<u8>)> {
    (from..from + count).map(|revision| (key(revision), value(revision))).collect()
}

fn key(revision: u64) -> Vec<u8> {
    [&revision.to_be_bytes()[..], b"_", &[0; 8]].concat()
}

/// Does not compress.
fn value(revision: u64) -> Vec<u8> {
    let mut random = revision + 1;
    std::iter::repeat_with(|| next(&mut random).to_le_bytes()).take(32).flatten().collect()
}

/// splitmix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn rss() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

/// Bytes that the file system gave to a file or a folder.
fn allocated(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).unwrap();
    if metadata.is_dir() {
        let entries: Vec<PathBuf> =
            std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.iter().map(|entry| allocated(entry)).sum()
    } else {
        metadata.blocks() * 512
    }
}

impl Engine for Redb {
    fn commit(&self, puts: &[(Vec<u8>, Vec<u8>)], deletes: &[Vec<u8>]) {
        let mut transaction = self.db.begin_write().unwrap();
        transaction.set_durability(Durability::Immediate).unwrap();
        transaction.set_quick_repair(self.quick_repair);
        {
            let mut table = transaction.open_table(KEYS).unwrap();
            for (key, value) in puts {
                table.insert(key.as_slice(), value.as_slice()).unwrap();
            }
            for key in deletes {
                table.remove(key.as_slice()).unwrap();
            }
        }
        transaction.commit().unwrap();
    }

    fn get(&self, key: &[u8]) -> bool {
        let transaction = self.db.begin_read().unwrap();
        let table = transaction.open_table(KEYS).unwrap();
        table.get(key).unwrap().is_some()
    }

    fn compact(&mut self) {
        while self.db.compact().unwrap() {}
    }
}

impl Engine for Fjall {
    fn commit(&self, puts: &[(Vec<u8>, Vec<u8>)], deletes: &[Vec<u8>]) {
        let mut batch = self.db.batch().durability(Some(fjall::PersistMode::SyncData));
        for (key, value) in puts {
            batch.insert(&self.keys, key.as_slice(), value.as_slice());
        }
        for key in deletes {
            batch.remove(&self.keys, key.as_slice());
        }
        batch.commit().unwrap();
    }

    fn get(&self, key: &[u8]) -> bool {
        self.keys.get(key).unwrap().is_some()
    }

    fn compact(&mut self) {
        self.keys.rotate_memtable_and_wait().unwrap();
        self.keys.major_compact().unwrap();
    }
}

impl Engine for Log {
    fn commit(&self, puts: &[(Vec<u8>, Vec<u8>)], _: &[Vec<u8>]) {
        let bytes: Vec<u8> = puts.iter().flat_map(|(key, value)| [key.as_slice(), value].concat()).collect();
        (&self.file).write_all(&bytes).unwrap();
        self.file.sync_data().unwrap();
    }

    fn get(&self, _: &[u8]) -> bool {
        false
    }

    fn compact(&mut self) {}
}

/// What was made of the choice.
impl Engine for Store {
    fn commit(&self, puts: &[(Vec<u8>, Vec<u8>)], deletes: &[Vec<u8>]) {
        let mut batch = WriteBatch::new();
        for (key, value) in puts {
            batch.put(Bucket::Key, key.clone(), value.clone());
        }
        for key in deletes {
            batch.delete(Bucket::Key, key.clone());
        }
        Backend::commit(self, batch).unwrap();
    }

    fn get(&self, key: &[u8]) -> bool {
        Backend::get(self, Bucket::Key, key).unwrap().is_some()
    }

    fn compact(&mut self) {
        self.defragment().unwrap();
    }
}
