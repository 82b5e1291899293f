//! The store on a disk that fails: no acknowledged batch is lost, none is half there.

use std::error::Error as _;
use std::ops::ControlFlow;
use std::path::PathBuf;

use proptest::prelude::*;

use crate::backend::{Backend, BackendError, Bucket, MemoryBackend, WriteBatch};
use crate::bolt::Source as _;
use crate::storage::engine::Engine;
use crate::storage::frame;
use crate::storage::medium::Medium;
use crate::storage::simulated::{Random, Simulated};
use crate::storage::{Store, StoreOptions};

/// Losses of power that are tried; 3,000 have been.
const SEEDS: u64 = 120;
const OPTIONS: StoreOptions = StoreOptions { cache_bytes: 1 << 20, log_bytes: 128 << 10 };

fn create() -> (Simulated, Store) {
    create_with(OPTIONS)
}

fn create_with(options: StoreOptions) -> (Simulated, Store) {
    let disk = Simulated::default();
    let begun = disk.begin().expect("nothing fails on a disk that was told of no fault");
    drop(Engine::create(begun, PathBuf::from("simulated"), 1 << 20).expect("a new database on that disk"));
    disk.replace().expect("a new name on that disk");
    let store = Store::on(Box::new(disk.clone()), None, options).expect("a new store on that disk");
    (disk, store)
}

fn open(disk: &Simulated) -> Store {
    try_open(disk).expect("a store opens after whatever was done to its disk")
}

fn try_open(disk: &Simulated) -> Result<Store, BackendError> {
    Store::on(Box::new(disk.clone()), None, OPTIONS)
}

/// The disk as a process finds it that follows one that was killed. All that was written is there.
fn after_kill(disk: &Simulated) -> Simulated {
    disk.faults().failing_syncs = 0;
    disk.after_power_loss(&mut Random(0))
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
        backend.scan(bucket, &[], &[], visit).expect("what was committed is read");
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
        let log_bytes = [8 << 10, 64 << 10, 1 << 20][random.below(3)];
        let (disk, store) = create_with(StoreOptions { log_bytes, ..OPTIONS });
        let power_until = disk.faults().operations + random.below(300) as u64;
        disk.faults().power_until = Some(power_until);
        let (acknowledged, attempted) = (MemoryBackend::new(), MemoryBackend::new());
        for number in 0.. {
            if number % 40 == 39 && store.defragment().is_err() {
                break;
            }
            if random.below(15) == 0 && store.advance().is_err() {
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
fn a_commit_writes_and_syncs_once() {
    let (disk, store) = create_with(StoreOptions { log_bytes: 16 << 20, ..OPTIONS });
    let length = disk.bytes().unwrap();
    for size in [1, 100, 10_000, 100_000, 1_000_000, 1_000_000, 10] {
        let before = disk.faults().operations;
        store.commit(one("key", vec![7; size])).unwrap();
        assert_eq!(disk.faults().operations - before, 2, "{size}");
    }
    assert_eq!(disk.bytes().unwrap(), length, "the database has nothing yet");
    let written = store.view().unwrap().get(Bucket::Key, b"key").unwrap();
    assert_eq!(written.as_deref(), Some(&[7; 10][..]));
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
    store.advance().unwrap();
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
fn a_store_that_can_sync_nothing_loses_nothing_but_what_it_refused() {
    let (disk, store) = create();
    store.commit(one("before", vec![1])).unwrap();
    disk.faults().failing_syncs = u32::MAX;
    assert!(store.commit(one("key", vec![2; 5000])).is_err());
    disk.faults().failing_syncs = 0;
    for store in [&store, &open(&after_kill(&disk))] {
        assert_eq!(store.get(Bucket::Key, b"before").unwrap().as_deref(), Some(&[1][..]));
        assert_eq!(store.get(Bucket::Key, b"key").unwrap(), None);
        store.commit(one("other", vec![3])).unwrap();
    }
}

#[test]
fn a_log_whose_database_is_full_holds_what_it_can_and_loses_nothing() {
    let (disk, store) = create();
    store.commit(one("first", vec![1; 40_000])).unwrap();
    disk.faults().blocks = Some(0);
    // Into the other half of the log.
    store.commit(one("second", vec![2; 40_000])).unwrap();
    for _ in 0..2 {
        let error = store.commit(one("third", vec![3; 40_000])).unwrap_err();
        assert!(matches!(error, BackendError::NoSpace { .. }), "{error:?}");
    }
    assert_eq!(content(&store).len(), 2);
    let again = open(&after_kill(&disk));
    assert_eq!(content(&again), content(&store));
    disk.faults().blocks = None;
    for store in [&store, &again] {
        store.commit(one("third", vec![3; 40_000])).unwrap();
        assert_eq!(content(store).len(), 3);
    }
}

#[test]
fn a_disk_without_room_for_a_log_has_a_store_without_one() {
    let disk = Simulated::default();
    drop(Engine::create(disk.begin().unwrap(), PathBuf::from("simulated"), 1 << 20).unwrap());
    disk.replace().unwrap();
    disk.faults().blocks = Some(2000);
    let store = open(&disk);
    assert!(!disk.has_log());
    store.commit(one("key", vec![1])).unwrap();
    assert_eq!(content(&open(&after_kill(&disk))), content(&store));
    disk.faults().blocks = None;
    store.commit(one("key", vec![2])).unwrap();
    store.commit(one("other", vec![3])).unwrap();
    assert!(disk.has_log());
    assert_eq!(content(&open(&after_kill(&disk))), content(&store));
}

#[test]
fn a_broken_frame_is_the_end_of_the_log_or_damage() {
    let (disk, store) = create();
    let mut starts = vec![0];
    for number in 0..4_u8 {
        let batch = one("key", vec![number; 100]);
        starts.push(starts[usize::from(number)] + frame::length(&batch));
        store.commit(batch).unwrap();
    }
    for (number, window) in starts.windows(2).enumerate() {
        for at in [window[0], window[0] + 9, window[0] + 17, window[0] + frame::HEADER + 3] {
            let killed = after_kill(&disk);
            killed.damage_log(at);
            match try_open(&killed) {
                // As if the power had gone before the last one was acknowledged.
                Ok(store) => {
                    assert_eq!(number, 3, "{at}");
                    assert_eq!(store.get(Bucket::Key, b"key").unwrap().as_deref(), Some(&[2; 100][..]));
                }
                Err(error) => {
                    assert_eq!(error.to_string(), "storage engine failed to read the log of simulated");
                    let source = error.source().unwrap().to_string();
                    let (missing, found) = (number + 1, number + 2);
                    let said = format!(
                        "batch {missing} is damaged or missing, while batch {found} after it is there"
                    );
                    assert_eq!(source, said, "{at}");
                }
            }
        }
    }
}

#[test]
fn a_half_that_is_lost_is_damage() {
    let (disk, store) = create();
    for key in ["first", "second", "third"] {
        store.commit(one(key, vec![1; 40_000])).unwrap();
    }
    // The first is in the database, the second in the other half of the log.
    let killed = after_kill(&disk);
    killed.damage_log(64 << 10);
    assert!(try_open(&killed).is_err());
    let killed = after_kill(&disk);
    killed.remove_log();
    let error = try_open(&killed).unwrap_err();
    assert!(
        error.to_string().starts_with("simulated has writes in a waypost.log that is not there"),
        "{error}"
    );
}

#[test]
fn what_an_earlier_use_of_the_log_left_is_not_taken_for_new() {
    let (disk, store) = create();
    for number in 0..60_u8 {
        // Frames of one length, so that old ones start where new ones could.
        store.commit(one("key", vec![number; 5000])).unwrap();
        let again = open(&after_kill(&disk));
        assert_eq!(content(&again), content(&store), "{number}");
        if number % 7 == 0 {
            store.advance().unwrap();
        }
    }
}

#[test]
fn a_refused_batch_that_is_there_after_all_is_not_passed_over() {
    let (disk, store) = create();
    store.commit(one("before", vec![1])).unwrap();
    store.advance().unwrap();
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

#[derive(Clone, Copy, Debug)]
enum Step {
    Commit(u64),
    Advance,
    Kill,
    End,
    Defragment,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => any::<u64>().prop_map(Step::Commit),
        2 => Just(Step::Advance),
        1 => Just(Step::Kill),
        1 => Just(Step::End),
        1 => Just(Step::Defragment),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn log_and_database_together_are_as_the_backend_in_memory(
        steps in prop::collection::vec(any_step(), 1..40),
        log_bytes in prop_oneof![Just(4_u64 << 10), Just(32 << 10), Just(1 << 20)],
    ) {
        let (mut disk, mut store) = create_with(StoreOptions { log_bytes, ..OPTIONS });
        let model = MemoryBackend::new();
        for step in steps {
            match step {
                Step::Commit(seed) => {
                    let batch = random_batch(&mut Random(seed));
                    let view = store.view().unwrap();
                    let before = content(&model);
                    model.commit(batch.clone()).unwrap();
                    store.commit(batch).unwrap();
                    let mut seen = Vec::new();
                    for bucket in Bucket::ALL {
                        view.visit(bucket, &mut |key, value| {
                            seen.push((bucket, key.to_vec(), value.to_vec()));
                            ControlFlow::Continue(())
                        }).unwrap();
                    }
                    prop_assert_eq!(seen, before, "a view does not change");
                }
                Step::Advance => store.advance().unwrap(),
                Step::Kill => {
                    disk = after_kill(&disk);
                    store = open(&disk);
                }
                Step::End => {
                    drop(store);
                    prop_assert!(!disk.has_log(), "the database has everything");
                    store = open(&disk);
                }
                Step::Defragment => store.defragment().unwrap(),
            }
            prop_assert_eq!(content(&store), content(&model));
            for key in 0..60 {
                let key = format!("key-{key:02}");
                prop_assert_eq!(store.get(Bucket::Key, key.as_bytes()).unwrap(), model.get(Bucket::Key, key.as_bytes()).unwrap());
            }
        }
        let size = store.size().unwrap();
        prop_assert_eq!(size.in_use, (model.size().unwrap().in_use + 12 * 4096).min(size.allocated));
    }
}
