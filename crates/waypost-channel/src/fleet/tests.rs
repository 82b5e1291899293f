//! The rules, without a network: every event is given by hand, and time is a number.

mod anything;
mod bench;
mod reach;

use super::*;
use bench::{Bench, Step, endpoint, instance};
use waypost_balance::Gate;
use waypost_model::Status;

#[test]
fn an_instance_is_connected_to_at_once_and_offered_when_it_is_ready() {
    let mut bench = Bench::new();
    assert_eq!(bench.fleet.outlook(), Outlook::Unread);
    bench.up("a", 1);
    assert_eq!((bench.connecting(), bench.ready()), (vec![1], vec![]));
    assert_eq!(bench.fleet.outlook(), Outlook::Connecting);
    bench.connected(1);
    assert_eq!((bench.connecting(), bench.ready()), (vec![], vec![1]));
    assert_eq!(bench.fleet.outlook(), Outlook::Ready);
}

#[test]
fn what_is_connected_and_not_fit_gets_no_calls_and_is_not_connected_to_again() {
    let mut bench = Bench::new();
    bench.up("a", 1);
    bench.connected(1);
    bench.offer();
    let state = bench.states().remove(0);
    bench.says(1, false);
    assert_eq!((bench.connecting(), bench.ready(), state.admits()), (vec![], vec![], false));
    assert_eq!(bench.fleet.outlook(), Outlook::Unavailable);
    bench.pass(Duration::from_secs(60));
    assert!(bench.connecting().is_empty());
    bench.says(1, true);
    bench.offer();
    assert_eq!((bench.ready(), state.admits()), (vec![1], true));
    bench.says(1, false);
    bench.publish("a", None);
    assert_eq!(bench.retired.len(), 1, "its calls may end");
}

#[test]
fn an_attempt_that_failed_is_repeated_after_a_wait_that_grows() {
    let mut bench = Bench::new();
    bench.up("a", 1);
    let mut waits = Vec::new();
    for _ in 0..12 {
        bench.failed(1);
        assert_eq!(bench.fleet.outlook(), Outlook::Unavailable);
        let wake = bench.fleet.next_wake().unwrap();
        waits.push(wake - bench.now);
        bench.pass((wake - bench.now).saturating_sub(Duration::from_nanos(1)));
        assert!(bench.connecting().is_empty(), "too early");
        bench.pass(Duration::from_nanos(1));
        assert_eq!(bench.connecting(), [1]);
        assert_eq!(bench.fleet.outlook(), Outlook::Unavailable, "calls do not wait for a second attempt");
    }
    assert!(waits[0] <= Duration::from_millis(60) && waits[0] >= Duration::from_millis(40));
    assert!(waits[11] <= Duration::from_secs(6) && waits[11] >= Duration::from_secs(4));
}

#[test]
fn a_connection_that_had_held_is_made_again_at_once_and_one_that_had_not_is_not() {
    let mut bench = Bench::new();
    bench.up("a", 1);
    bench.connected(1);
    bench.closed(1);
    assert_eq!((bench.connecting(), bench.ready()), (vec![], vec![]));
    bench.pass(Duration::from_millis(100));
    bench.connected(1);
    bench.pass(STABLE);
    bench.closed(1);
    assert_eq!(bench.connecting(), [1]);
    assert_eq!(bench.fleet.outlook(), Outlook::Connecting);
}

#[test]
fn a_connection_whose_server_says_again_that_it_serves_is_no_younger_for_it() {
    let mut bench = Bench::new();
    bench.up("a", 1);
    bench.connected(1);
    bench.pass(STABLE);
    bench.says(1, true);
    bench.closed(1);
    assert_eq!(bench.connecting(), [1], "it had held");
    bench.connected(1);
    bench.says(1, false);
    bench.pass(STABLE);
    bench.says(1, true);
    bench.closed(1);
    assert_eq!(bench.connecting(), [1], "fit or not");
}

#[test]
fn a_time_that_never_ends_is_no_error() {
    let mut bench = Bench::new();
    bench.fleet.settings.drain = Duration::MAX;
    bench.fleet.settings.backoff = Backoff::new(Duration::MAX, Duration::MAX);
    bench.up("a", 1);
    bench.connected(1);
    bench.publish("a", None);
    bench.up("a", 2);
    bench.failed(2);
    assert!(bench.fleet.next_wake().is_some());
    assert_eq!(bench.live.len(), 1);
}

#[test]
fn a_server_that_accepts_and_closes_is_not_connected_to_in_a_tight_loop() {
    let mut bench = Bench::new();
    bench.up("a", 1);
    let mut attempts = 0;
    let end = bench.now + Duration::from_secs(60);
    while bench.now < end {
        bench.connected(1);
        bench.closed(1);
        attempts += 1;
        let wake = bench.fleet.next_wake().unwrap();
        bench.pass(wake - bench.now);
    }
    assert!(attempts < 40, "{attempts} attempts in a minute");
}

#[test]
fn an_instance_that_moves_is_served_from_its_old_address_until_the_new_one_is_ready() {
    let mut bench = Bench::new();
    bench.up("a", 1);
    bench.connected(1);
    bench.up("a", 2);
    assert_eq!((bench.connecting(), bench.ready()), (vec![2], vec![1]));
    bench.failed(2);
    assert_eq!(bench.ready(), [1]);
    // And it moves again, before the second address ever worked.
    bench.up("a", 3);
    assert_eq!((bench.connecting(), bench.ready()), (vec![3], vec![1]));
    bench.connected(3);
    assert_eq!(bench.ready(), [3]);
    assert_eq!(bench.retired.len(), 1);
    bench.pass(Duration::from_secs(30));
    assert_eq!(bench.live.len(), 1, "the old connection is closed after its time");
}

#[test]
fn the_old_address_of_an_instance_that_has_moved_is_not_connected_to_again() {
    let mut bench = Bench::new();
    bench.up("a", 1);
    bench.connected(1);
    bench.up("a", 2);
    bench.pass(STABLE);
    bench.closed(1);
    assert_eq!((bench.connecting(), bench.ready()), (vec![2], vec![]));
    // It moves back while nothing is connected.
    bench.up("a", 1);
    assert_eq!(bench.connecting(), [1]);
}

#[test]
fn an_instance_that_drains_gets_no_calls_and_keeps_its_connection_for_a_while() {
    let mut bench = Bench::new();
    bench.up("a", 1);
    bench.connected(1);
    let state = Arc::clone(&bench.states()[0]);
    let call = state.started(bench.now);
    bench.publish("a", Some((1, Status::Draining)));
    assert!(bench.ready().is_empty() && !state.admits());
    let census = bench.fleet.census();
    assert_eq!((census.registered, census.draining, census.count(LinkPhase::Leaving)), (1, 1, 1));
    assert_eq!(bench.fleet.outlook(), Outlook::Unavailable);
    bench.pass(Duration::from_secs(29));
    assert_eq!(bench.live.len(), 1);
    bench.pass(Duration::from_secs(1));
    assert!(bench.live.is_empty());
    drop(call);
    // Back again: a new connection.
    bench.up("a", 1);
    assert_eq!(bench.connecting(), [1]);
}

/// After a GOAWAY a connection that takes no more calls has no place in the fleet but for this.
#[test]
fn calls_that_go_on_where_the_server_takes_no_more_end_in_time_when_the_instance_leaves() {
    for reconnected in [false, true] {
        let mut bench = Bench::new();
        bench.up("a", 1);
        bench.connected(1);
        let call = bench.states()[0].started(bench.now);
        bench.leaves(1);
        bench.pass(Duration::from_secs(60));
        assert_eq!(bench.ending.len(), 1, "for as long as the instance is there");
        if reconnected {
            bench.connected(1);
        }
        bench.publish("a", None);
        let census = bench.fleet.census();
        let leaving: Vec<_> = census.endpoints().collect();
        assert_eq!(
            (leaving.len(), leaving[0].phase),
            (1, LinkPhase::Leaving),
            "one, however many connections"
        );
        bench.pass(Duration::from_secs(29));
        assert_eq!((bench.ending.len(), bench.live.len()), (1, usize::from(reconnected)));
        bench.pass(Duration::from_secs(1));
        assert_eq!((bench.ending.len(), bench.live.len()), (0, 0));
        drop(call);
    }
}

#[test]
fn what_has_left_is_forgotten_when_its_calls_have_ended() {
    let mut bench = Bench::new();
    bench.up("a", 1);
    bench.connected(1);
    bench.publish("a", None);
    assert_eq!(bench.fleet.leaving.len(), 1);
    bench.closed(1);
    assert!(bench.fleet.leaving.is_empty() && bench.fleet.next_wake().is_none());
}

#[test]
fn a_gate_opens_only_when_calls_see_the_connection_behind_it() {
    let mut bench = Bench::new();
    bench.up("a", 1);
    bench.connected(1);
    bench.offer();
    let state = bench.states().remove(0);
    assert!(state.admits());
    // The server says again that it serves, and then the driver hears that it had gone before.
    bench.sever(1);
    bench.says(1, true);
    bench.offer();
    assert!(!state.admits());
    bench.pass(STABLE);
    bench.closed(1);
    bench.connected(1);
    assert!(!state.admits(), "the table still has the old connection");
    bench.offer();
    assert!(state.admits());
}

#[test]
fn an_address_that_is_registered_twice_is_one_endpoint() {
    let mut bench = Bench::new();
    bench.up("a", 1);
    bench.up("b", 1);
    bench.connected(1);
    assert_eq!(bench.ready(), [1]);
    bench.publish("a", None);
    let state = Arc::clone(&bench.states()[0]);
    assert_eq!(state.key().id, "b", "whoever is left speaks for it");
    bench.publish("b", Some((1, Status::Draining)));
    assert!(bench.ready().is_empty());
}

#[test]
fn an_address_that_passes_from_one_key_to_another_keeps_its_connection() {
    let mut bench = Bench::new();
    // Keys are taken in their order: once the one that goes is first, and once the one that comes is.
    for (old, new) in [("a", "b"), ("b", "a")] {
        bench.up(old, 1);
        bench.connected(1);
        bench.publish_all([(old, None), (new, Some((1, Status::Up)))]);
        assert_eq!((bench.ready(), bench.connecting(), bench.retired.len()), (vec![1], vec![], 0));
        assert_eq!(bench.states()[0].key().id, new);
    }
    bench.up("b", 2);
    bench.connected(2);
    bench.publish_all([("a", Some((2, Status::Up))), ("b", Some((1, Status::Up)))]);
    assert_eq!((bench.ready(), bench.connecting(), bench.retired.len()), (vec![1, 2], vec![], 0));
    assert_eq!(bench.states().iter().map(|state| state.key().id).collect::<Vec<_>>(), ["b", "a"]);
}

#[test]
fn a_registration_that_is_the_same_but_for_its_key_is_no_other_weight() {
    let mut bench = Bench::new();
    bench.up("a", 1);
    bench.up("b", 1);
    bench.publish("a", None);
    assert!(!bench.fleet.take_reweighed());
    let mut parts = bench.published.to_parts();
    let (key, instance) = instance("b", 1);
    parts.instances.insert(key, Arc::new(instance.with_weight(7)));
    bench.fleet.apply(&Arc::new(Snapshot::new(parts)), bench.now);
    assert!(bench.fleet.take_reweighed());
}

#[test]
fn a_wake_that_changes_nothing_publishes_nothing() {
    let idle = Duration::from_secs(60);
    let mut bench = Bench::with(Reach { subset: None, lazy: Some(idle), most: None, attempts: 1 });
    bench.up("a", 1);
    bench.want(1);
    bench.connected(1);
    bench.fleet.take_changed();
    bench.pass(idle / 2);
    assert!(!bench.fleet.take_changed(), "it was looked for idle connections");
    bench.pass(idle / 2);
    assert!(bench.fleet.take_changed());
}

#[test]
fn what_cannot_be_spoken_to_is_told() {
    let mut bench = Bench::new();
    let (key, mut plain) = instance("a", 1);
    plain.endpoints = "grpcs://127.0.0.1:1".parse::<Endpoint>().unwrap().into();
    let mut parts = bench.published.to_parts();
    parts.instances.insert(key, Arc::new(plain));
    parts.existence = Existence::Present;
    bench.fleet.apply(&Arc::new(Snapshot::new(parts)), bench.now);
    let census = bench.fleet.census();
    assert_eq!(census.unusable.len(), 1);
    assert_eq!(&**census.unusable.values().next().unwrap(), "no TLS");
    assert_eq!(bench.fleet.outlook(), Outlook::Unavailable);
}
