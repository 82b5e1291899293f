//! No call pays for the policy, the zones or the size of the fleet with an allocation.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test")]

#[path = "channel/support/mod.rs"]
mod support;

use std::time::Duration;
use support::{Fleet, instance, within};
use waypost_channel::{Channel, HashKey, Outcome, Policy, Unconnected, Wish};
use waypost_model::Endpoint;

#[tokio::test]
async fn no_pick_allocates_under_any_policy() {
    let (fleet, subscription) = Fleet::of(&[]);
    let member = |n: usize| {
        let endpoint = Endpoint::new(format!("10.0.{}.{}", n / 250, n % 250 + 1), 50051).unwrap();
        instance(n, endpoint).with_zone(["a", "b"][n % 2]).with_weight(u32::try_from(n % 5).unwrap())
    };
    fleet.change((0..300).map(member), []);
    let mut headers = http::HeaderMap::new();
    headers.insert("x-user", http::HeaderValue::from_static("somebody"));
    for name in Policy::NAMES {
        let policy = name.parse::<Policy>().unwrap().hash_on_header(http::HeaderName::from_static("x-user"));
        let pool = Channel::builder(subscription.clone())
            .policy(policy)
            .zone("a")
            .slow_start(Duration::from_secs(3600))
            .pool(Unconnected);
        within(pool.wait_for(|stats| stats.ready() == 300)).await;
        let picks = || {
            for key in 0..100 {
                let by_key = Wish::new().key(HashKey::from_hash(key << 57));
                pool.try_lease(&by_key).unwrap().finished(Outcome::Ok);
                let by_header = Wish::new().headers(&headers);
                let first = pool.try_lease(&by_header).unwrap().finished(Outcome::Failed);
                let tried = [first];
                pool.try_lease(&by_header.tried(&tried)).unwrap().finished(Outcome::Ok);
            }
        };
        // What a thread does once, it has done then.
        picks();
        let counted = allocation_counter::measure(picks);
        assert_eq!(counted.count_total, 0, "{name}: {counted:?}");
    }
}
