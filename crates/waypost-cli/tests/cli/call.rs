//! `waypost call`: real servers, which are processes of their own, called through the channel.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

use greeter::{HelloReply, HelloRequest};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};
use waypost_testkit::{Etcd, EtcdVersion, Process, Tls, for_each_etcd, free_port};

use crate::support::{PATIENCE, at, json, ok, parse, registered, run};

/// A registered greeter. It ends when its standard input does.
struct Greeter {
    address: String,
    child: Child,
}

/// A greeter that speaks TLS and asks for a certificate. Not registered.
struct Secure {
    port: u16,
    _task: AbortOnDropHandle<()>,
}

struct English;

#[tonic::async_trait]
impl greeter::Greeter for English {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        Ok(Response::new(HelloReply { message: format!("Hello in secret, {}!", request.into_inner().name) }))
    }
}

impl Secure {
    async fn start(tls: &Tls) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let read = |path: &Path| std::fs::read(path).unwrap();
        let identity = Identity::from_pem(read(&tls.server().certificate), read(&tls.server().key));
        let config =
            ServerTlsConfig::new().identity(identity).client_ca_root(Certificate::from_pem(tls.ca_pem()));
        let (v1, v1alpha) = greeter::reflection().unwrap();
        let server = Server::builder()
            .tls_config(config)
            .unwrap()
            .add_service(greeter::GreeterServer::new(English))
            .add_service(v1)
            .add_service(v1alpha)
            .serve_with_incoming(TcpIncoming::from(listener));
        let task = tokio::spawn(async move { server.await.unwrap() });
        Self { port, _task: AbortOnDropHandle::new(task) }
    }
}

impl Greeter {
    async fn start(etcd: &Etcd) -> Self {
        Self::in_zone(etcd, "").await
    }

    async fn in_zone(etcd: &Etcd, zone: &str) -> Self {
        let mut command = at(etcd, &["demo-greeter", "--service", "greeter"]);
        command.env("WAYPOST_ZONE", zone);
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

    async fn servers_with_tls_are_called_as_they_ask_for_it(version: EtcdVersion) {
        let (etcd, tls) = (Etcd::start(version).await, Tls::new());
        let secure = Secure::start(&tls).await;
        let client = tls.client();
        let files = [tls.ca(), &client.certificate, &client.key].map(|path| path.to_str().unwrap().to_owned());
        let [cacert, cert, key] = &files;
        let trusting = ["--service-cacert", cacert, "--service-cert", cert, "--service-key", key];
        let probe = [&["call", "greeter", "--duration", "200ms"], &SAY_HELLO[..]].concat();
        // Kratos says it in the scheme, and in older versions beside it.
        for (id, address) in [("new", "grpcs://127.0.0.1:PORT"), ("old", "grpc://127.0.0.1:PORT?isSecure=true")] {
            let address = address.replace("PORT", &secure.port.to_string());
            let value = format!(r#"{{"id":"{id}","name":"greeter","version":"","metadata":null,"endpoints":["{address}"]}}"#);
            ok(&etcd, &["kv", "put", &format!("/microservices/greeter/{id}"), &value]).await;
            let kratos = [&probe[..], &["--layout", "kratos"]].concat();
            let plain = run(at(&etcd, &kratos)).await;
            assert_eq!(plain.code, 1, "{plain:?}");
            assert!(plain.stderr.contains("1 of 1 instances") && plain.stderr.contains("--service-cacert"), "{plain:?}");
            let summary = json(&etcd, &[&kratos[..], &trusting].concat()).await;
            assert_eq!(summary["answer"]["message"], "Hello in secret, World!", "{summary}");
            ok(&etcd, &["kv", "del", &format!("/microservices/greeter/{id}")]).await;
        }

        // The default layout cannot say it.
        let _registered = registered(&etcd, &["greeter", &format!("127.0.0.1:{}", secure.port)]).await;
        let mut always = at(&etcd, &[&probe[..], &["--service-tls"]].concat());
        for (name, file) in ["CACERT", "CERT", "KEY"].iter().zip(&files) {
            always.env(format!("WAYPOST_SERVICE_{name}"), file);
        }
        let always = run(always).await;
        assert!(always.code == 0 && always.stdout.contains("Hello in secret"), "{always:?}");
        for (args, code, says) in [
            // By the server's alert, or by the end of the connection, whichever is seen first.
            (&["--service-cacert", cacert, "--service-tls"][..], 1, "CertificateRequired|closed by the server"),
            (&[&trusting[..], &["--service-tls", "--service-cert-name", "greeter.internal"]].concat(), 1, "greeter.internal"),
            (&["--service-tls"], 2, "--service-cacert"),
            (&["--service-cacert", cacert, "--service-cert", cert], 2, "--service-key"),
            (&["--service-cacert", key], 1, "no certificate in the authority"),
            (&["--service-cacert", "/nowhere.pem"], 1, "/nowhere.pem"),
            (&[&trusting[..], &["--service-cert-name", "a b"]].concat(), 2, "--service-cert-name"),
        ] {
            let ran = run(at(&etcd, &[&probe[..], args].concat())).await;
            assert_eq!(ran.code, code, "{args:?}: {ran:?}");
            assert!(says.split('|').any(|says| ran.stderr.contains(says)), "{args:?}: {says:?} is not in {}", ran.stderr);
        }
    }

    async fn the_service_config_in_etcd_holds(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let _greeters = [Greeter::start(&etcd).await, Greeter::start(&etcd).await];
        let probe = ["call", "greeter", "--rate", "100", "--duration", "300ms", "--header", "x-user=42"];
        let put = async |config: &str| {
            ok(&etcd, &["kv", "put", "waypost/service-config/greeter", config]).await;
        };
        put(r#"{"loadBalancingConfig": [{"ring_hash_experimental": {"requestHashHeader": "x-user"}}],
            "methodConfig": [{"name": [{}], "maxResponseMessageBytes": 100}]}"#).await;
        let served = |summary: &serde_json::Value| summary["served"].as_array().unwrap().len();
        let hashed = json(&etcd, &probe).await;
        assert_eq!((&hashed["policy"], &hashed["service_config"], served(&hashed)), (&"ring_hash".into(), &true.into(), 1));
        // What is asked for counts more; the rest of the config holds.
        let own = json(&etcd, &[&probe[..], &["--policy", "round_robin"]].concat()).await;
        assert_eq!((&own["policy"], &own["service_config"], served(&own)), (&"round_robin".into(), &true.into(), 2));
        let without = json(&etcd, &[&probe[..], &["--no-service-config"]].concat()).await;
        assert_eq!((&without["policy"], &without["service_config"]), (&"round_robin".into(), &false.into()));

        put(r#"{"methodConfig": [{"name": [{}], "maxResponseMessageBytes": 0}]}"#).await;
        for policy in [&[][..], &["--policy", "random"]] {
            let limited = run(at(&etcd, &[&probe[..], policy].concat())).await;
            assert!(limited.code == 1 && limited.stdout.contains("ResourceExhausted"), "{limited:?}");
        }
        put("{nonsense").await;
        let bad = run(at(&etcd, &probe)).await;
        assert!(bad.code == 0 && bad.stderr.contains("waypost/service-config/greeter: service config"), "{bad:?}");
    }

    async fn a_service_config_that_comes_while_it_calls_is_followed(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let _greeter = Greeter::start(&etcd).await;
        let args = ["call", "greeter", "--rate", "200", "--duration", "600", "-v"];
        let call = Process::spawn(at(&etcd, &args).env("WAYPOST_LOG", "waypost_channel=info"));
        call.wait_for_line(|line| line.starts_with("calling greeter"), PATIENCE).await;
        let config = r#"{"methodConfig": [{"name": [{}], "maxResponseMessageBytes": 0}]}"#;
        ok(&etcd, &["kv", "put", "waypost/service-config/greeter", config]).await;
        call.wait_for_error_line(|line| line.contains("another service config"), PATIENCE).await;
        // Meanwhile some twenty calls are due.
        run(at(&etcd, &["call", "greeter", "--duration", "100ms"])).await;
        call.interrupt();
        assert_eq!(call.exited(PATIENCE).await.code(), Some(1), "calls have failed since then");
        assert!(call.lines().iter().any(|line| line.contains("ResourceExhausted")), "{:?}", call.lines());
    }

    async fn calls_stay_in_the_zone_of_the_environment(version: EtcdVersion) {
        let etcd = Etcd::start(version).await;
        let greeters = [Greeter::in_zone(&etcd, "a").await, Greeter::in_zone(&etcd, "b").await];
        let listed = json(&etcd, &["ls", "greeter"]).await.to_string();
        assert!(listed.contains(r#""zone":"a""#) && listed.contains(r#""zone":"b""#), "{listed}");
        for (zone, greeter) in ["a", "b"].iter().zip(&greeters) {
            let mut call = at(&etcd, &["call", "greeter", "--rate", "100", "--duration", "300ms", "--output", "json"]);
            call.env("WAYPOST_ZONE", zone);
            let summary = parse(&run(call).await.stdout);
            assert_eq!(summary["served"].as_array().unwrap().len(), 1, "{summary}");
            assert_eq!(summary["served"][0]["endpoint"], greeter.address.as_str());
        }
    }
}
