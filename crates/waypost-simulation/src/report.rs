//! The tables of `docs/balancing.md`, as Markdown.

use crate::{
    Call, Conduct, Dice, Ready, Simulation, google, moved, numbered, open, percentile, servers, shares,
    subset, unevenness, weighted,
};
use std::fmt::{self, Write as _};
use std::time::{Duration, Instant};
use waypost_balance::{
    LeastRequest, Maglev, OutlierSettings, PeakEwma, PickRequest, Policy, Random, RingHash, RoundRobin,
    WeightedRoundRobin,
};
use waypost_model::Endpoint;

/// Where the tables begin in the document.
pub const BEGIN: &str = "<!-- simulate-balancing: begin -->\n";
/// Where they end.
pub const END: &str = "<!-- simulate-balancing: end -->\n";

/// Each figure is the median over these.
pub(crate) const SEEDS: [u64; 3] = [44, 4_711, 20_261_120];
const SECONDS: u64 = 20;
/// A call works for 10 ms on one of four workers of ten servers, so this is half of what they can do.
const RATE: f64 = 2_000.0;
const KEYS: u64 = 10_000;

/// What a client of this number chooses of these servers: indices.
type Choice<'a> = &'a dyn Fn(usize, &[Endpoint]) -> Vec<usize>;

/// All tables: deterministic, whatever machine they are made on.
pub fn tables() -> String {
    let mut text = String::new();
    let written = write_all(&mut text);
    // Writing to a `String` does not fail.
    debug_assert!(written.is_ok());
    text
}

fn write_all(text: &mut String) -> fmt::Result {
    writeln!(
        text,
        "Seeds {SEEDS:?}; {SECONDS} s of virtual time each; every figure is the median of the three.\n"
    )?;
    queues(text)?;
    weights(text)?;
    hashing(text)?;
    subsets(text)
}

/// The policies, as a channel has them by default.
pub(crate) fn policies() -> [Box<dyn Policy>; 7] {
    [
        Box::new(RoundRobin::default()),
        Box::new(WeightedRoundRobin::default()),
        Box::new(Random),
        Box::new(LeastRequest::default()),
        Box::new(PeakEwma::default()),
        Box::new(RingHash::default()),
        Box::new(Maglev::default()),
    ]
}

/// Ten servers, the first of which behaves otherwise.
pub(crate) fn run(
    policy: &dyn Policy,
    seed: u64,
    rate: f64,
    first: Conduct,
    detector: Option<&OutlierSettings>,
) -> Simulation {
    let start = Instant::now();
    let mut simulation = Simulation::new(seed, policy, &open(10, start), start).with_keys(KEYS);
    if let Some(settings) = detector {
        simulation = simulation.with_detector(settings);
    }
    simulation.run(
        Duration::from_secs(SECONDS),
        rate,
        |server, _| {
            if server == 0 { first } else { Conduct::Works(1.0) }
        },
    );
    simulation.finish();
    simulation
}

fn queues(text: &mut String) -> fmt::Result {
    writeln!(
        text,
        "**Fairness, a slow server (H46), a server that fails fast (H47).** Ten servers with four workers each, 10 ms a call (5 ms, and an"
    )?;
    writeln!(
        text,
        "exponential 5 ms), {RATE} calls a second at random times: half of what the servers can do. *Uneven*: the standard deviation of the servers'"
    )?;
    writeln!(
        text,
        "calls, as part of their mean. *Slow*: one server takes ten times as long. *Failing*: one server fails every call after 1 ms.\n"
    )?;
    writeln!(
        text,
        "| policy | uneven | p50 | p99 | slow: its share | slow: p50 | slow: p99 | failing: failed calls | with ejection |"
    )?;
    writeln!(text, "|---|---|---|---|---|---|---|---|---|")?;
    let settings = OutlierSettings::default();
    let named = policies().map(|policy| (format!("`{}`", policy.name()), policy)).into_iter();
    let five: Box<dyn Policy> = Box::new(LeastRequest::default().with_choices(5));
    for (name, policy) in named.chain([("`least_request` of 5".to_owned(), five)]) {
        let over = |of: &dyn Fn(u64) -> f64| median(SEEDS.map(of));
        let simulate = |first, detector| SEEDS.map(|seed| run(&*policy, seed, RATE, first, detector));
        let of = |runs: &[Simulation; 3], figure: &dyn Fn(&Simulation) -> f64| {
            median([figure(&runs[0]), figure(&runs[1]), figure(&runs[2])])
        };
        let alike = simulate(Conduct::Works(1.0), None);
        let slow = simulate(Conduct::Works(10.0), None);
        let failed = |simulation: &Simulation| {
            let failed = simulation.ended.iter().filter(|call| call.failed).count();
            failed as f64 / simulation.ended.len() as f64
        };
        let failing = over(&|seed| failed(&run(&*policy, seed, RATE, Conduct::Fails, None)));
        let ejected = over(&|seed| failed(&run(&*policy, seed, RATE, Conduct::Fails, Some(&settings))));
        writeln!(
            text,
            "| {name} | {:.1} % | {} | {} | {:.1} % | {} | {} | {:.2} % | {:.2} % |",
            100.0 * of(&alike, &|simulation| uneven(&counts(&simulation.ended))),
            millis(of(&alike, &|simulation| quantile(&simulation.ended, 50))),
            millis(of(&alike, &|simulation| quantile(&simulation.ended, 99))),
            100.0 * of(&slow, &|simulation| simulation.share(0, 0, SECONDS)),
            millis(of(&slow, &|simulation| quantile(&simulation.ended, 50))),
            millis(of(&slow, &|simulation| quantile(&simulation.ended, 99))),
            100.0 * failing,
            100.0 * ejected,
        )?;
    }
    writeln!(text)
}

fn weights(text: &mut String) -> fmt::Result {
    const CALLS: usize = 100_000;
    let now = Instant::now();
    writeln!(
        text,
        "**Weights.** {CALLS} calls to servers with the weights 1, 2, 3 and 4, in parts of what is due; and the same with all weights 0 (H50).\n"
    )?;
    writeln!(text, "| policy | 1 | 2 | 3 | 4 | all zero |")?;
    writeln!(text, "|---|---|---|---|---|---|")?;
    let policies: [Box<dyn Policy>; 3] =
        [Box::new(WeightedRoundRobin::default()), Box::new(RingHash::default()), Box::new(Maglev::default())];
    for policy in policies {
        let given = |weights: &[u32]| {
            let picker = policy.build(weighted(weights, now), None);
            shares(&*picker, weights.len(), CALLS, now, &Dice::new(SEEDS[0]))
        };
        write!(text, "| `{}` |", policy.name())?;
        for (calls, weight) in given(&[1, 2, 3, 4]).iter().zip([1.0, 2.0, 3.0, 4.0]) {
            write!(text, " {:.3} |", *calls as f64 / (CALLS as f64 * weight / 10.0))?;
        }
        let even = given(&[0; 4]);
        let all: Vec<String> =
            even.iter().map(|&calls| format!("{:.3}", calls as f64 / (CALLS as f64 / 4.0))).collect();
        writeln!(text, " {} |", all.join(", "))?;
    }
    writeln!(text)
}

fn hashing(text: &mut String) -> fmt::Result {
    const HASHES: usize = 100_000;
    let now = Instant::now();
    writeln!(
        text,
        "**Disruption.** {HASHES} keys, before and after one server leaves. *Its own* must move; others need not. *Uneven*: the standard"
    )?;
    writeln!(
        text,
        "deviation of the servers' keys, as part of their mean. *gRPC's sizes* are rings of 1,024 to 4,096 points, its default. *Modulo* is the key's hash by the number of servers, for comparison.\n"
    )?;
    writeln!(text, "| policy | servers | uneven | its own | others that moved |")?;
    writeln!(text, "|---|---|---|---|---|")?;
    for count in [10, 100, 1_000] {
        let all = open(count, now);
        let fewer: Ready = all.iter().skip(1).cloned().collect();
        let maglev = if count > 655 { Maglev::default().with_table_size(655_373) } else { Maglev::default() };
        let owners = |policy: &dyn Policy, ready: &Ready| -> Vec<u16> {
            let picker = policy.build(ready.clone(), None);
            let dice = Dice::new(SEEDS[0]);
            let owner = |_| {
                let request = PickRequest::new(now, &|| 0).with_hash(Some(dice.roll()));
                ready[picker.pick(&request).expect("all are open")].endpoint().port
            };
            (0..HASHES).map(owner).collect()
        };
        let modulo = |servers: u64, first: u64| -> Vec<u16> {
            let dice = Dice::new(SEEDS[0]);
            (0..HASHES).map(|_| (dice.roll() % servers + first) as u16).collect()
        };
        let ring = RingHash::default();
        let grpcs = ring.clone().with_ring_size(1_024, 4_096);
        for (name, before, after) in [
            ("`ring_hash`", owners(&ring, &all), owners(&ring, &fewer)),
            ("`ring_hash`, gRPC's sizes", owners(&grpcs, &all), owners(&grpcs, &fewer)),
            ("`maglev`", owners(&maglev, &all), owners(&maglev, &fewer)),
            ("`modulo`", modulo(count as u64, 1), modulo(count as u64 - 1, 2)),
        ] {
            let mut keys = vec![0; count];
            for &owner in &before {
                keys[usize::from(owner) - 1] += 1;
            }
            let moved = |own: bool| {
                let moved = before.iter().zip(&after).filter(|(before, after)| before != after);
                moved.filter(|(before, _)| (**before == 1) == own).count() as f64 / HASHES as f64
            };
            let uneven = 100.0 * uneven(&keys);
            writeln!(
                text,
                "| {name} | {count} | {uneven:.1} % | {:.2} % | {:.2} % |",
                100.0 * moved(true),
                100.0 * moved(false)
            )?;
        }
    }
    writeln!(text)
}

fn subsets(text: &mut String) -> fmt::Result {
    writeln!(
        text,
        "**Subsets.** How many clients each server has, when each client connects to some of the servers: clients with names, clients with numbers, and"
    )?;
    writeln!(
        text,
        "Google's deterministic subsetting, whose clients have numbers too. *Most* and *deviation* (the standard one) are parts of the mean; by chance the"
    )?;
    writeln!(
        text,
        "deviation is that of a binomial distribution, in brackets. *Moved*: connections that go elsewhere when one server leaves, beside those that it had, for"
    )?;
    writeln!(text, "each client (the mean of three servers).\n")?;
    writeln!(text, "| clients | servers | connections of each | clients have | most | deviation | moved |")?;
    writeln!(text, "|---|---|---|---|---|---|---|")?;
    for (clients, count, size) in [(300, 300, 10), (1_000, 100, 20), (3_000, 300, 20), (50, 1_000, 100)] {
        let part = size as f64 / f64::from(count);
        let chance = 100.0 * ((1.0 - part) / (clients as f64 * part)).sqrt();
        let choices: [(&str, Choice<'_>); 3] = [
            ("names", &|client, servers| subset(client, size, servers)),
            ("numbers", &|client, servers| numbered(client, size, servers)),
            ("numbers, Google's", &|client, servers| google(client, size, servers.len())),
        ];
        for (name, choice) in choices {
            let all =
                |fleet: &[Endpoint]| -> Vec<_> { (0..clients).map(|client| choice(client, fleet)).collect() };
            let fleet = servers(count);
            let before = all(&fleet);
            let (most, deviation) = unevenness(&before, fleet.len());
            let moves = (0..3).map(|third| {
                let mut fewer = fleet.clone();
                let left = third * fleet.len() / 3;
                fewer.remove(left);
                moved(&before, &all(&fewer), left)
            });
            let moves = moves.sum::<usize>() as f64 / 3.0;
            writeln!(
                text,
                "| {clients} | {count} | {size} | {name} | {most:.2} | {:.1} % ({chance:.1} %) | {:.2} |",
                100.0 * deviation,
                moves / clients as f64
            )?;
        }
    }
    Ok(())
}

fn counts(calls: &[Call]) -> Vec<usize> {
    let mut counts = vec![0; 10];
    for call in calls {
        counts[call.server] += 1;
    }
    counts
}

/// The standard deviation, as part of the mean.
fn uneven(counts: &[usize]) -> f64 {
    let mean = counts.iter().sum::<usize>() as f64 / counts.len() as f64;
    let variance = counts.iter().map(|&n| (n as f64 - mean).powi(2)).sum::<f64>() / counts.len() as f64;
    variance.sqrt() / mean
}

/// In seconds.
pub(crate) fn quantile(calls: &[Call], percent: usize) -> f64 {
    percentile(calls.iter(), percent).as_secs_f64()
}

pub(crate) fn median(mut figures: [f64; 3]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[1]
}

fn millis(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.1} ms", seconds * 1e3) } else { format!("{seconds:.1} s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_in_the_document_are_what_the_program_prints() {
        let document =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/balancing.md")).unwrap();
        let (_, rest) = document.split_once(BEGIN).unwrap();
        let (written, _) = rest.split_once(END).unwrap();
        for (written, printed) in written.lines().zip(tables().lines()) {
            assert_eq!(written, printed, "`just simulate-balancing` writes the tables anew");
        }
        assert_eq!(written, tables());
    }
}
