//! `etcdctl` of 3.4 and 3.5, command by command and flag by flag.

use waypost_testkit::{Etcd, EtcdVersion, eventually, run};

use crate::both::{Both, PATIENCE};

/// Makes one test per `etcdctl`: `name::v3_4` and `name::v3_5`.
macro_rules! for_each_ctl {
    ($(async fn $name:ident($both:ident) $body:block)+) => {$(
        mod $name {
            #[allow(unused_imports, reason = "a body may name nothing of its file")]
            use super::*;

            #[allow(unused_mut, reason = "a body may change nothing")]
            async fn body(mut $both: Both) $body

            #[test]
            fn v3_4() {
                run(async { body(Both::start(EtcdVersion::V3_4).await).await });
            }

            #[test]
            fn v3_5() {
                run(async { body(Both::start(EtcdVersion::V3_5).await).await });
            }
        }
    )+};
}

for_each_ctl! {
    async fn keys_are_put_read_and_deleted(both) {
        assert_eq!(both.same("put a/1 one").await, "OK\n");
        both.same("put a/2 two").await;
        both.same_with("put a/3", "three, from standard input").await;
        assert_eq!(both.same("put a/1 uno --prev-kv").await, "OK\na/1\none\n");
        both.same("put a/2 --ignore-value").await;
        both.refused("put none --ignore-value", "key not found").await;
        both.refused("put a/1 x --ignore-value", "").await;
        both.refused("put '' x", "key is not provided").await;
        both.refused("put a/1 x --lease=4711", "requested lease not found").await;
        both.same_with("put -- -dash", "-value").await;

        assert_eq!(both.same("get a/ --prefix").await, "a/1\nuno\na/2\ntwo\na/3\nthree, from standard input\n");
        assert_eq!(both.same("get a/1 --rev=2 --print-value-only").await, "one\n");
        for line in [
            "get a/1",
            "get none",
            "get a/1 a/3",
            "get a/2 --from-key",
            "get '' --from-key --keys-only",
            "get '' --prefix --keys-only",
            "get a/ --prefix --limit=2",
            "get a/ --prefix --limit=2 -w json",
            "get a/ --prefix --rev=3",
            "get a/ --prefix --keys-only",
            "get a/ --prefix --keys-only -w json",
            "get a/ --prefix --print-value-only",
            "get a/ --prefix --consistency=s",
            "get a/ --prefix --hex",
            "get a/1 -w json",
            "get a/1 -w fields",
            "get a/1 -w json --hex",
        ] {
            both.same(line).await;
        }
        for target in ["CREATE", "KEY", "MODIFY", "VALUE", "VERSION"] {
            for order in ["ASCEND", "DESCEND"] {
                both.same(&format!("get a/ --prefix --order={order} --sort-by={target}")).await;
                both.same(&format!("get a/ --prefix --limit=1 --order={order} --sort-by={target}")).await;
            }
        }
        if both.ctl == EtcdVersion::V3_5 {
            both.same("get a/ --prefix --count-only -w fields").await;
            both.refused("get a/ --prefix --count-only", "--count-only is only for").await;
        }
        both.refused("get a/1 --rev=1000", "required revision is a future revision").await;

        assert_eq!(both.same("del a/1 a/3 --prev-kv").await, "2\na/1\nuno\na/2\ntwo\n");
        assert_eq!(both.same("del none").await, "0\n");
        both.same("put b/1 1").await;
        both.same("put b/2 2").await;
        both.same("put b/3 3").await;
        assert_eq!(both.same("del b/1 -w json").await.matches("\"deleted\":1").count(), 1);
        assert_eq!(both.same("del b/2 --from-key").await, "2\n");
        assert_eq!(both.same("del a/ --prefix").await, "1\n");
        both.same("get '' --prefix").await;
        // Everything that was done, to the hash of both histories.
        both.same("endpoint hashkv").await;
    }

    async fn transactions(both) {
        both.same("put a one").await;
        both.same("put b two").await;
        let done = both.same_with("txn", "value(\"a\") = \"one\"\nmod(\"b\") > \"2\"\n\nput a uno\nget b\n\ndel a\n\n").await;
        assert!(done.starts_with("SUCCESS\n"), "{done}");
        let done = both.same_with("txn", "value(\"a\") = \"one\"\n\nput a uno\n\nget a\ndel b\n\n").await;
        assert!(done.starts_with("FAILURE\n"), "{done}");
        for comparison in [
            "ver(\"a\") < \"5\"",
            "version(\"a\") = \"2\"",
            "create(\"a\") != \"3\"",
            "c(\"a\") = \"2\"",
            "val(\"none\") = \"\"",
            "ver(\"none\") = \"0\"",
        ] {
            both.same_with("txn", &format!("{comparison}\n\nget a\n\nget none\n\n")).await;
        }
        both.same_with("txn -w json", "\nput c 3\nget c\ndel a --prev-kv\n\n\n").await;
        both.same_with("txn --interactive", "\nput d 4\n\n\n").await;
        let said = both.each("txn", "\nput d 1\nput d 2\n\n\n").await;
        for said in said {
            assert!(said.errors.contains("duplicate key given in txn request"), "{said:?}");
        }
        both.same("get '' --prefix -w json").await;
        both.same("endpoint hashkv").await;
    }

    async fn history_is_compacted(both) {
        for value in 2..8 {
            both.same(&format!("put a {value}")).await;
        }
        assert_eq!(both.same("compaction 4").await, "compacted revision 4\n");
        both.refused("compaction 4", "required revision has been compacted").await;
        both.refused("compaction 400", "required revision is a future revision").await;
        both.refused("get a --rev=3", "required revision has been compacted").await;
        assert_eq!(both.same("get a --rev=4 --print-value-only").await, "4\n");
        both.same("compact 6 --physical").await;
        both.same("get a --rev=6 -w json").await;
        both.refused("watch a --rev=2", "required revision has been compacted").await;
        both.same("defrag").await;
        both.same("get a --rev=6 -w json").await;
        // The hash leaves out what the revision does not show any more of what is older than the compaction.
        both.same("put b 1").await;
        both.same("endpoint hashkv").await;
        both.same("compact 8 --physical").await;
        both.same("put a 9").await;
        both.same("endpoint hashkv").await;
        both.same("del '' --prefix").await;
        both.same("endpoint hashkv").await;
    }

    async fn a_watch_tells_the_past_and_then_the_present(both) {
        both.same("put w/a one").await;
        let mut one = both.follow("watch w/a --rev=2");
        let mut prefix = both.follow("watch w/ --prefix --prev-kv --rev=1");
        let mut range = both.follow("watch w/a w/b --rev=2 -w json");
        let mut program = both.follow("watch w/a --rev=2 -- echo told");
        let mut several = both.follow("watch --interactive");
        several.type_line("watch w/a --rev=2").await;
        several.type_line("watch w/b --rev=2").await;
        // The past, and so each stands.
        assert_eq!(one.next(3).await, ["PUT", "w/a", "one"]);
        assert_eq!(prefix.next(3).await, ["PUT", "w/a", "one"]);
        range.next(1).await;
        assert_eq!(program.next(4).await, ["PUT", "w/a", "one", "told"]);
        several.next(3).await;
        both.same("put w/a two").await;
        assert_eq!(one.next(3).await, ["PUT", "w/a", "two"]);
        assert_eq!(prefix.next(5).await, ["PUT", "w/a", "one", "w/a", "two"]);
        range.next(1).await;
        assert_eq!(program.next(4).await, ["PUT", "w/a", "two", "told"]);
        several.next(3).await;
        both.same("put w/b three").await;
        assert_eq!(prefix.next(3).await, ["PUT", "w/b", "three"]);
        both.same("del w/ --prefix").await;
        assert_eq!(one.next(3).await, ["DELETE", "w/a", ""]);
        let both_keys = ["DELETE", "w/a", "two", "w/a", "", "DELETE", "w/b", "three", "w/b", ""];
        assert_eq!(prefix.next(10).await, both_keys);
        range.next(1).await;
    }

    async fn leases_are_granted_kept_and_revoked(both) {
        both.grant("lease", 1000).await;
        both.grant("other", 2000).await;
        // One key each: etcd lists a lease's keys in any order.
        both.same("put --lease={lease} leased v").await;
        both.same("put --lease={other} leased/2 v").await;
        both.same("put leased w --ignore-lease").await;
        both.same("put unleased v").await;
        both.refused("put unknown w --ignore-lease", "key not found").await;
        let left = both.same("lease timetolive {lease} --keys").await;
        assert!(left.contains("attached keys([leased])"), "{left}");
        for line in [
            "lease timetolive {lease}",
            "lease timetolive {lease} --keys -w json",
            "lease timetolive {lease} -w fields",
            "lease list",
            "lease keep-alive --once {lease}",
            "get leased -w json",
            "get leased -w fields",
        ] {
            both.same(line).await;
        }
        let mut keeping = both.follow("lease keep-alive {lease}");
        keeping.next(1).await;
        // Moved to another lease, and to none.
        both.same("put leased/2 x").await;
        both.same("put --lease={other} leased x").await;
        both.same("lease timetolive {lease} --keys").await;
        both.same("lease timetolive {other} --keys").await;
        both.same("lease revoke {lease}").await;
        both.same("lease revoke {other}").await;
        assert_eq!(both.same("get leased --prefix").await, "leased/2\nx\n");
        both.refused("lease revoke {lease}", "requested lease not found").await;
        both.same("lease timetolive {lease}").await;
        both.refused("lease keep-alive --once {lease}", "requested lease not found").await;
        both.same("lease list").await;
        // One that ends by itself.
        both.grant("short", 1).await;
        both.same("put --lease={short} short v").await;
        let mut watch = both.follow("watch short --rev=2");
        assert_eq!(watch.next(5).await, ["PUT", "short", "v", "DELETE", "short"]);
        both.same("lease list").await;
    }

    async fn locks(both) {
        assert_eq!(both.same("lock resource echo held").await, "held\n");
        let ended = both.each("lock resource --ttl=5 false", "").await;
        assert_eq!(ended[0].status, ended[1].status, "{ended:?}");
        let mut holder = both.follow("lock resource");
        holder.next(1).await;
        let mut waiter = both.follow("lock resource echo second");
        eventually("both wait", PATIENCE, async || {
            let keys = both.each("get resource/ --prefix --keys-only", "").await;
            keys.iter().all(|said| said.out.matches("resource/").count() == 2).then_some(())
        })
        .await;
        // The holder's lease goes with it.
        holder.interrupt();
        assert_eq!(waiter.next(1).await, ["second"]);
        eventually("nobody holds it", PATIENCE, async || {
            let keys = both.each("get resource/ --prefix --keys-only", "").await;
            keys.iter().all(|said| said.out.is_empty()).then_some(())
        })
        .await;
    }

    async fn elections(both) {
        let mut leader = both.follow("elect chief me");
        assert_eq!(leader.next(2).await[1], "me");
        let mut listener = both.follow("elect -l chief");
        assert_eq!(listener.next(2).await[1], "me");
        let mut next = both.follow("elect chief you");
        eventually("both stand", PATIENCE, async || {
            let keys = both.each("get chief/ --prefix --keys-only", "").await;
            keys.iter().all(|said| said.out.matches("chief/").count() == 2).then_some(())
        })
        .await;
        leader.interrupt();
        assert_eq!(next.next(2).await[1], "you");
        assert_eq!(listener.next(2).await[1], "you");
    }

    async fn users_and_roles_are_kept(both) {
        users_and_roles(&both).await;
        both.same_with("user passwd ann --interactive=false", "changed\n").await;
        if both.ctl == EtcdVersion::V3_5 {
            both.same("user add certified --no-password").await;
            both.same("auth status").await;
        }
        for (line, text) in [
            ("user add ann:pass", "user name already exists"),
            ("user grant-role ann none", "role name not found"),
            ("user grant-role none reader", "user name not found"),
            ("user delete none", "user name not found"),
            ("user revoke-role ann writer", "role is not granted to the user"),
            ("role add reader", "role name already exists"),
            ("role get none", "role name not found"),
            ("role delete none", "role name not found"),
            ("role revoke-permission reader none", "permission is not granted to the role"),
        ] {
            both.refused(line, text).await;
        }
    }

    async fn users_and_roles_guard_keys(both) {
        both.refused("auth enable", "root user does not exist").await;
        users_and_roles(&both).await;
        both.same_with("user passwd ann --interactive=false", "changed\n").await;
        // A user is no mistake while nobody asks for one.
        both.same("--user ann:changed get open/a").await;
        both.same("auth enable").await;
        for (line, text) in [
            ("get open/a", "user name is empty"),
            ("auth disable", "user name is empty"),
            ("--user ann:pass get open/a", "authentication failed, invalid user ID or password"),
            ("--user none:pass get open/a", "authentication failed, invalid user ID or password"),
            ("--user ann:changed get shut/a", "permission denied"),
            ("--user ann:changed get open --prefix", "permission denied"),
            ("--user ann:changed put open/a 2", "permission denied"),
            ("--user ann:changed put open/a 2 --prev-kv", "permission denied"),
            ("--user ann:changed del open/a", "permission denied"),
            ("--user ann:changed user list", "permission denied"),
            ("--user ann:changed role get writer", "permission denied"),
            ("--user ann:changed auth disable", "permission denied"),
            ("--user root:secret user delete root", "invalid auth management"),
            ("--user root:secret user revoke-role root root", "invalid auth management"),
            ("--user root:secret role delete root", "invalid auth management"),
        ] {
            both.refused(line, text).await;
        }
        for line in [
            "--user ann:changed get open/ --prefix",
            "--user ann:changed user get ann",
            "--user ann:changed role get reader",
            "--user bob:pass put open/a 2 --prev-kv",
            "--user bob:pass del open/a --prev-kv",
            "--user bob:pass put open/a 3",
            "--user root:secret user list",
            "--user root:secret get '' --prefix",
            "--user root:secret user revoke-role bob writer",
            "--user root:secret role delete writer",
            "--user root:secret user get bob --detail",
        ] {
            both.same(line).await;
        }
        both.refused("--user bob:pass put open/a 4", "permission denied").await;
        let mut watch = both.follow("--user ann:changed watch open/ --prefix --rev=2");
        assert_eq!(watch.next(3).await, ["PUT", "open/a", "1"]);
        let (etcd, embedded) = (&mut both.etcd, &mut both.embedded);
        tokio::join!(etcd.restart(), embedded.restart());
        both.refused("get open/a", "user name is empty").await;
        both.same("--user ann:changed get open/a").await;
        both.same("--user root:secret user delete bob").await;
        both.same("--user root:secret auth disable").await;
        both.same("get '' --prefix -w json").await;
        both.same("user list").await;
        both.same("role list").await;
    }

    async fn maintenance(both) {
        both.same("put a 1").await;
        both.same("put a 2").await;
        both.same("endpoint hashkv").await;
        both.same("endpoint health").await;
        both.same("endpoint health --cluster").await;
        both.same("defrag").await;
        assert_eq!(both.same("alarm list").await, "");
        both.same("alarm disarm").await;
        both.same("member list").await;
        both.same("member list -w json").await;
        both.refused("member remove 1234567890abcdef", "member not found").await;
        let status = both.each("endpoint status", "").await;
        assert!(status[1].out.contains("3.6.14+waypost-embed"), "{status:?}");
        assert_eq!(status[0].out.matches(", ").count(), status[1].out.matches(", ").count(), "{status:?}");
        for said in both.each("endpoint status -w json", "").await {
            assert_eq!(said.status, Some(0), "{said:?}");
        }

        let folder = tempfile::tempdir().unwrap();
        let mut revisions = Vec::new();
        for (server, name) in [(&both.etcd, "etcd.db"), (&both.embedded, "embedded.db")] {
            let file = folder.path().join(name);
            let saved = both.each_alone(server, &format!("snapshot save {}", file.display())).await;
            assert_eq!(saved.status, Some(0), "{saved:?}");
            let status = both.each_alone(server, &format!("snapshot status {}", file.display())).await;
            revisions.push(status.out.split(", ").nth(1).expect("a revision").to_owned());
        }
        assert_eq!(revisions, ["3", "3"]);
    }

    async fn mirrors(both) {
        // From the embedded server to etcd and, under another prefix, back.
        both.same("put m/a 1").await;
        let there = both.mirror(&both.embedded, &both.etcd, "m/", "there/");
        let back = both.mirror(&both.etcd, &both.embedded, "there/", "back/");
        let arrived = async |server: &Etcd, key: &str, value: &str| {
            eventually("it is mirrored", PATIENCE, async || {
                let got = server.etcdctl(["get", key, "--print-value-only"]).await;
                (got.trim() == value).then_some(())
            })
            .await;
        };
        arrived(&both.embedded, "back/a", "1").await;
        both.embedded.etcdctl(["put", "m/b", "2"]).await;
        arrived(&both.etcd, "there/b", "2").await;
        arrived(&both.embedded, "back/b", "2").await;
        drop((there, back));
    }
}

/// Who may read what, told with every flag; nothing is asked for yet.
async fn users_and_roles(both: &Both) {
    for line in [
        "role add reader",
        "role add writer",
        "role grant-permission reader read open/ --prefix",
        "role grant-permission reader read one",
        "role grant-permission reader read p q",
        "role grant-permission writer write open/ --prefix",
        "role grant-permission writer readwrite z --from-key",
        "role get reader",
        "role get writer",
        "role get writer -w json",
        "role list",
        "role revoke-permission reader one",
        "role revoke-permission reader p q",
        "role revoke-permission writer z --from-key",
        "role get reader",
        "user add root:secret",
        "user grant-role root root",
        "user add ann:pass",
        "user add bob --new-user-password=pass",
        "user grant-role ann reader",
        "user grant-role bob reader",
        "user grant-role bob writer",
        "user get bob",
        "user get bob --detail",
        "user get bob -w json",
        "user list",
        "user list -w json",
        "put open/a 1",
        "put shut/a 1",
    ] {
        both.same(line).await;
    }
}
