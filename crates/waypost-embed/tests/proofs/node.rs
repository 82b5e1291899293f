//! A server in a process of its own, and the bare clients of it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tonic::transport::Channel;
use waypost_proto::etcdserverpb::kv_client::KvClient;
use waypost_proto::etcdserverpb::lease_client::LeaseClient;
use waypost_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use waypost_proto::etcdserverpb::watch_client::WatchClient;
use waypost_testkit::Process;

/// No step of a test takes so long unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The server.
pub(crate) struct Node {
    process: Process,
    url: String,
    channel: Channel,
}

/// The example, which cargo builds before the tests.
fn embedded() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.ancestors().nth(2).expect("target/PROFILE/deps/TEST");
    let example = profile.join("examples/embedded");
    assert!(example.is_file(), "{} is missing: cargo build -p waypost-embed --examples", example.display());
    example
}

/// Starts a server on a folder, without waiting for it.
pub(crate) fn spawn(folder: &Path) -> Process {
    Process::spawn(Command::new(embedded()).arg(folder).arg("http://127.0.0.1:0"))
}

// === impl Node ===

impl Node {
    /// Starts a server on a folder, and waits until it answers.
    pub(crate) async fn start(folder: &Path) -> Self {
        let process = spawn(folder);
        let line = process.wait_for_line(|line| line.starts_with("listening on "), PATIENCE).await;
        let url = line.trim_start_matches("listening on ").to_owned();
        let channel = Channel::from_shared(url.clone()).unwrap().connect().await.unwrap();
        Self { process, url, channel }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// A connection of its own, made with its first call: a kill may come before it.
    pub(crate) fn connect(&self) -> Channel {
        Channel::from_shared(self.url.clone()).unwrap().connect_lazy()
    }

    pub(crate) fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX)
    }

    pub(crate) fn lease(&self) -> LeaseClient<Channel> {
        LeaseClient::new(self.channel.clone())
    }

    pub(crate) fn watch(&self) -> WatchClient<Channel> {
        WatchClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX)
    }

    pub(crate) fn maintenance(&self) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel.clone())
    }

    /// SIGKILL. Panics if the server had panicked before.
    pub(crate) async fn kill(&self) {
        self.process.kill().await;
        let errors = self.process.error_lines();
        assert!(!errors.iter().any(|line| line.contains("panicked")), "{errors:#?}");
    }
}
