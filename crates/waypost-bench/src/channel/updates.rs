//! What a change in a set of 10,000 endpoints costs, and whether picks notice.

use crate::clock::{thread_cpu, thread_cpu_since};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::runtime::Builder;
use waypost_bench::{Figure, Goal, Unit, median};
use waypost_channel::{Channel, Outcome, Policy, Pool, Unconnected, Wish};
use waypost_discovery::subscription::{Publisher, channel};
use waypost_model::{
    Endpoint, Existence, Freshness, Instance, InstanceKey, Scope, ServiceName, Snapshot, SnapshotParts,
};

const ENDPOINTS: u16 = 10_000;
const UPDATES: usize = 200;
const ROUNDS: usize = 3;
/// Picks that are timed in a round, whatever else happens.
const PICKS: usize = 300_000;
/// Between two updates: the pool has done what they ask for by then.
const SPACE: Duration = Duration::from_millis(20);
/// So many times the median is slow.
const SLOW: u32 = 10;

/// A set of 10,000, one of which comes and goes.
struct Registry {
    publisher: Publisher,
    instances: Vec<(InstanceKey, Arc<Instance>)>,
    revision: i64,
}

/// Every figure of updates.
pub(crate) fn run() {
    for policy in [Policy::round_robin(), Policy::peak_ewma(), Policy::maglev()] {
        let name = policy.name();
        let (mut cpu, mut slow, mut excess) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let (quiet, _) = round(&policy, false);
            let (busy, micros) = round(&policy, true);
            println!("  {name}: slow picks of {PICKS}: {busy} while it is updated, {quiet} while it is not");
            cpu.push(micros);
            slow.push(busy as f64);
            excess.push(busy as f64 - quiet as f64);
        }
        println!("  {name}: {:.0} µs of CPU for a change of one endpoint in {ENDPOINTS}", median(&cpu));
        let figure = format!("update_of_10k_cpu_micros_{name}");
        // 100 changes a second leave 90 % of a core.
        let goal = if name == "maglev" { 10_000.0 } else { 1_000.0 };
        Figure { name: &figure, unit: Unit::Count, goal: Goal::AtMost(goal) }.report(&cpu);
        let figure = format!("slow_picks_during_updates_of_10k_{name}");
        Figure { name: &figure, unit: Unit::Count, goal: Goal::AtMost(0.0) }.report(&slow);
        // What of them is the update's doing. A few in a hundred thousand: interrupts fall on one run or the other.
        let figure = format!("slow_picks_more_than_without_updates_of_10k_{name}");
        Figure { name: &figure, unit: Unit::Count, goal: Goal::AtMost(PICKS as f64 / 1e5) }.report(&excess);
    }
}

/// How many picks were slow, and the CPU time of an update in microseconds.
fn round(policy: &Policy, updating: bool) -> (usize, f64) {
    let (mut registry, pool, runtime) = Registry::start(policy);
    let done = Arc::new(AtomicBool::new(false));
    let picks = std::thread::spawn({
        let (pool, done) = (pool.clone(), Arc::clone(&done));
        move || {
            let slow = slow_picks(&pool);
            done.store(true, Ordering::Relaxed);
            slow
        }
    });
    let mut used = Vec::new();
    while !done.load(Ordering::Relaxed) {
        if updating && used.len() < UPDATES {
            let present = used.len() % 2 == 1;
            let snapshot = registry.snapshot(present);
            let before = thread_cpu();
            registry.publish(snapshot);
            // To sleep costs no CPU: what is counted is the pool's work, however it spaces it.
            runtime.block_on(async { tokio::time::sleep(SPACE).await });
            used.push(thread_cpu_since(before).as_secs_f64() * 1e6);
            let expected = usize::from(ENDPOINTS) - usize::from(!present);
            runtime
                .block_on(pool.wait_for(|stats| stats.registered == expected && stats.ready() == expected));
        } else {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    (picks.join().expect("picks"), median(&used))
}

/// By the thread's CPU time: to be preempted is not to wait. The first picks warm up.
fn slow_picks(pool: &Pool<Unconnected>) -> usize {
    let wish = Wish::new();
    let mut times = Vec::with_capacity(PICKS);
    for _ in 0..PICKS {
        let before = thread_cpu();
        let lease = pool.try_lease(&wish);
        times.push(thread_cpu_since(before));
        lease.expect("an endpoint").finished(Outcome::Ok);
    }
    let mut sorted = times.clone();
    sorted.sort_unstable();
    let limit = sorted[PICKS / 2] * SLOW;
    times.iter().skip(PICKS / 100).filter(|&&time| time > limit).count()
}

// === impl Registry ===

impl Registry {
    /// All is on one runtime of the calling thread, so that the pool's work is counted as this thread's.
    fn start(policy: &Policy) -> (Self, Pool<Unconnected>, tokio::runtime::Runtime) {
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
            Channel::builder(subscription).policy(policy.clone()).pool(Unconnected)
        };
        let all = registry.snapshot(true);
        registry.publish(all);
        runtime.block_on(pool.wait_for(|stats| stats.ready() == usize::from(ENDPOINTS)));
        (registry, pool, runtime)
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
