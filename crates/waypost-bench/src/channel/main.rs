//! The channel beside its peers: picks beside tower's, calls beside tonic's own channel, its `balance_list` and grpc-go, in one run.
//!
//! `bench-channel [GROUP…]` runs all groups of figures, or those named: `picks`, `calls`, `dead`, `updates`. The servers are
//! another process: this program, started as `--serve COUNT`; so are picks that are stepped through, as `--stepped POLICY UPDATES`.
#![forbid(unsafe_code)]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark that cannot go on has no figure to report"
)]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts and times of benchmarks are small"
)]

mod calls;
mod clock;
mod control;
mod dead;
mod fleet;
mod lengths;
mod load;
mod numbered;
mod picks;
mod places;
mod registry;
mod stepped;
mod steps;
mod turns;
mod updates;

use waypost_bench::Machine;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, policy, updates] = &arguments[..]
        && first == "--stepped"
    {
        let policy = updates::policies().into_iter().find(|known| known.name() == policy);
        return stepped::child(policy.expect("a policy"), updates.parse().expect("--stepped POLICY UPDATES"));
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    if let [first, count] = &arguments[..]
        && first == "--serve"
    {
        return runtime.block_on(fleet::serve(count.parse().expect("--serve COUNT")));
    }
    let groups: [(&str, &dyn Fn()); 4] = [
        ("picks", &picks::run),
        ("updates", &updates::run),
        ("dead", &|| runtime.block_on(dead::run())),
        ("calls", &|| runtime.block_on(calls::run())),
    ];
    let names = groups.map(|(name, _)| name);
    if let Some(unknown) = arguments.iter().find(|argument| !names.contains(&argument.as_str())) {
        eprintln!("there is no group {unknown:?}: known are {}", names.join(", "));
        std::process::exit(2);
    }
    let wanted = |name: &str| arguments.is_empty() || arguments.iter().any(|argument| argument == name);
    for (name, run) in groups.into_iter().filter(|(name, _)| wanted(name)) {
        println!("{name}, on a machine of {}", Machine::now());
        run();
    }
    println!("and then of {}", Machine::now());
}
