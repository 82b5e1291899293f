//! The embedded server beside etcd 3.5: the same load from the same generator, both with fsync, on the same disk, by turns.
//!
//! `bench-embed [--quick] [FIGURE…]` runs all figures, or those named. The server is `waypost serve`, found beside this
//! program, or the one that `WAYPOST_BENCH_SERVER` names; etcd runs with the flags that it has by default. The lines with two spaces are each round's own.
#![forbid(unsafe_code)]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark that cannot go on has no figure to report"
)]

mod figures;
mod load;
mod server;
mod wire;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Rounds of a figure.
    pub(crate) rounds: usize,
    /// Seconds of load in each.
    pub(crate) seconds: f64,
    /// Puts whose events 1,000 watchers get in each.
    pub(crate) events: u64,
    /// Puts before memory is looked at.
    pub(crate) puts: u64,
}

// One thread, so that the server has a core for itself.
#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let quick = arguments.iter().position(|argument| argument == "--quick").map(|at| arguments.remove(at));
    let effort = match quick {
        None => Effort { rounds: 15, seconds: 1.0, events: 500, puts: 1_000_000 },
        Some(_) => Effort { rounds: 5, seconds: 0.4, events: 300, puts: 100_000 },
    };
    let wanted = |name: &str| arguments.is_empty() || arguments.iter().any(|argument| argument == name);
    for (name, clients, connections) in figures::LOADS {
        if wanted("put") || wanted(&format!("put_{name}")) {
            figures::puts(effort, name, clients, connections).await;
        }
    }
    for (name, clients, connections) in figures::LOADS {
        if wanted("get") || wanted(&format!("get_{name}")) {
            figures::gets(effort, name, clients, connections).await;
        }
    }
    if wanted("event") {
        figures::put_to_event(effort).await;
    }
    if wanted("watchers") {
        figures::watchers(effort).await;
    }
    if wanted("start") {
        figures::start(effort);
    }
    if wanted("memory") {
        figures::memory(effort).await;
    }
}
