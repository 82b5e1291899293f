//! Subsets, limits, and connections that are made when calls want them.

use super::anything::step;
use super::*;
use crate::fleet::link::Phase;
use proptest::prelude::*;
use std::num::NonZeroUsize;
use waypost_balance::{ClientNumber, Subset};

fn subset(size: usize) -> Reach {
    let subset = Subset::new("client 1", NonZeroUsize::new(size).unwrap());
    Reach { subset: Some(subset), lazy: None, most: None, attempts: usize::MAX }
}

fn lazy(idle: Duration) -> Reach {
    Reach { subset: None, lazy: Some(idle), most: None, attempts: usize::MAX }
}

/// Ports 1 to `count` are up.
fn bench(reach: Reach, count: u16) -> Bench {
    let mut bench = Bench::with(reach);
    for port in 1..=count {
        bench.up(&port.to_string(), port);
    }
    bench
}

/// Client 5 of its group, which begins at five eighths of the order.
fn numbered(size: usize) -> Reach {
    let subset = Subset::numbered(&ClientNumber::new("clients", 5), NonZeroUsize::new(size).unwrap());
    Reach { subset: Some(subset), lazy: None, most: None, attempts: usize::MAX }
}

/// The ports in the order in which the client connects, from its start on.
fn order(bench: &Bench) -> Vec<u16> {
    bench.fleet.order.iter().flat_map(Order::round).map(|(_, endpoint)| endpoint.port).collect()
}

fn sorted(ports: &[u16]) -> Vec<u16> {
    let mut ports = ports.to_vec();
    ports.sort_unstable();
    ports
}

#[test]
fn a_subset_is_all_that_is_connected_to() {
    let mut bench = bench(subset(3), 10);
    let order = order(&bench);
    assert_eq!(bench.connecting(), sorted(&order[..3]));
    for port in &order[..3] {
        bench.connected(*port);
    }
    assert_eq!((bench.ready(), bench.connecting()), (sorted(&order[..3]), vec![]));
    assert_eq!(bench.fleet.census().count(LinkPhase::Idle), 7);
    assert_eq!(bench.observed.len(), 3);
}

#[test]
fn one_that_cannot_be_connected_to_is_stood_in_for_until_it_can() {
    let mut bench = bench(subset(3), 10);
    let order = order(&bench);
    bench.failed(order[0]);
    assert_eq!(bench.connecting(), sorted(&order[1..4]));
    for port in &order[1..4] {
        bench.connected(*port);
    }
    bench.pass(Duration::from_secs(10));
    assert_eq!(bench.connecting(), [order[0]]);
    bench.connected(order[0]);
    assert_eq!(bench.ready(), sorted(&order[..3]));
    assert_eq!(bench.retired.len(), 1, "who stood in finishes its calls");
}

#[test]
fn whoever_comes_first_takes_the_place_of_the_last_once_it_is_ready() {
    let mut bench = Bench::with(subset(1));
    // Ports that come in at ever better places of the order.
    let rank = |port| Subset::new("client 1", NonZeroUsize::MIN).rank(&endpoint(port));
    let mut ports: Vec<u16> = (1..=6).collect();
    ports.sort_by_key(|port| std::cmp::Reverse(rank(*port)));
    bench.up("0", ports[0]);
    bench.connected(ports[0]);
    for pair in ports.windows(2) {
        bench.up(&pair[1].to_string(), pair[1]);
        assert_eq!((bench.ready(), bench.connecting()), (vec![pair[0]], vec![pair[1]]));
        bench.connected(pair[1]);
        assert_eq!(bench.ready(), [pair[1]]);
    }
}

/// Five eighths of ten is six, and six of them do not fit behind it: they go on at the beginning of the order.
#[test]
fn a_numbered_client_goes_round_the_end_of_the_order() {
    let mut bench = bench(numbered(6), 10);
    let order = order(&bench);
    let by_rank: Vec<u16> = {
        let rank = |port: &u16| numbered(1).subset.unwrap().rank(&endpoint(*port));
        let mut ports: Vec<u16> = (1..=10).collect();
        ports.sort_by_key(rank);
        ports
    };
    assert_eq!((&order[..4], &order[4..]), (&by_rank[6..], &by_rank[..6]));
    assert_eq!(bench.connecting(), sorted(&order[..6]));
    for port in &order[..6] {
        bench.connected(*port);
    }
    // One beyond the end of the order is stood in for by the next, until it is there again.
    bench.pass(STABLE);
    bench.closed(order[5]);
    bench.failed(order[5]);
    assert_eq!(bench.connecting(), [order[6]]);
    bench.connected(order[6]);
    assert_eq!(bench.ready(), sorted(&[&order[..5], &order[6..7]].concat()));
    bench.pass(Duration::from_secs(10));
    bench.connected(order[5]);
    assert_eq!((bench.ready(), bench.connecting()), (sorted(&order[..6]), vec![]));
}

/// A join moves the start by a place at most: one connection is made, and only then another is given up.
#[test]
fn a_numbered_client_moves_at_most_one_connection_with_each_change_and_makes_before_it_breaks() {
    let mut bench = bench(numbered(4), 20);
    for port in bench.connecting() {
        bench.connected(port);
    }
    let mut moved = 0;
    for (port, comes) in (21..=60).map(|port| (port, true)).chain((1..=50).map(|port| (port, false))) {
        let before = bench.ready();
        if comes {
            bench.up(&port.to_string(), port);
        } else {
            bench.publish(&port.to_string(), None);
        }
        let lost = usize::from(!comes && before.contains(&port));
        let connecting = bench.connecting();
        assert!(connecting.len() <= 1 + lost, "{connecting:?}");
        assert_eq!(bench.ready().len(), 4 - lost, "whoever is to go stays until another is ready");
        moved += connecting.len();
        for port in connecting {
            bench.connected(port);
        }
        assert_eq!(bench.ready(), sorted(&order(&bench)[..4]));
        bench.check_books();
    }
    // The start moves with three eighths of the changes before it, which are five eighths of all, and with five eighths of those behind
    // it: 42 of 90. Some 12 changes are among the client's own four, a few of them both. By halves more or less, since hashes scatter:
    // a start that did not move would make 12, another order with each change more than 90.
    assert!((20..=60).contains(&moved), "{moved}");
}

#[test]
fn only_so_many_attempts_are_made_at_a_time() {
    let mut bench = bench(Reach { attempts: 2, subset: None, lazy: None, most: None }, 9);
    for done in 0..9 {
        assert_eq!(bench.connecting.len(), (9 - done).min(2));
        assert_eq!(bench.fleet.census().count(LinkPhase::Connecting), 9 - done);
        let port = bench.connecting()[0];
        if port.is_multiple_of(3) { bench.failed(port) } else { bench.connected(port) }
    }
    assert_eq!(bench.ready().len(), 6);
}

#[test]
fn attempts_that_are_repeated_are_made_in_the_order_in_which_they_are_due() {
    let mut bench = bench(Reach { attempts: 1, subset: None, lazy: None, most: None }, 6);
    let mut tried = Vec::new();
    for _ in 0..24 {
        while bench.connecting.is_empty() {
            bench.pass(Duration::from_millis(10));
        }
        // Longer than the longest wait: whatever has failed is due again.
        bench.pass(Duration::from_secs(10));
        let port = bench.connecting()[0];
        tried.push(port);
        bench.failed(port);
    }
    let rounds: Vec<Vec<u16>> = tried.chunks(6).map(sorted).collect();
    assert_eq!(rounds, vec![vec![1, 2, 3, 4, 5, 6]; 4]);
}

#[test]
fn what_was_just_connected_on_demand_is_not_yet_idle() {
    let idle = Duration::from_secs(60);
    let mut bench = bench(lazy(idle), 1);
    bench.pass(Duration::from_secs(59));
    bench.want(1);
    bench.connected(1);
    bench.pass(idle / 2);
    assert_eq!(bench.ready(), [1]);
    bench.pass(idle / 2 + Duration::from_secs(1));
    assert!(bench.ready().is_empty());
}

#[test]
fn a_lazy_client_connects_to_what_calls_want() {
    let idle = Duration::from_secs(60);
    let mut bench = bench(lazy(idle), 5);
    assert!(bench.connecting().is_empty());
    assert_eq!(bench.fleet.outlook(), Outlook::Connecting, "a call is to wait for what it asks for");
    assert_eq!(bench.fleet.reachable().unwrap().len(), 5);
    bench.want(3);
    bench.want(3);
    assert_eq!(bench.connecting(), [3]);
    bench.connected(3);
    assert_eq!((bench.ready(), bench.fleet.outlook()), (vec![3], Outlook::Ready));
    // In use it stays, by a call that has ended as by one that goes on.
    let state = Arc::clone(&bench.states()[0]);
    for _ in 0..5 {
        state.started(bench.now).finished(bench.now, waypost_balance::Outcome::Ok);
        bench.pass(idle / 2);
    }
    let call = state.started(bench.now);
    bench.pass(idle * 2);
    assert_eq!(bench.ready(), [3]);
    drop(call);
    bench.pass(idle / 2);
    bench.pass(idle);
    assert!(bench.ready().is_empty());
    assert_eq!((bench.retired.len(), bench.fleet.reachable().unwrap().len()), (1, 5));
    bench.want(3);
    assert_eq!(bench.connecting(), [3]);
}

#[test]
fn a_lazy_client_keeps_to_its_limit() {
    let mut bench = bench(Reach { most: Some(2), ..lazy(Duration::from_secs(60)) }, 5);
    for port in 1..=5 {
        bench.want(port);
    }
    assert_eq!(bench.connecting(), [1, 2]);
    bench.failed(1);
    bench.want(4);
    assert_eq!(bench.connecting(), [2, 4]);
}

#[test]
fn what_is_not_fit_for_calls_makes_room_for_what_may_be() {
    let mut bench = bench(Reach { most: Some(2), ..lazy(Duration::from_secs(60)) }, 4);
    for port in [2, 1] {
        bench.want(port);
        bench.connected(port);
        bench.says(port, false);
        bench.pass(Duration::from_millis(1));
    }
    assert_eq!(bench.fleet.outlook(), Outlook::Connecting);
    bench.want(3);
    assert_eq!((bench.connecting(), bench.retired.len()), (vec![3], 1), "the one that is so for longer");
    let left = bench.fleet.links.get(&endpoint(2)).unwrap();
    assert!(matches!(left.phase, Phase::Waiting { .. }) && left.failures == 1);
    bench.connected(3);
    bench.want(4);
    assert_eq!((bench.connecting(), bench.ready()), (vec![4], vec![3]));
    bench.connected(4);
    bench.pass(Duration::from_secs(10));
    bench.want(2);
    assert!(bench.connecting().is_empty(), "two take calls");
}

#[test]
fn what_is_set_aside_makes_room_too_and_is_not_set_aside_any_more() {
    let mut bench = bench(Reach { most: Some(1), ..lazy(Duration::from_secs(60)) }, 2);
    bench.want(1);
    bench.connected(1);
    bench.offer();
    bench.eject(1);
    bench.want(2);
    assert_eq!((bench.connecting(), bench.ready()), (vec![2], vec![]));
    assert!(bench.fleet.census().endpoints().all(|report| report.ejection.is_none()));
}

#[test]
fn what_is_not_fit_for_calls_is_closed_after_its_time_and_what_is_set_aside_is_not() {
    let idle = Duration::from_secs(60);
    let mut bench = bench(lazy(idle), 2);
    for port in [1, 2] {
        bench.want(port);
        bench.connected(port);
    }
    bench.offer();
    bench.says(1, false);
    bench.eject(2);
    bench.pass(idle / 2);
    bench.pass(idle);
    assert_eq!((bench.retired.len(), bench.ready()), (1, vec![2]));
    assert_eq!(bench.fleet.census().count(LinkPhase::Waiting), 1);
    let report = bench.fleet.census().endpoints().nth(1).unwrap().clone();
    assert!(report.is_ejected() && report.ejection.is_some());
}

#[test]
fn a_lazy_client_does_not_wait_for_what_has_failed_and_tries_it_again_when_it_is_wanted() {
    let mut bench = bench(lazy(Duration::from_secs(60)), 1);
    bench.want(1);
    bench.failed(1);
    assert_eq!(bench.fleet.outlook(), Outlook::Unavailable);
    assert!(bench.fleet.reachable().unwrap().is_empty());
    bench.pass(Duration::from_secs(10));
    assert!(bench.connecting().is_empty());
    assert_eq!(bench.fleet.reachable().unwrap().len(), 1);
    bench.want(1);
    assert_eq!((bench.connecting(), bench.fleet.outlook()), (vec![1], Outlook::Unavailable));
    bench.connected(1);
    assert_eq!(bench.fleet.outlook(), Outlook::Ready);
}

/// A change of one endpoint among ten thousand costs what one endpoint costs.
#[test]
fn a_change_of_a_large_fleet_costs_what_it_changes() {
    let all = |reach| {
        let mut bench = bench(reach, 10_000);
        (1..=10_000).for_each(|port| bench.connected(port));
        bench
    };
    let everything = Reach { subset: None, lazy: None, most: None, attempts: usize::MAX };
    for reach in [everything, subset(20), numbered(20)] {
        let mut bench = all(reach);
        bench.fleet.take_stirred();
        let first = bench.ready()[0];
        let mut parts = bench.published.to_parts();
        let (moved, instance) = instance(&first.to_string(), 20_000);
        parts.instances.insert(moved, Arc::new(instance));
        let next = Arc::new(Snapshot::new(parts));
        let (fleet, now) = (&mut bench.fleet, bench.now);
        let counted = allocation_counter::measure(|| {
            fleet.apply(&next, now);
            let id = fleet.links.get(&endpoint(20_000)).map(|link| link.id).unwrap();
            fleet.connected(&endpoint(20_000), id, now);
            drop((fleet.take_actions(), fleet.take_stirred(), fleet.census()));
        });
        // Nodes of the trees that are kept, some of which are shared with the last census: kilobytes, where all is megabytes.
        assert!(counted.count_total < 400 && counted.bytes_total < 100_000, "{counted:?}");
    }
}

fn any_reach() -> impl Strategy<Value = Reach> {
    let size = prop::option::of(1_usize..4);
    (size, any::<bool>(), any::<bool>(), prop::option::of(1_usize..4), 1_usize..4).prop_map(
        |(size, is_numbered, is_lazy, most, attempts)| Reach {
            subset: size.and_then(|size| if is_numbered { numbered(size) } else { subset(size) }.subset),
            lazy: is_lazy.then_some(Duration::from_secs(5)),
            most: most.filter(|_| is_lazy),
            attempts,
        },
    )
}

proptest! {
    #[test]
    fn whatever_happens_the_limits_hold(reach in any_reach(), steps in prop::collection::vec(step(), 0..150)) {
        let mut bench = Bench::with(reach.clone());
        for step in steps {
            bench.take(step);
            bench.check_books();
            let fleet = &bench.fleet;
            prop_assert!(bench.connecting.len() <= reach.attempts);
            let idle = |link: &Link| matches!(link.phase, Phase::Idle { .. });
            bench.check_gates();
            if reach.lazy.is_some() {
                let made = fleet.links.values().filter(|link| link.is_ready() || matches!(link.phase, Phase::Connecting { .. }));
                prop_assert!(reach.most.is_none_or(|most| made.count() <= most));
                let reachable = fleet.reachable().unwrap();
                let severed = |state: &Arc<EndpointState>| bench.live.keys().any(|id| bench.severed.contains(id) && Arc::ptr_eq(&bench.given[id], state));
                prop_assert!(!matches!(step, Step::Publish) || reachable.iter().all(|state| (state.gate() == Gate::Closed) == severed(state)));
                // A want is carried out, unless there are as many connections that calls can use as there may be.
                if let Step::Want(port) = step
                    && let Some(link) = fleet.links.get(&endpoint(port)).filter(|link| link.within && idle(link))
                {
                    let usable = fleet.links.values().filter(|link| match link.phase {
                        Phase::Ready { .. } => link.state.gate() != Gate::Ejected,
                        phase => LinkPhase::of(phase) == LinkPhase::Connecting,
                    });
                    prop_assert!(reach.most.is_some_and(|most| usable.count() >= most), "{link:?}");
                }
            } else {
                // Whatever is within is ready, on its way there, or waits for its time; and nothing else is.
                prop_assert!(fleet.links.values().all(|link| link.within != idle(link)));
            }
            if let Some(subset) = &reach.subset {
                let size = subset.size().get();
                let within = || fleet.links.values().filter(|link| link.within);
                let sound = within().filter(|link| link.is_sound()).count();
                prop_assert!(sound >= size.min(fleet.links.len()) || within().count() == fleet.links.len());
                let ready = within().filter(|link| link.is_ready()).count();
                prop_assert!(reach.lazy.is_some() || ready <= size + 1, "{ready} of {size}");
            } else {
                prop_assert!(fleet.links.values().all(|link| link.within));
            }
        }
    }
}
