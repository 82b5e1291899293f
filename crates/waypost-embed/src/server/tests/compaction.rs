//! History that is given up without being asked for, with a clock that jumps.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::Code;
use waypost_proto::etcdserverpb::alarm_request::AlarmAction;
use waypost_proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, AlarmType, PutRequest, PutResponse, RangeRequest, RangeResponse,
};

use crate::server::inside::Inside;
use crate::server::{AutoCompaction, Server, background};
use crate::storage::Store;

const MINUTE: Duration = Duration::from_secs(60);

async fn put(server: &Inside) -> i64 {
    let request = PutRequest { key: "a".into(), value: "x".into(), ..PutRequest::default() };
    let answer: PutResponse = server.unary("/etcdserverpb.KV/Put", &request).await.unwrap();
    answer.header.unwrap().revision
}

/// Turns the alarm of corruption on or off.
async fn corrupt(server: &Inside, action: AlarmAction) {
    let request = AlarmRequest { action: action.into(), member_id: 0, alarm: AlarmType::Corrupt.into() };
    let answer: AlarmResponse = server.unary("/etcdserverpb.Maintenance/Alarm", &request).await.unwrap();
    assert_eq!(answer.alarms.len(), 1);
}

/// Whether what was there at a revision can be read.
async fn is_readable(server: &Inside, revision: i64) -> bool {
    let request = RangeRequest { key: "a".into(), revision, ..RangeRequest::default() };
    match server.unary::<RangeResponse>("/etcdserverpb.KV/Range", &request).await {
        Ok(_) => true,
        Err(status) => {
            assert_eq!(status.code(), Code::OutOfRange, "{status}");
            false
        }
    }
}

/// Drives a server that compacts by itself.
async fn with_compaction(when: AutoCompaction, body: impl AsyncFnOnce(&Inside)) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let server = Inside::start(store, Server::builder().auto_compaction(when)).unwrap();
    let stop = CancellationToken::new();
    let compaction = tokio::spawn(background::compact(server.engine().clone(), stop.clone()));
    body(&server).await;
    stop.cancel();
    compaction.await.unwrap();
    assert!(server.end().await);
}

/// Lets a minute pass, and everyone see that. The clock is at rest only for that: while the writer's thread works, a clock at
/// rest would jump.
async fn a_minute_passes() {
    tokio::time::pause();
    tokio::time::advance(MINUTE).await;
    tokio::time::resume();
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

/// Minutes until what was there at a revision cannot be read any more.
async fn minutes_until_gone(server: &Inside, revision: i64) -> u32 {
    for minutes in 0..300 {
        if !is_readable(server, revision).await {
            return minutes;
        }
        a_minute_passes().await;
    }
    panic!("revision {revision} stays");
}

#[tokio::test]
async fn by_number_all_but_so_many_revisions_are_given_up_every_five_minutes() {
    with_compaction(AutoCompaction::Revisions(10), async |server| {
        let mut last = 1;
        while last < 10 {
            last = put(server).await;
        }
        // Fewer than are kept: nothing is given up.
        for _ in 0..12 {
            a_minute_passes().await;
        }
        assert!(is_readable(server, 1).await);
        while last < 30 {
            last = put(server).await;
        }
        minutes_until_gone(server, 1).await;
        assert!(!is_readable(server, 19).await);
        assert!(is_readable(server, 20).await);
    })
    .await;
}

#[tokio::test]
async fn by_time_what_is_older_than_that_is_given_up() {
    with_compaction(AutoCompaction::Periodic(60 * MINUTE), async |server| {
        put(server).await;
        let last = put(server).await;
        assert!(minutes_until_gone(server, last - 1).await >= 59);
        // It held an hour ago, and still does.
        assert!(is_readable(server, last).await);
    })
    .await;
}

#[tokio::test]
async fn a_corrupt_store_gives_up_no_history_before_the_alarm_ends() {
    with_compaction(AutoCompaction::Periodic(60 * MINUTE), async |server| {
        put(server).await;
        let old = put(server).await - 1;
        corrupt(server, AlarmAction::Activate).await;
        for _ in 0..300 {
            a_minute_passes().await;
        }
        assert!(is_readable(server, old).await);
        corrupt(server, AlarmAction::Deactivate).await;
        minutes_until_gone(server, old).await;
    })
    .await;
}
