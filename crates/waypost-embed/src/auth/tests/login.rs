//! Passwords and tokens.

use super::*;

#[test]
fn logging_in_needs_the_password() {
    let mut bench = Bench::enabled();
    assert_eq!(bench.auth.password_check("nobody").unwrap_err(), Refusal::AuthFailed);
    bench.change(|auth, batch| auth.user_add(batch, "open", Secret::NoPassword)).unwrap();
    assert_eq!(bench.auth.password_check("open").unwrap_err(), Refusal::NoPasswordUser);
    bench.change(|auth, batch| auth.user_change_password(batch, "open", "x".into())).unwrap();
    assert_eq!(bench.auth.password_check("open").unwrap_err(), Refusal::NoPasswordUser, "it stays one");
    let check = bench.auth.password_check("u").unwrap();
    assert_eq!(bench.auth.log_in(check, false, 1, 0).unwrap_err(), Refusal::AuthFailed);
}

#[test]
fn a_password_that_changes_while_it_is_compared_is_compared_again() {
    let mut bench = Bench::enabled();
    let check = bench.auth.password_check("u").unwrap();
    bench.change(|auth, batch| auth.user_change_password(batch, "u", "new".into())).unwrap();
    match bench.auth.log_in(check.clone(), true, 1, 0).unwrap() {
        Login::CheckAgain(check) => assert_eq!(check.hash(), "new"),
        Login::Token(_) => panic!("the old password still works"),
    }
    bench.change(|auth, batch| auth.user_delete(batch, "u")).unwrap();
    assert_eq!(bench.auth.log_in(check, true, 1, 0).unwrap_err(), Refusal::AuthFailed);
}

#[test]
fn tokens_end_with_idleness_password_user_and_auth() {
    let mut bench = Bench::enabled();
    let invalid = Err(Refusal::InvalidAuthToken);
    assert_eq!(bench.auth.identify(Some("x.1"), 0), invalid);

    let token = bench.log_in("u", 0);
    assert!(bench.auth.identify(Some(&token), 300_000).is_ok());
    assert!(bench.auth.identify(Some(&token), 600_000).is_ok());
    assert_eq!(bench.auth.identify(Some(&token), 900_001), invalid);

    let (token, other) = (bench.log_in("u", 0), bench.log_in("root", 0));
    bench.change(|auth, batch| auth.user_change_password(batch, "u", "new".into())).unwrap();
    assert_eq!(bench.auth.identify(Some(&token), 1), invalid);
    assert!(bench.auth.identify(Some(&other), 1).is_ok());

    let token = bench.log_in("u", 0);
    bench.change(|auth, batch| auth.user_delete(batch, "u")).unwrap();
    assert_eq!(bench.auth.identify(Some(&token), 1), invalid);
    assert!(bench.auth.identify(Some(&other), 1).is_ok());

    bench.change(Auth::disable);
    assert_eq!(bench.auth.identify(Some(&other), 1), Ok(Identity::Anonymous));
    bench.change(Auth::enable).unwrap();
    assert_eq!(bench.auth.identify(Some(&other), 1), invalid);
    assert_eq!(bench.reload().identify(Some(&other), 1), invalid, "and with the process");
}

#[test]
fn debug_output_shows_no_secret() {
    let mut bench = Bench::enabled();
    bench.change(|auth, batch| auth.user_change_password(batch, "u", "hush-hash".into())).unwrap();
    let token = bench.log_in("u", 0);
    let check = bench.auth.password_check("u").unwrap();
    let shown =
        format!("{:?} {check:?} {:?} {:?}", bench.auth, hash("hush-hash"), Login::Token(token.clone()));
    assert!(!shown.contains("hush-hash") && !shown.contains(&token), "{shown}");
}
