//! `etcdctl` at etcd and at the embedded server, side by side: each command must say the same at both.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use waypost_testkit::{Etcd, EtcdVersion};

/// No step takes so long unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Two new servers, and an `etcdctl` that asks both.
pub(crate) struct Both {
    pub(crate) ctl: EtcdVersion,
    pub(crate) etcd: Etcd,
    pub(crate) embedded: Etcd,
    /// What stands for `{name}` in a command, at etcd and at the embedded server: ids of leases.
    names: BTreeMap<String, [String; 2]>,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) status: Option<i32>,
    pub(crate) out: String,
    pub(crate) errors: String,
}

/// A command that goes on at both until this is dropped.
pub(crate) struct Following {
    lines: [tokio::io::Lines<tokio::io::BufReader<tokio::process::ChildStdout>>; 2],
    children: [tokio::process::Child; 2],
    authorities: [String; 2],
}

// === impl Both ===

impl Both {
    pub(crate) async fn start(ctl: EtcdVersion) -> Self {
        let (etcd, embedded) =
            tokio::join!(Etcd::start(EtcdVersion::V3_5), Etcd::start(EtcdVersion::Embedded));
        Self { ctl, etcd, embedded, names: BTreeMap::new() }
    }

    /// Runs a command line at both and gives what it wrote to standard output at the embedded server; panics if it
    /// fails, or if anything differs but ids and times.
    pub(crate) async fn same(&self, line: &str) -> String {
        self.same_with(line, "").await
    }

    /// The same, with standard input.
    pub(crate) async fn same_with(&self, line: &str, input: &str) -> String {
        let said = self.compared(line, input).await;
        assert_eq!(said.status, Some(0), "{line}: {said:?}");
        said.out
    }

    /// Runs a command line that both must refuse in the same words, among which is `text`.
    pub(crate) async fn refused(&self, line: &str, text: &str) {
        let said = self.compared(line, "").await;
        assert_ne!(said.status, Some(0), "{line}: {said:?}");
        assert!(said.errors.contains(text), "{line}: {said:?}");
    }

    /// Runs a command line at both and gives both answers, which may differ.
    pub(crate) async fn each(&self, line: &str, input: &str) -> [Said; 2] {
        let (etcd, embedded) = tokio::join!(self.run(0, line, input), self.run(1, line, input));
        [etcd, embedded]
    }

    /// Grants a lease at each, and calls both `name`.
    pub(crate) async fn grant(&mut self, name: &str, ttl: u32) {
        let said = self.each(&format!("lease grant {ttl}"), "").await;
        let id = |said: &Said| said.out.split_whitespace().nth(1).expect("an id").to_owned();
        self.names.insert(name.to_owned(), [id(&said[0]), id(&said[1])]);
        let [etcd, embedded] = self.normalised(said);
        assert_eq!(etcd, embedded);
    }

    /// Starts a command that goes on.
    pub(crate) fn follow(&self, line: &str) -> Following {
        let mut children = [0, 1].map(|server| self.command(server, line).spawn().unwrap());
        let lines = children.each_mut().map(|child| {
            let stdout = child.stdout.take().unwrap();
            tokio::io::BufReader::new(stdout).lines()
        });
        Following { lines, children, authorities: self.authorities() }
    }

    /// Runs a command line at one of the two.
    pub(crate) async fn each_alone(&self, server: &Etcd, line: &str) -> Said {
        self.run(usize::from(server.url() == self.embedded.url()), line, "").await
    }

    /// Copies what is under a prefix from one to the other until this is dropped.
    pub(crate) fn mirror(
        &self,
        from: &Etcd,
        to: &Etcd,
        prefix: &str,
        renamed: &str,
    ) -> tokio::process::Child {
        let server = usize::from(from.url() == self.embedded.url());
        let line = format!("make-mirror --prefix={prefix} --dest-prefix={renamed} {}", to.authority());
        self.command(server, &line).spawn().unwrap()
    }

    fn authorities(&self) -> [String; 2] {
        [self.etcd.authority(), self.embedded.authority()]
    }

    async fn compared(&self, line: &str, input: &str) -> Said {
        let said = self.each(line, input).await;
        let [etcd, embedded] = self.normalised(said.clone());
        assert_eq!(embedded, etcd, "etcdctl of {}: {line}\n{input}", self.ctl);
        let [_, embedded] = said;
        embedded
    }

    fn normalised(&self, said: [Said; 2]) -> [Said; 2] {
        let mut authorities = self.authorities().into_iter();
        said.map(|said| {
            let authority = authorities.next().unwrap();
            Said {
                out: normal(&said.out, &authority),
                // What the client says about its tries before is its own matter.
                errors: normal(
                    &said.errors.lines().filter(|line| line.starts_with("Error")).collect::<String>(),
                    &authority,
                ),
                status: said.status,
            }
        })
    }

    async fn run(&self, server: usize, line: &str, input: &str) -> Said {
        let mut child = self.command(server, line).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A command that does not read its input may have ended before.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
        let output = output.unwrap_or_else(|_| panic!("etcdctl hangs at {server}: {line}")).unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said { status: output.status.code(), out: text(&output.stdout), errors: text(&output.stderr) }
    }

    fn command(&self, server: usize, line: &str) -> Command {
        let program: PathBuf = self.ctl.program().with_file_name("etcdctl");
        let url = if server == 0 { self.etcd.url() } else { self.embedded.url() };
        let mut command = Command::new(program);
        command.env("ETCDCTL_API", "3").arg("--endpoints").arg(url);
        for word in line.split_whitespace() {
            let mut word = if word == "''" { String::new() } else { word.to_owned() };
            for (name, values) in &self.names {
                word = word.replace(&format!("{{{name}}}"), &values[server]);
            }
            command.arg(word);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }
}

// === impl Following ===

impl Following {
    /// Writes a line to the standard input of both.
    pub(crate) async fn type_line(&mut self, line: &str) {
        for child in &mut self.children {
            child.stdin.as_mut().unwrap().write_all(format!("{line}\n").as_bytes()).await.unwrap();
        }
    }

    /// SIGINT to both.
    pub(crate) fn interrupt(&self) {
        for child in &self.children {
            let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).expect("it runs");
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGINT)
                .unwrap();
        }
    }

    /// The next `count` lines of each, which must be the same.
    pub(crate) async fn next(&mut self, count: usize) -> Vec<String> {
        let mut found = [Vec::new(), Vec::new()];
        for (server, found) in found.iter_mut().enumerate() {
            while found.len() < count {
                let line = tokio::time::timeout(PATIENCE, self.lines[server].next_line()).await;
                let line = line.unwrap_or_else(|_| panic!("server {server} only said {found:?}")).unwrap();
                found.push(normal(&line.expect("more lines"), &self.authorities[server]));
            }
        }
        let [etcd, embedded] = found;
        assert_eq!(embedded, etcd);
        embedded
    }
}

/// Leaves out what cannot be the same at two servers: where they and their peers are, ids (14 hexadecimal digits or
/// more), the term, how long something took, and how much of a lease is left.
fn normal(text: &str, authority: &str) -> String {
    let text = text.replace(authority, "SERVER");
    let mut words = Vec::new();
    for word in text.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let (letters, end) = match word.char_indices().last() {
            Some((at, last)) if !last.is_ascii_alphanumeric() => word.split_at(at),
            _ => (word, ""),
        };
        let is_id = letters.len() >= 14 && letters.bytes().all(|byte| byte.is_ascii_hexdigit());
        words.push(if is_id { format!("ID{end}") } else { word.to_owned() });
    }
    let mut text = words.concat();
    for (start, ends) in [
        ("\"raft_term\":", ",}"),
        ("\"RaftTerm\" : ", "\n"),
        ("remaining(", ")"),
        ("\"ttl\":", ",}"),
        ("\"TTL\" : ", "\n"),
        ("took = ", "\n"),
        // Where peers are.
        ("single, ", ","),
        ("\"peerURLs\":[", "]"),
    ] {
        text = masked(&text, start, ends);
    }
    text
}

/// Replaces what stands between `start` and the next of `ends`.
fn masked(text: &str, start: &str, ends: &str) -> String {
    let mut parts = text.split(start);
    let mut masked = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c| ends.contains(c)).unwrap_or(part.len());
        masked.push_str(start);
        masked.push('_');
        masked.push_str(&part[end..]);
    }
    masked
}
