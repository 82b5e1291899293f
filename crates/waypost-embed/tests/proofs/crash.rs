//! SIGKILL at random moments, hundreds of times: whatever was acknowledged is there, no half of anything else is.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::sync::Semaphore;
use tonic::Code;
use waypost_proto::etcdserverpb::{LeaseLeasesRequest, LeaseTimeToLiveRequest, RangeRequest, RangeResponse};

use crate::node::{Node, PATIENCE, spawn};
use crate::promises::{Keys, Leases, Promise};
use crate::work::{self, Compactions, Learned};

/// Rounds of each of the tests.
const ROUNDS: u64 = 80;
const WRITERS: usize = 3;
/// Workers with leases; each has ids of its own.
const LESSEES: usize = 2;
/// Ids of a worker.
const IDS: i64 = 1_000_000;
/// The whole of a test.
const LIMIT: Duration = Duration::from_secs(600);

/// Everything that was promised.
struct Promises {
    keys: Vec<Promise<Keys>>,
    leases: Vec<Promise<Leases>>,
    compactions: Compactions,
    /// The newest revision that anyone was told of.
    revision: i64,
}

fn rounds(seed: u64) {
    waypost_testkit::run_within(LIMIT, async move {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let mut promises = Promises::new();
        for round in 0..=ROUNDS {
            let seed = seed + round;
            tell(round, seed);
            let mut rng = Rng::with_seed(seed);
            if rng.u32(..10) == 0 {
                kill_at_start(&data, &mut rng).await;
            }
            let node = Arc::new(Node::start(&data).await);
            promises.check(&node).await;
            if round == ROUNDS {
                break;
            }
            promises = promises.work_until_killed(node, rng).await;
        }
        assert!(promises.revision > 1000, "only {} revisions", promises.revision);
    });
}

/// Shown if the test fails.
#[expect(clippy::print_stderr, reason = "the seed of a failure must be known")]
fn tell(round: u64, seed: u64) {
    eprintln!("round {round}, seed {seed}");
}

/// A kill while the store is opened, or made.
async fn kill_at_start(data: &Path, rng: &mut Rng) {
    let process = spawn(data);
    tokio::time::sleep(Duration::from_micros(rng.u64(..30_000))).await;
    process.kill().await;
}

fn all(prefix: &str, revision: i64) -> RangeRequest {
    let range_end = format!("{prefix}~").into();
    RangeRequest { key: prefix.to_owned().into(), range_end, revision, ..RangeRequest::default() }
}

/// The keys of an answer, and the newest revision of them.
fn keys(answer: &RangeResponse) -> (Keys, i64) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let keys = answer.kvs.iter().map(|kv| (text(&kv.key), text(&kv.value))).collect();
    (keys, answer.kvs.iter().map(|kv| kv.mod_revision).max().unwrap_or_default())
}

// === impl Promises ===

impl Promises {
    fn new() -> Self {
        Self {
            keys: (0..WRITERS).map(|_| Promise::new()).collect(),
            leases: (0..LESSEES).map(|_| Promise::new()).collect(),
            compactions: Compactions::default(),
            revision: 0,
        }
    }

    /// Panics unless the server keeps them.
    async fn check(&mut self, node: &Node) {
        let mut kv = node.kv();
        for (number, promise) in self.keys.iter_mut().enumerate() {
            let prefix = work::prefix(number);
            let answer = kv.range(all(&prefix, 0)).await.unwrap().into_inner();
            let revision = answer.header.unwrap().revision;
            assert!(revision >= self.revision, "revision {revision} after {}", self.revision);
            let (found, newest) = keys(&answer);
            assert!(newest <= revision, "{newest} is newer than {revision}");
            for (at, state) in promise.past().rev().step_by(5) {
                // What may have been compacted may be gone.
                if *at >= self.compactions.asked {
                    let answer = kv.range(all(&prefix, *at)).await.unwrap().into_inner();
                    assert!(keys(&answer).0 == *state, "at revision {at}: {answer:?}, not {state:?}");
                }
            }
            promise.found(found, newest);
        }
        self.check_leases(node).await;
        let compacted = self.compactions.acknowledged;
        if compacted > 1 {
            let refused = kv.range(all("w/", compacted - 1)).await.unwrap_err();
            assert_eq!(refused.code(), Code::OutOfRange, "{compacted} was compacted: {refused:?}");
            if self.compactions.asked <= self.revision {
                kv.range(all("w/", self.compactions.asked)).await.unwrap();
            }
        }
    }

    async fn check_leases(&mut self, node: &Node) {
        let mut client = node.lease();
        let listed = client.lease_leases(LeaseLeasesRequest {}).await.unwrap().into_inner().leases;
        let held = node.kv().range(all("l/", 0)).await.unwrap().into_inner();
        for kv in &held.kvs {
            let with_lease = listed.iter().any(|lease| lease.id == kv.lease);
            assert!(with_lease && kv.key == work::key_of(kv.lease), "{kv:?} is left of a lease");
        }
        for lease in &listed {
            let request = LeaseTimeToLiveRequest { id: lease.id, keys: true };
            let answer = client.lease_time_to_live(request).await.unwrap().into_inner();
            assert_eq!(answer.granted_ttl, work::TTL);
            assert!((0..=work::TTL).contains(&answer.ttl), "{answer:?}");
            let key = held.kvs.iter().find(|kv| kv.lease == lease.id).map(|kv| kv.key.clone());
            assert_eq!(answer.keys, Vec::from_iter(key));
        }
        for (number, promise) in self.leases.iter_mut().enumerate() {
            let first = ids(number);
            let mine = listed.iter().map(|lease| lease.id).filter(|id| (first..first + IDS).contains(id));
            let found = mine.map(|id| (id, held.kvs.iter().any(|kv| kv.lease == id))).collect();
            promise.found(found, 0);
        }
    }

    /// Has everyone work, kills the server, and hears what they were told.
    async fn work_until_killed(mut self, node: Arc<Node>, mut rng: Rng) -> Self {
        let acknowledged = Arc::new(Semaphore::new(0));
        let mut writers = Vec::new();
        for (number, promise) in self.keys.drain(..).enumerate() {
            let (node, acknowledged) = (Arc::clone(&node), Arc::clone(&acknowledged));
            writers.push(tokio::spawn(work::write(node, number, promise, rng.fork(), acknowledged)));
        }
        let mut lessees = Vec::new();
        for (number, promise) in self.leases.drain(..).enumerate() {
            let (node, acknowledged) = (Arc::clone(&node), Arc::clone(&acknowledged));
            lessees.push(tokio::spawn(work::lease(node, ids(number), promise, rng.fork(), acknowledged)));
        }
        let compactor = tokio::spawn(work::compact(Arc::clone(&node), self.compactions, rng.fork()));
        let watcher = tokio::spawn(work::watch(Arc::clone(&node), self.revision.max(1)));
        let caretaker =
            (rng.u32(..4) == 0).then(|| tokio::spawn(work::maintain(Arc::clone(&node), rng.bool())));

        let wanted = acknowledged.acquire_many(rng.u32(..80));
        tokio::time::timeout(PATIENCE, wanted).await.expect("acknowledgements in time").unwrap().forget();
        // A moment within a commit.
        tokio::time::sleep(Duration::from_micros(rng.u64(..3000))).await;
        node.kill().await;

        for writer in writers {
            let Learned { promise, revision } = end_of(writer).await;
            self.keys.push(promise);
            self.revision = self.revision.max(revision);
        }
        for lessee in lessees {
            let Learned { promise, revision } = end_of(lessee).await;
            self.leases.push(promise);
            self.revision = self.revision.max(revision);
        }
        let Learned { promise, revision } = end_of(compactor).await;
        self.compactions = promise;
        self.revision = self.revision.max(revision).max(end_of(watcher).await);
        if let Some(caretaker) = caretaker {
            end_of(caretaker).await;
        }
        self
    }
}

/// The first id of a worker with leases.
fn ids(number: usize) -> i64 {
    IDS * (1 + i64::try_from(number).unwrap())
}

async fn end_of<T>(task: tokio::task::JoinHandle<T>) -> T {
    tokio::time::timeout(PATIENCE, task).await.expect("it ends with the server").unwrap()
}

// Parts that run beside each other.

#[test]
fn killed_at_any_moment_it_keeps_its_word_first_part() {
    rounds(1_000_000);
}

#[test]
fn killed_at_any_moment_it_keeps_its_word_second_part() {
    rounds(2_000_000);
}

#[test]
fn killed_at_any_moment_it_keeps_its_word_third_part() {
    rounds(3_000_000);
}

#[test]
fn killed_at_any_moment_it_keeps_its_word_fourth_part() {
    rounds(4_000_000);
}
