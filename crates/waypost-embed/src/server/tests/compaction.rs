//! History that is given up without being asked for, in time that passes at once.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::Code;
use waypost_proto::etcdserverpb::{PutRequest, PutResponse, RangeRequest, RangeResponse};

use crate::server::inside::Inside;
use crate::server::{AutoCompaction, Server, background};
use crate::storage::Store;

const HOUR: Duration = Duration::from_secs(3600);

async fn put(server: &Inside) -> i64 {
    let request = PutRequest { key: "a".into(), value: "x".into(), ..PutRequest::default() };
    let answer: PutResponse = server.unary("/etcdserverpb.KV/Put", &request).await.unwrap();
    answer.header.unwrap().revision
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

#[tokio::test(start_paused = true)]
async fn by_number_all_but_so_many_revisions_are_given_up_every_five_minutes() {
    with_compaction(AutoCompaction::Revisions(10), async |server| {
        // Fewer than are kept: nothing is given up.
        let mut last = 1;
        while last < 10 {
            last = put(server).await;
        }
        tokio::time::sleep(Duration::from_secs(301)).await;
        assert!(is_readable(server, 1).await);
        while last < 30 {
            last = put(server).await;
        }
        assert!(is_readable(server, 1).await, "not before the time has come");
        tokio::time::sleep(Duration::from_secs(301)).await;
        assert!(!is_readable(server, 19).await);
        assert!(is_readable(server, 20).await);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn by_time_what_is_older_than_that_is_given_up() {
    with_compaction(AutoCompaction::Periodic(HOUR), async |server| {
        let early = put(server).await;
        tokio::time::sleep(HOUR / 2).await;
        let half = put(server).await;
        assert!(is_readable(server, early).await);
        tokio::time::sleep(HOUR / 2 + HOUR / 5).await;
        let late = put(server).await;
        // What held an hour ago can be read, and what was before that cannot.
        assert!(is_readable(server, early).await);
        assert!(!is_readable(server, early - 1).await);
        tokio::time::sleep(HOUR).await;
        assert!(!is_readable(server, early).await);
        assert!(is_readable(server, half).await && is_readable(server, late).await);
    })
    .await;
}
