use waypost_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseRevokeRequest, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
};

use super::*;

impl Server {
    fn lease_grant(&mut self, id: i64, ttl: i64) -> Result<LeaseGrantResponse, Refusal> {
        let applied = self.space.lease_grant(&LeaseGrantRequest { ttl, id }, 99, self.now);
        Ok(self.finish(applied)?.answer)
    }

    pub(super) fn grant(&mut self, id: i64, ttl: i64) -> i64 {
        self.lease_grant(id, ttl).unwrap().id
    }

    fn revoke(&mut self, id: i64) -> Result<i64, Refusal> {
        let applied = self.space.lease_revoke(&LeaseRevokeRequest { id });
        Ok(revision(self.finish(applied)?.answer.header))
    }

    fn time_to_live(&self, id: i64) -> LeaseTimeToLiveResponse {
        self.space.lease_time_to_live(&LeaseTimeToLiveRequest { id, keys: true }, self.now)
    }

    pub(super) fn attached(&self, id: i64) -> Vec<String> {
        let keys = self.time_to_live(id).keys;
        keys.iter().map(|key| String::from_utf8(key.to_vec()).unwrap()).collect()
    }

    /// Seconds answered to a renewal, with the write that it may need.
    fn keep_alive(&mut self, id: i64) -> i64 {
        if let Some(answer) = self.space.lease_keep_alive(id, self.now) {
            return answer.ttl;
        }
        let applied = self.space.lease_renew(id, self.now);
        self.finish(applied).unwrap().answer.ttl
    }

    fn leases(&self) -> Vec<i64> {
        self.space.lease_leases().leases.iter().map(|lease| lease.id).collect()
    }

    /// Does what is due, and commits it.
    fn tick(&mut self) -> usize {
        let revoked = self.space.lease_tick(self.now, 1000).len();
        self.commit();
        revoked
    }
}

#[test]
fn granting() {
    let mut server = Server::new();
    let answer = server.lease_grant(5, 60).unwrap();
    assert_eq!((answer.id, answer.ttl, revision(answer.header)), (5, 60, 1));
    for short in [0, 1, -5] {
        assert_eq!(server.lease_grant(0, short).unwrap().ttl, 2, "raised to the minimum");
    }
    assert_eq!(server.lease_grant(-6, 60).unwrap().id, -6);
    assert_eq!(server.lease_grant(5, 60), Err(Refusal::LeaseExists));
    assert_eq!(server.lease_grant(8, 9_000_000_000).unwrap().ttl, 9_000_000_000);
    assert_eq!(server.lease_grant(5, 9_000_000_001), Err(Refusal::LeaseTtlTooLarge));
}

#[test]
fn ids_that_the_server_picks_are_positive_and_free() {
    let mut server = Server::new();
    let mut ids = std::collections::BTreeSet::new();
    for seed in [0, 0, 1, u64::MAX, u64::MAX] {
        let request = LeaseGrantRequest { ttl: 60, id: 0 };
        let applied = server.space.lease_grant(&request, seed, 0);
        let id = server.finish(applied).unwrap().answer.id;
        assert!(id > 0);
        assert!(ids.insert(id), "{id} twice");
    }
}

#[test]
fn revoking_deletes_the_keys_sorted_and_in_one_revision() {
    let mut server = Server::new();
    server.grant(7, 60);
    for key in ["c", "a", "b"] {
        server.put(PutRequest { lease: 7, ..put(key, "1") }).unwrap();
    }
    server.set("d", "1");
    let applied = server.space.lease_revoke(&LeaseRevokeRequest { id: 7 });
    let applied = server.finish(applied).unwrap();
    let told: Vec<_> = applied
        .changes
        .iter()
        .map(|change| change.event.kv.clone().unwrap())
        .map(|kv| (kv.key, kv.mod_revision))
        .collect();
    assert_eq!(told, [("a".into(), 6), ("b".into(), 6), ("c".into(), 6)]);
    assert_eq!(keys(&server.range(&range("\0", "\0")).unwrap()), ["d"]);
    assert_eq!(server.revoke(7), Err(Refusal::LeaseNotFound));
}

#[test]
fn revoking_a_lease_without_keys_makes_no_revision() {
    let mut server = Server::new();
    server.grant(7, 60);
    assert_eq!(server.revoke(7), Ok(1));
    assert!(server.leases().is_empty());
}

#[test]
fn a_key_belongs_to_the_lease_of_its_last_put() {
    let mut server = Server::new();
    server.grant(7, 60);
    server.grant(8, 60);
    server.put(PutRequest { lease: 7, ..put("a", "1") }).unwrap();
    server.put(PutRequest { lease: 7, ..put("b", "1") }).unwrap();
    server.put(PutRequest { lease: 8, ..put("a", "1") }).unwrap();
    assert_eq!((server.attached(7), server.attached(8)), (vec!["b".to_owned()], vec!["a".to_owned()]));
    server.set("a", "1");
    assert_eq!(server.attached(8), Vec::<String>::new());
    server.delete(&delete("b", "")).unwrap();
    assert_eq!(server.attached(7), Vec::<String>::new());
    server.revoke(8).unwrap();
    assert!(server.get("a").is_some());
}

#[test]
fn time_to_live_is_truncated_and_unknown_is_minus_one() {
    let mut server = Server::new();
    server.grant(7, 60);
    server.now = 1;
    let left = server.time_to_live(7);
    assert_eq!((left.id, left.ttl, left.granted_ttl), (7, 59, 60));
    let left = server.time_to_live(6);
    assert_eq!((left.id, left.ttl, left.granted_ttl), (6, -1, 0));
}

#[test]
fn keeping_alive_gives_the_full_time_again() {
    let mut server = Server::new();
    server.grant(7, 60);
    server.now = 20_000;
    assert_eq!(server.keep_alive(7), 60);
    assert_eq!(server.time_to_live(7).ttl, 60);
    assert_eq!(server.keep_alive(6), 0, "unknown");
    server.now = 80_000;
    assert_eq!(server.keep_alive(7), 0, "ended, if not yet revoked");
}

#[test]
fn expired_leases_go_in_the_order_in_which_they_end() {
    let mut server = Server::new();
    for (id, ttl) in [(1, 30), (2, 10), (3, 20)] {
        server.grant(id, ttl);
        server.put(PutRequest { lease: id, ..put(&id.to_string(), "") }).unwrap();
    }
    assert_eq!(server.leases(), [2, 3, 1]);
    server.now = 9_999;
    assert_eq!(server.tick(), 0);
    server.now = 30_000;
    let applied = server.space.lease_tick(server.now, 1000);
    server.commit();
    let gone: Vec<_> =
        applied.iter().map(|applied| applied.changes[0].event.kv.clone().unwrap().key).collect();
    assert_eq!(gone, ["2", "3", "1"]);
    assert_eq!(server.space.next_lease_due(), None);
    assert_eq!(server.range(&range("\0", "\0")).unwrap().count, 0);
}

#[test]
fn leases_survive_a_restart_with_their_keys() {
    let mut server = Server::new();
    server.grant(7, 60);
    server.put(PutRequest { lease: 7, ..put("a", "1") }).unwrap();
    server.put(PutRequest { lease: 7, ..put("b", "1") }).unwrap();
    server.set("b", "2");
    server.restart();
    assert_eq!(server.attached(7), ["a"]);
    server.revoke(7).unwrap();
    assert_eq!(keys(&server.range(&range("\0", "\0")).unwrap()), ["b"]);
}

#[test]
fn time_left_survives_an_orderly_restart() {
    let mut server = Server::new();
    server.grant(7, 60);
    server.now = 25_500;
    server.space.save_leases(server.now);
    server.commit();
    server.now = 5;
    server.restart();
    assert_eq!(server.time_to_live(7).ttl, 35);
    assert_eq!(server.time_to_live(7).granted_ttl, 60);
    server.now += 35_000;
    server.tick();
    assert!(server.leases().is_empty());
}

#[test]
fn a_kill_never_shortens_a_lease_and_at_most_doubles_what_it_has_left() {
    for killed_at in (0..60_000).step_by(700) {
        let mut server = Server::new();
        server.grant(7, 60);
        // At most one record each time the rest has halved.
        for _ in 0..10 {
            if let Some(due) = server.space.next_lease_due().filter(|due| *due <= killed_at) {
                server.now = due;
                server.tick();
            }
        }
        assert!(server.space.next_lease_due().is_some_and(|due| due > killed_at));
        server.now = killed_at;
        let before = server.time_to_live(7).ttl;
        server.restart();
        let after = server.time_to_live(7).ttl;
        assert!(before <= after && after <= before * 2 + 2, "killed at {killed_at}: {before}, {after}");
    }
}

#[test]
fn a_renewal_after_a_checkpoint_is_on_disk_before_it_is_answered() {
    let mut server = Server::new();
    server.grant(7, 60);
    server.now = 30_000;
    assert_eq!(server.tick(), 0);
    assert_eq!(server.space.lease_keep_alive(7, server.now), None, "the record promises 30 s");
    assert_eq!(server.keep_alive(7), 60);
    server.restart();
    assert_eq!(server.time_to_live(7).ttl, 60);
    assert!(server.space.lease_keep_alive(7, server.now).is_some());
}

#[test]
fn records_that_were_not_committed_promise_nothing() {
    let mut server = Server::new();
    server.grant(7, 60);
    let fail = |server: &mut Server| {
        assert!(!server.space.take_batch().is_empty());
        server.space.roll_back();
    };
    server.now = 30_000;
    server.space.lease_tick(server.now, 1000);
    fail(&mut server);
    assert_eq!(server.space.lease_keep_alive(7, server.now).unwrap().ttl, 60, "the old record still holds");
    server.now += 30_000;
    server.tick();
    server.space.lease_renew(7, server.now).unwrap();
    fail(&mut server);
    assert_eq!(server.space.lease_keep_alive(7, server.now), None, "on disk there are still 30 s");
    assert_eq!(server.keep_alive(7), 60);
}

#[test]
fn a_lease_renewed_in_time_writes_nothing() {
    let mut server = Server::new();
    server.grant(7, 60);
    for _ in 0..100 {
        server.now += 20_000;
        assert!(server.space.next_lease_due().unwrap() > server.now);
        assert!(server.space.lease_keep_alive(7, server.now).is_some());
    }
    assert!(server.space.take_batch().is_empty());
}

#[test]
fn what_is_not_committed_is_not_told() {
    let mut server = Server::new();
    server.grant(7, 60);
    server.put(PutRequest { lease: 7, ..put("a", "1") }).unwrap();
    let backend = &server.backend;
    server.space.lease_grant(&LeaseGrantRequest { id: 8, ttl: 60 }, 0, 0).unwrap();
    server.space.put(backend, PutRequest { lease: 8, ..put("b", "1") }).unwrap();
    server.space.put(backend, PutRequest { lease: 7, ..put("c", "1") }).unwrap();
    server.space.lease_revoke(&LeaseRevokeRequest { id: 7 }).unwrap();
    assert_eq!(server.leases(), [7]);
    assert_eq!(server.attached(7), ["a"]);
    assert_eq!(server.time_to_live(8).ttl, -1);
    assert_eq!(server.space.lease_keep_alive(8, 0).unwrap().ttl, 0);
    server.now = 10_000;
    assert_eq!(server.space.lease_keep_alive(7, 10_000).unwrap().ttl, 60);
    drop(server.space.take_batch());
    server.space.roll_back();
    assert_eq!((server.leases(), server.attached(7)), (vec![7], vec!["a".to_owned()]));
    assert_eq!(server.time_to_live(7).ttl, 60, "the renewal in between counts");
    assert_eq!(server.space.next_lease_due(), Some(40_000));
    assert!(!server.space.lessor().contains(8));
}

#[test]
fn an_id_can_be_granted_again_in_the_batch_that_revokes_it() {
    let mut server = Server::new();
    server.grant(7, 60);
    server.space.lease_revoke(&LeaseRevokeRequest { id: 7 }).unwrap();
    server.space.lease_grant(&LeaseGrantRequest { id: 7, ttl: 10 }, 0, 0).unwrap();
    server.space.lease_revoke(&LeaseRevokeRequest { id: 7 }).unwrap();
    server.space.lease_grant(&LeaseGrantRequest { id: 7, ttl: 20 }, 0, 0).unwrap();
    assert_eq!(server.time_to_live(7).granted_ttl, 60);
    drop(server.space.take_batch());
    server.space.roll_back();
    assert_eq!(server.time_to_live(7).granted_ttl, 60);
    server.space.lease_revoke(&LeaseRevokeRequest { id: 7 }).unwrap();
    server.space.lease_grant(&LeaseGrantRequest { id: 7, ttl: 20 }, 0, 0).unwrap();
    server.commit();
    assert_eq!(server.time_to_live(7).granted_ttl, 20);
    server.restart();
    assert_eq!(server.time_to_live(7).granted_ttl, 20);
}

#[test]
fn time_in_which_nobody_was_heard_is_given_back() {
    let mut server = Server::new();
    server.grant(5, 10);
    server.grant(6, 20);
    server.now += 12_000;
    server.space.postpone_leases(5000);
    assert_eq!(server.tick(), 0);
    assert_eq!((server.time_to_live(5).ttl, server.time_to_live(6).ttl), (3, 13));
    assert_eq!(server.keep_alive(5), 10);
    server.now += 13_001;
    assert_eq!(server.tick(), 2);
}
