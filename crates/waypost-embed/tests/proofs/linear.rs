//! Linearizability: whatever several clients were told of one key, while the server was killed and started again, could have
//! been told if one thing had happened after the other.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tonic::Status;
use tonic::transport::Channel;
use waypost_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use waypost_proto::etcdserverpb::kv_client::KvClient;
use waypost_proto::etcdserverpb::request_op::Request;
use waypost_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};
use waypost_proto::mvccpb::KeyValue;

use crate::node::{Node, PATIENCE};
use crate::register::{ClientId, History, Operation, Outcome};

/// Keys that are in use from one kill to the next; one half goes on over the next kill, since each kill doubles what has to
/// be tried: operations that never ended may have happened at any time later, or never.
const KEYS: usize = 4;
const CLIENTS: u64 = 4;
/// Kills of a run.
const KILLS: u64 = 5;
/// Runs, each with a seed and a store of its own.
const RUNS: u64 = 3;
const SEED: u64 = 7_000_000;
const LIMIT: Duration = Duration::from_secs(300);

/// Histories by key.
type Histories = Arc<Mutex<BTreeMap<usize, History>>>;

#[test]
fn histories_with_kills_are_linearizable_and_a_stale_read_is_noticed() {
    waypost_testkit::run_within(LIMIT, async {
        for seed in SEED..SEED + RUNS {
            let folder = tempfile::tempdir().unwrap();
            let histories = record(folder.path(), seed).await;
            let mut noticed = 0;
            for (key, history) in &histories {
                assert!(history.len() > 10, "seed {seed}, key {key}: only {} operations", history.len());
                assert!(history.is_linearizable(), "seed {seed}, key {key}: {history:#?}");
                if let Some(stale) = history.with_stale_read(20) {
                    assert!(!stale.is_linearizable(), "seed {seed}, key {key}: nobody noticed in {stale:#?}");
                    noticed += 1;
                }
            }
            assert!(noticed >= KEYS, "seed {seed}: only {noticed} histories with a stale read");
        }
    });
}

/// What clients were told by a server that is killed now and then.
async fn record(folder: &Path, seed: u64) -> BTreeMap<usize, History> {
    let histories = Histories::default();
    let mut rng = Rng::with_seed(seed);
    let mut first = 0;
    for kill in 0..=KILLS {
        let node = Node::start(folder).await;
        let answers = Arc::new(Semaphore::new(0));
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            let client = Client {
                id: kill * CLIENTS + number,
                // Values that nobody else writes.
                next: (kill * CLIENTS + number) << 32,
                kv: KvClient::new(node.connect()),
                first,
                seen: [None; KEYS],
                rng: rng.fork(),
            };
            clients.spawn(client.run(Arc::clone(&histories), Arc::clone(&answers)));
        }
        let enough = answers.acquire_many(rng.u32(100..200));
        tokio::time::timeout(PATIENCE, enough).await.expect("answers in time").unwrap().forget();
        node.kill().await;
        let ended = async { while clients.join_next().await.transpose().unwrap().is_some() {} };
        tokio::time::timeout(PATIENCE, ended).await.expect("they end with the server");
        first += KEYS / 2;
    }
    let histories = histories.lock().unwrap();
    histories.clone()
}

/// Asks for one thing after the other, until an answer fails to come.
struct Client {
    id: ClientId,
    next: u64,
    kv: KvClient<Channel>,
    /// The first key that is in use.
    first: usize,
    /// What it saw last of each key.
    seen: [Option<u64>; KEYS],
    rng: Rng,
}

// === impl Client ===

impl Client {
    async fn run(mut self, histories: Histories, answers: Arc<Semaphore>) {
        loop {
            let key = self.rng.usize(..KEYS);
            self.next += 1;
            let operation = match self.rng.u32(..10) {
                0..3 => Operation::Get,
                3 => Operation::Put(self.next),
                4..7 => Operation::Replace(self.next),
                7 => Operation::Delete,
                _ => Operation::CompareAndSwap { from: self.seen[key], to: self.next },
            };
            histories.lock().unwrap().entry(self.first + key).or_default().began(self.id, operation);
            // What became of an operation without an answer is not known.
            let Ok(outcome) = self.ask(self.first + key, operation).await else { return };
            histories.lock().unwrap().entry(self.first + key).or_default().ended(self.id, outcome);
            match (operation, outcome) {
                (Operation::Get, Outcome::Value(value)) => self.seen[key] = value,
                (Operation::Put(value) | Operation::Replace(value), _) => self.seen[key] = Some(value),
                (Operation::CompareAndSwap { to, .. }, Outcome::Happened(true)) => self.seen[key] = Some(to),
                _ => {}
            }
            answers.add_permits(1);
        }
    }

    async fn ask(&mut self, key: usize, operation: Operation) -> Result<Outcome, Status> {
        let key: bytes::Bytes = format!("r/{key}").into();
        let value = |value: u64| bytes::Bytes::from(value.to_string());
        Ok(match operation {
            Operation::Get => {
                let range = RangeRequest { key, ..RangeRequest::default() };
                Outcome::Value(number(self.kv.range(range).await?.into_inner().kvs.first()))
            }
            Operation::Put(written) => {
                self.kv.put(PutRequest { key, value: value(written), ..PutRequest::default() }).await?;
                Outcome::Written
            }
            Operation::Replace(written) => {
                let put = PutRequest { key, value: value(written), prev_kv: true, ..PutRequest::default() };
                Outcome::Value(number(self.kv.put(put).await?.into_inner().prev_kv.as_ref()))
            }
            Operation::Delete => {
                let delete = DeleteRangeRequest { key, ..DeleteRangeRequest::default() };
                Outcome::Happened(self.kv.delete_range(delete).await?.into_inner().deleted == 1)
            }
            Operation::CompareAndSwap { from, to } => {
                let (target, union) = match from {
                    Some(from) => (CompareTarget::Value, TargetUnion::Value(value(from))),
                    None => (CompareTarget::Version, TargetUnion::Version(0)),
                };
                let compare = Compare {
                    result: CompareResult::Equal.into(),
                    target: target.into(),
                    key: key.clone(),
                    range_end: bytes::Bytes::new(),
                    target_union: Some(union),
                };
                let put = PutRequest { key, value: value(to), ..PutRequest::default() };
                let success = vec![RequestOp { request: Some(Request::RequestPut(put)) }];
                let request = TxnRequest { compare: vec![compare], success, failure: Vec::new() };
                Outcome::Happened(self.kv.txn(request).await?.into_inner().succeeded)
            }
        })
    }
}

/// The value of a key.
fn number(kv: Option<&KeyValue>) -> Option<u64> {
    kv.map(|kv| std::str::from_utf8(&kv.value).unwrap().parse().unwrap())
}
