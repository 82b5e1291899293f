//! Conformance: the same operations at two servers, whose every answer and every event must be the same.
//!
//! Sequences come from a seed ([`generate`]), are driven at both servers ([`session`]) through the bare clients of the
//! protocol, and compared field by field: status code and message too, the ids of cluster and member and the raft term
//! aside. Where two servers differ, the sequence is cut down ([`minimise`]) and printed. What was found has a test of
//! its own ([`found`]); where versions of etcd differ is listed in [`versions`], and nothing else is excused.
//!
//! `WAYPOST_CONFORMANCE_SEED` and `WAYPOST_CONFORMANCE_OPERATIONS` ask for other sequences, or more.
#![forbid(unsafe_code)]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "what a test asks for must be there"
)]

mod call;
mod found;
mod generate;
mod identity;
mod minimise;
mod op;
mod rights;
mod server;
mod session;
mod stream;
mod stricter;
mod users;
mod versions;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use futures::future::join_all;
use server::Kind;
use session::Session;

/// Operations in a sequence.
const LENGTH: usize = 250;

/// Pairs of servers that run at the same time: most of the time goes into waiting.
const PAIRS: usize = 4;

/// Operations in a run, unless the environment says otherwise.
const OPERATIONS: usize = 42_000;

/// The same, of those by users with and without rights.
const OPERATIONS_OF_USERS: usize = 8_000;

/// Two minutes on two cores that are shared with the other tests; more where more is asked for.
const LIMIT: Duration = Duration::from_secs(900);

/// What a run has asked.
#[derive(Debug, Default)]
struct Asked {
    operations: usize,
    /// Of these, those that the embedded server alone refuses, and must.
    stricter: usize,
    /// What came on top and was not asked since versions differ there.
    skipped: BTreeMap<&'static str, usize>,
}

/// Makes a sequence of about so many operations from a seed.
type Generate = fn(u64, usize) -> Vec<op::Op>;

const SEED: u64 = 20_261_120;

/// Drives one pair of servers with one sequence after the other; gives the session as it is afterwards.
async fn drive(kinds: [Kind; 2], generate: Generate, seed: u64, operations: usize) -> Session {
    let mut session = Session::start(kinds).await;
    let mut done = Vec::new();
    for number in 0.. {
        if session.asked >= operations {
            break;
        }
        let seed = seed + number;
        let ops = generate(seed, LENGTH);
        if let Err((position, difference)) = session.run(&ops).await {
            let ops = &ops[..=position];
            done.extend_from_slice(ops);
            panic!("seed {seed}: {difference}\n{}", report(kinds, ops, &done).await);
        }
        done.extend(ops);
    }
    session
}

/// The fewest operations that show a difference.
async fn report(kinds: [Kind; 2], ops: &[op::Op], all: &[op::Op]) -> String {
    let minimal = match minimise::minimise(kinds, ops).await {
        Some(minimal) => Some(minimal),
        None => minimise::minimise(kinds, all).await,
    };
    let Some(minimal) = minimal else {
        return format!("it did not show again; the last operation was {}", ops[ops.len() - 1]);
    };
    let mut text = format!("with {} operations from the start:\n", minimal.ops.len());
    for op in &minimal.ops {
        let _infallible = writeln!(text, "  {op}");
    }
    let _infallible = writeln!(text, "{}", minimal.difference);
    text
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Drives [`PAIRS`] pairs of servers; gives how much was asked, and says what was not.
async fn compare(kinds: [Kind; 2], generate: Generate, operations: usize) -> Asked {
    let seed = number("WAYPOST_CONFORMANCE_SEED").unwrap_or(SEED);
    let each = operations.div_ceil(PAIRS);
    let pairs = (0..PAIRS as u64).map(|pair| drive(kinds, generate, seed + pair * 1_000_000, each));
    let mut asked = Asked::default();
    for session in join_all(pairs).await {
        asked.operations += session.asked;
        asked.stricter += session.stricter.values().sum::<usize>();
        for (reason, count) in session.skipped {
            *asked.skipped.entry(reason).or_default() += count;
        }
    }
    #[expect(clippy::print_stderr, reason = "what was not compared is worth knowing")]
    {
        eprintln!("{kinds:?}: {asked:#?}");
    }
    asked
}

#[test]
fn the_embedded_server_agrees_with_etcd() {
    let operations = number("WAYPOST_CONFORMANCE_OPERATIONS")
        .map_or(OPERATIONS, |number| usize::try_from(number).unwrap());
    waypost_testkit::run_within(LIMIT, async move {
        let asked = compare([Kind::Embedded, Kind::Etcd35], generate::sequence, operations).await;
        assert!(asked.operations >= operations, "{asked:?}");
    });
}

#[test]
fn the_embedded_server_agrees_with_etcd_on_what_users_may_do() {
    let operations = number("WAYPOST_CONFORMANCE_OPERATIONS")
        .map_or(OPERATIONS_OF_USERS, |number| usize::try_from(number).unwrap());
    waypost_testkit::run_within(LIMIT, async move {
        let asked = compare([Kind::Embedded, Kind::Etcd35], users::sequence, operations).await;
        assert!(asked.operations >= operations && asked.stricter > 0, "{asked:?}");
    });
}

#[test]
fn etcd_agrees_with_itself() {
    waypost_testkit::run(async {
        let asked = compare([Kind::Etcd35, Kind::Etcd35], generate::sequence, 4000).await;
        assert!(asked.operations >= 4000, "{asked:?}");
    });
}

#[test]
fn a_difference_between_versions_is_found_and_cut_down() {
    waypost_testkit::run(async {
        let kinds = [Kind::Etcd34, Kind::Etcd35];
        let mut session = Session::start(kinds).await;
        let ops = generate::sequence(SEED, 2000);
        let (position, _) = session.run(&ops).await.expect_err("3.4 answers alarms without a header");
        let minimal = minimise::minimise(kinds, &ops[..=position]).await.expect("it shows again");
        assert_eq!(minimal.ops.len(), 1, "{}", minimal.difference);
        assert!(!minimal.difference.0.is_empty());
    });
}
