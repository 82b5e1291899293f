//! `waypost call`: real servers, which are processes of their own, called through the channel.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};

use waypost_testkit::{Etcd, EtcdVersion, Process, for_each_etcd, free_port};

use crate::support::{PATIENCE, at, json, ok, parse, registered, run};

/// A registered greeter. It ends when its standard input does.
struct Greeter {
    address: String,
    child: Child,
}

impl Greeter {
    async fn start(etcd: &Etcd) -> Self {
        let mut command = at(etcd, &["demo-greeter", "--service", "greeter"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let line = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line).map(|_| line)
        });
        let line = tokio::time::timeout(PATIENCE, line).await.unwrap().unwrap().unwrap();
        Self { address: parse(&line)["address"].as_str().unwrap().to_owned(), child }
    }
}

impl Drop for Greeter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const SAY_HELLO: [&str; 4] = ["--method", "helloworld.Greeter/SayHello", "--data", r#"{"name": "World"}"#];

for_each_etcd! {
    async fn calls_are_made_and_summed_up(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let greeters = [Greeter::start(&etcd).await, Greeter::start(&etcd).await];
        let probe = ["call", "greeter", "--rate", "100", "--duration", "500ms"];
        let health = json(&etcd, &probe).await;
        assert_eq!((health["method"].as_str(), health["failed"].as_u64()), (Some("grpc.health.v1.Health/Check"), Some(0)));
        let served = health["served"].as_array().unwrap();
        assert_eq!(served.len(), 2, "{health}");
        let calls: u64 = served.iter().map(|served| served["calls"].as_u64().unwrap()).sum();
        assert_eq!(Some(calls), health["calls"].as_u64());
        assert!(health["latency_ms"]["p50"].as_f64().unwrap() <= health["latency_ms"]["max"].as_f64().unwrap());
        assert!(greeters.iter().all(|greeter| served.iter().any(|served| served["endpoint"] == greeter.address.as_str())));

        let args = [&probe[..], &SAY_HELLO, &["--policy", "maglev", "--hash-key", "user-42", "--idempotent"]].concat();
        let hello = json(&etcd, &args).await;
        assert_eq!(hello["answer"]["message"], "Hello, World!", "{hello}");
        assert_eq!((hello["policy"].as_str(), hello["served"].as_array().unwrap().len()), (Some("maglev"), 1), "{hello}");
        let args = [&probe[..], &SAY_HELLO, &["--policy", "ring_hash", "--header", "x-user=42", "--hash-on", "x-user"]].concat();
        assert_eq!(json(&etcd, &args).await["served"].as_array().unwrap().len(), 1);

        let text = ok(&etcd, &[&probe[..], &SAY_HELLO, &["--policy", "least_request", "--zone", "a"]].concat()).await;
        for part in ["SERVED BY", &greeters[0].address, "LATENCY P50", "0 failed", "Hello, World!"] {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
    }

    async fn what_fails_is_told_with_an_example_and_an_exit_code(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let nobody = run(at(&etcd, &["call", "greeter"])).await;
        assert_eq!(nobody.code, 3, "{nobody:?}");
        let dead = format!("127.0.0.1:{}", free_port());
        let _registered = registered(&etcd, &["greeter", &dead]).await;
        let probe = ["call", "greeter", "--rate", "100", "--duration", "200ms", "--output", "json"];
        let failed = run(at(&etcd, &probe)).await;
        assert_eq!(failed.code, 1, "{failed:?}");
        let summary = parse(&failed.stdout);
        assert_eq!(summary["failures"][0]["code"], "Unavailable");
        assert_eq!(summary["failures"][0]["calls"], summary["calls"]);
        let example = summary["failures"][0]["example"].as_str().unwrap();
        assert!(example.contains(&dead) && example.contains("Connection refused"), "{example}");
        let undescribed = run(at(&etcd, &[&probe[..], &SAY_HELLO].concat())).await;
        assert!(undescribed.code == 1 && undescribed.stderr.contains(&dead), "{undescribed:?}");
    }

    async fn a_method_or_message_that_the_server_does_not_know_is_a_usage_error(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let _greeter = Greeter::start(&etcd).await;
        for (args, says) in [
            (&["--method", "helloworld.Greeter/Sing"][..], "SayHello"),
            (&["--method", "helloworld.Greeter/SayHello", "--data", r#"{"nme": 1}"#], "--data is no helloworld.HelloRequest"),
            (&["--method", "SayHello"], "package.Service/Method"),
            (&["--policy", "best"], "round_robin"),
            (&["--rate", "0"], "more than 0"),
            (&["--header", "a b=c"], "--header"),
        ] {
            let ran = run(at(&etcd, &[&["call", "greeter", "--duration", "100ms"], args].concat())).await;
            assert_eq!(ran.code, 2, "{args:?}: {ran:?}");
            assert!(ran.stderr.contains(says), "{args:?}: {says:?} is not in {}", ran.stderr);
        }
        let unknown = run(at(&etcd, &["call", "greeter", "--method", "a.B/C"])).await;
        assert!(unknown.code == 1 && unknown.stderr.contains("a.B"), "{unknown:?}");
    }

    async fn interrupted_it_tells_what_there_is(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let _greeter = Greeter::start(&etcd).await;
        let call = Process::spawn(&mut at(&etcd, &["call", "greeter", "--rate", "1000", "--duration", "600"]));
        call.wait_for_line(|line| line.starts_with("calling greeter"), PATIENCE).await;
        call.interrupt();
        assert_eq!(call.exited(PATIENCE).await.code(), Some(0));
        assert!(call.lines().iter().any(|line| line.contains("0 failed")), "{:?}", call.lines());
    }
}
