//! The figures of the embedded server.

use std::time::{Duration, Instant};

use waypost_bench::{Figure, Goal, Unit, median_seconds, own_cpu_micros};

use crate::Effort;
use crate::load::{self, Rate, Until, float};
use crate::server::{Kind, Running};
use crate::wire::Connection;

/// Loads that puts and gets are measured with: name, clients, connections.
pub(crate) const LOADS: [(&str, usize, usize); 3] =
    [("1", 1, 1), ("64_one_connection", 64, 1), ("64_connections", 64, 64)];

/// Keys that gets ask for.
const KEYS: u64 = 10_000;
/// As etcd's own benchmark of watches has it by default: 10 streams with 100 watches each.
const STREAMS: usize = 10;
const WATCHES_OF_A_STREAM: usize = 100;
const WATCHERS: f64 = 1000.0;
/// Puts on their way to the watchers at one time.
const WRITERS: usize = 4;

/// Ours and etcd, both running, in the order of a round: the one that went first goes second in the next.
struct Pair([(Kind, Running); 2]);

/// One value of each.
#[derive(Clone, Copy, Debug)]
struct Both<T> {
    ours: T,
    etcd: T,
}

fn report(name: &'static str, goal: Goal, rounds: &[f64]) {
    Figure { name, unit: Unit::Ratio, goal }.report(rounds);
}

/// Puts a second: ours ÷ etcd's.
pub(crate) async fn puts(effort: Effort, load: &str, clients: usize, connections: usize) {
    let mut pair = Pair::start();
    let body = load::puts();
    let mut next = 0;
    let mut ratios = Vec::new();
    for round in 0..effort.rounds {
        let until = Until::Time(Duration::from_secs_f64(effort.seconds));
        let mut rates = [None; 2];
        for (place, (_, server)) in pair.0.iter().enumerate() {
            let (rate, end) =
                load::run(server, "KV/Put", body.clone(), (clients, connections), next, until).await;
            rates[place] = Some(rate);
            next = end;
        }
        ratios.push(pair.rates(round, rates));
        pair.turn();
    }
    match load {
        "1" => report("put_1", Goal::AtLeast(1.5), &ratios),
        "64_one_connection" => report("put_64_one_connection", Goal::AtLeast(2.0), &ratios),
        _ => report("put_64_connections", Goal::AtLeast(2.0), &ratios),
    }
}

/// Linearizable gets a second: ours ÷ etcd's.
pub(crate) async fn gets(effort: Effort, load: &str, clients: usize, connections: usize) {
    let mut pair = Pair::start();
    for (_, server) in &pair.0 {
        load::run(server, "KV/Put", load::puts(), (64, 1), 0, Until::Calls(KEYS)).await;
    }
    let body = load::gets(KEYS);
    let mut ratios = Vec::new();
    for round in 0..effort.rounds {
        let until = Until::Time(Duration::from_secs_f64(effort.seconds));
        let mut rates = [None; 2];
        for (place, (_, server)) in pair.0.iter().enumerate() {
            let (rate, _) =
                load::run(server, "KV/Range", body.clone(), (clients, connections), 0, until).await;
            rates[place] = Some(rate);
        }
        ratios.push(pair.rates(round, rates));
        pair.turn();
    }
    match load {
        "1" => report("get_1", Goal::AtLeast(2.0), &ratios),
        "64_one_connection" => report("get_64_one_connection", Goal::AtLeast(2.0), &ratios),
        _ => report("get_64_connections", Goal::AtLeast(2.0), &ratios),
    }
}

/// From the sending of a put to its event at a watch on another connection, the median of one put after the other.
pub(crate) async fn put_to_event(effort: Effort) {
    let mut pair = Pair::start();
    let body = load::puts();
    let mut ratios = Vec::new();
    let mut number = 0;
    for round in 0..effort.rounds {
        let mut medians = [0.0; 2];
        for (place, (_, server)) in pair.0.iter().enumerate() {
            let mut writer = Connection::open(server.address).await;
            let mut watch = Connection::open(server.address).await.watch("bench/", 1).await;
            let call = writer.call("KV/Put");
            let mut samples = Vec::new();
            let started = Instant::now();
            while started.elapsed().as_secs_f64() < effort.seconds {
                number += 1;
                let body = body(number);
                let sent = Instant::now();
                let (_, arrived) = tokio::join!(writer.unary(&call, body), async {
                    while watch.next().await.events.is_empty() {}
                    sent.elapsed()
                });
                samples.push(arrived);
            }
            medians[place] = median_seconds(&samples);
        }
        let Both { ours, etcd } = pair.both(medians);
        println!("  round {round}: {:.0} µs beside {:.0} µs", ours * 1e6, etcd * 1e6);
        ratios.push(ours / etcd);
        pair.turn();
    }
    report("put_to_event", Goal::AtMost(0.6), &ratios);
}

/// Events a second that 1,000 watchers of one prefix get while four writers put there.
pub(crate) async fn watchers(effort: Effort) {
    let mut pair = Pair::start();
    let puts = effort.events;
    let mut ratios = Vec::new();
    let mut first = 0;
    for round in 0..effort.rounds {
        let mut rates = [None; 2];
        for (place, (_, server)) in pair.0.iter().enumerate() {
            rates[place] = Some(fan_out(server, puts, first).await);
        }
        first += puts;
        ratios.push(pair.rates(round, rates));
        pair.turn();
    }
    report("watchers_1000", Goal::AtLeast(2.0), &ratios);
}

async fn fan_out(server: &Running, puts: u64, first: u64) -> Rate {
    let expected = usize::try_from(puts).expect("few") * WATCHES_OF_A_STREAM;
    let mut watching = Vec::new();
    for mut connection in load::open(server.address, STREAMS).await {
        watching.push(connection.watch("bench/", WATCHES_OF_A_STREAM).await);
    }
    let (cpu, own, started) = (server.cpu_micros(), own_cpu_micros(), Instant::now());
    let readers: Vec<_> = watching
        .into_iter()
        .map(|mut watching| {
            tokio::spawn(async move {
                let mut seen = 0;
                while seen < expected {
                    seen += watching.events().await;
                }
            })
        })
        .collect();
    load::run(server, "KV/Put", load::puts(), (WRITERS, 1), first, Until::Calls(puts)).await;
    for reader in readers {
        reader.await.expect("all events");
    }
    let events = float(puts) * WATCHERS;
    Rate {
        per_second: events / started.elapsed().as_secs_f64(),
        server_micros: float(server.cpu_micros() - cpu) / events,
        own_micros: float(own_cpu_micros() - own) / events,
    }
}

/// From the start of the process, in an empty folder, to the first answer that it is healthy.
pub(crate) fn start(effort: Effort) {
    let mut ratios = Vec::new();
    for round in 0..effort.rounds {
        let pair = Pair::start();
        let Both { ours, etcd } =
            pair.both([pair.0[0].1.took, pair.0[1].1.took].map(|took| took.as_secs_f64()));
        println!("  round {round}: {:.1} ms beside {:.1} ms", ours * 1e3, etcd * 1e3);
        ratios.push(ours / etcd);
    }
    report("start", Goal::AtMost(0.2), &ratios);
}

/// Resident memory after the start, and after a million puts of as many keys.
pub(crate) async fn memory(effort: Effort) {
    let rounds = effort.rounds.min(2);
    let (mut after_start, mut after_puts) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let mut pair = Pair::start();
        if round % 2 == 1 {
            pair.turn();
        }
        // What the start itself needed is given back by then, or it is not.
        tokio::time::sleep(Duration::from_millis(500)).await;
        after_start.push(pair.memory(round, "after the start"));
        let puts = effort.puts;
        for (kind, server) in &pair.0 {
            let (rate, _) = load::run(server, "KV/Put", load::puts(), (64, 1), 0, Until::Calls(puts)).await;
            println!("  round {round}: {puts} puts at {kind:?}, {:.0}/s", rate.per_second);
        }
        after_puts.push(pair.memory(round, "after the puts"));
    }
    report("memory_after_start", Goal::AtMost(0.5), &after_start);
    report("memory_after_puts", Goal::AtMost(0.5), &after_puts);
}

// === impl Pair ===

impl Pair {
    fn start() -> Self {
        Self([Kind::Ours, Kind::Etcd].map(|kind| (kind, Running::start(kind))))
    }

    fn turn(&mut self) {
        self.0.reverse();
    }

    fn both<T: Copy>(&self, [first, second]: [T; 2]) -> Both<T> {
        if self.0[0].0 == Kind::Ours {
            Both { ours: first, etcd: second }
        } else {
            Both { ours: second, etcd: first }
        }
    }

    /// Prints the rates of a round; ours ÷ etcd's.
    fn rates(&self, round: usize, rates: [Option<Rate>; 2]) -> f64 {
        let Both { ours, etcd } = self.both(rates.map(|rate| rate.expect("both were measured")));
        println!(
            "  round {round}: {:.0}/s beside {:.0}/s; CPU of the server {:.1} µs beside {:.1} µs, of the load {:.1} µs beside {:.1} µs",
            ours.per_second,
            etcd.per_second,
            ours.server_micros,
            etcd.server_micros,
            ours.own_micros,
            etcd.own_micros
        );
        ours.per_second / etcd.per_second
    }

    /// Prints memory; ours ÷ etcd's.
    fn memory(&self, round: usize, when: &str) -> f64 {
        let memory = [0, 1].map(|place| self.0[place].1.memory());
        let Both { ours, etcd } = self.both(memory);
        let mebibytes = |bytes: u64| float(bytes) / 1_048_576.0;
        println!(
            "  round {round}, {when}: {:.1} MiB beside {:.1} MiB; of no file {:.1} beside {:.1}",
            mebibytes(ours.0),
            mebibytes(etcd.0),
            mebibytes(ours.1),
            mebibytes(etcd.1)
        );
        float(ours.0) / float(etcd.0)
    }
}
