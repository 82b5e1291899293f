//! What a change in a set of 10,000 endpoints costs, and whether picks notice.

use crate::clock::{thread_cpu, thread_cpu_since};
use crate::places::{Numbered, Places, Timed};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use waypost_balance::{Maglev, PeakEwma, Policy, RoundRobin};
use waypost_bench::{Figure, Goal, Unit, median, own_cpu_micros, spread};
use waypost_channel::{Channel, Outcome, Pool, Unconnected, Wish};
use waypost_discovery::subscription::{Publisher, channel};
use waypost_model::{
    Endpoint, Existence, Freshness, Instance, InstanceKey, Scope, ServiceName, Snapshot, SnapshotParts,
};

const ENDPOINTS: u16 = 10_000;
/// Whose CPU is taken.
const UPDATES: usize = 21;
const ROUNDS: usize = 3;
/// Picks that are timed in a round, whatever else happens.
const PICKS: usize = 2_000_000;
/// Picks before them.
const WARM: usize = 3_000;
/// From the new table to the next update: the old one has been taken apart by then.
const SPACE: Duration = Duration::from_millis(20);
/// In this time a table of so many is made, however soon after the last one.
const LONGEST: Duration = Duration::from_millis(100);

/// A set of 10,000, one of which comes and goes.
struct Registry {
    publisher: Publisher,
    instances: Vec<(InstanceKey, Arc<Instance>)>,
    revision: i64,
}

/// Every figure of updates.
pub(crate) fn run() {
    let policies: [Arc<dyn Policy>; 3] =
        [Arc::new(RoundRobin::default()), Arc::new(PeakEwma::default()), Arc::new(Maglev::default())];
    for policy in policies {
        let name = policy.name();
        cpu_of_updates(&policy);
        let (mut slow, mut beside, mut places) = (Vec::new(), Vec::new(), Places::new());
        for round in 0..ROUNDS {
            // Who goes first goes second in the next round.
            let first = picks(&policy, round % 2 == 0);
            let second = picks(&policy, round % 2 == 1);
            let (busy, quiet) = if round % 2 == 0 { (first, second) } else { (second, first) };
            println!(
                "  {name}: of {PICKS} picks {} above 10 × the median of {} ns with {} updates, {} of {} ns without",
                busy.slow(),
                busy.median(),
                busy.swaps.len(),
                quiet.slow(),
                quiet.median(),
            );
            slow.push(busy.slow() as f64);
            beside.push(busy.slow() as f64 / quiet.slow().max(1) as f64);
            places.add(&busy);
        }
        let figure = format!("slow_picks_during_updates_of_10k_{name}");
        Figure { name: &figure, unit: Unit::Count, goal: Goal::AtMost(0.0) }.report(&slow);
        // Has no goal: where nothing differs it is above 1 half of the time.
        let (low, high) = spread(&beside);
        println!(
            "  {name}: slow picks with updates are {:.2} of those without ({low:.2} to {high:.2})",
            median(&beside)
        );
        let (last, first) = places.beside_swap();
        println!(
            "  {name}: {} slow at the 1,000 places of {} swaps, {} at one place at most; the last by the old table {last}, the \
             first by the new one {first}",
            places.all(),
            places.swaps(),
            places.worst(),
        );
        let figure = format!("slow_places_after_updates_of_10k_{name}");
        Figure { name: &figure, unit: Unit::Count, goal: Goal::AtMost(0.0) }
            .report(&[places.recurring() as f64]);
    }
}

/// Of the whole process, where nothing else is going on: large tables are made on a thread of their own.
fn cpu_of_updates(policy: &Arc<dyn Policy>) {
    let (mut registry, pool, runtime) = Registry::start(Arc::clone(policy));
    let used: Vec<f64> = (0..UPDATES)
        .map(|n| {
            let (snapshot, expected) = registry.next(n);
            let before = own_cpu_micros();
            registry.publish(snapshot);
            // To sleep costs no CPU, to ask the pool for the state of all would.
            runtime.block_on(async { tokio::time::sleep(LONGEST).await });
            let used = own_cpu_micros() - before;
            settled(&runtime, &pool, expected);
            used as f64
        })
        .collect();
    let name = policy.name();
    let figure = format!("update_of_10k_{name}_us");
    // Our own goals: 100 changes a second leave 90 % of a core, ten with a table of 655,373 slots.
    let goal = if name == "maglev" { 10_000.0 } else { 1_000.0 };
    Figure { name: &figure, unit: Unit::Count, goal: Goal::AtMost(goal) }.report(&used);
}

/// Picks, while one update follows the other or none comes.
fn picks(policy: &Arc<dyn Policy>, updating: bool) -> Timed {
    let (policy, number) = Numbered::new(Arc::clone(policy));
    let (mut registry, pool, runtime) = Registry::start(policy);
    let done = Arc::new(AtomicBool::new(false));
    let picks = std::thread::spawn({
        let (pool, done) = (pool.clone(), Arc::clone(&done));
        move || {
            let timed = timed(&pool, &number);
            done.store(true, Ordering::Relaxed);
            timed
        }
    });
    let mut updates = 0;
    while !done.load(Ordering::Relaxed) {
        if updating {
            let (snapshot, expected) = registry.next(updates);
            registry.publish(snapshot);
            settled(&runtime, &pool, expected);
            updates += 1;
        } else {
            std::thread::sleep(SPACE);
        }
    }
    picks.join().expect("picks")
}

/// The pool has published what was asked of it, and has had the time to take the old table apart.
fn settled(runtime: &Runtime, pool: &Pool<Unconnected>, expected: usize) {
    runtime.block_on(async {
        pool.wait_for(|stats| stats.registered == expected && stats.ready() == expected).await;
        tokio::time::sleep(SPACE).await;
    });
}

/// By the thread's CPU time: to be preempted is not to wait.
fn timed(pool: &Pool<Unconnected>, number: &AtomicUsize) -> Timed {
    let wish = Wish::new();
    // Memory that is there already: its pages are not fetched between the picks.
    let mut times = vec![u32::MAX; PICKS];
    let mut swaps = Vec::with_capacity(PICKS / 1_000);
    let pick = |time: &mut u32| {
        let before = thread_cpu();
        let lease = pool.try_lease(&wish);
        *time = u32::try_from(thread_cpu_since(before).as_nanos()).unwrap_or(u32::MAX);
        lease.expect("an endpoint").finished(Outcome::Ok);
        number.load(Ordering::Relaxed)
    };
    let mut table = 0;
    for time in times.iter_mut().take(WARM) {
        table = pick(time);
    }
    for (index, time) in times.iter_mut().enumerate() {
        let now = pick(time);
        if now != table {
            swaps.push(index);
            table = now;
        }
    }
    Timed { times, swaps }
}

// === impl Registry ===

impl Registry {
    /// All is on one runtime of the calling thread, not of the one that picks.
    fn start(policy: impl Policy + 'static) -> (Self, Pool<Unconnected>, Runtime) {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let service: ServiceName = "many".parse().expect("name");
        let (publisher, subscription) = channel(Scope::Service(service.clone()));
        let instances = (0..ENDPOINTS)
            .map(|n| {
                let endpoint =
                    Endpoint::new(format!("10.0.{}.{}", n / 256, n % 256), 50051).expect("address");
                let instance = Arc::new(Instance::new(service.clone(), endpoint));
                (InstanceKey::of(&instance, 0), instance)
            })
            .collect();
        let mut registry = Self { publisher, instances, revision: 0 };
        let pool = {
            let _entered = runtime.enter();
            Channel::builder(subscription).policy(waypost_channel::Policy::custom(policy)).pool(Unconnected)
        };
        let all = registry.snapshot(true);
        registry.publish(all);
        runtime.block_on(pool.wait_for(|stats| stats.ready() == usize::from(ENDPOINTS)));
        (registry, pool, runtime)
    }

    /// The last endpoint goes, comes, goes; and how many there are then.
    fn next(&mut self, updates: usize) -> (Snapshot, usize) {
        let present = updates % 2 == 1;
        (self.snapshot(present), usize::from(ENDPOINTS) - usize::from(!present))
    }

    /// With or without the last.
    fn snapshot(&mut self, last: bool) -> Snapshot {
        self.revision += 1;
        let count = self.instances.len() - usize::from(!last);
        Snapshot::new(SnapshotParts {
            scope: Scope::Service("many".parse().expect("name")),
            revision: self.revision,
            instances: self.instances[..count].iter().cloned().collect(),
            freshness: Freshness::Live,
            existence: Existence::Present,
            skipped: 0,
        })
    }

    fn publish(&self, snapshot: Snapshot) {
        assert!(self.publisher.publish(snapshot), "the pool is there");
    }
}
