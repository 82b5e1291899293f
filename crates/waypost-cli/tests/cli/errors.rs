//! What is said and answered when things go wrong.

use std::io::Read as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use waypost_testkit::{Etcd, EtcdVersion, Tls, for_each_etcd, free_port};

use crate::support::{PATIENCE, at, command, ok, run};

#[test]
fn etcd_away_is_exit_code_4_within_seconds() {
    waypost_testkit::run(async {
        let url = format!("http://127.0.0.1:{}", free_port());
        for args in [
            &["ls"][..],
            &["ls", "greeter"],
            &["resolve", "greeter"],
            &["watch"],
            &["drain", "a", "b"],
            &["deregister", "a", "b"],
            &["kv", "get", "a"],
            &["kv", "put", "a", "1"],
            &["kv", "del", "a"],
            &["kv", "watch", "a"],
            &["demo"],
        ] {
            let started = Instant::now();
            let ran = run(command(&[&["--endpoints", &url], args].concat())).await;
            assert_eq!((ran.code, ran.stdout.as_str()), (4, ""), "{args:?}: {}", ran.stderr);
            assert!(started.elapsed() < Duration::from_secs(30), "{args:?}");
            let lines: Vec<&str> = ran.stderr.lines().collect();
            assert!(lines[0].starts_with("waypost: "), "{args:?}: {}", ran.stderr);
            assert!(lines[0].contains(&url) && lines[0].contains("Connection refused"), "{}", ran.stderr);
            assert!(lines.len() == 2 && lines[1].starts_with("hint: "), "{args:?}: {}", ran.stderr);
        }
    });
}

#[test]
fn arguments_that_make_no_sense_are_exit_code_2() {
    waypost_testkit::run(async {
        for args in [
            &[][..],
            &["nonsense"],
            &["ls", "--layout", "nonsense"],
            &["ls", "--output", "xml"],
            &["ls", "a b"],
            &["register", "greeter"],
            &["register", "greeter", "nowhere"],
            &["register", "greeter", "10.0.0.1:0"],
            &["register", "greeter", "10.0.0.1:1", "--ttl", "soon"],
            &["register", "greeter", "10.0.0.1:1", "--metadata", "novalue"],
            &["register", "greeter", "10.0.0.1:1", "--layout", "grpc,kratos"],
            &["drain", "greeter"],
            &["kv", "get"],
            &["kv", "get", "a", "b", "--prefix"],
            &["kv", "put", "a", "1", "--lease", "xyz"],
            &["--prefix", "services", "kv", "get", "a"],
            &["--endpoints", "http://a b", "ls"],
            &["--endpoints", "", "ls"],
            &["--endpoints", "http://root:secret@127.0.0.1:2379", "ls"],
            &["--user", "nobody", "ls"],
            &["--cacert", "/no/such/file", "ls"],
            &["--cert", "/no/such/file", "ls"],
            &["demo", "--rate", "0"],
        ] {
            let ran = run(command(args)).await;
            assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{args:?}: {}", ran.stderr);
            assert!(
                !ran.stderr.contains("panicked") && !ran.stderr.contains("secret"),
                "{args:?}: {}",
                ran.stderr
            );
        }
    });
}

#[test]
fn help_of_every_command_has_an_example_and_the_codes_are_told() {
    waypost_testkit::run(async {
        let help = run(command(&["--help"])).await;
        assert_eq!(help.code, 0);
        assert!(help.stdout.contains("Exit codes:") && help.stdout.contains("4  etcd cannot be reached"));
        for name in [
            &["register"][..],
            &["ls"],
            &["watch"],
            &["resolve"],
            &["drain"],
            &["deregister"],
            &["demo"],
            &["completions"],
            &["kv"],
            &["kv", "get"],
            &["kv", "put"],
            &["kv", "del"],
            &["kv", "watch"],
        ] {
            let help = run(command(&[name, &["--help"]].concat())).await;
            assert!(help.stdout.contains("Example"), "{name:?}: {}", help.stdout);
        }
        let script = run(command(&["completions", "bash"])).await;
        assert!(script.stdout.contains("waypost") && !script.stdout.is_empty());
    });
}

for_each_etcd! {
    async fn users_and_permissions_are_exit_code_5(version: EtcdVersion) {
        let etcd = Etcd::builder(version).auth("the-password").start().await;
        etcd.etcdctl(["role", "add", "reader"]).await;
        etcd.etcdctl(["role", "grant-permission", "reader", "read", "mine/", "--prefix=true"]).await;
        etcd.etcdctl(["user", "add", "alice:alices-password"]).await;
        etcd.etcdctl(["user", "grant-role", "alice", "reader"]).await;

        let nobody = run(at(&etcd, &["kv", "get", "mine/a"])).await;
        assert_eq!(nobody.code, 5, "{nobody:?}");
        assert!(nobody.stderr.contains("--user"), "{}", nobody.stderr);
        let wrong = run(at(&etcd, &["kv", "get", "a", "--user", "root:wrong-password"])).await;
        assert_eq!(wrong.code, 5, "{wrong:?}");
        assert!(!wrong.stderr.contains("wrong-password"), "{}", wrong.stderr);
        for args in [&["kv", "put", "mine/a", "1"][..], &["kv", "get", "yours"], &["ls"], &["resolve", "s"], &["watch"]] {
            let mut alice = at(&etcd, args);
            alice.env("ETCDCTL_USER", "alice").env("WAYPOST_PASSWORD", "alices-password");
            let refused = run(alice).await;
            assert_eq!((refused.code, refused.stdout.as_str()), (5, ""), "{args:?}: {refused:?}");
            assert!(refused.stderr.contains("permission denied"), "{}", refused.stderr);
        }
        let allowed = ["resolve", "s", "--prefix", "mine", "--user", "alice:alices-password"];
        assert_eq!(run(at(&etcd, &allowed)).await.code, 3);
        assert_eq!(ok(&etcd, &["kv", "put", "a", "1", "--user", "root:the-password"]).await, "OK\n");
    }

    async fn an_endpoint_that_is_away_does_not_matter_where_another_serves(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let endpoints = format!("http://127.0.0.1:{}, {}", free_port(), etcd.url());
        for _ in 0..4 {
            let ran = run(command(&["kv", "put", "a", "1", "--endpoints", &endpoints])).await;
            assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
        }
    }

    async fn a_closed_pipe_is_a_quiet_end(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let big = "x".repeat(100_000);
        for n in 0..20 {
            ok(&etcd, &["kv", "put", &format!("big/{n}"), &big]).await;
        }
        let mut get = at(&etcd, &["kv", "get", "big/", "--prefix"]);
        get.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = get.spawn().unwrap();
        let mut first = [0; 8];
        let mut stdout = child.stdout.take().unwrap();
        stdout.read_exact(&mut first).unwrap();
        drop(stdout);
        let ended = tokio::task::spawn_blocking(move || child.wait_with_output());
        let output = tokio::time::timeout(PATIENCE, ended).await.unwrap().unwrap().unwrap();
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    }

    async fn tls_options_are_etcdctls(version: EtcdVersion) {
        let tls = Tls::new();
        let etcd = Etcd::builder(version).mutual_tls(&tls).start().await;
        let (ca, client) = (tls.ca(), tls.client());
        let mut by_environment = at(&etcd, &["kv", "put", "a", "1"]);
        by_environment
            .env("ETCDCTL_CACERT", ca)
            .env("ETCDCTL_CERT", &client.certificate)
            .env("WAYPOST_KEY", &client.key);
        assert_eq!(run(by_environment).await.stdout, "OK\n");
        let mut by_option = at(&etcd, &["kv", "get", "a"]);
        by_option.arg("--cacert").arg(ca).arg("--cert").arg(&client.certificate).arg("--key").arg(&client.key);
        assert_eq!(run(by_option).await.stdout, "a\n1\n");
        let mut without = at(&etcd, &["kv", "get", "a"]);
        without.arg("--cacert").arg(ca);
        let ran = run(without).await;
        assert_eq!(ran.code, 4, "{ran:?}");
    }
}
