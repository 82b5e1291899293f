//! What is measured of one whole process: its memory and its CPU time.
//!
//! The child follows a service, says `ready RSS-BYTES-BEFORE RSS-BYTES-AFTER`, and then, for each line on its standard
//! input, answers `cpu MICROSECONDS LENGTH WEIGHT-OF-THE-FIRST` once the first instance has the weight that the line asks for.

use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use waypost_bench::own_cpu_micros;
use waypost_discovery::{Discovery, DiscoveryOptions};
use waypost_etcd::{Client, ClientOptions};
use waypost_model::{ServiceName, Snapshot, layout};

pub(crate) async fn run(arguments: &[String]) {
    // Nobody types this: the one who starts it is this program.
    let [url, service] = arguments else {
        panic!("`--child` is run by `Follower::start`, which passes URL and SERVICE")
    };
    let client = Client::new(ClientOptions::new([url.as_str()])).expect("options");
    // What the client and the runtime need is not the snapshot's.
    client.status().await.expect("etcd");
    let before = resident_bytes();
    let discovery = Discovery::new(client, DiscoveryOptions::new([layout("grpc", None).expect("layout")]));
    let mut subscription = discovery.service(ServiceName::new(service).expect("name"));
    let snapshot = subscription.ready().await;
    // The pages of the range are freed by now; what stays is what a process that follows the service holds.
    tokio::time::sleep(Duration::from_millis(500)).await;
    println!("ready {before} {} {}", resident_bytes(), snapshot.len());
    drop(snapshot);
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await.expect("input") {
        let wanted: u32 = line.trim().parse().expect("a weight");
        let mut snapshot = subscription.snapshot();
        while first_weight(&snapshot) != wanted {
            snapshot = subscription.changed().await;
        }
        println!("cpu {} {} {wanted}", own_cpu_micros(), snapshot.len());
    }
}

fn first_weight(snapshot: &Snapshot) -> u32 {
    snapshot.instances().next().map_or(0, |instance| instance.weight)
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("statm");
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("resident pages");
    pages * 4096
}
