//! Running the command, to its end or while something else happens.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use waypost_testkit::{Etcd, Process};

/// For whatever takes as long as it takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What came of a command.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The command with these arguments and none of our environment's options.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_waypost"));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("WAYPOST_") || text.starts_with("ETCDCTL_") {
            command.env_remove(&name);
        }
    }
    command.args(args);
    command
}

/// The command at this etcd.
pub(crate) fn at(etcd: &Etcd, args: &[&str]) -> Command {
    let mut command = command(args);
    command.env("WAYPOST_ENDPOINTS", etcd.url());
    command
}

/// Runs it to its end.
pub(crate) async fn run(command: Command) -> Ran {
    run_with_input(command, None).await
}

/// Runs it to its end with this on standard input; kills it if it does not end.
pub(crate) async fn run_with_input(command: Command, input: Option<&[u8]>) -> Ran {
    let mut command = tokio::process::Command::from(command);
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().expect("the command starts");
    if let Some(input) = input {
        child.stdin.take().expect("piped").write_all(input).await.expect("it reads");
    }
    let ended = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    let output = ended.expect("it ends").expect("it is there");
    Ran {
        code: output.status.code().expect("it is not killed"),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs it at this etcd; it must end with 0.
pub(crate) async fn ok(etcd: &Etcd, args: &[&str]) -> String {
    let ran = run(at(etcd, args)).await;
    assert_eq!(ran.code, 0, "{args:?}: {ran:?}");
    ran.stdout
}

/// As [`ok`], with JSON.
pub(crate) async fn json(etcd: &Etcd, args: &[&str]) -> Value {
    let text = ok(etcd, &[args, &["--output", "json"]].concat()).await;
    parse(&text)
}

pub(crate) fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text:?}"))
}

/// `waypost register greeter ADDRESS …`, once it is registered.
pub(crate) async fn registered(etcd: &Etcd, args: &[&str]) -> Process {
    let process = Process::spawn(&mut at(etcd, &[&["register", "--output", "json"], args].concat()));
    process.wait_for_line(|line| line.contains(r#""state":"registered""#), PATIENCE).await;
    process
}
