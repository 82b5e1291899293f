//! Unary calls a second and their latency, beside a bare tonic channel to one server, tonic's `balance_list`, bare tonic channels by
//! turns, and grpc-go's `round_robin` with etcd's resolver; all call the same servers, with as many callers.

use crate::fleet::{Servers, channel, register};
use crate::load::{self, CALLERS, Load};
use crate::turns::Turns;
use serde_json::Value;
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::health_client::HealthClient;
use waypost_bench::{Figure, Goal, Unit, median};
use waypost_testkit::{Etcd, EtcdVersion, GoInterop};

const ROUNDS: usize = 9;
const STRETCH: Duration = Duration::from_secs(1);
const WARM_UP: Duration = Duration::from_millis(300);

/// Ours first.
const PEERS: [&str; 5] =
    ["ours", "a_bare_channel", "tonics_balance_list", "bare_channels_by_turns", "grpc_go"];

/// grpc-go in a process of its own, that calls when it is told to.
struct Go {
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

/// Every figure of calls.
pub(crate) async fn run() {
    let etcd = Etcd::start(EtcdVersion::V3_5).await;
    let program = GoInterop::build().await;
    for count in [1, 10, 100] {
        let servers = Servers::start(count).await;
        let service = format!("calls-{count}");
        let _registrations = register(&etcd, &service, &servers.addresses).await;
        let endpoint = |address: &String| {
            Endpoint::from_shared(format!("http://{address}")).expect("address").tcp_nodelay(true)
        };
        let mut channels = Vec::new();
        for address in &servers.addresses {
            channels.push(endpoint(address).connect().await.expect("the server"));
        }
        let bare = HealthClient::new(channels[0].clone());
        let turns = HealthClient::new(Turns::new(channels));
        let list = HealthClient::new(Channel::balance_list(servers.addresses.iter().map(endpoint)));
        let ours = channel(&etcd, &service, count).await;
        let mut go = Go::start(program, &etcd, &service, count).await;
        load::run(&bare, WARM_UP).await;
        load::run(&list, WARM_UP).await;
        load::run(&turns, WARM_UP).await;
        load::run(&ours, WARM_UP).await;
        go.run(WARM_UP).await;
        let mut rounds = Vec::new();
        for round in 0..ROUNDS {
            let mut loads = [None; PEERS.len()];
            // Nobody is always first.
            for place in 0..PEERS.len() {
                let turn = (place + round) % PEERS.len();
                loads[turn] = Some(match turn {
                    0 => load::run(&ours, STRETCH).await,
                    1 => load::run(&bare, STRETCH).await,
                    2 => load::run(&list, STRETCH).await,
                    3 => load::run(&turns, STRETCH).await,
                    _ => go.run(STRETCH).await,
                });
            }
            let loads = loads.map(|load| load.expect("every peer had its turn"));
            for (name, load) in PEERS.iter().zip(&loads) {
                println!("  {name}: {load}");
            }
            rounds.push(loads);
        }
        report(count, &rounds);
    }
}

fn report(count: usize, rounds: &[[Load; PEERS.len()]]) {
    println!("  {count} endpoints, {CALLERS} callers");
    for (at, name) in PEERS.iter().enumerate() {
        let micros: Vec<f64> = rounds.iter().filter_map(|loads| loads[at].cpu_micros).collect();
        if !micros.is_empty() {
            println!("  {name}: {:.1} µs of CPU for a call", median(&micros));
        }
    }
    // As many connections without any choice among them: what is short of one connection and not of this is the
    // connections', each with its own reads and writes. The goal is that for the bare channel.
    let goals = [1.0, 0.97, 1.0, 0.97, 1.0];
    for (at, (peer, goal)) in PEERS.iter().zip(goals).enumerate().skip(1) {
        let ratio = |of: fn(&Load) -> f64| -> Vec<f64> {
            rounds.iter().map(|loads| of(&loads[0]) / of(&loads[at])).collect()
        };
        let figure = |what: &str, goal, rounds: &[f64]| {
            let name = format!("{what}_{count}_endpoints_beside_{peer}");
            Figure { name: &name, unit: Unit::Ratio, goal }.report(rounds);
        };
        figure("calls_per_second", Goal::AtLeast(goal), &ratio(|load| load.per_second));
        figure("p50", Goal::AtMost(2.0 - goal), &ratio(|load| load.p50.as_secs_f64()));
        figure("p99", Goal::AtMost(2.0 - goal), &ratio(|load| load.p99.as_secs_f64()));
    }
}

// === impl Go ===

impl Go {
    async fn start(program: GoInterop, etcd: &Etcd, service: &str, servers: usize) -> Self {
        let mut command = Command::new(program.program());
        command.args(["load", "-etcd", &etcd.url(), "-service", service]);
        command.args(["-servers", &servers.to_string(), "-callers", &CALLERS.to_string()]);
        let mut child = tokio::process::Command::from(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the Go program");
        let input = child.stdin.take().expect("input");
        let mut output = BufReader::new(child.stdout.take().expect("output")).lines();
        output.next_line().await.expect("a line").expect("it is ready");
        Self { input, output, _child: child }
    }

    async fn run(&mut self, time: Duration) -> Load {
        self.input.write_all(format!("{}\n", time.as_nanos()).as_bytes()).await.expect("ask");
        let line = self.output.next_line().await.expect("a line").expect("an answer");
        let answer: Value = serde_json::from_str(&line).expect("JSON");
        // The program is built of this tree before it is started, so both ends of the line change together.
        let number = |name: &str| {
            answer[name].as_u64().unwrap_or_else(|| panic!("interop/go/load.go answers with {name}: {line}"))
        };
        Load {
            per_second: number("calls") as f64 / Duration::from_nanos(number("nanos")).as_secs_f64(),
            p50: Duration::from_nanos(number("p50")),
            p99: Duration::from_nanos(number("p99")),
            failures: number("failures") as usize,
            cpu_micros: None,
        }
    }
}
