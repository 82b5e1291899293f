//! Who may do what.

use super::*;

#[test]
fn with_auth_off_everyone_may_do_everything_and_tokens_are_not_looked_at() {
    let mut bench = Bench::new();
    let who = bench.auth.identify(Some("nonsense"), 0).unwrap();
    assert_eq!(who, Identity::Anonymous);
    let policy = bench.auth.policy();
    assert_eq!(policy.may_range(&who, &range("a", "\0")), Ok(()));
    assert_eq!(policy.may_put(&who, &PutRequest { lease: 1, ..put("a") }, no_lease), Ok(()));
    assert_eq!(policy.may_administer(&who), Ok(()));
    assert_eq!(policy.may_ask(&who), Ok(()));
    assert_eq!(bench.auth.password_check("root").unwrap_err(), Refusal::AuthNotEnabled);
}

#[test]
fn without_a_token_nothing_is_permitted() {
    let bench = Bench::enabled();
    let (policy, who) = (bench.auth.policy(), Identity::Anonymous);
    let empty = Err(Refusal::UserEmpty);
    assert_eq!(policy.may_range(&who, &range("r", "")), empty);
    assert_eq!(policy.may_put(&who, &put("w"), no_lease), empty);
    assert_eq!(policy.may_delete(&who, &delete("w", "")), empty);
    assert_eq!(policy.may_txn(&who, &TxnRequest::default(), no_lease), empty);
    assert_eq!(policy.may_watch(&who, &WatchCreateRequest::default()), empty);
    assert_eq!(policy.may_use_lease(&who, [b""; 0]), empty);
    assert_eq!(policy.may_see_leases(&who, [b""; 0]), empty);
    assert_eq!(policy.may_ask(&who), empty);
    assert_eq!(policy.may_administer(&who), empty);
    assert_eq!(policy.may_get_user(&who, "root"), empty);
    assert_eq!(policy.may_get_role(&who, "r"), empty);
    // Nobody is the user without a name, of whom there is none.
    assert_eq!(policy.may_get_user(&who, ""), Ok(()));
    assert_eq!(policy.roles_of(""), Err(Refusal::UserNotFound));
}

#[test]
fn ranges_need_read_on_all_of_the_range() {
    let mut bench = Bench::enabled();
    let who = bench.user("u");
    let policy = bench.auth.policy();
    for (key, end, answer) in [
        ("r", "", Ok(())),
        ("r1", "r2", Ok(())),
        ("r", "s", Ok(())),
        ("b", "c", Ok(())),
        ("r", "s\0", DENIED),
        ("b", "s", DENIED),
        ("w", "", DENIED),
        ("r", "\0", DENIED),
        ("\0", "\0", DENIED),
    ] {
        assert_eq!(policy.may_range(&who, &range(key, end)), answer, "{key}..{end}");
        let watch =
            WatchCreateRequest { key: key.into(), range_end: end.into(), ..WatchCreateRequest::default() };
        assert_eq!(policy.may_watch(&who, &watch), answer, "watch {key}..{end}");
    }
    let all = WatchCreateRequest { range_end: "\0".into(), ..WatchCreateRequest::default() };
    assert_eq!(policy.may_watch(&who, &all), DENIED);
}

#[test]
fn permissions_of_all_roles_are_taken_together() {
    let mut bench = Bench::enabled();
    bench.change(|auth, batch| auth.role_add(batch, "more")).unwrap();
    bench.grant("more", Type::Read, "s", "\0").unwrap();
    bench.grant("more", Type::Read, "\0", "b").unwrap();
    bench.grant("more", Type::Read, "c", "r").unwrap();
    let who = bench.user("u");
    assert_eq!(bench.auth.policy().may_range(&who, &range("\0", "\0")), DENIED);
    bench.change(|auth, batch| auth.user_grant_role(batch, "u", "more")).unwrap();
    let who = bench.user("u");
    assert_eq!(bench.auth.policy().may_range(&who, &range("\0", "\0")), Ok(()));
    let all = WatchCreateRequest { range_end: "\0".into(), ..WatchCreateRequest::default() };
    assert_eq!(bench.auth.policy().may_watch(&who, &all), Ok(()));
    bench.change(|auth, batch| auth.role_revoke_permission(batch, "more", b"c", b"r")).unwrap();
    let who = bench.user("u");
    assert_eq!(bench.auth.policy().may_range(&who, &range("\0", "\0")), DENIED);
    bench.change(|auth, batch| auth.role_delete(batch, "more")).unwrap();
    assert_eq!(bench.auth.policy().roles_of("u"), Ok(vec!["r".to_owned()]));
    let who = bench.user("u");
    assert_eq!(bench.auth.policy().may_range(&who, &range("z", "")), DENIED);
}

#[test]
fn puts_need_write_and_read_to_see_what_was_there() {
    let mut bench = Bench::enabled();
    let who = bench.user("u");
    let policy = bench.auth.policy();
    assert_eq!(policy.may_put(&who, &put("w"), no_lease), Ok(()));
    assert_eq!(policy.may_put(&who, &put("r"), no_lease), DENIED);
    assert_eq!(policy.may_put(&who, &PutRequest { prev_kv: true, ..put("w") }, no_lease), DENIED);
    assert_eq!(policy.may_put(&who, &PutRequest { prev_kv: true, ..put("b") }, no_lease), Ok(()));
}

#[test]
fn a_put_to_a_lease_needs_write_on_all_keys_of_the_lease() {
    let mut bench = Bench::enabled();
    let (who, root) = (bench.user("u"), bench.user("root"));
    let policy = bench.auth.policy();
    let keys = |lease| if lease == 1 { vec!["w1", "b1"] } else { vec!["w1", "r1"] };
    assert_eq!(policy.may_put(&who, &PutRequest { lease: 1, ..put("w") }, keys), Ok(()));
    assert_eq!(policy.may_put(&who, &PutRequest { lease: 2, ..put("w") }, keys), DENIED);
    assert_eq!(policy.may_put(&root, &PutRequest { lease: 2, ..put("w") }, keys), Ok(()));
    let nested = txn(vec![op(Request::RequestPut(PutRequest { lease: 2, ..put("w") }))]);
    assert_eq!(policy.may_txn(&who, &nested, keys), DENIED);
}

#[test]
fn leases_need_rights_to_their_keys() {
    let mut bench = Bench::enabled();
    let (who, root) = (bench.user("u"), bench.user("root"));
    let policy = bench.auth.policy();
    assert_eq!(policy.may_use_lease(&who, ["w1", "b1"]), Ok(()));
    assert_eq!(policy.may_use_lease(&who, ["w1", "r1"]), DENIED);
    assert_eq!(policy.may_use_lease(&who, [""; 0]), Ok(()));
    assert_eq!(policy.may_use_lease(&root, ["r1"]), Ok(()));
    assert_eq!(policy.may_see_leases(&who, ["r1", "b1"]), Ok(()));
    assert_eq!(policy.may_see_leases(&who, ["r1", "w1"]), DENIED);
    assert_eq!(policy.may_see_leases(&root, ["w1"]), Ok(()));
}

#[test]
fn deletes_need_write_on_all_of_the_range() {
    let mut bench = Bench::enabled();
    let who = bench.user("u");
    let policy = bench.auth.policy();
    assert_eq!(policy.may_delete(&who, &delete("w", "x")), Ok(()));
    assert_eq!(policy.may_delete(&who, &delete("w", "y")), DENIED);
    assert_eq!(policy.may_delete(&who, &delete("r", "")), DENIED);
    assert_eq!(policy.may_delete(&who, &delete("w", "\0")), DENIED);
    assert_eq!(policy.may_delete(&who, &DeleteRangeRequest { prev_kv: true, ..delete("w", "x") }), DENIED);
    assert_eq!(policy.may_delete(&who, &DeleteRangeRequest { prev_kv: true, ..delete("b", "c") }), Ok(()));
}

fn txn(success: Vec<RequestOp>) -> TxnRequest {
    TxnRequest { success, ..TxnRequest::default() }
}

#[test]
fn a_transaction_needs_the_rights_to_everything_in_it() {
    let mut bench = Bench::enabled();
    let who = bench.user("u");
    let policy = bench.auth.policy();
    let may = |request: &TxnRequest| policy.may_txn(&who, request, no_lease);
    let compare = |key: &'static str, end: &'static str| Compare {
        key: key.into(),
        range_end: end.into(),
        ..Compare::default()
    };
    let good = || op(Request::RequestPut(put("w")));
    for bad in [
        op(Request::RequestPut(put("r"))),
        op(Request::RequestPut(PutRequest { prev_kv: true, ..put("w") })),
        op(Request::RequestRange(range("w", ""))),
        op(Request::RequestDeleteRange(delete("r", ""))),
        op(Request::RequestDeleteRange(DeleteRangeRequest { prev_kv: true, ..delete("w", "x") })),
        op(Request::RequestTxn(TxnRequest { compare: vec![compare("w", "")], ..TxnRequest::default() })),
        op(Request::RequestTxn(txn(vec![op(Request::RequestPut(put("r")))]))),
    ] {
        assert_eq!(may(&txn(vec![good(), bad.clone()])), DENIED, "{bad:?}");
        assert_eq!(may(&TxnRequest { failure: vec![bad.clone()], ..txn(vec![good()]) }), DENIED, "{bad:?}");
        let nested =
            txn(vec![op(Request::RequestTxn(TxnRequest { failure: vec![bad], ..txn(vec![good()]) }))]);
        assert_eq!(may(&nested), DENIED);
    }
    assert_eq!(may(&TxnRequest { compare: vec![compare("r", "s")], ..txn(vec![good()]) }), Ok(()));
    assert_eq!(may(&TxnRequest { compare: vec![compare("r", "t")], ..txn(vec![good()]) }), DENIED);
    assert_eq!(may(&txn(vec![RequestOp { request: None }])), Ok(()));
}

#[test]
fn deep_nesting_takes_no_stack() {
    let mut bench = Bench::enabled();
    let who = bench.user("u");
    let mut request = txn(vec![op(Request::RequestPut(put("r")))]);
    for _ in 0..10_000 {
        request = txn(vec![op(Request::RequestTxn(request))]);
    }
    assert_eq!(bench.auth.policy().may_txn(&who, &request, no_lease), DENIED);
    // Dropping such a thing recurses; take it apart instead.
    while let Some(RequestOp { request: Some(Request::RequestTxn(inner)) }) = request.success.pop() {
        request = inner;
    }
}

#[test]
fn root_may_do_everything_and_others_may_not_administer() {
    let mut bench = Bench::enabled();
    let (who, root) = (bench.user("u"), bench.user("root"));
    let policy = bench.auth.policy();
    assert_eq!(policy.may_range(&root, &range("\0", "\0")), Ok(()));
    assert_eq!(policy.may_administer(&root), Ok(()));
    assert_eq!(policy.may_administer(&who), DENIED);
    assert_eq!(policy.may_ask(&who), Ok(()));
}

#[test]
fn users_may_look_at_themselves_and_at_their_roles() {
    let mut bench = Bench::enabled();
    let (who, root) = (bench.user("u"), bench.user("root"));
    let policy = bench.auth.policy();
    assert_eq!(policy.may_get_user(&who, "u"), Ok(()));
    assert_eq!(policy.may_get_user(&who, "root"), DENIED);
    assert_eq!(policy.may_get_user(&root, "u"), Ok(()));
    assert_eq!(policy.may_get_role(&who, "r"), Ok(()));
    assert_eq!(policy.may_get_role(&who, "root"), DENIED);
    assert_eq!(policy.may_get_role(&root, "r"), Ok(()));
}

#[test]
fn an_identity_is_old_once_users_or_roles_have_changed() {
    let mut bench = Bench::enabled();
    let token = bench.log_in("u", 0);
    let who = bench.auth.identify(Some(&token), 0).unwrap();
    bench.change(|auth, batch| auth.role_add(batch, "unrelated")).unwrap();
    assert_eq!(bench.auth.policy().may_range(&who, &range("r", "")), Err(Refusal::AuthOldRevision));
    let who = bench.auth.identify(Some(&token), 0).unwrap();
    assert_eq!(bench.auth.policy().may_range(&who, &range("r", "")), Ok(()));
}

#[test]
fn a_user_who_is_gone_is_denied() {
    let mut bench = Bench::enabled();
    bench.change(|auth, batch| auth.user_delete(batch, "u")).unwrap();
    let ghost = Identity::User { name: "u".into(), revision: u64::MAX };
    assert_eq!(bench.auth.policy().may_range(&ghost, &range("r", "")), DENIED);
    assert_eq!(bench.auth.policy().may_administer(&ghost), Err(Refusal::UserNotFound));
    assert_eq!(bench.auth.policy().may_get_role(&ghost, "r"), Err(Refusal::UserNotFound));
}

#[test]
fn requests_of_a_batch_see_the_changes_before_them() {
    let mut bench = Bench::enabled();
    let who = bench.user("u");
    let mut batch = WriteBatch::new();
    bench.auth.role_revoke_permission(&mut batch, "r", b"w", b"x").unwrap();
    assert_eq!(bench.auth.pending().may_put(&who, &put("w"), no_lease), Err(Refusal::AuthOldRevision));
    assert_eq!(bench.auth.policy().may_put(&who, &put("w"), no_lease), Ok(()));
}
