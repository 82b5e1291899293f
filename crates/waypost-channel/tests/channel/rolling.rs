//! The day of a fleet that is rolled under load.

use crate::support::{Fleet, Server, builder, check, instance, ready, within};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use waypost_channel::Channel;
use waypost_model::Status;

/// Calls, of which none may be repeated: ten every 5 ms are 2,000 a second. A machine that is too slow for that makes fewer.
async fn load(channel: Channel, stop: CancellationToken) -> (usize, Vec<tonic::Status>) {
    let mut pace = tokio::time::interval(Duration::from_millis(5));
    pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut calls = JoinSet::new();
    let (mut count, mut failed) = (0, Vec::new());
    while !stop.is_cancelled() {
        pace.tick().await;
        for _ in 0..10 {
            let channel = channel.clone();
            calls.spawn(async move { check(&channel).await.map(drop) });
        }
        while let Some(ended) = calls.try_join_next() {
            count += 1;
            failed.extend(ended.unwrap().err());
        }
    }
    while let Some(ended) = calls.join_next().await {
        count += 1;
        failed.extend(ended.unwrap().err());
    }
    (count, failed)
}

/// Each server drains, finishes its calls, restarts on its address and joins again, while the others carry on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_of_five_servers_at_2000_calls_a_second_fails_no_call() {
    let mut servers = Vec::new();
    for _ in 0..5 {
        servers.push(Server::healthy().await);
    }
    let (fleet, subscription) = Fleet::of(&servers.iter().collect::<Vec<_>>());
    let channel = builder(subscription).build();
    ready(&channel, 5).await;
    let stop = CancellationToken::new();
    let calls = tokio::spawn(load(channel.clone(), stop.clone()));
    for (id, server) in servers.iter_mut().enumerate() {
        let (before, restarted) = (server.calls(), server.endpoint());
        server.called(before + 100).await;
        fleet.put(instance(id, restarted.clone()).with_status(Status::Draining));
        ready(&channel, 4).await;
        server.leave();
        within(server.left()).await;
        server.restart().await;
        fleet.put(instance(id, restarted));
        ready(&channel, 5).await;
        server.called(server.calls() + 100).await;
    }
    stop.cancel();
    let (count, failed) = within(calls).await.unwrap();
    assert!(failed.is_empty(), "{} of {count} calls failed: {:?}", failed.len(), failed[0]);
    assert!(count >= 4_000, "{count} calls");
    assert!(servers.iter().all(|server| server.connections() == 2));
}
