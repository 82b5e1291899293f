use super::*;
use crate::backend::Bucket;
use crate::mvcc::CompactionProgress;

fn records(server: &Server) -> usize {
    let mut count = 0;
    let visit = &mut |_: &[u8], _: &[u8]| {
        count += 1;
        std::ops::ControlFlow::Continue(())
    };
    server.backend.scan(Bucket::Key, &[], &[], visit).unwrap();
    count
}

/// a at 2, 3, 4; b at 5, deleted at 6; c at 7.
fn history() -> Server {
    let mut server = Server::new();
    for value in ["1", "2", "3"] {
        server.set("a", value);
    }
    server.set("b", "1");
    server.delete(&delete("b", "")).unwrap();
    server.set("c", "1");
    server
}

fn clean(server: &mut Server) {
    while server.space.compaction_step(1) != CompactionProgress::Idle {
        server.commit();
    }
}

#[test]
fn a_revision_is_compacted_once_and_not_before_it_is_there() {
    let mut server = history();
    assert_eq!(server.compact(-1), Err(Refusal::Compacted));
    assert_eq!(server.compact(0), Ok(7), "a store that was never compacted takes 0 too");
    assert_eq!(server.compact(0), Err(Refusal::Compacted));
    assert_eq!(server.compact(4), Ok(7), "the header is the current revision");
    for again in [4, 3, 0, -1] {
        assert_eq!(server.compact(again), Err(Refusal::Compacted));
    }
    assert_eq!(server.compact(8), Err(Refusal::FutureRevision));
    assert_eq!(server.compact(7), Ok(7));
}

#[test]
fn reads_below_fail_and_reads_at_it_succeed() {
    let mut server = history();
    server.compact(5).unwrap();
    clean(&mut server);
    let at = |revision| server.range(&RangeRequest { revision, ..range("a", "z") });
    assert_eq!(at(4), Err(Refusal::Compacted));
    assert_eq!(keys(&at(5).unwrap()).concat(), "ab");
    assert_eq!(keys(&at(6).unwrap()).concat(), "a");
    assert_eq!(at(0).unwrap().kvs[0].version, 3);
}

#[test]
fn only_what_can_still_be_read_stays_on_disk() {
    let mut server = history();
    assert_eq!(records(&server), 6);
    server.compact(6).unwrap();
    assert_eq!(records(&server), 6, "the space is freed step by step");
    clean(&mut server);
    assert_eq!(records(&server), 3, "a at 4, the deletion at 6 for who watches from there, c");
    server.compact(7).unwrap();
    clean(&mut server);
    assert_eq!(records(&server), 2);
    assert_eq!(server.space.store().keys(), 2);
}

#[test]
fn steps_are_bounded_and_done_is_told_once() {
    let mut server = history();
    server.compact(7).unwrap();
    let mut told = Vec::new();
    for _ in 0..4 {
        told.push(server.space.compaction_step(1));
        server.commit();
    }
    let (more, idle) = (CompactionProgress::More, CompactionProgress::Idle);
    assert_eq!(told, [more, more, CompactionProgress::Done { revision: 7 }, idle]);
}

#[test]
fn removal_that_was_cut_short_goes_on_after_a_restart() {
    let mut server = history();
    server.compact(7).unwrap();
    server.space.compaction_step(1);
    server.commit();
    server.restart();
    assert!(server.space.store().is_compacting());
    assert_eq!(server.space.store().compacted(), 7);
    clean(&mut server);
    assert_eq!(records(&server), 2);
    server.restart();
    assert!(!server.space.store().is_compacting());
    assert_eq!(server.compact(7), Err(Refusal::Compacted));
}

#[test]
fn a_step_that_was_not_committed_is_done_again() {
    let mut server = history();
    server.compact(7).unwrap();
    server.space.compaction_step(100);
    drop(server.space.take_batch());
    server.space.roll_back();
    assert_eq!(records(&server), 6);
    clean(&mut server);
    assert_eq!(records(&server), 2);
}

#[test]
fn a_compaction_that_was_not_committed_never_was() {
    let mut server = history();
    server.space.compact(&CompactionRequest { revision: 5, physical: false }).unwrap();
    let request = txn(vec![op(Request::RequestRange(RangeRequest { revision: 3, ..range("a", "") }))]);
    let refused = server.space.txn(&server.backend, request).unwrap_err();
    assert_eq!(refused.refusal(), Refusal::Compacted, "later requests of the batch see it");
    assert!(server.range(&RangeRequest { revision: 3, ..range("a", "") }).is_ok(), "readers do not");
    drop(server.space.take_batch());
    server.space.roll_back();
    assert_eq!(server.space.store().compacted(), -1);
    assert_eq!(server.compact(3), Ok(7));
}

#[test]
fn the_revision_survives_the_compaction_of_the_newest_change() {
    let mut server = history();
    server.delete(&delete("\0", "\0")).unwrap();
    server.set("d", "1");
    server.delete(&delete("d", "")).unwrap();
    server.compact(10).unwrap();
    clean(&mut server);
    server.restart();
    assert_eq!(server.space.store().revision(), 10);
    assert_eq!(server.set("e", "1"), 11);
    server.compact(11).unwrap();
    clean(&mut server);
    assert_eq!(records(&server), 1);
}
