//! The instructions of picks while a set of 10,000 is updated.
//!
//! Another process, this program started as `--stepped POLICY UPDATES`, has the pool. Its picking thread is stepped through, the runtime
//! that publishes the updates is not: a pick takes hundreds of times as long as by itself, and most swaps of the table come in the middle
//! of one, which at full speed hardly any does.

use crate::lengths::{Lengths, Tables};
use crate::numbered::Numbered;
use crate::registry::{Registry, SPACE, runtime, settled};
use crate::steps::{count, marked};
use nix::unistd::{Pid, gettid};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use waypost_balance::Policy;
use waypost_bench::{Figure, Goal, Unit};
use waypost_channel::{Outcome, Pool, Unconnected, Wish};

const UPDATES: usize = 150;
/// At least so many are stepped through.
const PICKS: usize = 2_000;
/// Stretches without a pick, before those with one.
const EMPTY: usize = 101;
/// Picks before them.
const WARM: usize = 3_000;

/// The figure of one policy.
pub(crate) fn run(policy: &Arc<dyn Policy>) {
    let name = policy.name();
    let figure = format!("long_picks_during_updates_of_10k_{name}");
    let figure = Figure { name: &figure, unit: Unit::Count, goal: Goal::AtMost(0.0) };
    match lengths(name, UPDATES) {
        Ok(lengths) => {
            figure.report(&[lengths.long() as f64]);
            print(name, UPDATES, &lengths);
            let ((replaced, largest), (first, largest_first)) = (lengths.replaced(), lengths.first());
            println!(
                "  {name}: {replaced} by a table that was replaced meanwhile (largest {largest}), {first} the first by a new one \
                 (largest {largest_first})"
            );
        }
        Err(why) => return figure.unmeasured(&why),
    }
    match lengths(name, 0) {
        Ok(lengths) => print(name, 0, &lengths),
        Err(why) => println!("  {name}: without updates not measured: {why}"),
    }
}

fn print(name: &str, updates: usize, lengths: &Lengths) {
    println!(
        "  {name}: {} picks with {updates} updates, median {} instructions, largest {}, {} enter the kernel, {} long",
        lengths.len(),
        lengths.median().instructions,
        lengths.largest(),
        lengths.entering(),
        lengths.long(),
    );
}

/// Steps through the picks of another process. Fails where [`count`] does.
fn lengths(policy: &str, updates: usize) -> Result<Lengths, String> {
    let program = std::env::current_exe().expect("this program");
    let mut child = Command::new(program)
        .args(["--stepped", policy, &updates.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program again");
    let mut input = child.stdin.take().expect("piped");
    let mut output = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    output.read_line(&mut line).expect("output");
    let thread = Pid::from_raw(line.trim().parse().expect("the id of a thread"));
    let counted = count(thread, || writeln!(input, "begin").expect("input"));
    // Where it has not begun, it ends with its input.
    drop(input);
    if counted.is_err() {
        // It may have ended.
        let _ = child.kill();
    }
    let mut tables = String::new();
    output.read_to_string(&mut tables).expect("output");
    child.wait().expect("an end");
    let stretches = counted.map_err(|error| {
        format!("ptrace: {error} (it must be permitted, in a container by SYS_PTRACE, and the processor an x86-64)")
    })?;
    let tables: Option<Vec<Tables>> = tables.split_whitespace().map(parse).collect();
    let lengths = tables.and_then(|tables| Lengths::new(&stretches, EMPTY, &tables));
    lengths.ok_or_else(|| "the process that picks has not come to its end".to_owned())
}

fn parse(tables: &str) -> Option<Tables> {
    let (used, after) = tables.split_once(':')?;
    Some(Tables { used: used.parse().ok()?, after: after.parse().ok()? })
}

/// The other process: prints the id of its picking thread, begins when a line comes, and prints which tables the picks were made by.
pub(crate) fn child(policy: Arc<dyn Policy>, updates: usize) {
    let runtime = runtime();
    let (numbered, number) = Numbered::new(policy);
    let (mut registry, pool) = Registry::start(&runtime, numbered);
    let (begin, enough) = (Arc::new(Barrier::new(2)), Arc::new(AtomicBool::new(false)));
    let picks = std::thread::spawn({
        let (pool, begin, enough) = (pool.clone(), Arc::clone(&begin), Arc::clone(&enough));
        move || {
            for _ in 0..WARM {
                table(&pool, &number);
            }
            println!("{}", gettid());
            begin.wait();
            picks(&pool, &number, &enough)
        }
    });
    if std::io::stdin().read_line(&mut String::new()).expect("input") == 0 {
        return;
    }
    begin.wait();
    for _ in 0..updates {
        let (snapshot, expected) = registry.next();
        registry.publish(snapshot);
        runtime.block_on(settled(&pool, expected));
    }
    enough.store(true, Ordering::Relaxed);
    runtime.block_on(async {
        while !picks.is_finished() {
            tokio::time::sleep(SPACE).await;
        }
    });
    for Tables { used, after } in picks.join().expect("picks") {
        println!("{used}:{after}");
    }
}

/// Until there were enough of them, and all updates.
fn picks(pool: &Pool<Unconnected>, number: &AtomicUsize, enough: &AtomicBool) -> Vec<Tables> {
    let wish = Wish::new();
    for _ in 0..EMPTY {
        marked(|| ());
    }
    let mut all = Vec::with_capacity(PICKS);
    while all.len() < PICKS || !enough.load(Ordering::Relaxed) {
        let lease = marked(|| pool.try_lease(&wish));
        let used = number.load(Ordering::Relaxed);
        lease.expect("an endpoint").finished(Outcome::Ok);
        all.push(Tables { used, after: table(pool, number) });
    }
    all
}

/// The number of the table that is there now: it takes a pick to know.
fn table(pool: &Pool<Unconnected>, number: &AtomicUsize) -> usize {
    pool.try_lease(&Wish::new()).expect("an endpoint").finished(Outcome::Ok);
    number.load(Ordering::Relaxed)
}
