//! The Go program that registers, resolves and watches with etcd's own naming packages.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::OnceCell;

use crate::Process;
use crate::binaries::repository_root;

/// The Go program, built: `interop/go`, with the client of etcd 3.4 and gRPC as Debian packages them.
///
/// ```no_run
/// # async fn demo() {
/// use waypost_testkit::{Etcd, EtcdVersion, GoInterop};
///
/// let etcd = Etcd::start(EtcdVersion::V3_4).await;
/// let go = GoInterop::build().await;
/// let server = go.serve("greeter").await;
/// let registration = go.register(&etcd.url(), "greeter", &server.address, None, 10).await;
/// assert_eq!(go.resolve(&etcd.url(), "greeter", 5, 1).await.addresses, [server.address]);
/// # drop(registration);
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct GoInterop {
    program: &'static Path,
}

/// A gRPC server with the health service, not registered anywhere.
#[derive(Debug)]
pub struct GoServer {
    /// `127.0.0.1:port`.
    pub address: String,
    /// Ends gracefully on SIGTERM.
    pub process: Process,
}

/// What calls through Go's resolver have met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoCalls {
    /// Addresses of the servers that answered, sorted, each once.
    pub addresses: Vec<String>,
    /// How many calls each server answered.
    pub calls: BTreeMap<String, u64>,
    /// The errors of the calls that failed.
    pub failures: Vec<String>,
}

/// Every start, answer and end is a matter of milliseconds; the machine may be busy.
const SOON: Duration = Duration::from_secs(30);

// === impl GoInterop ===

impl GoInterop {
    /// Builds the program, once in a process, and at one time in one process only.
    pub async fn build() -> Self {
        static PROGRAM: OnceCell<PathBuf> = OnceCell::const_new();
        Self { program: PROGRAM.get_or_init(build).await }
    }

    /// A server with the gRPC health service on a port of its own, serving `""` and `service`.
    pub async fn serve(self, service: &str) -> GoServer {
        let process = self.spawn(["serve", "-service", service]);
        let line = first_line(&process).await;
        let address = line["serving"].as_str().unwrap_or_else(|| panic!("not an address: {line}")).to_owned();
        GoServer { address, process }
    }

    /// Registers `address` under `services/<service>/<address>` with a lease of `ttl` seconds, and returns when etcd
    /// has it. On SIGTERM the process removes it; killed, it leaves that to the lease.
    ///
    /// `metadata` that is a JSON object makes [`resolve`](Self::resolve) panic: the round robin of grpc-go 1.33, which
    /// Debian has, uses the address with its metadata as a map's key. A string, a number or none is fine.
    pub async fn register(
        self,
        etcd_url: &str,
        service: &str,
        address: &str,
        metadata: Option<&Value>,
        ttl: u64,
    ) -> Process {
        let metadata = metadata.map(Value::to_string).unwrap_or_default();
        let ttl = ttl.to_string();
        let process = self.spawn([
            "register",
            "-etcd",
            etcd_url,
            "-service",
            service,
            "-addr",
            address,
            "-metadata",
            &metadata,
            "-ttl",
            &ttl,
        ]);
        first_line(&process).await;
        process
    }

    /// Makes `calls` health checks through `etcd:///services/<service>`, round robin, once `servers` servers have
    /// answered or ten seconds have passed.
    pub async fn resolve(self, etcd_url: &str, service: &str, calls: u32, servers: u32) -> GoCalls {
        // The program gives up a call, and the wait before the calls, after ten seconds.
        let limit = SOON + Duration::from_secs(10) * calls;
        let (calls, servers) = (calls.to_string(), servers.to_string());
        let process = self.spawn([
            "resolve", "-etcd", etcd_url, "-service", service, "-calls", &calls, "-servers", &servers,
        ]);
        let line = line_within(&process, limit).await;
        let texts = |value: &Value| -> Vec<String> {
            value
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|text| text.as_str().map(str::to_owned))
                .collect()
        };
        GoCalls {
            addresses: texts(&line["addresses"]),
            calls: line["calls"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(address, count)| (address.clone(), count.as_u64().unwrap_or_default()))
                .collect(),
            failures: texts(&line["failures"]),
        }
    }

    /// Watches `services/<service>` and returns when the watch has been asked for. Each line that follows is one
    /// `{"op": "add" | "delete", "key": …, "addr": …, "metadata": …}`, those that are there already first.
    pub async fn watch(self, etcd_url: &str, service: &str) -> Process {
        let process = self.spawn(["watch", "-etcd", etcd_url, "-service", service]);
        first_line(&process).await;
        process
    }

    /// Where the program is.
    pub fn program(self) -> &'static Path {
        self.program
    }

    /// Runs the program with arguments of your own.
    pub fn spawn<'a>(self, args: impl IntoIterator<Item = &'a str>) -> Process {
        Process::spawn(Command::new(self.program).args(args))
    }
}

async fn first_line(process: &Process) -> Value {
    line_within(process, SOON).await
}

async fn line_within(process: &Process, limit: Duration) -> Value {
    let line = process.wait_for_line(|_| true, limit).await;
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("not JSON: {line}: {error}"))
}

async fn build() -> PathBuf {
    let script = repository_root().join("interop/go/build.sh");
    let built = tokio::process::Command::new(&script).stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = built.unwrap_or_else(|error| panic!("{}: {error}", script.display()));
    assert!(
        output.status.success(),
        "{} failed; scripts/install-test-tools installs what it needs:\n{}",
        script.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().into()
}
