//! Where the servers' and tools' programs are.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A server that tests run against: etcd of a version, or our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EtcdVersion {
    /// 3.4, as Debian's `etcd-server` installs it; `WAYPOST_ETCD_3_4` names another program.
    V3_4,
    /// 3.5, from the project's `.venv`; `WAYPOST_ETCD_3_5` names another program.
    V3_5,
    /// `waypost serve`, as cargo built it beside the test; `WAYPOST_EMBEDDED` names another program.
    Embedded,
}

/// The programs of one etcd version. They are expected next to each other.
#[derive(Clone, Debug)]
pub(crate) struct Binaries {
    pub(crate) server: PathBuf,
    pub(crate) etcdctl: PathBuf,
    /// What restores a snapshot: `etcdutl` from 3.5 on, `etcdctl` before; the embedded server itself.
    pub(crate) restore: PathBuf,
}

const BUILD: &str = "cargo build -p waypost-cli";

// === impl EtcdVersion ===

impl EtcdVersion {
    /// Every server.
    pub const ALL: [Self; 3] = [Self::V3_4, Self::V3_5, Self::Embedded];

    /// The server's program, for those who start it with arguments of their own.
    ///
    /// Panics, naming what to run, when it is not installed.
    pub fn program(self) -> PathBuf {
        self.binaries().server
    }

    /// The programs of this version. The embedded server is asked and checked with those of 3.5.
    ///
    /// Panics, naming what to run, when they are not installed, or the embedded server is older than its source.
    pub(crate) fn binaries(self) -> Binaries {
        let named = std::env::var_os(self.variable()).filter(|path: &OsString| !path.is_empty());
        let server = match (named, self) {
            (Some(path), _) => path.into(),
            (None, Self::V3_4) => "/usr/bin/etcd".into(),
            (None, Self::V3_5) => venv().join("bin/etcd"),
            (None, Self::Embedded) => embedded(),
        };
        let todo = if self == Self::Embedded { BUILD } else { "scripts/install-test-tools" };
        assert!(
            server.is_file(),
            "{self} is not at {}: run {todo}, or name the program in {}",
            server.display(),
            self.variable()
        );
        match self {
            Self::V3_4 => {
                let etcdctl = server.with_file_name("etcdctl");
                Binaries { restore: etcdctl.clone(), etcdctl, server }
            }
            Self::V3_5 => Binaries {
                etcdctl: server.with_file_name("etcdctl"),
                restore: server.with_file_name("etcdutl"),
                server,
            },
            Self::Embedded => {
                let etcdctl = Self::V3_5.binaries().etcdctl;
                Binaries { etcdctl, restore: server.clone(), server }
            }
        }
    }

    fn variable(self) -> &'static str {
        match self {
            Self::V3_4 => "WAYPOST_ETCD_3_4",
            Self::V3_5 => "WAYPOST_ETCD_3_5",
            Self::Embedded => "WAYPOST_EMBEDDED",
        }
    }
}

impl fmt::Display for EtcdVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V3_4 => "etcd 3.4",
            Self::V3_5 => "etcd 3.5",
            Self::Embedded => "the embedded server",
        })
    }
}

/// What the server is made of. The rest of the command may be older than its source.
const OF_THE_SERVER: [&str; 3] = ["/waypost-embed/", "/waypost-proto/", "/waypost-cli/"];

/// The command that cargo built in the profile of this test: `target/debug/waypost` of `target/debug/deps/test-0123`.
///
/// Panics, naming what to run, when the source of the server is newer: a test must not pass for what it once was.
fn embedded() -> PathBuf {
    let test = std::env::current_exe().expect("the path of the test");
    let profile = test.ancestors().nth(2).expect("a test is in target/PROFILE/deps");
    let program = profile.join("waypost");
    let written = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
    // What cargo writes beside it: `program: source source …`, in one line.
    let sources = std::fs::read_to_string(program.with_extension("d")).unwrap_or_default();
    let built: Option<SystemTime> = written(&program);
    let mut of_the_server = sources
        .split_whitespace()
        .skip(1)
        .filter(|source| OF_THE_SERVER.iter().any(|crate_name| source.contains(crate_name)));
    let newer = of_the_server.find(|source| written(Path::new(source)) > built);
    if let (Some(_), Some(newer)) = (built, newer) {
        panic!("{} is older than {newer}: run {BUILD}", program.display());
    }
    program
}

/// The root of the repository: the nearest directory above this crate that holds `Cargo.lock`.
pub(crate) fn repository_root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().find(|directory| directory.join("Cargo.lock").is_file()).unwrap_or(here)
}

/// The nearest `.venv` above this crate, or where it would be.
fn venv() -> PathBuf {
    let root = repository_root();
    root.ancestors()
        .map(|directory| directory.join(".venv"))
        .find(|venv| venv.is_dir())
        .unwrap_or_else(|| root.join(".venv"))
}
