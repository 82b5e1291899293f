//! What an alarm holds back that nobody asks for, and what it must not let through. What it refuses is compared in `tests/conformance`.

use tonic::transport::Channel;
use waypost_proto::etcdserverpb as pb;
use waypost_proto::etcdserverpb::alarm_request::AlarmAction;
use waypost_proto::etcdserverpb::auth_client::AuthClient;
use waypost_proto::etcdserverpb::kv_client::KvClient;
use waypost_proto::etcdserverpb::lease_client::LeaseClient;
use waypost_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use waypost_testkit::{Etcd, EtcdVersion, eventually, for_peer_etcd};

use crate::support::{Ctl, Fixture, PATIENCE, command, run};

const LEASE: i64 = 7;

async fn alarm(channel: &Channel, action: AlarmAction) {
    let request =
        pb::AlarmRequest { action: action.into(), member_id: 0, alarm: pb::AlarmType::Corrupt.into() };
    let alarms = MaintenanceClient::new(channel.clone()).alarm(request).await.unwrap().into_inner().alarms;
    assert_eq!(alarms.len(), 1);
}

async fn left(channel: &Channel) -> pb::LeaseTimeToLiveResponse {
    let request = pb::LeaseTimeToLiveRequest { id: LEASE, keys: true };
    LeaseClient::new(channel.clone()).lease_time_to_live(request).await.unwrap().into_inner()
}

for_peer_etcd! {
    async fn a_lease_does_not_end_while_the_store_is_corrupt(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let channel = Channel::from_shared(etcd.url()).unwrap().connect().await.unwrap();
        let mut kv = KvClient::new(channel.clone());
        let grant = pb::LeaseGrantRequest { id: LEASE, ttl: 1 };
        LeaseClient::new(channel.clone()).lease_grant(grant).await.unwrap();
        kv.put(pb::PutRequest { key: "a".into(), lease: LEASE, ..Default::default() }).await.unwrap();
        alarm(&channel, AlarmAction::Activate).await;

        let over = eventually("its time is over", PATIENCE, async || {
            Some(left(&channel).await).filter(|left| left.ttl < 0)
        });
        let over = over.await;
        assert_eq!((over.granted_ttl, over.keys), (1, vec![bytes::Bytes::from("a")]));
        let get = pb::RangeRequest { key: "a".into(), ..Default::default() };
        assert_eq!(kv.range(get.clone()).await.unwrap().into_inner().count, 1);

        alarm(&channel, AlarmAction::Deactivate).await;
        eventually("it ends", PATIENCE, async || (left(&channel).await.granted_ttl == 0).then_some(())).await;
        assert_eq!(kv.range(get).await.unwrap().into_inner().count, 0);
    }
}

/// etcd 3.5 forgets to look at rights while an alarm is on, of all but reads (its pull request 22386).
#[tokio::test]
async fn rights_are_looked_at_while_an_alarm_is_on() {
    let fixture = Fixture::start().await;
    for line in [
        "put secret 1",
        "role add tenant",
        "role grant-permission tenant --prefix=true readwrite tenant/",
        "user add tenant:pass",
        "user grant-role tenant tenant",
        "user add root:secret",
        "user grant-role root root",
        "auth enable",
    ] {
        fixture.ctl(Ctl::V3_5, line).await;
    }
    for kind in ["NOSPACE", "CORRUPT"] {
        let mut raise = MaintenanceClient::new(fixture.channel().await);
        let mut request = tonic::Request::new(pb::AlarmRequest {
            action: AlarmAction::Activate.into(),
            member_id: 1,
            alarm: pb::AlarmType::from_str_name(kind).unwrap().into(),
        });
        request.metadata_mut().insert("token", root(&fixture).await.parse().unwrap());
        raise.alarm(request).await.unwrap();
        for line in ["auth disable", "del secret", "user add other:pass", "role delete tenant", "compact 1"] {
            let line = format!("--user tenant:pass {line}");
            let refused = run(command(Ctl::V3_5, fixture.url(), &line)).await.unwrap_err();
            assert!(refused.contains("permission denied"), "{kind}: {line}: {refused}");
        }
        let read = fixture.ctl(Ctl::V3_5, "--user root:secret get secret --print-value-only").await;
        assert_eq!(read, "1\n", "{kind}");
    }
}

/// A token of `root`.
async fn root(fixture: &Fixture) -> String {
    let request = pb::AuthenticateRequest { name: "root".to_owned(), password: "secret".to_owned() };
    AuthClient::new(fixture.channel().await).authenticate(request).await.unwrap().into_inner().token
}
