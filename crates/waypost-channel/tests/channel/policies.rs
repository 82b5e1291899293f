//! Every policy on real connections: who is picked, by what key, and how a running channel is told otherwise.

use crate::support::{
    Fleet, Server, answers, builder, check, check_with, instance, ready, served_by, within,
};
use std::collections::BTreeSet;
use tokio_util::sync::CancellationToken;
use waypost_channel::{Channel, HashKey, Policy, RetryPolicy};

async fn servers(count: usize) -> Vec<Server> {
    let mut servers = Vec::new();
    for _ in 0..count {
        servers.push(Server::healthy().await);
    }
    servers
}

/// Who serves a call with this key.
async fn owner(channel: &Channel, key: &str) -> usize {
    let key = HashKey::of(key);
    let prepare = |request: &mut tonic::Request<_>| {
        request.extensions_mut().insert(key);
    };
    served_by(&check_with(channel, prepare).await.unwrap())
}

/// Who serves a call with these values in the header `x-user`.
async fn owner_by_header(channel: &Channel, values: &[&str]) -> usize {
    let prepare = |request: &mut tonic::Request<_>| {
        for value in values {
            request.metadata_mut().append("x-user", value.parse().unwrap());
        }
    };
    served_by(&check_with(channel, prepare).await.unwrap())
}

#[tokio::test]
async fn every_policy_uses_every_endpoint() {
    let servers = servers(4).await;
    let (_fleet, subscription) = Fleet::of(&servers.iter().collect::<Vec<_>>());
    for name in Policy::NAMES {
        let channel = builder(subscription.clone()).policy(name.parse::<Policy>().unwrap()).build();
        ready(&channel, 4).await;
        assert_eq!(channel.policy().name(), name);
        let mut seen = BTreeSet::new();
        for _ in 0..200 {
            seen.insert(served_by(&check(&channel).await.unwrap()));
        }
        assert_eq!(seen, (0..4).collect(), "{name}");
    }
}

#[tokio::test]
async fn calls_with_the_same_key_stay_together_under_the_policies_that_hash() {
    let servers = servers(4).await;
    let (_fleet, subscription) = Fleet::of(&servers.iter().collect::<Vec<_>>());
    for policy in [Policy::ring_hash(), Policy::maglev()] {
        let policy = policy.hash_on_header(http::HeaderName::from_static("x-user"));
        let channel = builder(subscription.clone()).policy(policy).build();
        ready(&channel, 4).await;
        let mut owners = BTreeSet::new();
        for user in 0..40 {
            let user = format!("user {user}");
            let first = owner(&channel, &user).await;
            assert_eq!(owner(&channel, &user).await, first);
            assert_eq!(owner_by_header(&channel, &[&user]).await, first, "a header is hashed as a key is");
            owners.insert(first);
        }
        assert_eq!(owners, (0..4).collect());
        assert_eq!(owner_by_header(&channel, &["a", "b"]).await, owner(&channel, "a,b").await);
    }
}

#[tokio::test]
async fn the_key_of_the_call_counts_more_than_the_header() {
    let servers = servers(4).await;
    let (_fleet, subscription) = Fleet::of(&servers.iter().collect::<Vec<_>>());
    let policy = Policy::maglev().hash_on_header(http::HeaderName::from_static("x-user"));
    let channel = builder(subscription).policy(policy).build();
    ready(&channel, 4).await;
    for key in 0..20 {
        let key = key.to_string();
        let response = check_with(&channel, |request| {
            request.metadata_mut().append("x-user", "somebody".parse().unwrap());
            request.extensions_mut().insert(HashKey::of(&key));
        });
        assert_eq!(served_by(&response.await.unwrap()), owner(&channel, &key).await);
    }
}

#[tokio::test]
async fn calls_stay_in_the_own_zone_under_every_policy() {
    let servers = servers(6).await;
    let (fleet, subscription) = Fleet::of(&[]);
    let zoned =
        |(id, server): (usize, &Server)| instance(id, server.endpoint()).with_zone(["a", "b", "c"][id % 3]);
    fleet.change(servers.iter().enumerate().map(zoned), []);
    for name in Policy::NAMES {
        let policy: Policy = name.parse().unwrap();
        let channel = builder(subscription.clone()).policy(policy).zone("b").build();
        ready(&channel, 6).await;
        let mut seen = BTreeSet::new();
        for call in 0..100_u64 {
            seen.insert(owner(&channel, &call.to_string()).await);
        }
        assert_eq!(seen, BTreeSet::from([1, 4]), "{name}");
    }
}

/// Three attempts find the one of three that works, whatever was picked first: none goes to the same endpoint twice.
#[tokio::test]
async fn a_retry_goes_to_another_endpoint_under_every_policy() {
    let failing =
        || Server::start(answers::handler(async |_, _| answers::in_headers(tonic::Code::Unavailable)));
    let servers = [failing().await, failing().await, Server::healthy().await];
    let (_fleet, subscription) = Fleet::of(&servers.iter().collect::<Vec<_>>());
    for name in Policy::NAMES {
        let before = servers[2].calls();
        let channel = builder(subscription.clone())
            .policy(name.parse::<Policy>().unwrap())
            .outlier_detection(None)
            .retry(RetryPolicy::default().with_budget(1000, 1.0, 1000))
            .all_idempotent()
            .build();
        ready(&channel, 3).await;
        for key in 0..30 {
            assert_eq!(owner(&channel, &key.to_string()).await, 2, "{name}");
        }
        assert_eq!(servers[2].calls(), before + 30);
    }
}

#[tokio::test]
async fn the_policy_changes_under_load_and_no_call_is_hurt() {
    let servers = servers(3).await;
    let (_fleet, subscription) = Fleet::of(&servers.iter().collect::<Vec<_>>());
    let channel = builder(subscription).build();
    ready(&channel, 3).await;
    let stop = CancellationToken::new();
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (channel, stop) = (channel.clone(), stop.clone());
            tokio::spawn(async move {
                while !stop.is_cancelled() {
                    check(&channel).await?;
                }
                Ok::<_, tonic::Status>(())
            })
        })
        .collect();
    for name in Policy::NAMES.iter().cycle().take(21) {
        channel.set_policy(name.parse::<Policy>().unwrap());
        let so_far = servers[0].calls();
        servers[0].called(so_far + 5).await;
    }
    stop.cancel();
    for caller in callers {
        within(caller).await.unwrap().unwrap();
    }
    // The connections are the first ones.
    assert!(servers.iter().all(|server| server.connections() == 1));

    channel.set_policy(Policy::maglev());
    within(async {
        let same = async || {
            let first = owner(&channel, "k").await;
            for _ in 0..20 {
                if owner(&channel, "k").await != first {
                    return false;
                }
            }
            true
        };
        while !same().await {}
    })
    .await;
}
