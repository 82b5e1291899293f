use waypost_proto::etcdserverpb::range_request::{SortOrder, SortTarget};

use super::*;

/// e=5 at 2, d=4 at 3, … a=1 at 6; then d again at 7.
fn five() -> Server {
    let mut server = Server::new();
    for (key, value) in [("e", "5"), ("d", "4"), ("c", "3"), ("b", "2"), ("a", "1"), ("d", "0")] {
        server.set(key, value);
    }
    server
}

fn sorted(order: SortOrder, target: SortTarget) -> RangeRequest {
    RangeRequest { sort_order: order.into(), sort_target: target.into(), ..range("a", "z") }
}

#[test]
fn range_ends() {
    let server = five();
    let found = |key, end| keys(&server.range(&range(key, end)).unwrap()).concat();
    assert_eq!(found("b", ""), "b");
    assert_eq!(found("bb", ""), "");
    assert_eq!(found("b", "d"), "bc");
    assert_eq!(found("d", "\0"), "de");
    assert_eq!(found("\0", "\0"), "abcde");
    assert_eq!(found("d", "b"), "");
    assert_eq!(found("d", "d"), "");
}

#[test]
fn limit_cuts_more_tells_and_count_counts_all() {
    let server = five();
    let limited = |limit| server.range(&RangeRequest { limit, ..range("a", "z") }).unwrap();
    let answer = limited(2);
    assert_eq!((keys(&answer).concat().as_str(), answer.more, answer.count), ("ab", true, 5));
    let answer = limited(5);
    assert_eq!((answer.kvs.len(), answer.more, answer.count), (5, false, 5));
    for none in [0, -1] {
        assert_eq!(limited(none).kvs.len(), 5);
    }
    assert_eq!(limited(i64::MAX).kvs.len(), 5);
}

#[test]
fn count_only_and_keys_only() {
    let mut server = five();
    server.grant(7, 60);
    server.put(PutRequest { lease: 7, ..put("a", "1") }).unwrap();
    let answer = server.range(&RangeRequest { count_only: true, limit: 1, ..range("a", "z") }).unwrap();
    assert_eq!((answer.kvs.len(), answer.count, answer.more), (0, 5, false));
    let answer = server.range(&RangeRequest { keys_only: true, ..range("a", "") }).unwrap();
    assert_eq!((answer.kvs[0].value.len(), answer.kvs[0].lease, answer.kvs[0].version), (0, 7, 2));
}

#[test]
fn sorts_by_every_target_in_both_orders() {
    use SortOrder::{Ascend, Descend, None};
    use SortTarget::{Create, Key, Mod, Value, Version};
    let server = five();
    let found = |order, target| keys(&server.range(&sorted(order, target)).unwrap()).concat();
    let expected = [
        (Key, "abcde", "edcba"),
        (Version, "abced", "dabce"),
        (Create, "edcba", "abcde"),
        (Mod, "ecbad", "dabce"),
        (Value, "dabce", "ecbad"),
    ];
    for (target, ascending, descending) in expected {
        assert_eq!(found(Ascend, target), ascending, "{target:?}");
        assert_eq!(found(Descend, target), descending, "{target:?}");
        assert_eq!(found(None, target), ascending, "no order means ascending by {target:?}");
    }
}

#[test]
fn the_limit_is_applied_after_sorting() {
    let server = five();
    for target in [SortTarget::Mod, SortTarget::Value] {
        let answer = server.range(&RangeRequest { limit: 2, ..sorted(SortOrder::Descend, target) }).unwrap();
        let all = server.range(&sorted(SortOrder::Descend, target)).unwrap();
        assert_eq!(keys(&answer), keys(&all)[..2]);
        assert!(answer.more);
    }
}

#[test]
fn without_an_order_etcd_sorts_only_what_the_limit_let_in() {
    // Asked of etcd 3.4 and 3.5: of a, b, c (the limit and one more) the two that changed first.
    let server = five();
    let answer =
        server.range(&RangeRequest { limit: 2, ..sorted(SortOrder::None, SortTarget::Mod) }).unwrap();
    assert_eq!((keys(&answer).concat().as_str(), answer.more, answer.count), ("cb", true, 5));
}

#[test]
fn revision_filters_narrow_the_keys_but_not_the_count() {
    let server = five();
    let filtered = |request: RangeRequest| {
        let answer = server.range(&request).unwrap();
        assert_eq!(answer.count, 5);
        (keys(&answer).concat(), answer.more)
    };
    let all = || range("a", "z");
    assert_eq!(filtered(RangeRequest { min_mod_revision: 6, ..all() }).0, "ad");
    assert_eq!(filtered(RangeRequest { max_mod_revision: 4, ..all() }).0, "ce");
    assert_eq!(filtered(RangeRequest { min_create_revision: 5, ..all() }).0, "ab");
    assert_eq!(filtered(RangeRequest { max_create_revision: 3, ..all() }).0, "de");
    assert_eq!(filtered(RangeRequest { max_mod_revision: -1, ..all() }).0, "");
    let limited = RangeRequest { min_mod_revision: 5, limit: 1, ..all() };
    assert_eq!(filtered(limited), ("a".to_owned(), true));
    let limited = RangeRequest { min_mod_revision: 5, limit: 3, ..all() };
    assert_eq!(filtered(limited), ("abd".to_owned(), false));
}

#[test]
fn reads_of_the_past_and_of_the_future() {
    let server = five();
    let at = |revision| server.range(&RangeRequest { revision, ..range("a", "z") });
    assert_eq!(keys(&at(3).unwrap()).concat(), "de");
    assert_eq!(at(3).unwrap().kvs[0].value, "4");
    assert_eq!(revision(at(3).unwrap().header), 7, "the header is the store's revision");
    assert_eq!(at(7).unwrap().kvs[3].value, "0");
    assert_eq!(at(-3).unwrap().kvs.len(), 5, "a negative revision means the newest");
    assert_eq!(at(8), Err(Refusal::FutureRevision));
}

#[test]
fn refusals_have_their_reasons() {
    let server = five();
    assert_eq!(server.range(&range("", "z")), Err(Refusal::EmptyKey));
    let request = RangeRequest { sort_order: 3, ..range("a", "z") };
    assert_eq!(server.range(&request), Err(Refusal::InvalidSortOption));
    let request = RangeRequest { sort_target: -1, ..range("a", "z") };
    assert_eq!(server.range(&request), Err(Refusal::InvalidSortOption));
}

#[test]
fn a_plan_overtaken_by_compaction_says_so() {
    let mut server = five();
    let plan = server.space.plan_range(&RangeRequest { revision: 3, ..range("d", "") }).unwrap();
    server.compact(7).unwrap();
    server.space.compaction_step(100);
    server.commit();
    assert!(matches!(plan.fetch(&server.backend), Err(StoreError::Moved { revision: 3 })));
    let plan = server.space.plan_range(&RangeRequest { revision: 3, ..range("d", "") });
    assert_eq!(plan.unwrap_err(), Refusal::Compacted);
}
