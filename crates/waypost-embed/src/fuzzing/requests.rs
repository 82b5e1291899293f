//! Arbitrary bytes as the message of each request.

use std::time::Duration;

use waypost_proto::etcdserverpb::{RangeRequest, RangeResponse};

use super::bytes::Choices;
use crate::server::Server;
use crate::server::inside::Inside;
use crate::storage::Store;

/// Every method.
const METHODS: [&str; 49] = [
    "/etcdserverpb.KV/Range",
    "/etcdserverpb.KV/Put",
    "/etcdserverpb.KV/DeleteRange",
    "/etcdserverpb.KV/Txn",
    "/etcdserverpb.KV/Compact",
    "/etcdserverpb.Watch/Watch",
    "/etcdserverpb.Lease/LeaseGrant",
    "/etcdserverpb.Lease/LeaseRevoke",
    "/etcdserverpb.Lease/LeaseKeepAlive",
    "/etcdserverpb.Lease/LeaseTimeToLive",
    "/etcdserverpb.Lease/LeaseLeases",
    "/etcdserverpb.Cluster/MemberAdd",
    "/etcdserverpb.Cluster/MemberRemove",
    "/etcdserverpb.Cluster/MemberUpdate",
    "/etcdserverpb.Cluster/MemberList",
    "/etcdserverpb.Cluster/MemberPromote",
    "/etcdserverpb.Maintenance/Alarm",
    "/etcdserverpb.Maintenance/Status",
    "/etcdserverpb.Maintenance/Defragment",
    "/etcdserverpb.Maintenance/Hash",
    "/etcdserverpb.Maintenance/HashKV",
    "/etcdserverpb.Maintenance/Snapshot",
    "/etcdserverpb.Maintenance/MoveLeader",
    "/etcdserverpb.Maintenance/Downgrade",
    "/etcdserverpb.Auth/AuthEnable",
    "/etcdserverpb.Auth/AuthDisable",
    "/etcdserverpb.Auth/AuthStatus",
    "/etcdserverpb.Auth/Authenticate",
    "/etcdserverpb.Auth/UserAdd",
    "/etcdserverpb.Auth/UserGet",
    "/etcdserverpb.Auth/UserList",
    "/etcdserverpb.Auth/UserDelete",
    "/etcdserverpb.Auth/UserChangePassword",
    "/etcdserverpb.Auth/UserGrantRole",
    "/etcdserverpb.Auth/UserRevokeRole",
    "/etcdserverpb.Auth/RoleAdd",
    "/etcdserverpb.Auth/RoleGet",
    "/etcdserverpb.Auth/RoleList",
    "/etcdserverpb.Auth/RoleDelete",
    "/etcdserverpb.Auth/RoleGrantPermission",
    "/etcdserverpb.Auth/RoleRevokePermission",
    "/v3lockpb.Lock/Lock",
    "/v3lockpb.Lock/Unlock",
    "/v3electionpb.Election/Campaign",
    "/v3electionpb.Election/Proclaim",
    "/v3electionpb.Election/Leader",
    "/v3electionpb.Election/Observe",
    "/v3electionpb.Election/Resign",
    "/grpc.health.v1.Health/Check",
];

/// Calls of one input.
const CALLS: usize = 32;
/// Messages of one answer that are read.
const MESSAGES: usize = 64;
/// Some calls wait for others that never come: a lock that is held, an election.
const WAIT: Duration = Duration::from_millis(20);

/// A server in a folder of its own, with a runtime that drives it.
pub(super) fn with_server(body: impl AsyncFnOnce(&Inside)) {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime for the test").block_on(async {
        let store = Store::open(folder.path()).expect("a store for the test");
        let options = Server::builder().bcrypt_cost(4).max_request_bytes(100_000);
        let server = Inside::start(store, options).expect("an empty store can be loaded");
        body(&server).await;
        assert!(server.end().await, "something goes on, or the writer has panicked");
    });
}

/// Arbitrary bytes as the message of each request: each is answered, and the server goes on.
pub fn requests(data: &[u8]) {
    with_server(async |server| {
        let mut choices = Choices::new(data);
        for _ in 0..CALLS {
            if choices.is_empty() {
                break;
            }
            let (method, message) = (choices.pick(&METHODS), choices.slice());
            let answer = async {
                let mut reply = server.call(method, message).await;
                for _ in 0..MESSAGES {
                    if !matches!(reply.message().await, Ok(Some(_))) {
                        break;
                    }
                }
            };
            // It may wait for ever, and is dropped then.
            let _ = tokio::time::timeout(WAIT, answer).await;
        }
        let request = RangeRequest { key: "key".into(), ..RangeRequest::default() };
        let answer = server.unary::<RangeResponse>("/etcdserverpb.KV/Range", &request).await;
        // Auth may have been turned on.
        let refused = answer.err().map(|status| status.message().to_owned());
        assert!(matches!(refused.as_deref(), None | Some("etcdserver: user name is empty")), "{refused:?}");
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn any_bytes_as_requests(data in prop::collection::vec(any::<u8>(), 0..400)) {
            super::requests(&data);
        }
    }
}
