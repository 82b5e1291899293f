//! Leases: how much time they cost while nothing happens, and when they end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use waypost_proto::etcdserverpb::lease_client::LeaseClient;
use waypost_proto::etcdserverpb::watch_request::RequestUnion;
use waypost_proto::etcdserverpb::{LeaseGrantRequest, PutRequest, WatchCreateRequest, WatchRequest};
use waypost_proto::mvccpb::event::EventType;

use crate::node::{Node, PATIENCE};

/// 100,000 where `WAYPOST_LEASES` says so; they take a while to be granted.
const LEASES: i64 = 10_000;
/// Grants under way at the same time.
const AT_ONCE: i64 = 64;
/// How long the server is looked at.
const REST: Duration = Duration::from_secs(2);
/// Of the time at rest; what a look every 10 ms at all leases would cost is many times more.
const SHARE: f64 = 0.05;
/// Ticks in a second, as `/proc` counts them.
const TICKS: f64 = 100.0;

/// Seconds of a processor that a process has taken.
fn processor_time(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    let fields: Vec<_> = after_name.split_whitespace().collect();
    // The 14th and the 15th field; the name is the second.
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / TICKS
}

#[expect(clippy::print_stderr, reason = "a measurement has to be read")]
fn say(what: &str) {
    eprintln!("{what}");
}

#[test]
fn many_leases_cost_nothing_while_nothing_happens() {
    let leases = std::env::var("WAYPOST_LEASES").map_or(LEASES, |number| number.parse().unwrap());
    waypost_testkit::run_within(Duration::from_secs(300), async move {
        let folder = tempfile::tempdir().unwrap();
        let node = Arc::new(Node::start(folder.path()).await);
        let mut granting = JoinSet::new();
        for first in 1..=AT_ONCE {
            let mut client = LeaseClient::new(node.connect());
            granting.spawn(async move {
                for id in (first..=leases).step_by(64) {
                    client.lease_grant(LeaseGrantRequest { id, ttl: 5000 }).await.unwrap();
                }
            });
        }
        granting.join_all().await;
        let before = processor_time(node.pid());
        tokio::time::sleep(REST).await;
        let taken = processor_time(node.pid()) - before;
        say(&format!("{leases} leases took {taken} s of a processor in {REST:?}"));
        assert!(taken < REST.as_secs_f64() * SHARE, "{leases} leases took {taken} s in {REST:?}");
    });
}

#[test]
fn a_lease_ends_when_its_time_is_over_and_not_before() {
    waypost_testkit::run(async {
        let folder = tempfile::tempdir().unwrap();
        let node = Node::start(folder.path()).await;
        let (sender, receiver) = mpsc::channel(1);
        let create =
            WatchCreateRequest { key: "l".into(), range_end: "m".into(), ..WatchCreateRequest::default() };
        let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        sender.send(request).await.unwrap();
        let mut responses = node.watch().watch(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        assert!(responses.message().await.unwrap().unwrap().created);
        // Not all at the same time.
        let mut granted = Vec::new();
        for id in 1..=5_i64 {
            let before = Instant::now();
            let answer = node.lease().lease_grant(LeaseGrantRequest { id, ttl: 2 }).await.unwrap();
            assert_eq!(answer.into_inner().ttl, 2);
            granted.push(before);
            let put = PutRequest { key: format!("l/{id}").into(), lease: id, ..PutRequest::default() };
            node.kv().put(put).await.unwrap();
            tokio::time::sleep(Duration::from_millis(130)).await;
        }
        let mut ended = 0;
        while ended < granted.len() {
            let response = tokio::time::timeout(PATIENCE, responses.message()).await.expect("leases end");
            for event in response.unwrap().unwrap().events {
                if event.r#type() == EventType::Delete {
                    let after = granted[ended].elapsed();
                    ended += 1;
                    assert_eq!(event.kv.unwrap().key, format!("l/{ended}"), "in the order of their ends");
                    assert!(after >= Duration::from_secs(2), "lease {ended} ended after {after:?}");
                    say(&format!("lease {ended} of 2 s ended after {after:?}"));
                }
            }
        }
    });
}
