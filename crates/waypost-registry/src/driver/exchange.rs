//! Steps as etcd transactions, and etcd's answers as events.

use std::sync::Arc;

use waypost_etcd::{
    Compare, Delete, KeyValue, Op, Put, Range, Txn, TxnResponse, proto::etcdserverpb::response_op::Response,
};
use waypost_model::Entry;

use crate::{
    driver::SeatId,
    machine::{
        Guard, Held, OwnedLeases, Removal, Write,
        packing::{self, Load},
    },
};

/// Writes that go in one transaction.
pub(crate) type Puts = Vec<(SeatId, Write)>;

/// Removals that go in one transaction.
pub(crate) type Removals = Vec<(SeatId, Removal)>;

/// Instances whose keys are read in one transaction.
pub(crate) type Checks = Vec<(SeatId, Arc<[Entry]>)>;

/// The writes, packed. Those without a guard never share a transaction with those that have one: they would fail
/// with its comparisons.
pub(crate) fn pack_puts(puts: impl IntoIterator<Item = (SeatId, Write, bool)>) -> Vec<Puts> {
    let (blind, guarded): (Vec<_>, Vec<_>) =
        puts.into_iter().partition(|(_, write, _)| write.guard == Guard::Nothing);
    [blind, guarded]
        .into_iter()
        .flat_map(|puts| {
            let loads =
                puts.into_iter().map(|(seat, write, alone)| (load(&write.entries, alone), (seat, write)));
            packing::pack(loads, packing::WRITES)
        })
        .collect()
}

/// The removals, packed.
pub(crate) fn pack_removals(removals: impl IntoIterator<Item = (SeatId, Removal, bool)>) -> Vec<Removals> {
    let loads =
        removals.into_iter().map(|(seat, removal, alone)| (load(&removal.entries, alone), (seat, removal)));
    packing::pack(loads, packing::REMOVALS)
}

/// The reads, packed.
pub(crate) fn pack_checks(checks: impl IntoIterator<Item = (SeatId, Arc<[Entry]>)>) -> Vec<Checks> {
    let loads = checks.into_iter().map(|(seat, entries)| (load(&entries, false), (seat, entries)));
    packing::pack(loads, packing::WRITES)
}

/// Puts every key if every guard holds, else reads every key. Sent again after an ambiguous loss it either holds
/// again or reads what it wrote.
pub(crate) fn put_transaction(puts: &[(SeatId, Write)]) -> Txn {
    let compares = puts.iter().flat_map(|(_, write)| {
        let revisions = match &write.guard {
            Guard::Nothing => &[][..],
            Guard::Unchanged(revisions) => revisions,
        };
        write.entries.iter().zip(revisions).map(|(entry, &revision)| match revision {
            0 => Compare::create_revision(entry.key.clone()).equal(0),
            revision => Compare::mod_revision(entry.key.clone()).equal(revision),
        })
    });
    let writes = puts.iter().flat_map(|(_, write)| {
        let put = |entry: &Entry| Put::new(entry.key.clone(), entry.value.clone()).lease(write.lease);
        write.entries.iter().map(move |entry| Op::put(put(entry)))
    });
    let reads = puts.iter().flat_map(|(_, write)| reads(&write.entries));
    Txn::new().when(compares).then(writes).otherwise(reads).idempotent()
}

/// Deletes each key that is still attached to the lease under which it was put.
pub(crate) fn removal_transaction(removals: &[(SeatId, Removal)]) -> Txn {
    let deletes = removals.iter().flat_map(|(_, removal)| {
        removal.entries.iter().map(|entry| {
            let attached = Compare::lease(entry.key.clone()).equal(removal.lease);
            Op::txn(Txn::new().when([attached]).then([Op::delete(Delete::key(entry.key.clone()))]))
        })
    });
    Txn::new().then(deletes).idempotent()
}

/// Reads every key.
pub(crate) fn check_transaction(checks: &[(SeatId, Arc<[Entry]>)]) -> Txn {
    Txn::new().then(checks.iter().flat_map(|(_, entries)| reads(entries))).idempotent()
}

/// The revision of an answer; every real server gives one.
pub(crate) fn revision(answer: &TxnResponse) -> Option<i64> {
    answer.header.as_ref().map(|header| header.revision)
}

/// What the reads of an answer found, in their order.
pub(crate) fn found(answer: TxnResponse) -> impl Iterator<Item = Option<KeyValue>> {
    answer.responses.into_iter().map(|response| match response.response {
        Some(Response::ResponseRange(range)) => range.kvs.into_iter().next(),
        _ => None,
    })
}

/// A key as it was read, seen by somebody whose lease is `current`.
pub(crate) fn held(kv: &KeyValue, owned: &OwnedLeases, current: Option<i64>) -> Held {
    Held { revision: kv.mod_revision, holder: owned.holder(kv.lease, current), value: kv.value.to_vec() }
}

fn reads(entries: &[Entry]) -> impl Iterator<Item = Op> {
    entries.iter().map(|entry| Op::range(Range::key(entry.key.clone())))
}

fn load(entries: &[Entry], alone: bool) -> Load {
    // Each key goes into a comparison, a put and a read.
    let bytes = entries.iter().map(|entry| 3 * entry.key.len() + entry.value.len()).sum();
    Load { operations: entries.len(), bytes, alone }
}
