//! Whatever happens, in whatever order.

use super::*;
use proptest::prelude::*;

pub(super) fn step() -> impl Strategy<Value = Step> {
    let (id, port) = (0_u8..4, 1_u16..6);
    prop_oneof![
        3 => (id.clone(), port.clone()).prop_map(|(id, port)| Step::Up(id, port)),
        1 => (id.clone(), port.clone()).prop_map(|(id, port)| Step::Drain(id, port)),
        1 => id.clone().prop_map(Step::Remove),
        3 => prop::array::uniform3((id, prop::option::weighted(0.8, port.clone()))).prop_map(Step::Several),
        4 => port.clone().prop_map(Step::Connected),
        2 => port.clone().prop_map(Step::Failed),
        1 => port.clone().prop_map(Step::Closed),
        1 => port.clone().prop_map(Step::Leaves),
        1 => port.clone().prop_map(Step::Over),
        1 => port.clone().prop_map(Step::Sever),
        3 => Just(Step::Publish),
        2 => (port.clone(), any::<bool>()).prop_map(|(port, serves)| Step::Says(port, serves)),
        1 => port.clone().prop_map(Step::Eject),
        2 => port.prop_map(Step::Want),
        3 => (1_u16..8000).prop_map(Step::Pass),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_the_fleet_agrees_with_the_registry(steps in prop::collection::vec(step(), 0..120)) {
        let mut bench = Bench::new();
        for step in steps {
            let before: BTreeMap<u16, ConnectionId> = bench.aimed().into_iter().map(|port| (port, bench.id_at(port))).collect();
            bench.take(step);
            bench.check_books();
            let up = bench.published.instances().filter(|i| i.status == Status::Up).count();
            let aimed = bench.aimed();

            // Whoever registers what: an address that was wanted and is keeps its connection, or the attempt to make one.
            if matches!(step, Step::Up(..) | Step::Drain(..) | Step::Remove(_) | Step::Several(_)) {
                prop_assert!(aimed.iter().all(|port| before.get(port).is_none_or(|id| *id == bench.id_at(*port))));
            }

            // Offered are exactly the connections that are open, fit and not retired, and their gates are open.
            let offered: BTreeSet<ConnectionId> = bench.fleet.links.values().filter(|link| link.is_ready()).map(|link| link.id).collect();
            let open: BTreeSet<ConnectionId> =
                bench.live.keys().copied().filter(|id| !bench.retired.contains(id) && !bench.unfit.contains(id)).collect();
            prop_assert_eq!(&offered, &open);
            bench.check_gates();
            if matches!(step, Step::Publish) {
                let severed = |link: &Link| bench.severed.contains(&link.id);
                prop_assert!(bench.fleet.links.values().filter(|link| link.is_ready())
                    .all(|link| (link.state.gate() == Gate::Closed) == severed(link)));
            }

            // Every address that is wanted is ready, connected and not fit, being connected to, or waits for its time.
            let waiting: BTreeSet<u16> = bench.fleet.timers.iter().map(|(_, at)| at.port).collect();
            let ready: BTreeSet<u16> = bench.ready().into_iter().collect();
            let connecting: BTreeSet<u16> = bench.connecting().into_iter().collect();
            let unfit: BTreeSet<u16> = bench.fleet.links.iter()
                .filter(|(_, link)| matches!(link.phase, Phase::Unfit { .. })).map(|(at, _)| at.port).collect();
            for port in &aimed {
                let places = [&ready, &unfit, &connecting, &waiting].iter().filter(|set| set.contains(port)).count();
                prop_assert_eq!(places, 1, "port {} is in {} places", port, places);
            }
            // Nothing else is connected to; what else is ready stands in for an instance that moves.
            prop_assert!(connecting.is_subset(&aimed) && waiting.is_subset(&aimed));
            prop_assert!(ready.difference(&aimed).count() <= up);
            if aimed.is_subset(&ready) {
                prop_assert!(ready.is_subset(&aimed), "{ready:?} is offered, {aimed:?} is wanted");
            }
            prop_assert_eq!(bench.fleet.census.unready_since.is_some(), ready.is_empty());
            prop_assert!(bench.fleet.next_wake().is_none_or(|wake| wake > bench.now));
        }
    }
}
