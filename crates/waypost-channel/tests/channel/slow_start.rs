//! Slow start with real calls. The clock stands still but where the test moves it.

use crate::support::{Fleet, PATIENCE, Server, builder, check, instance, ready, served_by};
use std::sync::mpsc;
use std::time::Duration;
use waypost_channel::{Channel, Policy};

const WINDOW: Duration = Duration::from_secs(100);
const CALLS: usize = 600;

/// tokio moves a stopped clock on by itself when there is nothing to do, which with sockets is at any time; but not while a thread is
/// at work. A test that is still there after a minute hangs: then the clock goes on, and its time limits end it.
fn hold_the_clock() -> mpsc::Sender<()> {
    let (release, held) = mpsc::channel();
    tokio::task::spawn_blocking(move || held.recv_timeout(PATIENCE));
    release
}

/// How many calls each of three servers has got.
async fn spread(channel: &Channel) -> [usize; 3] {
    let mut served = [0; 3];
    for _ in 0..CALLS {
        served[served_by(&check(channel).await.unwrap())] += 1;
    }
    served
}

/// Among two that have been there for long, one with the share `s` gets `s / (2 + s)` of the calls.
#[tokio::test(start_paused = true)]
async fn who_joins_gets_its_share_by_and_by() {
    for policy in [Policy::round_robin(), Policy::random()] {
        let _clock = hold_the_clock();
        let servers = [Server::healthy().await, Server::healthy().await, Server::healthy().await];
        let (fleet, subscription) = Fleet::of(&[&servers[0], &servers[1]]);
        let name = policy.name();
        let channel = builder(subscription).policy(policy).slow_start(WINDOW).build();
        ready(&channel, 2).await;
        // Both begin their slow start with their first call.
        let first = spread(&channel).await;
        assert!(first[0].abs_diff(first[1]) < 150 && first[2] == 0, "{name}: {first:?}");
        tokio::time::advance(WINDOW).await;

        fleet.put(instance(2, servers[2].endpoint()));
        ready(&channel, 3).await;
        // Standard deviations are at most ten calls, or twelve where any is picked.
        for (wait, tenths) in [(Duration::ZERO, 1), (WINDOW / 2, 5), (WINDOW / 2, 10)] {
            tokio::time::advance(wait).await;
            let served = spread(&channel).await;
            let due = CALLS * tenths / (20 + tenths);
            assert!(served[2].abs_diff(due) < 50, "{name}, {tenths} tenths: {served:?}, due {due}");
            assert!(served[0].abs_diff(served[1]) < 150, "{name}, {tenths} tenths: {served:?}");
        }
    }
}

/// One that has lost its connection begins anew.
#[tokio::test(start_paused = true)]
async fn who_comes_back_begins_anew() {
    let _clock = hold_the_clock();
    let mut servers = [Server::healthy().await, Server::healthy().await];
    let (_fleet, subscription) = Fleet::of(&[&servers[0], &servers[1]]);
    let channel = builder(subscription).slow_start(WINDOW).build();
    ready(&channel, 2).await;
    spread(&channel).await;
    tokio::time::advance(WINDOW).await;
    assert_eq!(spread(&channel).await, [CALLS / 2, CALLS / 2, 0]);
    servers[1].kill().await;
    ready(&channel, 1).await;
    servers[1].restart().await;
    // Its next attempt to connect is due after a wait of 50 ms at most.
    let begun = std::time::Instant::now();
    while channel.stats().ready() < 2 {
        assert!(begun.elapsed() < PATIENCE, "{:?}", channel.stats());
        tokio::time::advance(Duration::from_millis(50)).await;
        tokio::task::yield_now().await;
    }
    let back = spread(&channel).await;
    // A tenth beside one whole: 55 of 600, with a standard deviation of seven.
    assert!((15..95).contains(&back[1]), "{back:?}");
}
