//! bbolt's format against etcd itself: etcd reads what is written here, and what etcd wrote is read here.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "what a test asks of etcd must be there")]

use std::fs::{self, File};
use std::io::BufWriter;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use prost::Message;
use serde_json::Value;
use waypost_embed::backend::{Backend, Bucket, MemoryBackend, WriteBatch};
use waypost_embed::bolt::{Reader, export, import, seal};
use waypost_proto::mvccpb::KeyValue;
use waypost_testkit::{Etcd, EtcdVersion, for_each_real_etcd};

/// The key of a revision in the bucket `key`.
fn revision(main: i64, sub: i64) -> Vec<u8> {
    [&main.to_be_bytes()[..], b"_", &sub.to_be_bytes()].concat()
}

fn pair(key: &str, value: Vec<u8>, revision: i64) -> KeyValue {
    KeyValue {
        key: key.to_owned().into(),
        value: value.into(),
        create_revision: revision,
        mod_revision: revision,
        version: 1,
        ..KeyValue::default()
    }
}

/// A store with `keys` keys of many sizes, of which one is deleted and one has a second version.
fn store(keys: i64) -> MemoryBackend {
    let store = MemoryBackend::new();
    let mut batch = WriteBatch::new();
    for number in 0..keys {
        let size = if number % 50 == 7 { 20_000 } else { usize::try_from(number % 300).unwrap() };
        let kv = pair(
            &format!("key/{number:06}"),
            vec![b'a' + u8::try_from(number % 26).unwrap(); size],
            number + 2,
        );
        batch.put(Bucket::Key, revision(number + 2, 0), kv.encode_to_vec());
    }
    let changed =
        KeyValue { version: 2, create_revision: 2, ..pair("key/000000", b"changed".to_vec(), keys + 2) };
    batch.put(Bucket::Key, revision(keys + 2, 0), changed.encode_to_vec());
    let deleted = KeyValue { key: "key/000001".into(), ..KeyValue::default() };
    let tombstone = [revision(keys + 3, 0), b"t".to_vec()].concat();
    batch.put(Bucket::Key, tombstone, deleted.encode_to_vec());
    store.commit(batch).unwrap();
    store
}

fn write_snapshot(store: &MemoryBackend, path: &Path) -> u64 {
    let file = File::options().read(true).write(true).create_new(true).open(path).unwrap();
    let (writer, summary) = export(store, BufWriter::new(file)).unwrap();
    let mut file = writer.into_inner().unwrap();
    seal::append(&mut file).unwrap();
    assert_eq!(file.metadata().unwrap().len(), summary.bytes + 32);
    summary.entries
}

/// What `etcdctl snapshot status` computes of a file, here from what the reader gives: the CRC-32C of all names, keys and
/// values, the number of entries, and the last revision.
fn status(path: &Path) -> (u32, u64, i64) {
    let mut reader = Reader::open(path).unwrap();
    let (mut sum, mut count, mut last) = (!0, 0, 0);
    for bucket in reader.buckets().unwrap() {
        crc32c(&mut sum, &bucket.name);
        let visit = &mut |key: &[u8], value: &[u8]| {
            crc32c(&mut sum, key);
            crc32c(&mut sum, value);
            count += 1;
            if bucket.name == b"key" {
                last = i64::from_be_bytes(*key.first_chunk().unwrap());
            }
            ControlFlow::Continue(())
        };
        assert!(reader.for_each(&bucket.name, visit).unwrap());
    }
    (!sum, count, last)
}

fn crc32c(sum: &mut u32, bytes: &[u8]) {
    for byte in bytes {
        *sum ^= u32::from(*byte);
        for _ in 0..8 {
            *sum = (*sum >> 1) ^ (0x82f6_3b78 & (*sum & 1).wrapping_neg());
        }
    }
}

/// What etcd's own tool says of a file, after it has checked every page.
async fn status_by_etcd(etcd: &Etcd, path: &Path) -> (u32, u64, i64) {
    let path = path.to_str().unwrap();
    let text = etcd.etcdctl(["snapshot", "status", path, "-w", "json"]).await;
    let status: Value = serde_json::from_str(&text).unwrap();
    let hash = u32::try_from(status["hash"].as_u64().unwrap()).unwrap();
    (hash, status["totalKey"].as_u64().unwrap(), status["revision"].as_i64().unwrap())
}

/// Every key, value and revision that etcd serves, and its revision.
async fn served(etcd: &Etcd) -> (Value, Value) {
    let text = etcd.etcdctl(["get", "", "--prefix", "-w", "json"]).await;
    let mut answer: Value = serde_json::from_str(&text).unwrap();
    (answer["kvs"].take(), answer["header"]["revision"].take())
}

fn database(etcd: &Etcd) -> PathBuf {
    let arguments = fs::read_to_string(format!("/proc/{}/cmdline", etcd.pid().unwrap())).unwrap();
    let data = arguments.split('\0').find_map(|argument| argument.strip_prefix("--data-dir=")).unwrap();
    Path::new(data).join("member/snap/db")
}

async fn fill(etcd: &Etcd) {
    etcd.etcdctl(["put", "big", &"b".repeat(100_000)]).await;
    for number in 0..40 {
        etcd.etcdctl(["put", &format!("key/{number}"), &"v".repeat(number * 20)]).await;
    }
    etcd.etcdctl(["put", "key/1", "again"]).await;
    etcd.etcdctl(["del", "key/2"]).await;
    etcd.etcdctl(["lease", "grant", "1000"]).await;
    etcd.etcdctl(["user", "add", "somebody:secret"]).await;
    etcd.etcdctl(["role", "add", "reader"]).await;
}

fn entries(path: &Path, bucket: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut entries = Vec::new();
    let visit = &mut |key: &[u8], value: &[u8]| {
        entries.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    };
    assert!(Reader::open(path).unwrap().for_each(bucket.as_bytes(), visit).unwrap(), "no bucket {bucket}");
    entries
}

/// What [`fill`] left in a file of etcd.
fn check_filled(path: &Path) {
    let keys = entries(path, "key");
    assert_eq!(keys.len(), 43);
    let (first, value) = &keys[0];
    assert_eq!(*first, revision(2, 0));
    assert_eq!(KeyValue::decode(&value[..]).unwrap(), pair("big", vec![b'b'; 100_000], 2));
    assert_eq!(keys[42].0, [revision(44, 0), b"t".to_vec()].concat());
    assert_eq!(entries(path, "lease").len(), 1);
    assert_eq!(entries(path, "authUsers")[0].0, b"somebody");
    assert_eq!(entries(path, "authRoles")[0].0, b"reader");
}

for_each_real_etcd! {
    async fn etcd_checks_restores_and_serves_what_is_written(version: EtcdVersion) {
        let mut etcd = Etcd::start(version).await;
        let directory = tempfile::tempdir().unwrap();
        for keys in [2, 300, 20_000] {
            let path = directory.path().join(format!("{keys}.db"));
            let entries = write_snapshot(&store(keys), &path);
            let by_etcd = status_by_etcd(&etcd, &path).await;
            assert_eq!(by_etcd, status(&path));
            assert_eq!((by_etcd.1, by_etcd.2), (entries, keys + 3));
        }
        let path = directory.path().join("300.db");
        etcd.restore_from(&path).await;
        let (kvs, revision) = served(&etcd).await;
        assert_eq!(revision, 303);
        let kvs = kvs.as_array().unwrap();
        assert_eq!(kvs.len(), 299);
        assert_eq!(kvs[0]["version"], 2);
        let big = etcd.etcdctl(["get", "key/000007", "--print-value-only"]).await;
        assert_eq!(big.trim_end(), "h".repeat(20_000));
        let old = etcd.etcdctl(["get", "key/000001", "--rev=302", "--print-value-only"]).await;
        assert_eq!(old.trim_end(), "b");
        etcd.etcdctl(["put", "key/000001", "after"]).await;
        assert_eq!(served(&etcd).await.1, 304);
    }

    async fn a_snapshot_damaged_on_its_way_is_found_out(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("snapshot.db");
        etcd.etcdctl(["put", "a", "1"]).await;
        etcd.snapshot_to(&path).await;
        assert_eq!(seal::check(&mut File::open(&path).unwrap()).unwrap(), seal::Seal::Intact);
        let mut bytes = fs::read(&path).unwrap();
        bytes[9000] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(seal::check(&mut File::open(&path).unwrap()).unwrap(), seal::Seal::Broken);
    }

    async fn what_etcd_saved_and_stored_is_read(version: EtcdVersion) {
        let mut etcd = Etcd::start(version).await;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("snapshot.db");
        fill(&etcd).await;
        etcd.snapshot_to(&path).await;
        check_filled(&path);
        assert_eq!(status(&path), status_by_etcd(&etcd, &path).await);
        let database = database(&etcd);
        etcd.stop().await;
        check_filled(&database);
        assert_eq!(status(&database), status_by_etcd(&etcd, &database).await);
    }

    async fn a_snapshot_goes_in_and_out_again_unchanged(version: EtcdVersion) {
        let mut etcd = Etcd::start(version).await;
        let directory = tempfile::tempdir().unwrap();
        let (saved, copied) = (directory.path().join("saved.db"), directory.path().join("copied.db"));
        fill(&etcd).await;
        etcd.snapshot_to(&saved).await;
        let before = served(&etcd).await;
        let store = MemoryBackend::new();
        import(&mut Reader::open(&saved).unwrap(), &store).unwrap();
        write_snapshot(&store, &copied);
        etcd.restore_from(&copied).await;
        assert_eq!(served(&etcd).await, before);
        assert_eq!(etcd.etcdctl(["user", "list"]).await.trim(), "somebody");
        assert!(etcd.etcdctl(["lease", "list"]).await.contains("found 1 leases"));
    }
}
