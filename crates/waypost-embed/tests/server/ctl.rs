//! `etcdctl`, command by command.

use crate::support::{EVERY_CTL, Fixture};

#[tokio::test]
async fn keys_are_put_read_and_deleted() {
    for ctl in EVERY_CTL {
        let fixture = Fixture::start().await;
        assert_eq!(fixture.ctl(ctl, "put a/1 one").await, "OK\n");
        fixture.ctl(ctl, "put a/2 two").await;
        assert_eq!(fixture.ctl(ctl, "put a/1 uno --prev-kv").await, "OK\na/1\none\n");
        assert_eq!(fixture.ctl(ctl, "get a/ --prefix").await, "a/1\nuno\na/2\ntwo\n");
        assert_eq!(fixture.ctl(ctl, "get a/1 --rev=2 --print-value-only").await, "one\n");
        assert_eq!(fixture.ctl(ctl, "del a/ --prefix").await, "2\n");
        assert_eq!(fixture.ctl(ctl, "get a/ --prefix").await, "");
        fixture.ctl(ctl, "compact 4 --physical").await;
        let refused = fixture.try_ctl(ctl, "get a/1 --rev=2").await.unwrap_err();
        assert!(refused.contains("required revision has been compacted"), "{refused}");
    }
}

#[tokio::test]
async fn a_watch_tells_the_past_and_then_the_present() {
    for ctl in EVERY_CTL {
        let fixture = Fixture::start().await;
        fixture.ctl(ctl, "put w one").await;
        let mut watch = fixture.follow(ctl, "watch w --rev=2");
        for expected in ["PUT", "w", "one"] {
            assert_eq!(watch.next().await, expected);
        }
        fixture.ctl(ctl, "put w two").await;
        for expected in ["PUT", "w", "two"] {
            assert_eq!(watch.next().await, expected);
        }
        fixture.ctl(ctl, "del w").await;
        for expected in ["DELETE", "w"] {
            assert_eq!(watch.next().await, expected);
        }
    }
}

#[tokio::test]
async fn leases_are_granted_kept_and_revoked() {
    for ctl in EVERY_CTL {
        let fixture = Fixture::start().await;
        let granted = fixture.ctl(ctl, "lease grant 1000").await;
        assert!(granted.contains("granted with TTL(1000s)"), "{granted}");
        let id = granted.split_whitespace().nth(1).unwrap();
        fixture.ctl(ctl, &format!("put --lease={id} leased v")).await;
        let left = fixture.ctl(ctl, &format!("lease timetolive {id} --keys")).await;
        assert!(left.contains("attached keys([leased])"), "{left}");
        assert!(fixture.ctl(ctl, "lease list").await.contains(id));
        let kept = fixture.ctl(ctl, &format!("lease keep-alive --once {id}")).await;
        assert!(kept.contains("TTL(1000)"), "{kept}");
        fixture.ctl(ctl, &format!("lease revoke {id}")).await;
        assert_eq!(fixture.ctl(ctl, "get leased").await, "");
    }
}

#[tokio::test]
async fn locks_and_elections() {
    for ctl in EVERY_CTL {
        let fixture = Fixture::start().await;
        assert_eq!(fixture.ctl(ctl, "lock resource echo held").await, "held\n");
        let mut leader = fixture.follow(ctl, "elect chief me");
        assert!(leader.next().await.starts_with("chief/"));
        assert_eq!(leader.next().await, "me");
        let mut listener = fixture.follow(ctl, "elect -l chief");
        assert!(listener.next().await.starts_with("chief/"));
        assert_eq!(listener.next().await, "me");
    }
}

#[tokio::test]
async fn users_and_roles_guard_keys() {
    for ctl in EVERY_CTL {
        let fixture = Fixture::start().await;
        for line in [
            "role add reader",
            "role grant-permission reader read open/ --prefix",
            "user add root:secret",
            "user grant-role root root",
            "user add ann:pass",
            "user grant-role ann reader",
            "put open/a 1",
            "put shut/a 1",
            "auth enable",
        ] {
            fixture.ctl(ctl, line).await;
        }
        let refused = async |line: &str, text: &str| {
            let error = fixture.try_ctl(ctl, line).await.unwrap_err();
            assert!(error.contains(text), "{line}: {error}");
        };
        refused("get open/a", "user name is empty").await;
        refused("--user ann:wrong get open/a", "authentication failed, invalid user ID or password").await;
        refused("--user ann:pass get shut/a", "permission denied").await;
        refused("--user ann:pass put open/a 2", "permission denied").await;
        refused("--user ann:pass user list", "permission denied").await;
        assert_eq!(fixture.ctl(ctl, "--user ann:pass get open/a").await, "open/a\n1\n");
        assert_eq!(fixture.ctl(ctl, "--user root:secret user list").await, "ann\nroot\n");
        let fixture = fixture.restart().await;
        let error = fixture.try_ctl(ctl, "get open/a").await.unwrap_err();
        assert!(error.contains("user name is empty"), "{error}");
        fixture.ctl(ctl, "--user root:secret auth disable").await;
        assert_eq!(fixture.ctl(ctl, "get shut/a").await, "shut/a\n1\n");
    }
}

#[tokio::test]
async fn maintenance() {
    for ctl in EVERY_CTL {
        let fixture = Fixture::start().await;
        fixture.ctl(ctl, "put a 1").await;
        let status = fixture.ctl(ctl, "endpoint status").await;
        assert!(status.contains("3.6.14+waypost-embed"), "{status}");
        fixture.ctl(ctl, "endpoint health").await;
        fixture.ctl(ctl, "endpoint hashkv").await;
        fixture.ctl(ctl, "defrag").await;
        assert_eq!(fixture.ctl(ctl, "alarm list").await, "");
        let members = fixture.ctl(ctl, "member list").await;
        assert!(members.contains(fixture.url()), "{members}");
        let refused = fixture.try_ctl(ctl, "member add other --peer-urls=http://10.0.0.1:2380").await;
        assert!(refused.unwrap_err().contains("not enough started members"));
        let file = fixture.folder.path().join("snapshot.db");
        fixture.ctl(ctl, &format!("snapshot save {}", file.display())).await;
        let status = fixture.ctl(ctl, &format!("snapshot status {}", file.display())).await;
        assert_eq!(status.split(", ").nth(1), Some("2"), "{status}");
    }
}
