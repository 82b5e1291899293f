//! The empty set: believed or held.

use waypost_model::{Existence, Freshness, InstanceKey};

use super::super::{Answer, Probe};
use super::*;

/// Instances `a` under lease 1 and `b` under lease 2, or none, both live.
fn bench() -> (Bench, Held, Held) {
    let mut bench = Bench::grpc();
    let (a, b) = (held(&grpc(), "a", 2, 1), held(&grpc(), "b", 3, 2));
    bench.range(5, &[a.clone(), b.clone()]);
    bench.publish();
    (bench, a, b)
}

fn probe(bench: &mut Bench) -> Probe {
    let effects = bench.core.settle(bench.now);
    assert!(effects.publish.is_none(), "what is shown stays until the answer is there");
    effects.probe.expect("a question")
}

fn alive(leases: &[i64]) -> Answer {
    Answer { alive: leases.iter().copied().collect(), failed: None }
}

fn stale_cause(snapshot: &Snapshot) -> String {
    match snapshot.freshness() {
        Freshness::Live => panic!("live"),
        Freshness::Stale { cause, .. } => cause.to_string(),
    }
}

#[test]
fn expired_leases_are_held_to_the_end_of_the_grace() {
    let (mut bench, a, b) = bench();
    bench.delete(&a, 6);
    bench.delete(&b, 7);
    let Probe { id, leases } = probe(&mut bench);
    assert_eq!(leases, [1, 2]);
    bench.core.probed(id, &alive(&[]), bench.now);
    let held = bench.snapshot();
    assert_eq!((hosts(&held), held.existence()), (vec!["a".to_owned(), "b".to_owned()], Existence::Present));
    assert_eq!(
        stale_cause(&held),
        "all 2 instances of service s vanished by lease expiry; held until 00:00:30 UTC"
    );
    bench.pass(29);
    bench.core.tick(bench.now);
    assert!(bench.publish().is_none());
    bench.pass(1);
    assert_eq!(bench.core.deadline(), Some(bench.now.monotonic));
    bench.core.tick(bench.now);
    let emptied = bench.snapshot();
    assert_eq!((emptied.len(), emptied.existence()), (0, Existence::Emptied));
    assert!(emptied.freshness().is_live());
    assert_eq!(bench.core.deadline(), None);
}

#[test]
fn leases_that_are_alive_tell_of_explicit_deletes() {
    let (mut bench, a, b) = bench();
    bench.delete(&a, 6);
    bench.delete(&b, 7);
    let Probe { id, .. } = probe(&mut bench);
    bench.core.probed(id, &alive(&[1, 2]), bench.now);
    let emptied = bench.snapshot();
    assert_eq!((emptied.len(), emptied.existence()), (0, Existence::Emptied));
    assert!(emptied.freshness().is_live());
}

#[test]
fn of_a_mixture_only_the_expired_are_held() {
    let (mut bench, a, b) = bench();
    bench.delete(&a, 6);
    bench.delete(&b, 7);
    let Probe { id, .. } = probe(&mut bench);
    bench.core.probed(id, &alive(&[1]), bench.now);
    assert_eq!(hosts(&bench.snapshot()), ["b"]);
}

#[test]
fn keys_without_lease_were_deleted_explicitly() {
    let mut bench = Bench::grpc();
    let a = held(&grpc(), "a", 2, 0);
    bench.range(5, std::slice::from_ref(&a));
    bench.publish();
    bench.delete(&a, 6);
    assert_eq!(bench.snapshot().existence(), Existence::Emptied);
}

#[test]
fn without_grace_nothing_is_asked_or_held() {
    let mut bench = Bench::new(&grpc(), None);
    let a = held(&grpc(), "a", 2, 1);
    bench.range(5, std::slice::from_ref(&a));
    bench.publish();
    bench.delete(&a, 6);
    assert_eq!(bench.snapshot().existence(), Existence::Emptied);
}

#[test]
fn what_went_before_the_burst_is_not_held() {
    let (mut bench, a, b) = bench();
    bench.delete(&a, 6);
    bench.publish();
    bench.pass(11);
    bench.delete(&b, 7);
    let Probe { id, leases } = probe(&mut bench);
    assert_eq!(leases, [2]);
    bench.core.probed(id, &alive(&[]), bench.now);
    assert_eq!(hosts(&bench.snapshot()), ["b"]);
}

#[test]
fn staggered_expiry_within_the_burst_is_held_as_a_whole() {
    let (mut bench, a, b) = bench();
    bench.delete(&a, 6);
    assert_eq!(hosts(&bench.snapshot()), ["b"]);
    bench.pass(9);
    bench.delete(&b, 7);
    let Probe { id, .. } = probe(&mut bench);
    bench.core.probed(id, &alive(&[]), bench.now);
    assert_eq!(hosts(&bench.snapshot()), ["a", "b"]);
}

#[test]
fn whoever_comes_back_ends_the_question_and_the_hold() {
    let (mut bench, a, b) = bench();
    bench.delete(&a, 6);
    bench.delete(&b, 7);
    let first = probe(&mut bench);
    bench.put(&Held { mod_revision: 8, ..a.clone() });
    assert_eq!(hosts(&bench.snapshot()), ["a"]);
    bench.core.probed(first.id, &alive(&[]), bench.now);
    assert!(bench.publish().is_none(), "an answer that nobody waits for");

    bench.delete(&a, 9);
    let second = probe(&mut bench);
    assert_ne!(first.id, second.id);
    bench.core.probed(second.id, &alive(&[]), bench.now);
    bench.publish();
    bench.put(&Held { mod_revision: 10, ..b.clone() });
    let snapshot = bench.snapshot();
    assert!(snapshot.freshness().is_live());
    assert_eq!(hosts(&snapshot), ["b"], "only what is live");
    assert_eq!(bench.core.deadline(), None);
}

#[test]
fn gone_and_back_within_a_batch_is_not_empty() {
    let (mut bench, a, b) = bench();
    bench.delete(&a, 6);
    bench.delete(&b, 7);
    bench.put(&Held { mod_revision: 8, ..b.clone() });
    assert_eq!(hosts(&bench.snapshot()), ["b"]);
}

#[test]
fn a_question_that_cannot_be_answered_holds() {
    let (mut bench, a, b) = bench();
    bench.delete(&a, 6);
    bench.delete(&b, 7);
    let Probe { id, .. } = probe(&mut bench);
    let answer = Answer { failed: Some("no route".into()), ..alive(&[]) };
    bench.core.probed(id, &answer, bench.now);
    let held = bench.snapshot();
    assert_eq!(held.len(), 2);
    assert!(stale_cause(&held).contains("no route"));
}

#[test]
fn an_outage_during_a_hold_gives_the_whole_grace_again() {
    let (mut bench, a, b) = bench();
    bench.delete(&a, 6);
    bench.delete(&b, 7);
    let Probe { id, .. } = probe(&mut bench);
    bench.core.probed(id, &alive(&[]), bench.now);
    bench.publish();
    bench.pass(20);
    bench.core.down("away".into(), bench.now);
    let held = bench.snapshot();
    assert!(stale_cause(&held).starts_with("away; all 2 instances"), "{}", stale_cause(&held));
    bench.pass(100);
    bench.core.tick(bench.now);
    assert!(bench.publish().is_none(), "nobody could have come back");
    bench.core.up(bench.now);
    assert_eq!(bench.core.deadline(), Some(bench.now.monotonic + Duration::from_secs(30)));
    assert_eq!(hosts(&bench.snapshot()), ["a", "b"]);
}

#[test]
fn an_outage_during_the_question_is_told() {
    let (mut bench, a, b) = bench();
    bench.delete(&a, 6);
    bench.delete(&b, 7);
    probe(&mut bench);
    bench.core.down("away".into(), bench.now);
    let stale = bench.snapshot();
    assert_eq!((hosts(&stale).len(), stale_cause(&stale)), (2, "away".to_owned()));
}

#[test]
fn a_range_that_finds_nothing_where_something_was_asks_too() {
    let (mut bench, ..) = bench();
    bench.range(1, &[]);
    let Probe { id, leases } = probe(&mut bench);
    assert_eq!(leases, [1, 2]);
    bench.core.probed(id, &alive(&[]), bench.now);
    let publication = bench.publish().unwrap();
    assert!(publication.rewind);
    assert_eq!((hosts(&publication.snapshot).len(), publication.snapshot.revision()), (2, 1));
    bench.range(4, &[held(&grpc(), "a", 3, 9)]);
    let snapshot = bench.snapshot();
    assert!(snapshot.freshness().is_live());
    assert_eq!(hosts(&snapshot), ["a"]);
}

#[test]
fn a_cache_that_was_shown_is_something_that_was() {
    let mut bench = Bench::grpc();
    let instance = Arc::new(Instance::new(service(), "a:80".parse().unwrap()));
    bench.core.cached(vec![(InstanceKey::of(&instance, 0), instance, 7)], 50);
    bench.core.down("from the cache".into(), bench.now);
    bench.publish();
    bench.range(1, &[]);
    let Probe { id, leases } = probe(&mut bench);
    assert_eq!(leases, [7]);
    bench.core.probed(id, &alive(&[]), bench.now);
    assert_eq!(hosts(&bench.snapshot()), ["a"]);
}
