//! H44 and H46 to H50: endpoints whose calls go badly, on real connections.

use crate::support::answers::{self, handler};
use crate::support::{
    Fleet, Server, builder, check, check_idempotent, check_with, instance, ready, served_by, within,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tonic::Code;
use waypost_channel::{Channel, ChannelStats, EndpointStatus, OutlierSettings, Policy};

/// A server whose answer can be changed: the status of every call.
struct Moody {
    server: Server,
    code: Arc<AtomicI32>,
}

impl Moody {
    async fn start(code: Code) -> Self {
        let code = Arc::new(AtomicI32::new(code.into()));
        let now = Arc::clone(&code);
        let server = Server::start(handler(move |_, _| {
            let code = Code::from_i32(now.load(Ordering::Relaxed));
            async move { if code == Code::Ok { answers::ok() } else { answers::in_headers(code) } }
        }))
        .await;
        Self { server, code }
    }

    fn answer(&self, code: Code) {
        self.code.store(code.into(), Ordering::Relaxed);
    }
}

async fn fleet_of(moods: &[Code]) -> (Vec<Moody>, Fleet, waypost_discovery::Subscription) {
    let mut servers = Vec::new();
    for code in moods {
        servers.push(Moody::start(*code).await);
    }
    let (fleet, subscription) = Fleet::of(&servers.iter().map(|moody| &moody.server).collect::<Vec<_>>());
    (servers, fleet, subscription)
}

/// Five failures in a row, and nothing else: the other rules want more calls than a test makes.
fn in_a_row(ejection: Duration) -> OutlierSettings {
    let mut settings = OutlierSettings::default();
    settings.base_ejection_time = ejection;
    settings
}

const FOR_EVER: Duration = Duration::from_secs(3600);

fn is_ejected(stats: &ChannelStats, id: usize) -> bool {
    stats.endpoints[position(stats, id)].state == EndpointStatus::Ejected
}

fn position(stats: &ChannelStats, id: usize) -> usize {
    stats.endpoints.iter().position(|endpoint| endpoint.key.id == id.to_string().as_str()).unwrap()
}

/// Calls until that instance is ejected; every other one answers.
async fn call_until_ejected(channel: &Channel, id: usize) {
    for _ in 0..10_000 {
        // The failures are what this is for.
        let _ = check(channel).await;
        if is_ejected(&channel.stats(), id) {
            within(channel.wait_for(|stats| stats.endpoints[position(stats, id)].ejection.is_some())).await;
            return;
        }
    }
    panic!("{id} is not ejected: {:?}", channel.stats());
}

#[tokio::test]
async fn h44_a_failed_endpoint_is_probed_and_back_after_its_ejection_time() {
    let (servers, _fleet, subscription) = fleet_of(&[Code::Ok, Code::Unavailable, Code::Ok]).await;
    let channel = builder(subscription).outlier_detection(in_a_row(Duration::from_millis(300))).build();
    ready(&channel, 3).await;
    call_until_ejected(&channel, 1).await;
    servers[1].answer(Code::Ok);
    // Without a call: time alone brings it back.
    let stats = within(channel.wait_for(|stats| stats.ready() == 3)).await;
    let back = &stats.endpoints[position(&stats, 1)];
    assert_eq!((back.ejections, &back.ejection), (1, &None));
    let before = servers[1].server.calls();
    for _ in 0..30 {
        check(&channel).await.unwrap();
    }
    assert_eq!(servers[1].server.calls(), before + 10);
    // No new connection was made for it.
    assert_eq!(servers[1].server.connections(), 1);
}

/// It fails again at once when it is back: it is out for longer.
#[tokio::test]
async fn h44_an_endpoint_that_fails_again_is_ejected_again() {
    let (_servers, _fleet, subscription) = fleet_of(&[Code::Ok, Code::Internal]).await;
    let channel = builder(subscription).outlier_detection(in_a_row(Duration::from_millis(50))).build();
    ready(&channel, 2).await;
    for nth in 1..=3 {
        call_until_ejected(&channel, 1).await;
        let stats = channel.stats();
        let out = &stats.endpoints[position(&stats, 1)];
        assert_eq!(out.ejections, nth);
        let expected = format!("5 failures in a row, for {:?}", Duration::from_millis(50 * nth));
        assert_eq!(out.ejection.as_deref(), Some(&*expected));
        within(channel.wait_for(|stats| stats.ready() == 2)).await;
    }
}

/// Ten servers with ten callers each: nine answer as soon as they are asked, the tenth only when the others have answered a
/// hundred calls since (so it is ten times as slow whatever the machine does). Under `peak_ewma` it gets far less than its share of a tenth; under
/// `round_robin` every caller ends up waiting for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h46_a_slow_endpoint_of_ten_gets_few_of_the_calls() {
    let (answered, progress) = watch::channel(0_usize);
    let answered = Arc::new(answered);
    let mut servers = Vec::new();
    for id in 0..10 {
        let (answered, progress) = (Arc::clone(&answered), progress.clone());
        servers.push(
            Server::start(handler(move |_, _| {
                let (answered, mut progress) = (Arc::clone(&answered), progress.clone());
                async move {
                    if id == 7 {
                        let due = *progress.borrow() + 100;
                        progress.wait_for(|count| *count >= due).await.unwrap();
                    } else {
                        answered.send_modify(|count| *count += 1);
                    }
                    answers::ok()
                }
            }))
            .await,
        );
    }
    let (_fleet, subscription) = Fleet::of(&servers.iter().collect::<Vec<_>>());
    let channel = builder(subscription).policy(Policy::peak_ewma()).build();
    ready(&channel, 10).await;
    let callers: Vec<_> = (0..10)
        .map(|_| {
            let channel = channel.clone();
            tokio::spawn(async move {
                for _ in 0..200 {
                    check(&channel).await.unwrap();
                }
            })
        })
        .collect();
    // Whoever waits at the slow one to the last is let go when the others are done.
    let ends = tokio::spawn({
        let channel = channel.clone();
        async move {
            while channel.stats().in_flight() > 0 || *answered.borrow() < 1 {
                answered.send_modify(|count| *count += 1);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    });
    for caller in callers {
        within(caller).await.unwrap();
    }
    ends.abort();
    let slow = servers[7].calls();
    assert!(slow > 0 && slow < 100, "the slow one had {slow} of 2,000 calls");
}

/// It answers at once, with an error: by latency and by load it is the most attractive of all.
#[tokio::test]
async fn h47_an_endpoint_that_fails_fast_is_ejected_and_not_preferred() {
    for policy in ["peak_ewma", "least_request", "round_robin", "random", "weighted_round_robin"] {
        let (servers, _fleet, subscription) =
            fleet_of(&[Code::Ok, Code::Ok, Code::Unavailable, Code::Ok, Code::Ok]).await;
        let channel = builder(subscription)
            .policy(policy.parse::<Policy>().unwrap())
            .outlier_detection(in_a_row(FOR_EVER))
            .build();
        ready(&channel, 5).await;
        // In parallel at first, as under load: the failing one must not attract what the others are busy with.
        let calls = (0..100).map(|_| check(&channel));
        let failed = futures::future::join_all(calls).await.iter().filter(|call| call.is_err()).count();
        assert!(failed <= 60, "{policy}: {failed} of 100 calls went to the one that fails");
        if !is_ejected(&channel.stats(), 2) {
            call_until_ejected(&channel, 2).await;
        }
        let before = servers[2].server.calls();
        for _ in 0..200 {
            check(&channel).await.unwrap();
        }
        assert_eq!(servers[2].server.calls(), before, "{policy}");
    }
}

/// What the caller did wrong ejects nobody.
#[tokio::test]
async fn h47_an_endpoint_that_refuses_what_is_wrong_is_not_ejected() {
    for code in [Code::NotFound, Code::InvalidArgument, Code::Unauthenticated, Code::Unknown] {
        let (_servers, _fleet, subscription) = fleet_of(&[Code::Ok, code]).await;
        let channel = builder(subscription).outlier_detection(in_a_row(FOR_EVER)).build();
        ready(&channel, 2).await;
        let mut failed = 0;
        for _ in 0..40 {
            failed += usize::from(check(&channel).await.is_err());
        }
        assert_eq!((failed, channel.stats().ready()), (20, 2), "{code}");
    }
}

#[tokio::test]
async fn h48_when_all_fail_all_are_used_rather_than_none() {
    let (servers, _fleet, subscription) = fleet_of(&[Code::Unavailable; 4]).await;
    let mut settings = in_a_row(FOR_EVER);
    settings.max_ejection_percent = 100;
    let channel = builder(subscription).outlier_detection(settings).build();
    ready(&channel, 4).await;
    for _ in 0..200 {
        check(&channel).await.unwrap_err();
    }
    within(channel.wait_for(|stats| stats.endpoints.iter().filter(|at| at.ejection.is_some()).count() > 2))
        .await;
    // Most are condemned, so none is set aside.
    assert_eq!(channel.stats().ready(), 4);
    for moody in &servers {
        moody.answer(Code::Ok);
    }
    let before: Vec<usize> = servers.iter().map(|moody| moody.server.calls()).collect();
    for _ in 0..40 {
        check(&channel).await.unwrap();
    }
    for (moody, before) in servers.iter().zip(before) {
        assert_eq!(moody.server.calls(), before + 10);
    }
}

/// Without the threshold too: an ejected endpoint is better than none.
#[tokio::test]
async fn h48_the_only_endpoint_is_used_though_it_is_ejected() {
    let (servers, fleet, subscription) = fleet_of(&[Code::Unavailable, Code::Ok]).await;
    let mut settings = in_a_row(FOR_EVER);
    settings.panic_threshold = 0;
    let channel = builder(subscription).outlier_detection(settings).build();
    ready(&channel, 2).await;
    call_until_ejected(&channel, 0).await;
    fleet.remove(1);
    within(channel.wait_for(|stats| stats.registered == 1)).await;
    servers[0].answer(Code::Ok);
    assert_eq!(served_by(&check(&channel).await.unwrap()), 0);
}

/// No more than the cap are set aside, however many fail.
#[tokio::test]
async fn h48_the_ejection_cap_holds() {
    let (_servers, _fleet, subscription) = fleet_of(&[Code::Internal; 5]).await;
    let mut settings = in_a_row(FOR_EVER);
    settings.max_ejection_percent = 40;
    settings.panic_threshold = 0;
    let channel = builder(subscription).outlier_detection(settings).build();
    ready(&channel, 5).await;
    for _ in 0..200 {
        check(&channel).await.unwrap_err();
    }
    within(channel.wait_for(|stats| stats.ready() == 3)).await;
}

#[tokio::test]
async fn h49_an_error_names_the_service_the_endpoint_the_attempt_and_the_cause() {
    let says = |error: &tonic::Status, parts: &[&str]| {
        for part in parts {
            assert!(error.message().contains(part), "{part:?} is not in {:?}", error.message());
        }
    };
    // The connection dies under a call that may be repeated, again and again.
    let dying = handler(async |_, kill| answers::dies(kill).await);
    let servers = [Server::start(Arc::clone(&dying)).await, Server::start(dying).await];
    let (_fleet, subscription) = Fleet::of(&[&servers[0], &servers[1]]);
    let channel = builder(subscription).build();
    ready(&channel, 2).await;
    let error = check_idempotent(&channel).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    says(&error, &["greeter", "127.0.0.1:"]);

    // One that is still there, at a deadline.
    let silent = Server::start(handler(|_, _| std::future::pending())).await;
    let (_fleet, subscription) = Fleet::of(&[&silent]);
    let channel = builder(subscription).build();
    ready(&channel, 1).await;
    let error =
        check_with(&channel, |request| request.set_timeout(Duration::from_millis(50))).await.unwrap_err();
    says(&error, &["greeter 0", &silent.endpoint().to_string(), "attempt 1", "before the deadline"]);

    // One that was ejected before it went away is named with both.
    let (servers, _fleet, subscription) = fleet_of(&[Code::Unavailable, Code::Ok]).await;
    let channel = builder(subscription).outlier_detection(in_a_row(FOR_EVER)).build();
    ready(&channel, 2).await;
    call_until_ejected(&channel, 0).await;
    for moody in &servers {
        moody.server.kill().await;
    }
    within(channel.wait_for(|stats| stats.endpoints.iter().all(|at| at.last_error.is_some()))).await;
    within(async {
        // Until the second attempts have failed as well, calls wait for them.
        while channel.stats().endpoints.iter().any(|at| at.state == EndpointStatus::Connecting) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let error = check(&channel).await.unwrap_err();
    let at = servers[0].server.endpoint().to_string();
    says(&error, &["greeter", "1 ejected", &at, "ejected for its calls: 5 failures in a row", "attempt"]);
}

#[tokio::test]
async fn h50_weights_that_are_all_zero_are_equal() {
    for policy in [Policy::weighted_round_robin(), Policy::ring_hash(), Policy::maglev()] {
        let servers = [Server::healthy().await, Server::healthy().await, Server::healthy().await];
        let (fleet, subscription) = Fleet::of(&[]);
        let weightless = |(id, server): (usize, &Server)| instance(id, server.endpoint()).with_weight(0);
        fleet.change(servers.iter().enumerate().map(weightless), []);
        let even = policy.name() == "weighted_round_robin";
        let channel = builder(subscription).policy(policy).build();
        ready(&channel, 3).await;
        for _ in 0..150 {
            check(&channel).await.unwrap();
        }
        let shares: Vec<usize> = servers.iter().map(Server::calls).collect();
        assert!(shares.iter().all(|share| if even { *share == 50 } else { *share > 10 }), "{shares:?}");
        // And weights that come to be counted.
        fleet.put(instance(0, servers[0].endpoint()).with_weight(300));
        within(channel.wait_for(|stats| stats.registered == 3)).await;
    }
}

#[tokio::test]
async fn detection_can_be_turned_off_while_the_channel_runs_and_ends_all_ejections() {
    let (servers, _fleet, subscription) = fleet_of(&[Code::Ok, Code::Unavailable]).await;
    let channel = builder(subscription).outlier_detection(in_a_row(FOR_EVER)).build();
    ready(&channel, 2).await;
    call_until_ejected(&channel, 1).await;
    channel.set_outlier_detection(None);
    ready(&channel, 2).await;
    for _ in 0..40 {
        // Half of them fail.
        let _ = check(&channel).await;
    }
    assert_eq!(channel.stats().ready(), 2);
    channel.set_outlier_detection(in_a_row(FOR_EVER));
    call_until_ejected(&channel, 1).await;
    drop(servers);
}

/// One that is ejected and loses its connection is still ejected when it is back.
#[tokio::test]
async fn a_reconnect_does_not_end_an_ejection() {
    let (mut servers, _fleet, subscription) = fleet_of(&[Code::Ok, Code::Unavailable]).await;
    let channel = builder(subscription).outlier_detection(in_a_row(FOR_EVER)).build();
    ready(&channel, 2).await;
    call_until_ejected(&channel, 1).await;
    servers[1].server.kill().await;
    servers[1].server.restart().await;
    within(channel.wait_for(|stats| {
        let at = &stats.endpoints[position(stats, 1)];
        at.last_error.is_some() && at.state == EndpointStatus::Ejected
    }))
    .await;
    for _ in 0..20 {
        check(&channel).await.unwrap();
    }
}

/// Of many failures at the same time, none is lost and nothing blocks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_of_many_calls_at_once_are_all_counted() {
    let gate = Arc::new(Semaphore::new(0));
    let count = Arc::new(AtomicUsize::new(0));
    let (wait, seen) = (Arc::clone(&gate), Arc::clone(&count));
    let failing = Server::start(handler(move |_, _| {
        let (wait, seen) = (Arc::clone(&wait), Arc::clone(&seen));
        async move {
            seen.fetch_add(1, Ordering::Relaxed);
            wait.acquire().await.unwrap().forget();
            answers::in_headers(Code::Unavailable)
        }
    }))
    .await;
    let good = Server::healthy().await;
    let (_fleet, subscription) = Fleet::of(&[&failing, &good]);
    let channel = builder(subscription).outlier_detection(in_a_row(FOR_EVER)).build();
    ready(&channel, 2).await;
    let calls: Vec<_> = (0..200)
        .map(|_| {
            let channel = channel.clone();
            tokio::spawn(async move { check(&channel).await })
        })
        .collect();
    // All of them are picked before the first has failed.
    failing.called(50).await;
    good.called(50).await;
    gate.add_permits(200);
    let mut failed = 0;
    for call in calls {
        failed += u64::from(within(call).await.unwrap().is_err());
    }
    within(channel.wait_for(|stats| is_ejected(stats, 0))).await;
    let stats = channel.stats();
    assert_eq!(failed, failing.calls() as u64);
    assert_eq!(stats.endpoints[position(&stats, 0)].failures, failed);
}
