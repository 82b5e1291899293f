//! A disk that fills up, does not sync or loses power under the running server: what was acknowledged is there, what was
//! refused is not, and nobody is lied to.

use tonic::{Code, Status};
use waypost_proto::etcdserverpb::alarm_request::AlarmAction;
use waypost_proto::etcdserverpb::request_op::Request;
use waypost_proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, AlarmType, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, RequestOp, StatusRequest, StatusResponse, TxnRequest, TxnResponse,
};

use crate::server::Server;
use crate::server::inside::Inside;
use crate::storage::Simulation;

const PUT: &str = "/etcdserverpb.KV/Put";
const RANGE: &str = "/etcdserverpb.KV/Range";
const TXN: &str = "/etcdserverpb.KV/Txn";
const DELETE: &str = "/etcdserverpb.KV/DeleteRange";
const ALARM: &str = "/etcdserverpb.Maintenance/Alarm";
const STATUS: &str = "/etcdserverpb.Maintenance/Status";

/// Losses of power that are tried.
const SEEDS: u64 = 30;

fn start(disk: &Simulation) -> Inside {
    Inside::start(disk.open(), Server::builder()).unwrap()
}

async fn put(server: &Inside, key: &str, value: Vec<u8>) -> Result<i64, Status> {
    let request = PutRequest { key: key.to_owned().into(), value: value.into(), ..PutRequest::default() };
    let answer: PutResponse = server.unary(PUT, &request).await?;
    Ok(answer.header.unwrap().revision)
}

async fn all(server: &Inside) -> RangeResponse {
    let request = RangeRequest { key: "\0".into(), range_end: "\0".into(), ..RangeRequest::default() };
    let mut answer: RangeResponse = server.unary(RANGE, &request).await.unwrap();
    // A restart counts as a term.
    answer.header.as_mut().unwrap().raft_term = 0;
    answer
}

async fn alarms(server: &Inside, action: AlarmAction, alarm: AlarmType) -> usize {
    let status: StatusResponse = server.unary(STATUS, &StatusRequest {}).await.unwrap();
    let request = AlarmRequest { action: action.into(), member_id: status.leader, alarm: alarm.into() };
    let answer: AlarmResponse = server.unary(ALARM, &request).await.unwrap();
    answer.alarms.len()
}

/// Puts until one is refused; gives the number that were not, and the refusal.
async fn put_until_refused(server: &Inside, bytes: usize) -> (u32, Status) {
    for number in 0..100_000 {
        if let Err(refused) = put(server, &format!("fill/{number:06}"), vec![7; bytes]).await {
            return (number, refused);
        }
    }
    panic!("the disk is never full");
}

#[tokio::test]
async fn a_full_disk_is_an_alarm_and_nothing_of_what_was_refused_is_seen() {
    let disk = Simulation::new();
    let server = start(&disk);
    put(&server, "first", vec![1]).await.unwrap();
    disk.leave_blocks(Some(64));
    let (written, refused) = put_until_refused(&server, 50_000).await;
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded")
    );
    let before = all(&server).await;
    assert_eq!(before.count, i64::from(written) + 1);
    assert_eq!(before.header.unwrap().revision, 2 + i64::from(written), "no revision for what was refused");
    assert_eq!(alarms(&server, AlarmAction::Get, AlarmType::None).await, 1);
    assert_eq!(put(&server, "small", vec![1]).await.unwrap_err().code(), Code::ResourceExhausted);

    // There is space again, and nobody has said so.
    disk.leave_blocks(None);
    assert_eq!(put(&server, "small", vec![1]).await.unwrap_err().code(), Code::ResourceExhausted);
    assert_eq!(all(&server).await, before);
    assert_eq!(alarms(&server, AlarmAction::Deactivate, AlarmType::Nospace).await, 1);
    let revision = put(&server, "small", vec![1]).await.unwrap();
    assert_eq!(revision, 3 + i64::from(written));
    let after = all(&server).await;
    assert!(server.end().await);
    assert_eq!(all(&start(&disk)).await, after);
}

#[tokio::test]
async fn what_is_deleted_when_the_disk_is_full_is_gone_or_still_there() {
    let disk = Simulation::new();
    let server = start(&disk);
    disk.leave_blocks(Some(64));
    let (written, _) = put_until_refused(&server, 50_000).await;
    let request = DeleteRangeRequest { key: "fill/000000".into(), ..DeleteRangeRequest::default() };
    let deleted: Result<DeleteRangeResponse, Status> = server.unary(DELETE, &request).await;
    let left = all(&server).await.count;
    match deleted {
        Ok(answer) => assert_eq!((answer.deleted, left), (1, i64::from(written) - 1)),
        Err(status) => {
            assert_eq!((status.code(), left), (Code::ResourceExhausted, i64::from(written)), "{status}");
        }
    }
    disk.leave_blocks(None);
    assert!(server.end().await);
    assert_eq!(all(&start(&disk)).await.count, left);
}

#[tokio::test]
async fn what_cannot_be_synced_is_not_acknowledged() {
    let disk = Simulation::new();
    let server = start(&disk);
    let acknowledged = put(&server, "key", b"old".to_vec()).await.unwrap();
    disk.fail_syncs(u32::MAX);
    let refused = put(&server, "key", b"new".to_vec()).await.unwrap_err();
    assert!(matches!(refused.code(), Code::Unknown | Code::Internal), "{refused:?}");
    // Those who can still read do not see it.
    let request = RangeRequest { key: "key".into(), ..RangeRequest::default() };
    if let Ok(answer) = server.unary::<RangeResponse>(RANGE, &request).await {
        assert_eq!((&answer.kvs[0].value[..], answer.header.unwrap().revision), (&b"old"[..], acknowledged));
    }
    disk.fail_syncs(0);
    assert!(server.end().await);
    // The system may have written it nevertheless: then it is there as a whole.
    let found = all(&start(&disk)).await;
    let revision = found.header.unwrap().revision;
    match &found.kvs[0].value[..] {
        b"old" => assert_eq!(revision, acknowledged),
        b"new" => assert_eq!(revision, acknowledged + 1),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn every_acknowledged_transaction_survives_a_loss_of_power_as_a_whole() {
    for seed in 0..SEEDS {
        let disk = Simulation::new();
        let server = start(&disk);
        disk.lose_power_within(seed, 200);
        let (mut acknowledged, mut attempted) = (0, 0);
        for number in 1..=300_u32 {
            attempted = number;
            let success = ["a", "b", "c"].map(|key| {
                let value = vec![b'0' + u8::try_from(number % 10).unwrap(); 3000];
                let lists = PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() };
                RequestOp { request: Some(Request::RequestPut(lists)) }
            });
            let request = TxnRequest { success: success.into(), ..TxnRequest::default() };
            match server.unary::<TxnResponse>(TXN, &request).await {
                Ok(_) => acknowledged = number,
                Err(_) => break,
            }
        }
        assert!(server.end().await);
        let found = all(&start(&disk.after_power_loss(seed))).await;
        let versions: Vec<i64> = found.kvs.iter().map(|kv| kv.version).collect();
        let there = versions.first().copied().unwrap_or_default();
        assert!(versions.len() == 3 || there == 0, "seed {seed}: {versions:?}");
        assert!(versions.iter().all(|version| *version == there), "seed {seed}: {versions:?}");
        let promised = i64::from(acknowledged)..=i64::from(attempted);
        assert!(promised.contains(&there), "seed {seed}: {there}, not {promised:?}");
        assert_eq!(found.header.unwrap().revision, there + 1, "seed {seed}");
    }
}
