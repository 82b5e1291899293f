//! A server in a folder of its own, and the tools that ask it.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use waypost_embed::server::{Builder, Server};
use waypost_etcd::{Client, ClientOptions};

/// No step of a test takes so long unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Fixture {
    pub(crate) server: Server,
    pub(crate) folder: TempDir,
}

/// `etcdctl` of one version.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ctl {
    V3_4,
    V3_5,
}

pub(crate) const EVERY_CTL: [Ctl; 2] = [Ctl::V3_4, Ctl::V3_5];

// === impl Fixture ===

impl Fixture {
    pub(crate) async fn start() -> Self {
        Self::start_with(|builder| builder).await
    }

    pub(crate) async fn start_with(options: impl FnOnce(Builder) -> Builder) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let builder = Server::builder()
            .data_dir(folder.path().join("data"))
            .listen(["http://127.0.0.1:0"])
            .bcrypt_cost(4);
        let server = options(builder).start().await.unwrap();
        Self { server, folder }
    }

    /// Ends the server in good order, and starts one on the same data.
    pub(crate) async fn restart(self) -> Self {
        let Self { server, folder } = self;
        server.shutdown().await;
        let builder = Server::builder().data_dir(folder.path().join("data")).listen(["http://127.0.0.1:0"]);
        let server = builder.start().await.unwrap();
        Self { server, folder }
    }

    pub(crate) fn url(&self) -> &str {
        &self.server.listen_urls()[0]
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(ClientOptions::new([self.url()])).unwrap()
    }

    pub(crate) async fn channel(&self) -> tonic::transport::Channel {
        tonic::transport::Channel::from_shared(self.url().to_owned()).unwrap().connect().await.unwrap()
    }

    /// What `etcdctl` writes to standard output; panics if it fails.
    pub(crate) async fn ctl(&self, ctl: Ctl, line: &str) -> String {
        self.ctl_at(ctl, self.url(), line).await
    }

    /// The same at another URL.
    pub(crate) async fn ctl_at(&self, ctl: Ctl, url: &str, line: &str) -> String {
        match run(command(ctl, url, line)).await {
            Ok(output) => output,
            Err(error) => panic!("etcdctl {ctl:?} at {url}: {line}: {error}"),
        }
    }
}

/// `etcdctl` at a URL.
pub(crate) fn command(ctl: Ctl, url: &str, line: &str) -> Command {
    let mut command = Command::new(tool(ctl, "etcdctl"));
    command.env("ETCDCTL_API", "3").arg("--endpoints").arg(url);
    command.args(line.split_whitespace()).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// What a command writes to standard output, or to standard error if it fails.
pub(crate) async fn run(mut command: Command) -> Result<String, String> {
    let output = tokio::time::timeout(PATIENCE, command.output()).await.unwrap().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// A program of etcd.
pub(crate) fn tool(ctl: Ctl, name: &str) -> PathBuf {
    let (variable, usual) = match ctl {
        Ctl::V3_4 => ("WAYPOST_ETCD_3_4", PathBuf::from("/usr/bin/etcd")),
        Ctl::V3_5 => {
            ("WAYPOST_ETCD_3_5", PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../.venv/bin/etcd")))
        }
    };
    std::env::var_os(variable).map_or(usual, PathBuf::from).with_file_name(name)
}

/// The whole answer of a GET.
pub(crate) async fn get_http(url: &str, path: &str) -> String {
    let address = url.trim_start_matches("http://");
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
