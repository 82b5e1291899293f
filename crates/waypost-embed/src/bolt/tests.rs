//! What is written is read again; what is damaged is refused.

use std::collections::BTreeMap;
use std::io::{Cursor, Seek, SeekFrom, Write};
use std::ops::ControlFlow;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;
use crate::backend::{Backend, Bucket, MemoryBackend, WriteBatch};
use crate::fuzzing;

type Entries = BTreeMap<Vec<u8>, Vec<u8>>;
type Buckets = BTreeMap<Vec<u8>, (u64, Entries)>;

fn write(buckets: &Buckets) -> Vec<u8> {
    let mut writer = Writer::new(Cursor::new(Vec::new())).unwrap();
    for (name, (sequence, entries)) in buckets {
        writer
            .bucket(name, *sequence, |bucket| {
                entries.iter().try_for_each(|(key, value)| bucket.put(key, value))
            })
            .unwrap();
    }
    let (file, summary) = writer.finish().unwrap();
    assert_eq!(summary.bytes, file.get_ref().len() as u64);
    assert_eq!(file.position(), summary.bytes);
    assert_eq!(summary.bytes % 4096, 0);
    assert_eq!(summary.buckets, buckets.len() as u64);
    assert_eq!(summary.entries, buckets.values().map(|(_, entries)| entries.len() as u64).sum::<u64>());
    file.into_inner()
}

fn read(file: &[u8]) -> Result<Buckets, ReadError> {
    let mut reader = Reader::new(Cursor::new(file), "test")?;
    let mut buckets = Buckets::new();
    for info in reader.buckets()? {
        let mut entries = Entries::new();
        let mut last = None;
        let found = reader.for_each(&info.name, &mut |key, value| {
            assert!(last.as_deref() < Some(key));
            last = Some(key.to_vec());
            entries.insert(key.to_vec(), value.to_vec());
            ControlFlow::Continue(())
        })?;
        assert!(found);
        buckets.insert(info.name, (info.sequence, entries));
    }
    Ok(buckets)
}

fn many(count: u64, value: usize) -> Buckets {
    let entries = (0..count)
        .map(|number| (number.to_be_bytes().to_vec(), vec![number.to_le_bytes()[0]; value]))
        .collect();
    Buckets::from([(b"key".to_vec(), (0, entries))])
}

fn any_buckets() -> impl Strategy<Value = Buckets> {
    let key = prop_oneof![
        8 => vec(any::<u8>(), 1..24),
        1 => vec(any::<u8>(), 1000..3000),
        1 => (1..4_u8).prop_map(|byte| vec![byte; MAX_KEY]),
    ];
    let value = prop_oneof![
        8 => vec(any::<u8>(), 0..300),
        1 => (0..20_000_usize, any::<u8>()).prop_map(|(length, byte)| vec![byte; length]),
    ];
    let entries = btree_map(key, value, 0..200);
    btree_map(vec(any::<u8>(), 1..20), (any::<u64>(), entries), 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_read(buckets in any_buckets()) {
        let file = write(&buckets);
        prop_assert_eq!(&read(&file).unwrap(), &buckets);
        // A snapshot's hash and space beyond the pages in use do not matter.
        let longer = [file, vec![7; 8192 + 32]].concat();
        prop_assert_eq!(read(&longer).unwrap(), buckets);
    }

    #[test]
    fn damage_is_refused_or_read_but_never_panics(
        buckets in any_buckets(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut file = write(&buckets);
        for (index, byte) in damage {
            let at = index.index(file.len());
            file[at] = byte;
        }
        if let Some(cut) = cut {
            file.truncate(cut.index(file.len()));
        }
        fuzzing::bolt(&file);
    }

    #[test]
    fn damage_within_headers_and_elements_is_survived(
        page in 0..60_u64, at in 0..64_u64, word in prop_oneof![any::<u64>(), 0..64_u64],
    ) {
        let mut file = Cursor::new(write(&many(2000, 100)));
        file.seek(SeekFrom::Start(page * 4096 + at)).unwrap();
        file.write_all(&word.to_le_bytes()).unwrap();
        fuzzing::bolt(file.get_ref());
    }

    #[test]
    fn arbitrary_bytes_are_survived(file in vec(any::<u8>(), 0..9000)) {
        fuzzing::bolt(&file);
    }
}

#[test]
fn trees_of_every_height_are_read() {
    // One leaf, one branch, two levels of branches, values of several pages.
    for (count, value) in [(0, 0), (1, 10), (30, 100), (3000, 100), (70_000, 200), (20, 20_000), (4, 4064)] {
        let buckets = many(count, value);
        assert_eq!(read(&write(&buckets)).unwrap(), buckets, "{count} entries of {value}");
    }
    // Two longest keys a branch: eight levels.
    let wide = (0..200_u8).map(|byte| (vec![byte; MAX_KEY], Vec::new())).collect();
    let buckets = Buckets::from([(b"wide".to_vec(), (1, wide))]);
    assert_eq!(read(&write(&buckets)).unwrap(), buckets);
}

#[test]
fn keys_that_bbolt_does_not_take_are_refused() {
    let mut writer = Writer::new(Cursor::new(Vec::new())).unwrap();
    writer
        .bucket::<WriteError>(b"b", 0, |bucket| {
            assert!(matches!(bucket.put(b"", b""), Err(WriteError::KeyLength(0))));
            assert!(matches!(bucket.put(&vec![0; MAX_KEY + 1], b""), Err(WriteError::KeyLength(32769))));
            bucket.put(b"k", b"")?;
            let again = bucket.put(b"k", b"").unwrap_err();
            assert_eq!(again.to_string(), "key k does not come after k");
            Ok(())
        })
        .unwrap();
    assert!(matches!(writer.bucket::<WriteError>(b"a", 0, |_| Ok(())), Err(WriteError::Order { .. })));
    assert!(matches!(writer.bucket::<WriteError>(b"c", 0, |_| Ok(())), Err(WriteError::Incomplete)));
    assert!(matches!(writer.finish(), Err(WriteError::Incomplete)));
}

#[test]
fn a_file_may_begin_anywhere_in_its_output() {
    let mut output = Cursor::new(b"before".to_vec());
    output.seek(SeekFrom::End(0)).unwrap();
    let mut writer = Writer::new(output).unwrap();
    writer.bucket(b"key", 0, |bucket| bucket.put(b"a", b"1")).unwrap();
    let (output, _) = writer.finish().unwrap();
    let file = output.into_inner();
    assert_eq!(read(file.strip_prefix(b"before").unwrap()).unwrap()[&b"key"[..]].1[&b"a"[..]], b"1");
}

#[test]
fn the_older_meta_serves_when_the_newer_is_torn() {
    let buckets = many(10, 10);
    let mut file = write(&buckets);
    file[30] ^= 1;
    assert_eq!(read(&file).unwrap(), buckets);
    file[4096 + 30] ^= 1;
    let error = read(&file).unwrap_err().to_string();
    assert_eq!(error, "test is not a bbolt database: the checksum of its meta page is wrong");
}

#[test]
fn errors_name_the_file_and_the_page() {
    let error = |file: &[u8]| read(file).unwrap_err().to_string();
    assert_eq!(error(b""), "test is not a bbolt database: it is shorter than a meta page");
    assert!(error(&[0; 9000]).contains("its magic number is 0x00000000 and not 0xed0cdaed"));
    let file = write(&many(3000, 100));
    assert!(error(&file[..file.len() - 4096]).contains("it was cut off"));
    // The root bucket's page is the last, the bucket's root the one before.
    let mut loops = file.clone();
    let branch = file.len() - 2 * 4096;
    let id = u64::try_from(branch / 4096).unwrap();
    loops[branch + 16 + 8..branch + 16 + 16].copy_from_slice(&id.to_le_bytes());
    assert_eq!(error(&loops), format!("test is corrupt: page {id}: it is referred to twice"));
    let mut beyond = file.clone();
    beyond[branch + 16 + 8..branch + 16 + 16].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(error(&beyond).ends_with("page 18446744073709551615: it is referred to but not in use"));
    let missing = Reader::open("/nonexistent/db").unwrap_err();
    assert_eq!(missing.to_string(), "cannot read /nonexistent/db");
}

#[test]
fn an_inline_bucket_is_read() {
    let mut writer = Writer::new(Cursor::new(Vec::new())).unwrap();
    // bbolt keeps a small bucket as a leaf page in the value of the root bucket.
    writer.bucket(b"outer", 0, |bucket| bucket.put(b"key", b"value")).unwrap();
    let file = writer.finish().unwrap().0.into_inner();
    let leaf = &file[3 * 4096..3 * 4096 + 16 + 16 + 8];
    let mut page = leaf.to_vec();
    page[..8].fill(0);
    let inline = [&[0; 8][..], &9_u64.to_le_bytes(), &page].concat();
    let mut outer = file.clone();
    let root = 4 * 4096;
    outer[root + 16 + 12..root + 16 + 16]
        .copy_from_slice(&u32::try_from(inline.len()).unwrap().to_le_bytes());
    outer[root + 32 + 5..root + 32 + 5 + inline.len()].copy_from_slice(&inline);
    let read = read(&outer).unwrap();
    assert_eq!(read[&b"outer"[..]], (9, Entries::from([(b"key".to_vec(), b"value".to_vec())])));
}

#[test]
fn a_seal_is_found_right_wrong_or_absent() {
    let mut file = Cursor::new(write(&many(100, 100)));
    assert_eq!(seal::check(&mut file).unwrap(), seal::Seal::Absent);
    seal::append(&mut file).unwrap();
    assert_eq!(file.get_ref().len() % 512, seal::LENGTH);
    assert_eq!(seal::check(&mut file).unwrap(), seal::Seal::Intact);
    file.get_mut()[5000] ^= 1;
    assert_eq!(seal::check(&mut file).unwrap(), seal::Seal::Broken);
}

#[test]
fn a_store_is_copied_out_and_in() {
    let store = MemoryBackend::new();
    let mut batch = WriteBatch::new();
    for number in 0..50_000_u32 {
        batch.put(Bucket::Key, number.to_be_bytes().to_vec(), vec![1; 200]);
    }
    batch.put(Bucket::Auth, "authEnabled", vec![1]);
    store.commit(batch).unwrap();
    let (file, summary) = export(&store, Cursor::new(Vec::new())).unwrap();
    assert_eq!((summary.buckets, summary.entries), (10, 50_001));

    let copy = MemoryBackend::new();
    let imported = import(&mut Reader::new(file, "copy").unwrap(), &copy).unwrap();
    assert_eq!(imported, Imported { entries: 50_001, unknown: Vec::new() });
    let all = |store: &MemoryBackend| {
        let mut entries = Vec::new();
        for bucket in Bucket::ALL {
            store
                .scan(bucket, &[], &[], &mut |key, value| {
                    entries.push((bucket, key.to_vec(), value.to_vec()));
                    ControlFlow::Continue(())
                })
                .unwrap();
        }
        entries
    };
    assert!(all(&copy) == all(&store));

    let foreign = write(&Buckets::from([(b"mine".to_vec(), (0, Entries::new()))]));
    let imported = import(&mut Reader::new(Cursor::new(foreign), "foreign").unwrap(), &copy).unwrap();
    assert_eq!(imported.unknown, [b"mine".to_vec()]);
}
