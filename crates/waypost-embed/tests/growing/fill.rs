//! What is in the store: keys with several versions, deleted ones, leases, users and roles, and a compaction in between.

use std::time::Duration;

use waypost_etcd::{Client, Delete, KeyRange, Op, Put, Txn};
use waypost_testkit::Etcd;

use crate::{ROOT, client, root};

/// Keys that are put at all. One in eleven is deleted again.
const KEYS: u32 = 110_000;
const DELETED: u32 = 11;
/// What is left of them, and three keys more.
pub(crate) const KEYS_LEFT: usize = (KEYS - KEYS / DELETED) as usize + 3;
/// How many a transaction takes.
const BATCH: usize = 128;
/// Leases with keys, and half as many without.
const LEASES: i64 = 200;
/// One key in so many has a lease.
const LEASED: u32 = 100;
const LONG: Duration = Duration::from_secs(100_000);

/// Revisions that are worth a look.
#[derive(Clone, Debug)]
pub(crate) struct Revisions {
    /// What is before is gone.
    pub(crate) compacted: i64,
    pub(crate) last: i64,
}

/// Fills a new server.
pub(crate) async fn everything(etcd: &Etcd) -> Revisions {
    let nobody = client(etcd, None);
    for id in 1..=LEASES + LEASES / 2 {
        nobody.lease_grant(LONG + Duration::from_secs(id.unsigned_abs()), Some(id)).await.unwrap();
    }
    put(&nobody, 1, (0..KEYS).collect()).await;
    put(&nobody, 2, (0..KEYS).filter(|key| key % 7 == 0).collect()).await;
    delete(&nobody, (0..KEYS).filter(|key| key % DELETED == 0).collect()).await;
    let compacted =
        put(&nobody, 3, (0..KEYS).filter(|key| key % 49 == 1 && key % DELETED != 0).collect()).await;
    let compacted = compacted - 5;
    nobody.compact(compacted, true).await.unwrap();
    users(etcd).await;
    let root = root(etcd);
    put(&root, 4, (0..KEYS).filter(|key| key % 9 == 1 && key % DELETED != 0).collect()).await;
    // Deleted and there again, twice in the history that is left.
    let again: Vec<u32> = (0..KEYS).filter(|key| key % 77 == 1).collect();
    for version in 5..7 {
        delete(&root, again.clone()).await;
        put(&root, version, again.iter().copied().filter(|key| key % DELETED != 0).collect()).await;
    }
    for key in ["open/a", "shut/a", "own"] {
        root.put(Put::new(key, "for those who may")).await.unwrap();
    }
    Revisions { compacted, last: root.put(Put::new("own", "twice")).await.unwrap().header.unwrap().revision }
}

/// What is done at the next server, in this round: a compaction, new versions, a lease less and one more, a permission.
pub(crate) async fn more(etcd: &Etcd, revisions: &Revisions, round: i64) -> Revisions {
    let root = root(etcd);
    root.compact(revisions.compacted + 10, true).await.unwrap();
    put(&root, 8, (0..KEYS).filter(|key| key % 500 == 1 && key % DELETED != 0).collect()).await;
    // Not one that is written under again.
    root.lease_revoke(1 + round).await.unwrap();
    let lease = root.lease_grant(LONG, None).await.unwrap();
    let put = root.put(Put::new(format!("more/{round}"), "x").lease(lease.id)).await.unwrap();
    etcd.etcdctl([ROOT, "role", "grant-permission", "reader", "read", &format!("more/{round}")]).await;
    Revisions { compacted: revisions.compacted + 10, last: put.header.unwrap().revision }
}

fn name(key: u32) -> String {
    format!("k/{key:06}")
}

/// Puts keys, many at a time, and answers the last revision.
async fn put(client: &Client, version: u32, keys: Vec<u32>) -> i64 {
    let put = |key: &u32| {
        let put = Put::new(name(*key), format!("{key} in its version {version}"));
        Op::put(if key % LEASED == 1 { put.lease(1 + i64::from(key / LEASED) % LEASES) } else { put })
    };
    let mut revision = 0;
    for batch in keys.chunks(BATCH) {
        let done = client.txn(Txn::new().then(batch.iter().map(put))).await.unwrap();
        revision = done.header.unwrap().revision;
    }
    revision
}

async fn delete(client: &Client, keys: Vec<u32>) {
    for batch in keys.chunks(BATCH) {
        let deletions = batch.iter().map(|key| Op::delete(Delete::new(KeyRange::key(name(*key)))));
        client.txn(Txn::new().then(deletions)).await.unwrap();
    }
}

/// Users, roles and permissions of each kind, in force from then on.
async fn users(etcd: &Etcd) {
    for line in [
        "role add reader",
        "role add writer",
        "role add empty",
        "role grant-permission reader read open/ --prefix",
        "role grant-permission reader read own",
        "role grant-permission writer readwrite open/ --prefix",
        "role grant-permission writer write k/05 k/06",
        "role grant-permission writer write z --from-key",
        "user add root:secret",
        "user grant-role root root",
        "user add ann:pass",
        "user grant-role ann reader",
        "user add bob:word",
        "user grant-role bob reader",
        "user grant-role bob writer",
        "user add certified --no-password",
        "user add idle:pass",
        "auth enable",
    ] {
        etcd.etcdctl(line.split(' ')).await;
    }
}
