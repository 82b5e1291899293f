//! The store in a folder of a real disk.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use proptest::prelude::*;
use redb::{Database, ReadableDatabase as _, TableDefinition};
use tempfile::tempdir;

use crate::backend::{Backend, BackendError, Bucket, MemoryBackend, WriteBatch};
use crate::bolt::Source;
use crate::storage::{FaultyBackend, Store};

fn content(backend: &dyn Backend, bucket: Bucket, from: &[u8], to: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut content = Vec::new();
    let visit = &mut |key: &[u8], value: &[u8]| {
        content.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    };
    backend.scan(bucket, from, to, visit).unwrap();
    content
}

fn entries(count: u32, size: usize) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for number in 0..count {
        batch.put(Bucket::Key, number.to_be_bytes().to_vec(), vec![1; size]);
    }
    batch
}

fn refused(folder: &Path) -> BackendError {
    Store::open(folder).unwrap_err()
}

#[test]
fn a_second_opening_of_a_folder_is_refused_by_name() {
    let folder = tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let error = refused(folder.path());
    assert!(matches!(error, BackendError::Locked { .. }));
    assert_eq!(error.to_string(), format!("{} is in use by another process", folder.path().display()));
    drop(store);
    Store::open(folder.path()).unwrap();
}

#[test]
fn folders_are_made_and_what_belongs_to_others_is_left_alone() {
    let parent = tempdir().unwrap();
    drop(Store::open(parent.path().join("a/b/c")).unwrap());

    let etcd = parent.path().join("etcd");
    fs::create_dir_all(etcd.join("member")).unwrap();
    let error = refused(&etcd).to_string();
    assert!(
        error.contains("has files of something else (member), which this program does not read"),
        "{error}"
    );
    assert!(!etcd.join("waypost.redb").exists());

    // What a new volume or a kill during creation leaves.
    let fresh = parent.path().join("fresh");
    fs::create_dir_all(fresh.join("lost+found")).unwrap();
    fs::write(fresh.join("waypost.redb.new"), b"half").unwrap();
    fs::write(fresh.join("lock"), b"").unwrap();
    drop(Store::open(&fresh).unwrap());
    assert!(!fresh.join("waypost.redb.new").exists());

    let file = parent.path().join("file");
    fs::write(&file, b"").unwrap();
    assert!(matches!(refused(&file), BackendError::Io { action: "create", .. }));
}

#[test]
fn foreign_and_newer_files_are_refused() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("waypost.redb");
    for garbage in [&b""[..], b"short", &[7; 10_000]] {
        fs::write(&file, garbage).unwrap();
        let error = refused(folder.path()).to_string();
        assert!(error.ends_with("has no database of redb, which this program does not read (it reads one)"));
    }
    fs::remove_file(&file).unwrap();

    let foreign = Database::create(&file).unwrap();
    let transaction = foreign.begin_write().unwrap();
    transaction.open_table(TableDefinition::<u64, u64>::new("waypost")).unwrap();
    transaction.commit().unwrap();
    drop(foreign);
    assert!(refused(folder.path()).to_string().contains("has the database of another program"));
    fs::remove_file(&file).unwrap();

    drop(Store::open(folder.path()).unwrap());
    let newer = Database::open(&file).unwrap();
    let transaction = newer.begin_write().unwrap();
    transaction
        .open_table(TableDefinition::<&str, u64>::new("waypost"))
        .unwrap()
        .insert("format", 3)
        .unwrap();
    transaction.commit().unwrap();
    drop(newer);
    let error = refused(folder.path()).to_string();
    let expected = "has format 3, which this program does not read (it reads formats 1 to 2)";
    assert!(error.ends_with(expected), "{error}");
}

#[test]
fn a_store_of_format_1_gets_a_log() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("waypost.redb");
    let store = Store::open(folder.path()).unwrap();
    store.commit(entries(10, 10)).unwrap();
    drop(store);
    let record = TableDefinition::<&str, u64>::new("waypost");
    let older = Database::open(&file).unwrap();
    let transaction = older.begin_write().unwrap();
    {
        let mut record = transaction.open_table(record).unwrap();
        record.insert("format", 1).unwrap();
        record.remove("sequence").unwrap();
        record.remove("log").unwrap();
    }
    transaction.commit().unwrap();
    drop(older);
    let store = Store::open(folder.path()).unwrap();
    assert!(folder.path().join("waypost.log").exists());
    store.commit(entries(11, 10)).unwrap();
    assert_eq!(content(&store, Bucket::Key, b"", b"").len(), 11);
    drop(store);
    assert!(!folder.path().join("waypost.log").exists());
    let newer = Database::open(&file).unwrap();
    let format =
        newer.begin_read().unwrap().open_table(record).unwrap().get("format").unwrap().unwrap().value();
    assert_eq!(format, 2);
}

#[test]
fn what_is_in_the_log_goes_to_the_database_by_itself() {
    let folder = tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let before = std::fs::metadata(store.path()).unwrap().len();
    // More than both halves of the log hold.
    for _ in 0..20 {
        store.commit(entries(1000, 2000)).unwrap();
    }
    assert_eq!(content(&store, Bucket::Key, b"", b"").len(), 1000);
    assert!(std::fs::metadata(store.path()).unwrap().len() > before);
}

#[test]
fn a_damaged_file_is_an_error_and_no_panic() {
    let folder = tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    store.commit(entries(5000, 100)).unwrap();
    drop(store);
    let file = folder.path().join("waypost.redb");
    let whole = fs::read(&file).unwrap();
    for cut in [9, 4000, 4096, whole.len() / 2] {
        fs::write(&file, &whole[..cut]).unwrap();
        assert!(matches!(refused(folder.path()), BackendError::Engine { .. } | BackendError::Io { .. }));
    }
}

#[test]
fn a_view_stays_as_it_was() {
    let folder = tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    store.commit(entries(100, 10)).unwrap();
    let view = store.view().unwrap();
    let mut batch = WriteBatch::new();
    batch.delete_range(Bucket::Key, "", "");
    batch.put(Bucket::Meta, "term", "2");
    store.commit(batch).unwrap();
    store.defragment().unwrap();
    store.commit(entries(1, 10)).unwrap();
    let mut seen = 0;
    let visit = &mut |_: &[u8], _: &[u8]| {
        seen += 1;
        ControlFlow::Continue(())
    };
    view.visit(Bucket::Key, visit).unwrap();
    assert_eq!(seen, 100);
    assert_eq!(view.get(Bucket::Meta, b"term").unwrap(), None);
    assert_eq!(store.get(Bucket::Meta, b"term").unwrap().as_deref(), Some(&b"2"[..]));
}

#[test]
fn space_is_accounted_for_and_given_back() {
    let folder = tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let empty = store.size().unwrap();
    assert!(empty.in_use > 0 && empty.in_use <= empty.allocated);
    store.commit(entries(40_000, 256)).unwrap();
    let full = store.size().unwrap();
    assert_eq!(full.in_use - empty.in_use, 40_000 * 260);
    assert!(full.allocated >= full.in_use);
    // Every other entry: no page of the file is free of entries.
    let mut batch = WriteBatch::new();
    for number in (0..40_000_u32).step_by(2) {
        batch.delete(Bucket::Key, number.to_be_bytes().to_vec());
    }
    batch.put(Bucket::Key, 1_u32.to_be_bytes().to_vec(), "shorter");
    store.commit(batch).unwrap();
    let half = store.size().unwrap();
    assert_eq!(half.in_use - empty.in_use, 20_000 * 260 - 256 + 7);
    store.defragment().unwrap();
    let defragmented = store.size().unwrap();
    assert_eq!(defragmented.in_use, half.in_use);
    assert!(defragmented.allocated < full.allocated * 3 / 4, "{defragmented:?} after {full:?}");
    drop(store);
    let store = Store::open(folder.path()).unwrap();
    assert_eq!(store.size().unwrap().in_use, half.in_use);
    assert_eq!(content(&store, Bucket::Key, b"", b"").len(), 20_000);
}

#[test]
fn the_faulty_backend_fills_up_and_frees() {
    let backend = FaultyBackend::new(MemoryBackend::new());
    backend.limit_space(Some(1000));
    backend.commit(entries(9, 100)).unwrap();
    assert!(matches!(backend.commit(entries(1, 100)), Err(BackendError::NoSpace { .. })));
    backend.limit_space(None);
    backend.commit(entries(10, 100)).unwrap();
    backend.fail_next_commit();
    assert!(backend.commit(entries(11, 100)).is_err());
    backend.fail_reads(true);
    assert!(backend.get(Bucket::Key, b"").is_err() && backend.size().is_err());
    backend.fail_reads(false);
    assert_eq!((backend.commits(), content(&backend, Bucket::Key, b"", b"").len()), (4, 10));
}

#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<(u8, u8, u8, u16)>),
    Reopen,
    Defragment,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => prop::collection::vec((0..4_u8, any::<u8>(), any::<u8>(), 0..5000_u16), 1..20).prop_map(Step::Commit),
        1 => Just(Step::Reopen),
        1 => Just(Step::Defragment),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn it_behaves_as_the_backend_in_memory(steps in prop::collection::vec(any_step(), 1..20)) {
        let folder = tempdir().unwrap();
        let mut store = Store::open(folder.path()).unwrap();
        let model = MemoryBackend::new();
        for step in steps {
            match step {
                Step::Commit(operations) => {
                    let mut batch = WriteBatch::new();
                    for (kind, key, other, size) in operations {
                        let bucket = if key % 2 == 0 { Bucket::Key } else { Bucket::Lease };
                        match kind {
                            0 => batch.delete(bucket, vec![key / 2]),
                            1 => batch.delete_range(bucket, vec![key / 2], vec![other / 2]),
                            _ => batch.put(bucket, vec![key / 2], vec![other; size.into()]),
                        }
                    }
                    model.commit(batch.clone()).unwrap();
                    store.commit(batch).unwrap();
                }
                Step::Reopen => {
                    drop(store);
                    store = Store::open(folder.path()).unwrap();
                }
                Step::Defragment => store.defragment().unwrap(),
            }
        }
        let mut bytes = 0;
        for bucket in Bucket::ALL {
            for (from, to) in [(&b""[..], &b""[..]), (&[20], &[90]), (&[90], &[20]), (&[50], &[])] {
                prop_assert_eq!(content(&store, bucket, from, to), content(&model, bucket, from, to));
            }
            bytes += content(&store, bucket, b"", b"").iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        }
        prop_assert_eq!(store.size().unwrap().in_use, (bytes as u64 + 12 * 4096).min(store.size().unwrap().allocated));
    }
}
