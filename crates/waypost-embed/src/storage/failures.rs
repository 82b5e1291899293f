//! The store on a disk that fails: no acknowledged batch is lost, none is half there.

use std::ops::ControlFlow;
use std::path::PathBuf;

use crate::backend::{Backend, BackendError, Bucket, MemoryBackend, WriteBatch};
use crate::storage::engine::Engine;
use crate::storage::medium::Medium;
use crate::storage::simulated::{Random, Simulated};
use crate::storage::{Store, StoreOptions};

/// Losses of power that are tried; 3,000 have been.
const SEEDS: u64 = 120;
const OPTIONS: StoreOptions = StoreOptions { cache_bytes: 1 << 20 };

fn create() -> (Simulated, Store) {
    let disk = Simulated::default();
    drop(Engine::create(disk.begin().unwrap(), PathBuf::from("simulated"), 1 << 20).unwrap());
    disk.replace().unwrap();
    let store = open(&disk);
    (disk, store)
}

fn open(disk: &Simulated) -> Store {
    Store::on(Box::new(disk.clone()), None, OPTIONS).unwrap()
}

fn random_batch(random: &mut Random) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for _ in 0..=random.below(12) {
        let bucket = [Bucket::Key, Bucket::Lease, Bucket::Meta][random.below(3)];
        let key = format!("key-{:02}", random.below(60));
        match random.below(10) {
            0 => batch.delete(bucket, key),
            1 => batch.delete_range(bucket, key, format!("key-{:02}", random.below(60))),
            _ => {
                let length = if random.below(8) == 0 { 9000 } else { 300 };
                batch.put(bucket, key, vec![random.next().to_le_bytes()[0]; random.below(length)]);
            }
        }
    }
    batch
}

fn content(backend: &dyn Backend) -> Vec<(Bucket, Vec<u8>, Vec<u8>)> {
    let mut content = Vec::new();
    for bucket in Bucket::ALL {
        let visit = &mut |key: &[u8], value: &[u8]| {
            content.push((bucket, key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        };
        backend.scan(bucket, &[], &[], visit).unwrap();
    }
    content
}

fn one(key: &'static str, value: Vec<u8>) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.put(Bucket::Key, key, value);
    batch
}

#[test]
fn every_acknowledged_batch_survives_a_loss_of_power_at_any_operation() {
    let mut lost = 0;
    for seed in 0..SEEDS {
        let mut random = Random(seed);
        let (disk, store) = create();
        let power_until = disk.faults().operations + random.below(300) as u64;
        disk.faults().power_until = Some(power_until);
        let (acknowledged, attempted) = (MemoryBackend::new(), MemoryBackend::new());
        for number in 0.. {
            if number % 40 == 39 && store.defragment().is_err() {
                break;
            }
            let batch = random_batch(&mut random);
            attempted.commit(batch.clone()).unwrap();
            match store.commit(batch.clone()) {
                Ok(()) => acknowledged.commit(batch).unwrap(),
                Err(BackendError::Io { .. } | BackendError::Engine { .. }) => break,
                Err(error) => panic!("seed {seed}: {error}"),
            }
        }
        drop(store);
        let found = content(&open(&disk.after_power_loss(&mut random)));
        if found == content(&acknowledged) {
            lost += 1;
        } else {
            assert!(found == content(&attempted), "seed {seed}");
        }
    }
    // Both ends of a batch under way are seen, so that the test tests something.
    assert!((1..SEEDS).contains(&lost), "{lost}");
}

#[test]
fn a_commit_syncs_once_and_once_more_when_the_file_grows() {
    let (disk, store) = create();
    let mut grown = 0;
    for size in [1, 100, 10_000, 100_000, 1_000_000, 1_000_000, 10] {
        let (syncs, length) = (disk.faults().syncs, disk.bytes().unwrap());
        store.commit(one("key", vec![7; size])).unwrap();
        let grew = u64::from(disk.bytes().unwrap() != length);
        assert_eq!(disk.faults().syncs - syncs, 1 + grew, "{size}");
        grown += grew;
    }
    assert!(grown < 3, "{grown}");
}

#[test]
fn a_full_disk_is_told_and_costs_nothing_but_the_batch() {
    let (disk, store) = create();
    let expected = MemoryBackend::new();
    let mut random = Random(3);
    for _ in 0..50 {
        let batch = random_batch(&mut random);
        expected.commit(batch.clone()).unwrap();
        store.commit(batch).unwrap();
    }
    let view = store.view().unwrap();
    disk.faults().blocks = Some(0);
    for _ in 0..3 {
        let error = store.commit(one("big", vec![1; 3_000_000])).unwrap_err();
        assert!(matches!(error, BackendError::NoSpace { .. }), "{error:?}");
        assert_eq!(error.to_string(), "no space left on the disk of simulated");
    }
    assert!(view.get(Bucket::Key, b"key-00").is_err(), "the file was opened again");
    disk.faults().blocks = None;
    assert_eq!(content(&store), content(&expected));
    expected.commit(one("big", vec![1; 3_000_000])).unwrap();
    store.commit(one("big", vec![1; 3_000_000])).unwrap();
    assert_eq!(content(&store), content(&expected));
    drop(store);
    assert_eq!(content(&open(&disk)), content(&expected));
}

#[test]
fn a_batch_whose_sync_failed_is_written_again_before_it_is_acknowledged() {
    let (disk, store) = create();
    store.commit(one("before", vec![1])).unwrap();
    disk.faults().failing_syncs = 1;
    store.commit(one("key", vec![2; 5000])).unwrap();
    for seed in 0..20 {
        let after = open(&disk.after_power_loss(&mut Random(seed)));
        assert_eq!(after.get(Bucket::Key, b"key").unwrap().as_deref(), Some(&[2; 5000][..]));
    }
}

#[test]
fn a_store_whose_disk_is_gone_refuses_until_it_is_back() {
    let (disk, store) = create();
    store.commit(one("before", vec![1])).unwrap();
    let now = disk.faults().operations;
    disk.faults().power_until = Some(now + 1);
    let error = store.commit(one("key", vec![2; 5000])).unwrap_err();
    assert!(matches!(error, BackendError::Io { action: "write", .. }), "{error:?}");
    assert!(store.get(Bucket::Key, b"before").is_err());
    assert!(store.commit(one("other", vec![3])).is_err());
    disk.faults().power_until = None;
    assert_eq!(store.get(Bucket::Key, b"before").unwrap().as_deref(), Some(&[1][..]));
    assert_eq!(store.get(Bucket::Key, b"key").unwrap(), None);
    store.commit(one("other", vec![3])).unwrap();
}

#[test]
fn a_refused_batch_that_is_there_after_all_is_not_passed_over() {
    let (disk, store) = create();
    store.commit(one("before", vec![1])).unwrap();
    // Neither the commit nor its repair can sync, while what was written is in the file's cache.
    disk.faults().failing_syncs = u32::MAX;
    assert!(store.commit(one("key", vec![2; 5000])).is_err());
    disk.faults().failing_syncs = 0;
    assert!(store.get(Bucket::Key, b"before").is_err());
    assert!(store.commit(one("other", vec![3])).is_err());
}

#[test]
fn a_defragmentation_that_fails_leaves_the_store_as_it_was() {
    let (disk, store) = create();
    store.commit(one("key", vec![2; 5000])).unwrap();
    disk.faults().blocks = Some(3);
    assert!(matches!(store.defragment(), Err(BackendError::NoSpace { .. })));
    disk.faults().blocks = None;
    assert_eq!(store.get(Bucket::Key, b"key").unwrap().as_deref(), Some(&[2; 5000][..]));
    store.commit(one("other", vec![3])).unwrap();
    store.defragment().unwrap();
    assert_eq!(content(&store).len(), 2);
}
