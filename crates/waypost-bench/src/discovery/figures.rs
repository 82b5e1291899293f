//! The figures, each measured in rounds of ours and the bare protocol's by turns.

use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use waypost_bench::{Figure, Goal, Unit, median_seconds};
use waypost_discovery::{Discovery, DiscoveryOptions};
use waypost_etcd::{Client, ClientOptions};
use waypost_model::{Instance, ServiceName, layout};
use waypost_proto::etcdserverpb as pb;
use waypost_registry::{Registration, Registry, RegistryOptions};
use waypost_testkit::Etcd;

use crate::bare::{Bare, address, value};

/// As many keys as a page of [`Discovery`] holds by default.
const PAGE: i64 = waypost_discovery::DEFAULT_PAGE_SIZE;

/// For revoking the leases of 10,000 instances.
const SHUTDOWN: Duration = Duration::from_secs(30);

fn client(etcd: &Etcd) -> Client {
    Client::new(ClientOptions::new([etcd.url()])).expect("options")
}

fn registry(etcd: &Etcd) -> Registry {
    Registry::new(client(etcd), RegistryOptions::new(layout("grpc", None).expect("layout")))
}

fn discovery(etcd: &Etcd) -> Discovery {
    Discovery::new(client(etcd), DiscoveryOptions::new([layout("grpc", None).expect("layout")]))
}

fn instance(service: &str, index: usize) -> Instance {
    let endpoint = address(index).parse().expect("address");
    Instance::new(ServiceName::new(service).expect("name"), endpoint)
}

async fn all_registered(registrations: &[Registration]) {
    for registration in registrations {
        registration.registered().await.expect("registered");
    }
}

/// From `register` to the instance in a snapshot, beside from `put` to the event of a watch.
pub(crate) async fn register_to_visible(etcd: &Etcd) {
    const ROUNDS: usize = 9;
    const SAMPLES: usize = 60;
    let (registry, discovery) = (registry(etcd), discovery(etcd));
    let mut subscription = discovery.service(ServiceName::new("visible").expect("name"));
    subscription.ready().await;
    // The process's lease is granted with its first instance.
    let mut kept = vec![registry.register(instance("visible", 0)).expect("register")];
    all_registered(&kept).await;
    let bare = Bare::connect(&etcd.url()).await;
    let mut watch = bare.watch("bare/").await;
    let lease = bare.grant(60).await;
    let mut ratios = Vec::new();
    let mut next = 1;
    for _ in 0..ROUNDS {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..SAMPLES {
            let started = Instant::now();
            kept.push(registry.register(instance("visible", next)).expect("register"));
            while subscription.snapshot().len() <= next {
                subscription.changed().await;
            }
            ours.push(started.elapsed());
            let address = address(next);
            let (key, value) = (format!("bare/{address}"), value(&address));
            let started = Instant::now();
            let put = bare.put(&key, &value, lease);
            let seen = async {
                watch.next().await;
                started.elapsed()
            };
            let ((), elapsed) = tokio::join!(put, seen);
            theirs.push(elapsed);
            next += 1;
        }
        ratios.push(median_seconds(&ours) / median_seconds(&theirs));
    }
    Figure { name: "register_to_visible", unit: Unit::Ratio, goal: Goal::AtMost(1.2) }.report(&ratios);
    registry.shutdown(SHUTDOWN).await.expect("shutdown");
}

/// 10,000 instances registered by one process, beside one grant and one put for each. The ratio is that of speeds.
pub(crate) async fn batch_registration(etcd: &Etcd) {
    const ROUNDS: usize = 3;
    const INSTANCES: usize = 10_000;
    let mut ratios = Vec::new();
    for round in 0..ROUNDS {
        let registry = registry(etcd);
        let service = format!("batch-{round}");
        let instances = (0..INSTANCES).map(|index| instance(&service, index)).collect();
        let started = Instant::now();
        let registrations = registry.register_all(instances).expect("register");
        all_registered(&registrations).await;
        let ours = started.elapsed();
        registry.shutdown(SHUTDOWN).await.expect("shutdown");

        let bare = Bare::connect(&etcd.url()).await;
        let mut leases = Vec::new();
        let started = Instant::now();
        for index in 0..INSTANCES {
            let address = address(index);
            let lease = bare.grant(600).await;
            bare.put(&format!("bare-batch/{address}"), &value(&address), lease).await;
            leases.push(lease);
        }
        let theirs = started.elapsed();
        println!("  batch round {round}: {ours:?} beside {theirs:?}");
        ratios.push(theirs.as_secs_f64() / ours.as_secs_f64());
        for id in leases {
            bare.lease().lease_revoke(pb::LeaseRevokeRequest { id }).await.expect("revoke");
        }
    }
    Figure { name: "batch_registration_10k", unit: Unit::Ratio, goal: Goal::AtLeast(20.0) }.report(&ratios);
}

/// The first snapshot of 100,000 instances, beside the bare range of the same keys in pages of the same size.
pub(crate) async fn first_snapshot(etcd: &Etcd) {
    const ROUNDS: usize = 9;
    let mut ratios = Vec::new();
    for round in 0..ROUNDS {
        let started = Instant::now();
        let subscription = discovery(etcd).service(ServiceName::new("many").expect("name"));
        assert_eq!(subscription.ready().await.len(), 100_000);
        let ours = started.elapsed();
        drop(subscription);
        let (count, theirs) = Bare::connect(&etcd.url()).await.pages("services/many/", PAGE).await;
        assert_eq!(count, 100_000);
        println!("  snapshot round {round}: {ours:?} beside {theirs:?}");
        ratios.push(ours.as_secs_f64() / theirs.as_secs_f64());
    }
    Figure { name: "first_snapshot_100k", unit: Unit::Ratio, goal: Goal::AtMost(1.5) }.report(&ratios);
}

/// Resident memory of a process that follows 100,000 instances, less what it had before, per instance.
pub(crate) async fn memory_per_instance(etcd: &Etcd) {
    let mut bytes = Vec::new();
    for _ in 0..3 {
        let follower = Follower::start(etcd, "many").await;
        #[expect(clippy::cast_precision_loss, reason = "memory sizes fit a float")]
        bytes.push(follower.grown as f64 / 100_000.0);
    }
    Figure { name: "snapshot_bytes_per_instance", unit: Unit::Count, goal: Goal::AtMost(1024.0) }
        .report(&bytes);
}

/// CPU time of a process that follows 10,000 instances, per change of one of them. The changes come one by one from
/// another process.
pub(crate) async fn cpu_of_a_change(etcd: &Etcd) {
    const ROUNDS: usize = 5;
    const CHANGES: u32 = 1000;
    crate::bare::fill(&etcd.url(), "services/changing/", 10_000).await;
    let bare = Bare::connect(&etcd.url()).await;
    let mut follower = Follower::start(etcd, "changing").await;
    let first = address(0);
    let key = format!("services/changing/{first}");
    let weighted =
        |weight: u32| format!("{{\"Op\":0,\"Addr\":\"{first}\",\"Metadata\":{{\"weight\":{weight}}}}}");
    let mut weight = 1000;
    bare.put(&key, &weighted(weight), 0).await;
    let mut cpu = follower.cpu_when(weight).await;
    let mut micros = Vec::new();
    for _ in 0..ROUNDS {
        for _ in 0..CHANGES {
            weight += 1;
            bare.put(&key, &weighted(weight), 0).await;
        }
        let now = follower.cpu_when(weight).await;
        micros.push(f64::from(i32::try_from(now - cpu).expect("some seconds")) / f64::from(CHANGES));
        cpu = now;
    }
    Figure { name: "change_in_10k_cpu_micros", unit: Unit::Count, goal: Goal::AtMost(100.0) }.report(&micros);
}

/// Renewals a second that etcd receives for 10,000 instances of one process, beside those of one lease for each.
pub(crate) async fn keepalive_rate(etcd: &Etcd) {
    const INSTANCES: usize = 10_000;
    const TTL: i64 = 15;
    const WINDOW: Duration = Duration::from_secs(20);
    let layout = layout("grpc", None).expect("layout");
    let options = RegistryOptions::new(layout).ttl(Duration::from_secs(TTL.unsigned_abs()));
    let registry = Registry::new(client(etcd), options);
    let instances = (0..INSTANCES).map(|index| instance("kept", index)).collect();
    let registrations = registry.register_all(instances).expect("register");
    all_registered(&registrations).await;
    let ours = renewals_a_second(etcd, WINDOW).await;
    registry.shutdown(SHUTDOWN).await.expect("shutdown");

    let bare = Bare::connect(&etcd.url()).await;
    let mut leases = Vec::new();
    for _ in 0..INSTANCES {
        leases.push(bare.grant(TTL * 4).await);
    }
    let (requests, outbox) = tokio::sync::mpsc::unbounded_channel();
    let period = Duration::from_secs(TTL.unsigned_abs()) / 3;
    let sender = tokio::spawn(async move {
        let mut turn = tokio::time::interval(period / u32::try_from(leases.len() / 100).expect("few"));
        for batch in leases.chunks(100).cycle() {
            turn.tick().await;
            for id in batch {
                if requests.send(pb::LeaseKeepAliveRequest { id: *id }).is_err() {
                    return;
                }
            }
        }
    });
    let stream = tokio_stream::wrappers::UnboundedReceiverStream::new(outbox);
    let mut answers = bare.lease().lease_keep_alive(stream).await.expect("keepalive").into_inner();
    let reader = tokio::spawn(async move { while let Ok(Some(_)) = answers.message().await {} });
    let theirs = renewals_a_second(etcd, WINDOW).await;
    sender.abort();
    reader.abort();
    println!("  renewals a second: {ours:.2} beside {theirs:.0}");
    Figure { name: "keepalives_per_second_10k", unit: Unit::Count, goal: Goal::AtMost(10.0) }.report(&[ours]);
    Figure { name: "keepalives_beside_one_lease_each", unit: Unit::Ratio, goal: Goal::AtMost(0.01) }
        .report(&[ours / theirs]);
}

/// What etcd itself counts over a time.
async fn renewals_a_second(etcd: &Etcd, window: Duration) -> f64 {
    let count = async || -> f64 {
        let text = etcd.metrics().await;
        text.lines()
            .filter(|line| {
                line.starts_with("grpc_server_msg_received_total") && line.contains("\"LeaseKeepAlive\"")
            })
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    };
    let (before, started) = (count().await, Instant::now());
    tokio::time::sleep(window).await;
    (count().await - before) / started.elapsed().as_secs_f64()
}

/// A child that follows a service.
struct Follower {
    /// By how many bytes its resident memory grew with the snapshot.
    grown: u64,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

// === impl Follower ===

impl Follower {
    async fn start(etcd: &Etcd, service: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--child", &etcd.url(), service])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("child");
        let input = child.stdin.take().expect("input");
        let mut output = BufReader::new(child.stdout.take().expect("output")).lines();
        let line = output.next_line().await.expect("line").expect("ready");
        let numbers: Vec<u64> = line.split(' ').skip(1).filter_map(|number| number.parse().ok()).collect();
        // The child is this program, and says these three before anything else, or has said on standard error why it ended.
        let [before, after, _] = numbers[..] else {
            panic!("the child says `ready BEFORE AFTER LENGTH` first, not: {line}")
        };
        Self { grown: after - before, input, output, _child: child }
    }

    /// The child's CPU time so far, in microseconds, when it has seen this weight.
    async fn cpu_when(&mut self, weight: u32) -> i64 {
        self.input.write_all(format!("{weight}\n").as_bytes()).await.expect("ask");
        let line = self.output.next_line().await.expect("line").expect("cpu");
        line.split(' ').nth(1).and_then(|micros| micros.parse().ok()).expect("a number")
    }
}
