//! Changes of users and roles, and what is stored of them.

use super::*;
use crate::bolt::MAX_KEY;

#[test]
fn auth_is_turned_on_only_with_a_root_who_has_role_root() {
    let mut bench = Bench::new();
    assert_eq!(bench.change(Auth::enable), Err(Refusal::RootUserNotExist));
    bench.change(|auth, batch| auth.user_add(batch, "root", hash("x"))).unwrap();
    assert_eq!(bench.change(Auth::enable), Err(Refusal::RootRoleNotExist));
    bench.change(|auth, batch| auth.user_grant_role(batch, "root", "root")).unwrap();
    assert_eq!(bench.auth.policy().roles(), [""; 0], "role root need not exist to be granted");
    bench.change(Auth::enable).unwrap();
    bench.change(Auth::enable).unwrap();
    assert!(bench.auth.policy().is_enabled());
}

#[test]
fn every_change_but_turning_auth_on_moves_the_revision() {
    let mut bench = Bench::new();
    assert_eq!(bench.revision(), 1);
    bench.change(|auth, batch| auth.user_add(batch, "root", hash("x"))).unwrap();
    bench.change(|auth, batch| auth.user_grant_role(batch, "root", "root")).unwrap();
    assert_eq!(bench.revision(), 3);
    bench.change(|auth, batch| auth.user_grant_role(batch, "root", "root")).unwrap();
    bench.change(Auth::enable).unwrap();
    assert_eq!(bench.revision(), 3, "as etcd 3.5 answers");
    bench.change(|auth, batch| auth.role_add(batch, "r")).unwrap();
    bench.grant("r", Type::Read, "a", "").unwrap();
    bench.grant("r", Type::Read, "a", "").unwrap();
    assert_eq!(bench.revision(), 6);
    bench.change(|auth, batch| auth.role_revoke_permission(batch, "r", b"a", b"")).unwrap();
    bench.change(|auth, batch| auth.role_delete(batch, "r")).unwrap();
    bench.change(|auth, batch| auth.user_change_password(batch, "root", "y".into())).unwrap();
    bench.change(Auth::disable);
    bench.change(Auth::disable);
    assert_eq!(bench.revision(), 10);
    bench.change(|auth, batch| auth.user_revoke_role(batch, "root", "root")).unwrap();
    bench.change(|auth, batch| auth.user_delete(batch, "root")).unwrap();
    assert_eq!(bench.revision(), 12);
}

#[test]
fn what_cannot_be_changed_is_refused_and_changes_nothing() {
    let mut bench = Bench::enabled();
    let before = bench.revision();
    let mut batch = WriteBatch::new();
    let auth = &mut bench.auth;
    let refused = [
        (auth.user_add(&mut batch, "", hash("x")), Refusal::UserEmpty),
        (auth.user_add(&mut batch, "u", hash("x")), Refusal::UserExists),
        (auth.user_add(&mut batch, &"u".repeat(MAX_KEY + 1), hash("x")), Refusal::RequestTooLarge),
        (auth.role_add(&mut batch, &"r".repeat(MAX_KEY + 1)), Refusal::RequestTooLarge),
        (auth.user_delete(&mut batch, "nobody"), Refusal::UserNotFound),
        (auth.user_delete(&mut batch, "root"), Refusal::InvalidAuthManagement),
        (auth.user_change_password(&mut batch, "nobody", "x".into()), Refusal::UserNotFound),
        (auth.user_grant_role(&mut batch, "nobody", "r"), Refusal::UserNotFound),
        (auth.user_grant_role(&mut batch, "u", "nothing"), Refusal::RoleNotFound),
        (auth.user_revoke_role(&mut batch, "nobody", "r"), Refusal::UserNotFound),
        (auth.user_revoke_role(&mut batch, "u", "nothing"), Refusal::RoleNotGranted),
        (auth.user_revoke_role(&mut batch, "root", "root"), Refusal::InvalidAuthManagement),
        (auth.role_add(&mut batch, ""), Refusal::RoleEmpty),
        (auth.role_add(&mut batch, "r"), Refusal::RoleExists),
        (auth.role_delete(&mut batch, "nothing"), Refusal::RoleNotFound),
        (auth.role_delete(&mut batch, "root"), Refusal::InvalidAuthManagement),
        (auth.role_grant_permission(&mut batch, "r", None), Refusal::PermissionNotGiven),
        (auth.role_grant_permission(&mut batch, "nothing", Some(allowed("a", ""))), Refusal::RoleNotFound),
        (auth.role_grant_permission(&mut batch, "r", Some(allowed("", ""))), Refusal::InvalidAuthManagement),
        (
            auth.role_grant_permission(&mut batch, "r", Some(allowed("b", "a"))),
            Refusal::InvalidAuthManagement,
        ),
        (auth.role_revoke_permission(&mut batch, "nothing", b"a", b""), Refusal::RoleNotFound),
        (auth.role_revoke_permission(&mut batch, "r", b"r", b""), Refusal::PermissionNotGranted),
    ];
    for (answer, refusal) in refused {
        assert_eq!(answer, Err(refusal));
    }
    assert!(batch.is_empty());
    assert_eq!(bench.auth.pending().revision(), before);
    assert_eq!(bench.auth.policy().roles_of("nobody"), Err(Refusal::UserNotFound));
    assert_eq!(bench.auth.policy().permissions_of("nothing"), Err(Refusal::RoleNotFound));
}

#[test]
fn root_can_be_taken_down_once_auth_is_off() {
    let mut bench = Bench::enabled();
    bench.change(|auth, batch| auth.role_add(batch, "root")).unwrap();
    bench.change(Auth::disable);
    bench.change(|auth, batch| auth.user_revoke_role(batch, "root", "root")).unwrap();
    bench.change(|auth, batch| auth.role_delete(batch, "root")).unwrap();
    bench.change(|auth, batch| auth.user_delete(batch, "root")).unwrap();
    assert_eq!(bench.auth.policy().users(), ["u"]);
}

#[test]
fn role_root_reads_and_writes_everything() {
    let mut bench = Bench::enabled();
    assert_eq!(bench.auth.policy().permissions_of("root"), Err(Refusal::RoleNotFound));
    bench.change(|auth, batch| auth.role_add(batch, "root")).unwrap();
    assert_eq!(bench.auth.policy().permissions_of("root"), Ok(vec![allowed("", "\0")]));
}

#[test]
fn lists_are_sorted() {
    let mut bench = Bench::enabled();
    for name in ["z", "a", "m"] {
        bench.change(|auth, batch| auth.role_add(batch, name)).unwrap();
        bench.change(|auth, batch| auth.user_add(batch, name, Secret::NoPassword)).unwrap();
        bench.change(|auth, batch| auth.user_grant_role(batch, "u", name)).unwrap();
    }
    let policy = bench.auth.policy();
    assert_eq!(policy.roles(), ["a", "m", "r", "z"]);
    assert_eq!(policy.users(), ["a", "m", "root", "u", "z"]);
    assert_eq!(policy.roles_of("u"), Ok(["a", "m", "r", "z"].map(str::to_owned).to_vec()));
    let keys: Vec<_> =
        policy.permissions_of("r").unwrap().into_iter().map(|permission| permission.key).collect();
    assert_eq!(keys, ["b", "r", "w"]);
}

#[test]
fn a_permission_for_the_same_keys_is_replaced() {
    let mut bench = Bench::enabled();
    bench.grant("r", Type::Read, "r", "").unwrap();
    bench.grant("r", Type::Write, "r", "s").unwrap();
    let permissions = bench.auth.policy().permissions_of("r").unwrap();
    let of_r: Vec<_> = permissions.iter().filter(|held| held.key == "r").collect();
    assert_eq!(
        of_r.iter().map(|held| (held.perm_type, &held.range_end[..])).collect::<Vec<_>>(),
        [(1, &b"s"[..]), (0, &b""[..])]
    );
    let who = bench.user("u");
    assert_eq!(bench.auth.policy().may_range(&who, &range("r", "")), Ok(()));
    assert_eq!(bench.auth.policy().may_range(&who, &range("r1", "")), DENIED);
}

#[test]
fn users_roles_and_passwords_survive_a_restart() {
    let bench = Bench::enabled();
    let auth = bench.reload();
    let (old, new) = (bench.auth.policy(), auth.policy());
    assert!(new.is_enabled());
    assert_eq!(new.revision(), old.revision());
    assert_eq!((new.users(), new.roles()), (old.users(), old.roles()));
    assert_eq!(new.roles_of("u"), old.roles_of("u"));
    assert_eq!(new.permissions_of("r"), old.permissions_of("r"));
    assert_eq!(auth.password_check("u").unwrap().hash(), "u");
    let who = Identity::User { name: "u".into(), revision: new.revision() };
    assert_eq!(new.may_range(&who, &range("r", "s")), Ok(()));
    assert_eq!(new.may_range(&who, &range("w", "")), DENIED);
}

#[test]
fn records_are_etcds() {
    let mut bench = Bench::enabled();
    let get = |bench: &Bench, bucket, key: &str| bench.backend.get(bucket, key.as_bytes()).unwrap();
    assert_eq!(get(&bench, Bucket::Auth, "authEnabled").as_deref(), Some(&[1][..]));
    assert_eq!(get(&bench, Bucket::Auth, "authRevision").as_deref(), Some(&[0, 0, 0, 0, 0, 0, 0, 9][..]));
    let user = authpb::User::decode(get(&bench, Bucket::AuthUsers, "u").unwrap()).unwrap();
    assert_eq!(
        (&user.name[..], &user.password[..], &user.roles[..]),
        (&b"u"[..], &b"u"[..], &["r".to_owned()][..])
    );
    assert_eq!(user.options, Some(authpb::UserAddOptions { no_password: false }));
    let role = authpb::Role::decode(get(&bench, Bucket::AuthRoles, "r").unwrap()).unwrap();
    assert_eq!((&role.name[..], role.key_permission.len()), (&b"r"[..], 3));
    bench.change(|auth, batch| auth.role_delete(batch, "r")).unwrap();
    assert_eq!(get(&bench, Bucket::AuthRoles, "r"), None);
    let user = authpb::User::decode(get(&bench, Bucket::AuthUsers, "u").unwrap()).unwrap();
    assert_eq!(user.roles, [""; 0]);
    bench.change(|auth, batch| auth.user_delete(batch, "u")).unwrap();
    assert_eq!(get(&bench, Bucket::AuthUsers, "u"), None);
    bench.change(Auth::disable);
    assert_eq!(get(&bench, Bucket::Auth, "authEnabled").as_deref(), Some(&[0][..]));
}

#[test]
fn a_batch_that_fails_leaves_everything_as_it_was() {
    let mut bench = Bench::enabled();
    let token = bench.log_in("u", 0);
    let before = bench.revision();
    let mut batch = WriteBatch::new();
    bench.auth.user_delete(&mut batch, "u").unwrap();
    bench.auth.user_add(&mut batch, "v", hash("v")).unwrap();
    bench.auth.disable(&mut batch);
    assert_eq!(bench.auth.pending().users(), ["root", "v"]);
    assert_eq!(bench.auth.policy().users(), ["root", "u"], "readers do not see what is not on disk");
    assert!(bench.auth.policy().is_enabled());
    bench.auth.roll_back();
    assert_eq!(bench.auth.pending().users(), ["root", "u"]);
    bench.auth.committed();
    assert_eq!(bench.revision(), before);
    assert!(bench.auth.identify(Some(&token), 1).is_ok());
}

#[test]
fn malformed_records_are_named() {
    let cases: [(Bucket, &[u8], Vec<u8>, &str); 6] = [
        (Bucket::Auth, b"authEnabled", vec![2], "bucket auth: key authEnabled: neither 0 nor 1"),
        (Bucket::Auth, b"authRevision", vec![1], "bucket auth: key authRevision: not 8 bytes"),
        (Bucket::AuthUsers, b"u", vec![0xff], "bucket authUsers: key u: "),
        (Bucket::AuthUsers, b"u", vec![], "the record has another name than its key"),
        (Bucket::AuthRoles, b"r", vec![0xff], "bucket authRoles: key r: "),
        (Bucket::AuthRoles, b"\xff", vec![0x0a, 1, 0xff], "the name is not UTF-8"),
    ];
    for (bucket, key, value, text) in cases {
        let backend = MemoryBackend::new();
        let mut batch = WriteBatch::new();
        batch.put(bucket, key.to_vec(), value);
        backend.commit(batch).unwrap();
        let error = Auth::load(&backend, &mut WriteBatch::new()).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
}

#[test]
fn records_of_etcd_are_read_and_written_byte_for_byte() {
    // As etcd 3.5.1 has them, but for the hash.
    let user: &[u8] = b"\n\x01u\x12\x04hash\x1a\x01r\"\0";
    let role: &[u8] = b"\n\x01r\x12\x03\x12\x01a\x12\x06\x12\x01a\x1a\x01b\x12\x08\x08\x01\x12\x01c\x1a\x01d";
    let mut bench = Bench::new();
    bench.change(|auth, batch| auth.user_add(batch, "u", hash("hash"))).unwrap();
    bench.change(|auth, batch| auth.role_add(batch, "r")).unwrap();
    bench.change(|auth, batch| auth.user_grant_role(batch, "u", "r")).unwrap();
    for (kind, key, end) in [(Type::Write, "c", "d"), (Type::Read, "a", ""), (Type::Read, "a", "b")] {
        bench.grant("r", kind, key, end).unwrap();
    }
    assert_eq!(bench.backend.get(Bucket::AuthUsers, b"u").unwrap().as_deref(), Some(user));
    assert_eq!(bench.backend.get(Bucket::AuthRoles, b"r").unwrap().as_deref(), Some(role));
    assert_eq!(bench.reload().policy().permissions_of("r").unwrap().len(), 3);
}
