//! The two servers, each a process with a new folder.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use waypost_testkit::{EtcdVersion, Process, free_port};

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ours,
    Etcd,
}

/// A server that runs; killed when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    // First: the process is gone before its folder is.
    process: Process,
    pub(crate) address: SocketAddr,
    /// From the start of the process to the first answer that it is healthy.
    pub(crate) took: Duration,
    _folder: TempDir,
}

const PATIENCE: Duration = Duration::from_secs(60);
/// What `/proc` counts CPU time in, in microseconds.
const TICK_MICROS: u64 = 10_000;

// === impl Running ===

impl Running {
    /// Starts a server in a new folder, and waits until it is healthy.
    pub(crate) fn start(kind: Kind) -> Self {
        let folder = tempfile::Builder::new().prefix("waypost-bench-").tempdir().expect("a folder");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let mut command = match kind {
            Kind::Ours => ours(),
            Kind::Etcd => Command::new(EtcdVersion::V3_5.program()),
        };
        command.arg("--data-dir").arg(folder.path().join("data"));
        command.args(["--listen-client-urls", &format!("http://{address}")]);
        command.args(["--advertise-client-urls", &format!("http://{address}")]);
        if kind == Kind::Etcd {
            let peers = format!("http://127.0.0.1:{}", free_port());
            command.args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
            command.args(["--initial-cluster", &format!("default={peers}"), "--log-level", "error"]);
        }
        command.current_dir(folder.path());
        let started = Instant::now();
        let process = Process::spawn(&mut command);
        while !is_healthy(address) {
            assert!(started.elapsed() < PATIENCE, "{kind:?} is not healthy: {:?}", process.error_lines());
            std::thread::sleep(Duration::from_millis(1));
        }
        Self { process, address, took: started.elapsed(), _folder: folder }
    }

    /// Resident memory in bytes, all of it and that of no file.
    pub(crate) fn memory(&self) -> (u64, u64) {
        let path = format!("/proc/{}/status", self.process.pid());
        let status = std::fs::read_to_string(path).expect("status");
        let field = |name: &str| -> u64 {
            let line = status.lines().find(|line| line.starts_with(name)).expect(name);
            line.split_whitespace().nth(1).and_then(|kilobytes| kilobytes.parse().ok()).expect("kB")
        };
        (field("VmRSS:") * 1024, field("RssAnon:") * 1024)
    }

    /// CPU time so far, in microseconds.
    pub(crate) fn cpu_micros(&self) -> u64 {
        let path = format!("/proc/{}/stat", self.process.pid());
        let stat = std::fs::read_to_string(path).expect("stat");
        let (_, fields) = stat.rsplit_once(')').expect("a name in brackets");
        let ticks = fields.split_whitespace().skip(11).take(2);
        ticks.map(|ticks| ticks.parse::<u64>().expect("ticks")).sum::<u64>() * TICK_MICROS
    }
}

fn ours() -> Command {
    let named = std::env::var_os("WAYPOST_BENCH_SERVER").map(PathBuf::from);
    let beside = || std::env::current_exe().expect("this program").with_file_name("waypost");
    let program = named.unwrap_or_else(beside);
    assert!(
        program.is_file(),
        "there is no {}: run cargo build --release -p waypost-cli, or `just bench-embed`",
        program.display()
    );
    let mut command = Command::new(program);
    command.arg("serve");
    command
}

fn is_healthy(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(format!("GET /health HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.split(' ').nth(1) == Some("200"))
}
