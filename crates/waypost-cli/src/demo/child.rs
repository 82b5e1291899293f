//! The servers of the demo as processes: started, killed, stopped.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use waypost::model::{Layout, ServiceName};

use super::server::Announcement;
use crate::args::Connection;

/// How long a server may take until it is registered.
const START: Duration = Duration::from_secs(15);
/// How long a server may take to end in good order before it is killed.
const STOP: Duration = Duration::from_secs(10);

/// Starts servers: this same program, with the hidden command.
#[derive(Clone, Debug)]
pub(crate) struct Spawner {
    program: PathBuf,
    arguments: Vec<String>,
    user: Option<(String, String)>,
}

/// A server that runs and is registered. Killed when dropped; it also ends by itself when our end of its standard input
/// does, which is when this process does.
#[derive(Debug)]
pub(super) struct Server {
    /// `greeter-1`.
    pub(super) name: String,
    /// Where it is called.
    pub(super) address: String,
    process: Child,
}

// === impl Spawner ===

impl Spawner {
    pub(crate) fn new(
        connection: &Connection,
        layout: &dyn Layout,
        service: &ServiceName,
    ) -> anyhow::Result<Self> {
        let mut arguments = vec!["demo-greeter".to_owned(), format!("--service={service}")];
        arguments.push(format!("--endpoints={}", connection.endpoints.join(",")));
        arguments.push(format!("--layout={}", layout.name()));
        arguments.push(format!("--prefix={}", layout.prefix()));
        let files = [("cacert", &connection.cacert), ("cert", &connection.cert), ("key", &connection.key)];
        for (name, path) in files {
            if let Some(path) = path {
                arguments.push(format!("--{name}={}", path.display()));
            }
        }
        let program = std::env::current_exe().context("the path of this program is not known")?;
        Ok(Self { program, arguments, user: connection.user.clone() })
    }

    /// Starts a server and waits until it is registered.
    pub(super) async fn start(&self, name: String) -> anyhow::Result<Server> {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            // Ctrl-C is for us; we end it in our own order.
            .process_group(0);
        if let Some((user, password)) = &self.user {
            // Arguments are for all to see; the environment is not.
            command.env("WAYPOST_USER", user).env("WAYPOST_PASSWORD", password);
        }
        let mut process = command
            .spawn()
            .with_context(|| format!("{name} cannot be started from {}", self.program.display()))?;
        let stdout = process.stdout.take().context("its standard output was asked for")?;
        let mut lines = BufReader::new(stdout).lines();
        let line = tokio::time::timeout(START, lines.next_line())
            .await
            .with_context(|| format!("{name} did not register within {START:?}"))??;
        let Some(line) = line else {
            bail!("{name} ended before it was registered: {}", process.wait().await?);
        };
        let Announcement { address } =
            serde_json::from_str(&line).with_context(|| format!("{name} said {line:?}"))?;
        Ok(Server { name, address, process })
    }
}

// === impl Server ===

impl Server {
    /// SIGKILL: its connections break, its key stays until its lease expires.
    pub(super) async fn kill(mut self) -> anyhow::Result<()> {
        self.process.kill().await.with_context(|| format!("{} cannot be killed", self.name))
    }

    /// SIGTERM, and waits for the end; kills it when that takes too long.
    pub(super) async fn stop(mut self) -> anyhow::Result<ExitStatus> {
        if let Some(pid) = self.process.id().and_then(|pid| i32::try_from(pid).ok()) {
            kill(Pid::from_raw(pid), Signal::SIGTERM)
                .with_context(|| format!("{} cannot be told to stop", self.name))?;
        }
        match tokio::time::timeout(STOP, self.process.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => bail!("{} did not stop within {STOP:?} and is killed", self.name),
        }
    }
}
