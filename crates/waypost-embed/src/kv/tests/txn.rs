use CompareResult::{Equal, Greater, Less, NotEqual};
use waypost_proto::etcdserverpb::response_op::Response;

use super::*;
use crate::backend::{BackendError, Bucket, Size, Visit, WriteBatch};

fn when(compare: Vec<Compare>) -> TxnRequest {
    TxnRequest { compare, ..TxnRequest::default() }
}

fn holds(server: &mut Server, compare: Compare) -> bool {
    server.txn(when(vec![compare])).unwrap().succeeded
}

fn refused(request: TxnRequest) -> Refusal {
    let mut server = Server::new();
    server.set("old", "1");
    let refusal = server.txn(request).unwrap_err();
    assert_eq!(server.space.store().revision(), 2, "nothing was written");
    refusal
}

fn accepted(request: &TxnRequest) {
    assert_eq!(check_txn(request, DEFAULT_MAX_OPS), Ok(()), "{request:?}");
}

/// `depth` transactions within one another, the innermost with these operations.
fn nested(depth: usize, innermost: Vec<RequestOp>) -> TxnRequest {
    (1..depth).fold(txn(innermost), |inner, _| txn(vec![op_txn(inner)]))
}

#[test]
fn an_empty_transaction_succeeds_and_makes_no_revision() {
    let mut server = Server::new();
    let answer = server.txn(TxnRequest::default()).unwrap();
    assert!(answer.succeeded);
    assert_eq!(revision(answer.header), 1);
}

#[test]
fn all_writes_of_a_transaction_make_one_revision() {
    let mut server = Server::new();
    let answer = server.txn(txn(vec![op_put("a", "1"), op_put("b", "1"), op_delete("x", "z")])).unwrap();
    assert_eq!(revision(answer.header), 2);
    assert_eq!(server.get("a").unwrap().mod_revision, 2);
    assert_eq!(server.get("b").unwrap().mod_revision, 2);
}

#[test]
fn headers_within_carry_the_revision_and_that_of_a_nested_transaction_is_empty() {
    let mut server = Server::new();
    let inner = txn(vec![op_put("b", "1")]);
    let operations = vec![op_range("a", ""), op_put("a", "1"), op_txn(inner), op_delete("x", "")];
    let answer = server.txn(txn(operations)).unwrap();
    let headers: Vec<_> = answer
        .responses
        .iter()
        .map(|response| match response.response.clone().unwrap() {
            Response::ResponseRange(answer) => answer.header,
            Response::ResponsePut(answer) => answer.header,
            Response::ResponseDeleteRange(answer) => answer.header,
            Response::ResponseTxn(answer) => answer.header,
        })
        .map(revision)
        .collect();
    assert_eq!(headers, [1, 2, 0, 2], "before the first change a range is at the old revision");
}

#[test]
fn operations_see_what_those_before_them_did() {
    let mut server = Server::new();
    server.set("a", "0");
    let past = op(Request::RequestRange(RangeRequest { revision: 2, ..range("a", "") }));
    let operations = vec![op_range("a", ""), op_put("a", "1"), op_range("a", ""), past];
    let answer = server.txn(txn(operations)).unwrap();
    let seen = |place: usize| match &answer.responses[place].response {
        Some(Response::ResponseRange(answer)) => answer.kvs[0].value.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!([seen(0), seen(2), seen(3)], ["0", "1", "0"]);
    let answer = server.txn(txn(vec![op_delete("a", ""), op_range("a", "")])).unwrap();
    let Some(Response::ResponseRange(range)) = &answer.responses[1].response else { panic!() };
    assert_eq!(range.count, 0);
}

#[test]
fn comparisons_of_every_target_and_operator() {
    use CompareTarget::{Create, Lease, Mod, Value, Version};
    let mut server = Server::new();
    server.grant(7, 60);
    server.set("a", "1");
    server.put(PutRequest { lease: 7, ..put("a", "2") }).unwrap();
    let targets = [
        (Version, TargetUnion::Version as fn(i64) -> TargetUnion, 2),
        (Create, TargetUnion::CreateRevision, 2),
        (Mod, TargetUnion::ModRevision, 3),
        (Lease, TargetUnion::Lease, 7),
        (Value, |value| TargetUnion::Value(value.to_string().into()), 2),
    ];
    for (target, operand, actual) in targets {
        for offset in [-1, 0, 1] {
            let expected =
                [(Equal, offset == 0), (NotEqual, offset != 0), (Greater, offset < 0), (Less, offset > 0)];
            for (result, held) in expected {
                let condition = compare("a", "", target, result, operand(actual + offset));
                assert_eq!(holds(&mut server, condition), held, "{target:?} {result:?} {offset}");
            }
        }
    }
}

#[test]
fn an_absent_key_compares_with_zero_but_no_comparison_of_its_value_holds() {
    use CompareTarget::{Create, Lease, Mod, Value, Version};
    let mut server = Server::new();
    for end in ["", "z"] {
        for (target, zero) in [
            (Version, TargetUnion::Version(0)),
            (Create, TargetUnion::CreateRevision(0)),
            (Mod, TargetUnion::ModRevision(0)),
            (Lease, TargetUnion::Lease(0)),
        ] {
            assert!(holds(&mut server, compare("a", end, target, Equal, zero)));
        }
        for result in [Equal, NotEqual, Greater, Less] {
            let condition = compare("a", end, Value, result, TargetUnion::Value("".into()));
            assert!(!holds(&mut server, condition));
        }
    }
}

#[test]
fn a_comparison_over_a_range_must_hold_for_every_key() {
    let mut server = Server::new();
    for (key, value) in [("a", "1"), ("b", "1"), ("c", "2")] {
        server.set(key, value);
    }
    let equal = |end| compare("a", end, CompareTarget::Value, Equal, TargetUnion::Value("1".into()));
    assert!(holds(&mut server, equal("c")));
    assert!(!holds(&mut server, equal("d")));
    assert!(!holds(&mut server, equal("\0")));
}

#[test]
fn odd_comparisons_are_read_as_etcd_reads_them() {
    let mut server = Server::new();
    server.set("a", "1");
    let mismatch = compare("a", "", CompareTarget::Version, Greater, TargetUnion::CreateRevision(9));
    assert!(holds(&mut server, mismatch), "an operand of another target counts as zero");
    let none = Compare {
        target_union: None,
        result: NotEqual.into(),
        target: 3,
        key: "a".into(),
        ..Compare::default()
    };
    assert!(holds(&mut server, none));
    let unknown = Compare { target: 9, key: "a".into(), ..Compare::default() };
    assert!(holds(&mut server, unknown), "an unknown target compares as equal");
    let unknown = Compare { result: 7, key: "a".into(), ..Compare::default() };
    assert!(holds(&mut server, unknown), "an unknown operator holds");
}

#[test]
fn conditions_choose_the_branch() {
    let mut server = Server::new();
    let free = compare("lock", "", CompareTarget::Create, Equal, TargetUnion::CreateRevision(0));
    let take = |who: &str| TxnRequest {
        compare: vec![free.clone()],
        success: vec![op_put("lock", who)],
        failure: vec![op_range("lock", "")],
    };
    assert!(server.txn(take("first")).unwrap().succeeded);
    let answer = server.txn(take("second")).unwrap();
    assert!(!answer.succeeded);
    let Some(Response::ResponseRange(range)) = &answer.responses[0].response else { panic!() };
    assert_eq!(range.kvs[0].value, "first");
    assert_eq!(revision(answer.header), 2);
}

#[test]
fn conditions_of_nested_transactions_are_decided_before_anything_is_written() {
    let mut server = Server::new();
    let absent = compare("a", "", CompareTarget::Version, Equal, TargetUnion::Version(0));
    let inner = TxnRequest { compare: vec![absent], success: vec![op_put("b", "1")], failure: vec![] };
    server.txn(txn(vec![op_put("a", "1"), op_txn(inner)])).unwrap();
    assert!(server.get("b").is_some());
}

#[test]
fn empty_keys_and_operations_are_refused_in_either_branch() {
    let empty = || RequestOp { request: None };
    assert_eq!(refused(txn(vec![empty()])), Refusal::KeyNotFound);
    assert_eq!(refused(branches(vec![], vec![empty()])), Refusal::KeyNotFound);
    assert_eq!(refused(branches(vec![], vec![op_put("", "1")])), Refusal::EmptyKey);
    assert_eq!(refused(txn(vec![op_txn(txn(vec![op_range("", "")]))])), Refusal::EmptyKey);
    assert_eq!(refused(when(vec![Compare::default()])), Refusal::EmptyKey);
    let both = PutRequest { ignore_value: true, ..put("a", "1") };
    assert_eq!(refused(txn(vec![op(Request::RequestPut(both))])), Refusal::ValueProvided);
}

#[test]
fn each_list_has_at_most_128_entries() {
    let puts = |count: usize| (0..count).map(|n| op_put(&n.to_string(), "")).collect::<Vec<_>>();
    accepted(&branches(puts(128), puts(128)));
    assert_eq!(refused(txn(puts(129))), Refusal::TooManyOps);
    assert_eq!(refused(branches(vec![], puts(129))), Refusal::TooManyOps);
    let compares = vec![Compare { key: "a".into(), ..Compare::default() }; 129];
    assert_eq!(refused(when(compares)), Refusal::TooManyOps);
}

#[test]
fn a_nested_transaction_has_what_the_longest_list_of_its_parent_leaves() {
    let puts = |from: usize, count: usize| -> Vec<_> {
        (from..from + count).map(|n| op_put(&n.to_string(), "")).collect()
    };
    let parent = |inner: usize, outer: usize| {
        let mut operations = vec![op_txn(txn(puts(1000, inner)))];
        operations.extend(puts(0, outer - 1));
        txn(operations)
    };
    accepted(&parent(28, 100));
    assert_eq!(refused(parent(29, 100)), Refusal::TooManyOps);
    let mut request = parent(28, 1);
    request.failure = puts(0, 101);
    assert_eq!(refused(request), Refusal::TooManyOps);
}

#[test]
fn deep_nesting_is_refused_without_using_up_the_stack() {
    accepted(&nested(100, vec![op_put("a", "")]));
    assert_eq!(refused(nested(129, vec![])), Refusal::TooManyOps);
    let mut deep = nested(10_000, vec![op_put("a", "")]);
    for max_ops in [0, 1, 128, 100_000] {
        assert_eq!(check_txn(&deep, max_ops), Err(Refusal::TooManyOps));
    }
    assert!(!has_put(&deep), "only what it puts itself counts");
    let space = KeySpace::load(&MemoryBackend::new(), 2, 0);
    let outcome = space.unwrap().txn(&MemoryBackend::new(), nested(MAX_DEPTH + 1, vec![]));
    assert_eq!(outcome.unwrap_err().refusal(), Refusal::TooManyOps, "even unchecked");
    // Taken apart from the outside: dropping it whole would recurse.
    while let Some(RequestOp { request: Some(Request::RequestTxn(inner)) }) = deep.success.pop() {
        deep = inner;
    }
}

#[test]
fn the_deepest_transaction_that_is_allowed_runs() {
    let mut server = Server::new();
    let deepest = nested(MAX_DEPTH, vec![op_put("a", "1")]);
    assert_eq!(check_txn(&deepest, usize::MAX), Ok(()));
    let applied = server.space.txn(&server.backend, deepest);
    server.finish(applied).unwrap();
    assert_eq!(server.get("a").unwrap().mod_revision, 2);
}

#[test]
fn a_key_is_put_once_and_not_both_put_and_deleted() {
    let dup = |operations| assert_eq!(refused(txn(operations)), Refusal::DuplicateKey);
    let fine = |operations| accepted(&txn(operations));
    dup(vec![op_put("a", ""), op_put("a", "")]);
    dup(vec![op_put("b", ""), op_delete("a", "c")]);
    dup(vec![op_delete("b", ""), op_put("b", "")]);
    fine(vec![op_put("c", ""), op_delete("a", "c")]);
    fine(vec![op_delete("a", "c"), op_delete("b", "")]);
    fine(vec![op_range("a", ""), op_put("a", ""), op_range("a", "")]);
    assert_eq!(refused(branches(vec![], vec![op_put("a", ""), op_put("a", "")])), Refusal::DuplicateKey);
    accepted(&branches(vec![op_put("a", "")], vec![op_put("a", "")]));
}

#[test]
fn duplicates_count_across_nested_transactions() {
    let dup = |operations| assert_eq!(refused(txn(operations)), Refusal::DuplicateKey);
    let fine = |operations| accepted(&txn(operations));
    let inner = |operations| op_txn(txn(operations));
    dup(vec![op_put("a", ""), inner(vec![op_put("a", "")])]);
    dup(vec![inner(vec![op_put("a", "")]), inner(vec![op_put("a", "")])]);
    dup(vec![inner(vec![op_put("a", "")]), op_delete("a", "")]);
    dup(vec![inner(vec![op_delete("a", "")]), op_put("a", "")]);
    dup(vec![inner(vec![op_delete("a", "")]), inner(vec![op_put("a", "")])]);
    dup(vec![op_put("a", ""), inner(vec![inner(vec![op_put("a", "")])])]);
    let either = || op_txn(branches(vec![op_put("a", "")], vec![op_put("a", "")]));
    fine(vec![either()]);
    dup(vec![either(), op_put("a", "")]);
    dup(vec![either(), either()]);
    fine(vec![op_txn(branches(vec![op_delete("a", "")], vec![op_put("a", "")]))]);
}

#[test]
fn gaps_in_the_rule_are_those_of_etcd_and_harmless() {
    let mut server = Server::new();
    let (first, second) = (txn(vec![op_put("a", "1")]), txn(vec![op_delete("a", "")]));
    let answer = server.txn(txn(vec![op_txn(first), op_txn(second)])).unwrap();
    assert_eq!(revision(answer.header), 2);
    assert_eq!(server.get("a"), None, "put and deleted in one revision");
    server.txn(txn(vec![op_delete("a", "\0"), op_put("b", "1")])).unwrap();
    server.txn(txn(vec![op_put("b", "2"), op_delete("a", "\0")])).unwrap();
    assert_eq!(server.get("b"), None);
    server.txn(txn(vec![op_delete("a", "\0"), op_put("b", "3")])).unwrap();
    server.restart();
    assert_eq!(server.get("b").unwrap().version, 1);
    assert_eq!(server.space.store().revision(), 5);
}

#[test]
fn what_cannot_be_done_is_found_before_anything_is_written() {
    let late = |operation| refused(txn(vec![op_put("a", "1"), operation]));
    let put_op = |request| op(Request::RequestPut(request));
    assert_eq!(late(put_op(PutRequest { lease: 5, ..put("b", "") })), Refusal::LeaseNotFound);
    assert_eq!(late(put_op(PutRequest { ignore_value: true, ..put("b", "") })), Refusal::KeyNotFound);
    assert_eq!(late(put_op(PutRequest { ignore_lease: true, ..put("b", "") })), Refusal::KeyNotFound);
    let range_op = |revision| op(Request::RequestRange(RangeRequest { revision, ..range("a", "") }));
    assert_eq!(late(range_op(3)), Refusal::FutureRevision, "its own revision is still to come");
    assert_eq!(late(op_txn(txn(vec![range_op(99)]))), Refusal::FutureRevision);
    let mut server = Server::new();
    server.set("a", "1");
    server.compact(2).unwrap();
    assert_eq!(server.txn(txn(vec![op_put("a", "1"), range_op(1)])), Err(Refusal::Compacted));
    assert_eq!(server.txn(txn(vec![range_op(-1)])), Err(Refusal::Compacted));
    assert!(server.txn(txn(vec![range_op(2)])).is_ok());
}

#[test]
fn a_value_that_the_transaction_itself_deleted_cannot_be_kept() {
    // Passes all checks of etcd, which then panics.
    let keep = op(Request::RequestPut(PutRequest { ignore_value: true, ..put("old", "") }));
    assert_eq!(refused(txn(vec![op_put("a", "1"), op_delete("a0", "\0"), keep])), Refusal::KeyNotFound);
}

/// A backend whose reads fail.
struct Unreadable;

impl Backend for Unreadable {
    fn get(&self, _: Bucket, _: &[u8]) -> Result<Option<bytes::Bytes>, BackendError> {
        let source = std::sync::Arc::new(std::io::Error::other("a bad sector"));
        Err(BackendError::Io { action: "read", path: "db".into(), source })
    }

    fn scan(&self, _: Bucket, _: &[u8], _: &[u8], _: &mut Visit<'_>) -> Result<(), BackendError> {
        Ok(())
    }

    fn commit(&self, _: WriteBatch) -> Result<(), BackendError> {
        Ok(())
    }

    fn size(&self) -> Result<Size, BackendError> {
        Ok(Size::default())
    }
}

#[test]
fn a_transaction_that_fails_halfway_has_changed_nothing() {
    let mut server = Server::new();
    server.grant(7, 60);
    for key in ["a", "b"] {
        server.put(PutRequest { lease: 7, ..put(key, "1") }).unwrap();
    }
    server.space.put(&server.backend, put("c", "1")).unwrap();
    let unread = DeleteRangeRequest { prev_kv: true, ..delete("a", "") };
    let writes = [op_put("x", "1"), op_put("b", "2"), op_delete("c", "")];
    let failing = [&writes[..], &[op(Request::RequestDeleteRange(unread))]].concat();
    let error = server.space.txn(&Unreadable, txn(failing)).unwrap_err();
    assert_eq!(error.refusal().message(), "cannot read db: a bad sector");
    server.commit();
    let after = server.range(&range("\0", "\0")).unwrap();
    assert_eq!(keys(&after), ["a", "b", "c"], "with the put that came before it in the batch");
    assert_eq!((revision(after.header), &after.kvs[1].value[..]), (4, &b"1"[..]));
    assert_eq!(server.attached(7), ["a", "b"]);
    server.restart();
    assert_eq!(server.range(&range("\0", "\0")).unwrap(), after);
    assert_eq!(server.set("d", "1"), 5);
}

#[test]
fn what_the_other_branch_could_not_do_does_not_matter() {
    let mut server = Server::new();
    let impossible = op(Request::RequestPut(PutRequest { lease: 5, ..put("b", "") }));
    assert!(server.txn(branches(vec![op_put("a", "")], vec![impossible])).is_ok());
}

#[test]
fn a_put_that_cannot_be_done_is_told_of_before_a_range_that_cannot() {
    let mut server = Server::new();
    let future = op(Request::RequestRange(RangeRequest { revision: 9, ..range("a", "") }));
    let unknown = op(Request::RequestPut(PutRequest { lease: 5, ..put("b", "") }));
    let refusal = server.txn(txn(vec![future, unknown])).unwrap_err();
    assert_eq!(refusal.to_string(), "etcdserver: requested lease not found");
}

#[test]
fn a_transaction_that_only_reads_is_answered_without_the_writer() {
    let mut server = Server::new();
    server.set("a", "1");
    server.set("a", "2");
    let past = op(Request::RequestRange(RangeRequest { revision: 2, ..range("a", "") }));
    let reading = txn(vec![op_range("a", ""), past]);
    let read = server.space.read_txn(&server.backend, &reading).unwrap().unwrap();
    assert_eq!(server.txn(reading).unwrap(), read);
    assert!(is_read_only(&TxnRequest::default()));
    let writing = branches(vec![op_range("a", "")], vec![op_put("a", "")]);
    assert!(!is_read_only(&writing));
    assert_eq!(server.space.read_txn(&server.backend, &writing).unwrap(), None);
    assert!(has_put(&writing));
    assert!(!has_put(&txn(vec![op_delete("a", "")])));
}
