//! Leases: single calls, and the keeper that renews them and reports their loss.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on must fail at once")]

use std::time::Duration;

use tokio::time::Instant;
use waypost_etcd::{
    Client, ClientOptions, EndpointOrder, KeptLease, LeaseKeeper, LeaseLoss, LeaseState, Put,
};
use waypost_testkit::{Etcd, EtcdVersion, Proxy, for_each_etcd};

async fn kept(client: &Client, keeper: &LeaseKeeper, ttl: u64) -> KeptLease {
    let asked = Instant::now();
    let lease = client.lease_grant(Duration::from_secs(ttl), None).await.expect("grant");
    keeper.keep(lease, asked)
}

async fn lost(lease: &KeptLease) -> LeaseLoss {
    let mut state = lease.state();
    let state = state.wait_for(|state| matches!(state, LeaseState::Lost { .. })).await.expect("a last state");
    match &*state {
        LeaseState::Lost { cause } => cause.clone(),
        other => panic!("{other:?}"),
    }
}

/// Waits until the lease's end has moved this many times.
async fn renewed(lease: &KeptLease, times: u32) {
    let mut state = lease.state();
    state.borrow_and_update();
    let mut seen = 0;
    while seen < times {
        state.changed().await.expect("alive");
        match &*state.borrow_and_update() {
            LeaseState::Alive { .. } => seen += 1,
            LeaseState::Suspect { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

for_each_etcd! {
    async fn grant_look_and_revoke(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let client = Client::new(ClientOptions::new([etcd.url()])).expect("options");
        let lease = client.lease_grant(Duration::from_millis(59_500), Some(77)).await.expect("grant");
        assert_eq!((lease.id, lease.ttl), (77, Duration::from_secs(60)));
        client.put(Put::new("k", "v").lease(77)).await.expect("put");
        let alive = client.lease_time_to_live(77, true).await.expect("look");
        assert_eq!(alive.granted, Duration::from_secs(60));
        assert_eq!(alive.keys, ["k"]);
        assert_eq!(client.leases().await.expect("list"), [77]);
        client.lease_revoke(77).await.expect("revoke");
        assert_eq!(client.lease_time_to_live(77, false).await.expect("look").ttl, None);
    }

    async fn the_keeper_renews_past_the_ttl(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let client = Client::new(ClientOptions::new([etcd.url()])).expect("options");
        let keeper = LeaseKeeper::new(client.clone());
        let leases = futures::future::join_all((0..20).map(|_| kept(&client, &keeper, 2))).await;
        // Six renewals of a third each: twice the time to live.
        futures::future::join_all(leases.iter().map(|lease| renewed(lease, 6))).await;
        let alive = client.leases().await.expect("list");
        assert!(leases.iter().all(|lease| alive.contains(&lease.id())));
    }

    async fn a_revoked_lease_is_lost_and_not_success(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let client = Client::new(ClientOptions::new([etcd.url()])).expect("options");
        let keeper = LeaseKeeper::new(client.clone());
        let lease = kept(&client, &keeper, 2).await;
        client.lease_revoke(lease.id()).await.expect("revoke");
        assert_eq!(lost(&lease).await, LeaseLoss::Unknown);
    }

    async fn etcd_away_is_suspect_then_lost_with_the_cause(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let proxy = Proxy::start(&etcd.authority()).await;
        let client = Client::new(ClientOptions::new([proxy.url()])).expect("options");
        let keeper = LeaseKeeper::new(client.clone());
        let lease = kept(&client, &keeper, 3).await;
        let mut state = lease.state();
        proxy.refuse().await;
        state.wait_for(|state| matches!(state, LeaseState::Suspect { .. })).await.expect("suspect");
        match lost(&lease).await {
            LeaseLoss::Expired { cause } => assert!(cause.contains(&proxy.url()), "{cause}"),
            other => panic!("{other:?}"),
        }
    }

    async fn a_silent_stream_is_replaced_at_another_endpoint(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let (first, second) = (Proxy::start(&etcd.authority()).await, Proxy::start(&etcd.authority()).await);
        let options = ClientOptions::new([first.url(), second.url()]).endpoint_order(EndpointOrder::Listed);
        let client = Client::new(options).expect("options");
        let keeper = LeaseKeeper::new(client.clone());
        let lease = kept(&client, &keeper, 6).await;
        renewed(&lease, 1).await;
        assert_eq!(second.accepted(), 0);
        first.blackhole();
        renewed(&lease, 2).await;
        assert_eq!(second.accepted(), 1);
    }

    async fn a_stream_that_breaks_between_renewals_is_opened_for_the_next_one(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let proxy = Proxy::start(&etcd.authority()).await;
        let client = Client::new(ClientOptions::new([proxy.url()])).expect("options");
        let keeper = LeaseKeeper::new(client.clone());
        let lease = kept(&client, &keeper, 6).await;
        renewed(&lease, 1).await;
        let mut counts = proxy.counts();
        proxy.sever();
        counts.wait_for(|counts| counts.open == 0).await.expect("severed");
        // Nothing is due: nothing is asked, and nobody is suspected.
        renewed(&lease, 2).await;
        assert_eq!(proxy.accepted(), 2);
    }

    async fn a_new_lease_of_the_same_id_is_not_forgotten_with_the_old_one(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let client = Client::new(ClientOptions::new([etcd.url()])).expect("options");
        let keeper = LeaseKeeper::new(client.clone());
        let keep = async || {
            let asked = Instant::now();
            let lease = client.lease_grant(Duration::from_secs(2), Some(77)).await.expect("grant");
            keeper.keep(lease, asked)
        };
        let old = keep().await;
        client.lease_revoke(77).await.expect("revoke");
        let kept = keep().await;
        drop(old);
        renewed(&kept, 4).await;
    }

    async fn times_to_live_beyond_reason_are_refused_and_not_wrapped(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let client = Client::new(ClientOptions::new([etcd.url()])).expect("options");
        client.lease_grant(Duration::MAX, None).await.expect_err("more than etcd grants");
        let lease = client.lease_grant(Duration::from_secs(9_000_000_000), None).await.expect("the most");
        LeaseKeeper::new(client.clone()).keep(lease, Instant::now());
    }

    async fn a_dropped_lease_is_renewed_no_more(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let client = Client::new(ClientOptions::new([etcd.url()])).expect("options");
        let keeper = LeaseKeeper::new(client.clone());
        let (dropped, other) = (kept(&client, &keeper, 2).await, kept(&client, &keeper, 2).await);
        let id = dropped.id();
        drop(dropped);
        // etcd expires it while the other lives on.
        while client.lease_time_to_live(id, false).await.expect("look").ttl.is_some() {
            renewed(&other, 1).await;
        }
        assert!(client.lease_time_to_live(other.id(), false).await.expect("look").ttl.is_some());
    }
}
