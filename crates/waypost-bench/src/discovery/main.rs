//! Registration and discovery beside the bare protocol: a plain tonic client of etcd without Waypost, asked of the
//! same etcd in the same run.
//!
//! `bench-discovery [FIGURE…]` runs all figures, or those named. The program starts itself again as a child where
//! memory or CPU time of one process is measured.
#![forbid(unsafe_code)]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark that cannot go on has no figure to report"
)]

mod bare;
mod child;
mod figures;

use waypost_testkit::{Etcd, EtcdVersion};

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if arguments.first().is_some_and(|first| first == "--child") {
        return child::run(&arguments[1..]).await;
    }
    let wanted = |name: &str| arguments.is_empty() || arguments.iter().any(|argument| argument == name);
    let start = async || Etcd::start(EtcdVersion::V3_5).await;
    if wanted("visible") {
        figures::register_to_visible(&start().await).await;
    }
    if wanted("batch") {
        figures::batch_registration(&start().await).await;
    }
    if wanted("snapshot") {
        let etcd = start().await;
        bare::fill(&etcd.url(), "services/many/", 100_000).await;
        figures::first_snapshot(&etcd).await;
        figures::memory_per_instance(&etcd).await;
    }
    if wanted("change") {
        figures::cpu_of_a_change(&start().await).await;
    }
    if wanted("keepalive") {
        figures::keepalive_rate(&start().await).await;
    }
}
