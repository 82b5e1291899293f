//! What a change in a set of 10,000 endpoints costs, and whether picks notice.

use crate::registry::{Registry, runtime, settled};
use crate::{control, stepped};
use std::sync::Arc;
use std::time::Duration;
use waypost_balance::{Maglev, PeakEwma, Policy, RoundRobin};
use waypost_bench::{Figure, Goal, Unit, own_cpu_micros};

/// Whose CPU is taken.
const UPDATES: usize = 21;
/// In this time a table of so many is made, however soon after the last one.
const LONGEST: Duration = Duration::from_millis(100);

/// Every figure of updates.
pub(crate) fn run() {
    for policy in policies() {
        cpu_of_updates(&policy);
        stepped::run(&policy);
        control::run(&policy);
    }
}

/// Those that have figures.
pub(crate) fn policies() -> [Arc<dyn Policy>; 3] {
    [Arc::new(RoundRobin::default()), Arc::new(PeakEwma::default()), Arc::new(Maglev::default())]
}

/// Of the whole process, where nothing else is going on: large tables are made on a thread of their own.
fn cpu_of_updates(policy: &Arc<dyn Policy>) {
    let runtime = runtime();
    let (mut registry, pool) = Registry::start(&runtime, Arc::clone(policy));
    let used: Vec<f64> = (0..UPDATES)
        .map(|_| {
            let (snapshot, expected) = registry.next();
            let before = own_cpu_micros();
            registry.publish(snapshot);
            // To sleep costs no CPU, to ask the pool for the state of all would.
            runtime.block_on(async { tokio::time::sleep(LONGEST).await });
            let used = own_cpu_micros() - before;
            runtime.block_on(settled(&pool, expected));
            used as f64
        })
        .collect();
    let name = policy.name();
    let figure = format!("update_of_10k_{name}_us");
    // Our own goals: 100 changes a second leave 90 % of a core, ten with a table of 655,373 slots.
    let goal = if name == "maglev" { 10_000.0 } else { 1_000.0 };
    Figure { name: &figure, unit: Unit::Count, goal: Goal::AtMost(goal) }.report(&used);
}
