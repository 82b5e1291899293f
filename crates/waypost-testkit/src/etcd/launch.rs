//! Starting the process: its arguments, its log, and when it is ready.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::time::Instant;

use crate::EtcdVersion;
use crate::child::Child;
use crate::etcd::Builder;
use crate::http;
use crate::port::Port;

/// How long etcd may take until it is healthy, and how long a port of a dead one may stay in use. The embedded
/// server makes its database of a snapshot before that: of 100,000 keys in 5 s alone, and in more than 20 s beside other tests. One
/// that has died is noticed at once.
pub(crate) const READY: Duration = Duration::from_secs(120);

/// What does not change over the restarts of one etcd.
#[derive(Debug)]
pub(crate) struct Ports {
    pub(crate) client: Port,
    pub(crate) peer: Port,
    /// Plain HTTP for `/health`, whatever the port for clients speaks.
    pub(crate) metrics: Port,
}

/// A process that has ended before it was healthy.
#[derive(Debug)]
pub(crate) enum Died {
    /// Another process has one of the ports.
    AddressInUse,
    /// Anything else: the end of the log.
    Otherwise(String),
}

/// The log of one etcd: standard output and standard error of all its processes.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    /// Length when the current process was started.
    start: u64,
}

/// Starts the process in `directory`, without waiting.
pub(crate) fn spawn(builder: &Builder, directory: &Path, ports: &Ports, token: u32, log: &mut Log) -> Child {
    let binaries = builder.version.binaries();
    let output = log.open();
    let mut command = Command::new(&binaries.server);
    if builder.version == EtcdVersion::Embedded {
        command.args(embedded_arguments(builder, directory, ports));
    } else {
        // etcd 3.4 does not replace what a killed one left.
        let _ = std::fs::remove_file(directory.join(SOCKET));
        command.args(arguments(builder, directory, ports, token)).args(&builder.args);
    }
    command
        .current_dir(directory)
        // Variables of the caller would be taken as flags.
        .env_clear()
        .envs(std::env::vars_os().filter(|(name, _)| !name.to_string_lossy().starts_with("ETCD")))
        .stdin(Stdio::null())
        .stderr(output.try_clone().expect("the log's descriptor is doubled"))
        .stdout(output);
    let name = format!("{} at {}", builder.version, ports.client.addr());
    Child::spawn(name, &mut command).unwrap_or_else(|error| panic!("{}: {error}", binaries.server.display()))
}

/// Waits until the process answers `/health`, which needs a leader.
pub(crate) async fn ready(child: &Child, ports: &Ports, log: &Log) -> Result<(), Died> {
    let deadline = Instant::now() + READY;
    let mut pause = Duration::from_millis(1);
    loop {
        let answer = http::get(ports.metrics.addr(), "/health").await;
        if child.try_exit().is_some() {
            return Err(log.cause_of_death());
        }
        if answer.is_ok_and(|answer| answer.status == 200) {
            return Ok(());
        }
        assert!(Instant::now() < deadline, "etcd is not healthy after {READY:?}:\n{}", log.tail());
        tokio::select! {
            _ = child.exited() => return Err(log.cause_of_death()),
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 3 / 2).min(Duration::from_millis(20));
    }
}

/// Member name, `--initial-cluster` and the peer URL that others use.
pub(crate) fn membership(builder: &Builder, ports: &Ports) -> (String, String, String) {
    if let Some(place) = &builder.place {
        return (place.name.clone(), place.initial_cluster.clone(), place.advertised_peer_url.clone());
    }
    let url = format!("http://{}", ports.peer.addr());
    ("single".to_owned(), format!("single={url}"), url)
}

/// The token of which etcd makes the cluster id, together with the peer URLs.
pub(crate) fn cluster_token(token: u32) -> String {
    format!("waypost-{token}")
}

pub(crate) fn client_url(builder: &Builder, ports: &Ports) -> String {
    let scheme = if builder.tls.is_some() { "https" } else { "http" };
    format!("{scheme}://{}", ports.client.addr())
}

/// The file of the Unix socket, in the folder where the process runs. etcd wants what looks like a host and a port.
pub(crate) const SOCKET: &str = "etcd.sock:1";

fn listen_urls(builder: &Builder, ports: &Ports) -> String {
    let url = client_url(builder, ports);
    if builder.unix_socket { format!("{url},unix://{SOCKET}") } else { url }
}

/// What `waypost serve` takes. It has no peers, and does not limit how often clients ping.
fn embedded_arguments(builder: &Builder, directory: &Path, ports: &Ports) -> Vec<String> {
    let url = client_url(builder, ports);
    let mut arguments = vec![
        "serve".to_owned(),
        "--name=single".to_owned(),
        format!("--data-dir={}", data(directory).display()),
        format!("--listen-client-urls={}", listen_urls(builder, ports)),
        format!("--listen-metrics-urls=http://{}", ports.metrics.addr()),
        format!("--advertise-client-urls={url}"),
        "--election-timeout=100".to_owned(),
        "--bcrypt-cost=4".to_owned(),
    ];
    arguments.extend(tls_arguments(builder));
    let of_etcd_alone = ["--grpc-keepalive-min-time=", "--heartbeat-interval="];
    let is_meant = |arg: &&String| !of_etcd_alone.iter().any(|flag| arg.starts_with(flag));
    arguments.extend(builder.args.iter().filter(is_meant).cloned());
    arguments
}

fn tls_arguments(builder: &Builder) -> Vec<String> {
    let Some(tls) = &builder.tls else { return Vec::new() };
    let server = tls.material.server();
    let mut arguments = vec![
        format!("--cert-file={}", server.certificate.display()),
        format!("--key-file={}", server.key.display()),
        format!("--trusted-ca-file={}", tls.material.ca().display()),
    ];
    if tls.mutual {
        arguments.push("--client-cert-auth".to_owned());
    }
    arguments
}

fn arguments(builder: &Builder, directory: &Path, ports: &Ports, token: u32) -> Vec<String> {
    let (name, initial_cluster, peer_url) = membership(builder, ports);
    let url = client_url(builder, ports);
    let advertised = builder.place.as_ref().and_then(|place| place.advertised_client_url.clone());
    let mut arguments = vec![
        format!("--name={name}"),
        format!("--data-dir={}", data(directory).display()),
        format!("--advertise-client-urls={}", advertised.as_ref().unwrap_or(&url)),
        format!("--listen-client-urls={}", listen_urls(builder, ports)),
        format!("--listen-peer-urls=http://{}", ports.peer.addr()),
        format!("--listen-metrics-urls=http://{}", ports.metrics.addr()),
        format!("--initial-advertise-peer-urls={peer_url}"),
        format!("--initial-cluster={initial_cluster}"),
        format!("--initial-cluster-token={}", cluster_token(token)),
        "--initial-cluster-state=new".to_owned(),
        "--heartbeat-interval=10".to_owned(),
        "--election-timeout=100".to_owned(),
        "--bcrypt-cost=4".to_owned(),
        "--logger=zap".to_owned(),
        "--log-outputs=stderr".to_owned(),
        "--log-level=warn".to_owned(),
    ];
    arguments.extend(tls_arguments(builder));
    arguments
}

pub(crate) fn data(directory: &Path) -> PathBuf {
    directory.join("data")
}

/// Copies a folder that has only files.
pub(crate) fn copy(from: &Path, to: &Path) {
    let copied = || {
        std::fs::create_dir_all(to)?;
        for entry in std::fs::read_dir(from)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                std::fs::copy(entry.path(), to.join(entry.file_name()))?;
            }
        }
        std::io::Result::Ok(())
    };
    copied().unwrap_or_else(|error| panic!("{} is not copied: {error}", from.display()));
}

// === impl Ports ===

impl Ports {
    pub(crate) fn reserve() -> Self {
        Self { client: Port::reserve(), peer: Port::reserve(), metrics: Port::reserve() }
    }
}

// === impl Log ===

impl Log {
    pub(crate) fn new(directory: &Path) -> Self {
        Self { path: directory.join("etcd.log"), start: 0 }
    }

    fn open(&mut self) -> File {
        let file =
            OpenOptions::new().create(true).append(true).open(&self.path).expect("etcd's log is opened");
        self.start = file.metadata().map_or(0, |metadata| metadata.len());
        file
    }

    /// What the current process has written.
    pub(crate) fn text(&self) -> String {
        let bytes = std::fs::read(&self.path).unwrap_or_default();
        let start = usize::try_from(self.start).unwrap_or(0).min(bytes.len());
        String::from_utf8_lossy(&bytes[start..]).into_owned()
    }

    pub(crate) fn tail(&self) -> String {
        let text = self.text();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    fn cause_of_death(&self) -> Died {
        if self.text().to_lowercase().contains("address already in use") {
            Died::AddressInUse
        } else {
            Died::Otherwise(self.tail())
        }
    }
}
