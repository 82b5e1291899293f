//! Where the servers' and tools' programs are.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

/// A version of etcd that tests run against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EtcdVersion {
    /// 3.4, as Debian's `etcd-server` installs it; `WAYPOST_ETCD_3_4` names another program.
    V3_4,
    /// 3.5, from the project's `.venv`; `WAYPOST_ETCD_3_5` names another program.
    V3_5,
}

/// The programs of one etcd version. They are expected next to each other.
#[derive(Clone, Debug)]
pub(crate) struct Binaries {
    pub(crate) etcd: PathBuf,
    pub(crate) etcdctl: PathBuf,
    /// What restores a snapshot: `etcdutl` from 3.5 on, `etcdctl` before.
    pub(crate) restore: PathBuf,
}

// === impl EtcdVersion ===

impl EtcdVersion {
    /// Every version, oldest first.
    pub const ALL: [Self; 2] = [Self::V3_4, Self::V3_5];

    /// The program `etcd` of this version, for those who start it with arguments of their own.
    ///
    /// Panics, naming the script to run, when it is not installed.
    pub fn program(self) -> PathBuf {
        self.binaries().etcd
    }

    /// The programs of this version.
    ///
    /// Panics, naming the script to run, when they are not installed.
    pub(crate) fn binaries(self) -> Binaries {
        let etcd = self.etcd_path();
        assert!(
            etcd.is_file(),
            "etcd {self} is not at {}: run scripts/install-test-tools, or name the program in {}",
            etcd.display(),
            self.variable()
        );
        let restore = match self {
            Self::V3_4 => "etcdctl",
            Self::V3_5 => "etcdutl",
        };
        Binaries { etcdctl: etcd.with_file_name("etcdctl"), restore: etcd.with_file_name(restore), etcd }
    }

    fn etcd_path(self) -> PathBuf {
        if let Some(path) = std::env::var_os(self.variable()).filter(|path: &OsString| !path.is_empty()) {
            return path.into();
        }
        match self {
            Self::V3_4 => "/usr/bin/etcd".into(),
            Self::V3_5 => venv().join("bin/etcd"),
        }
    }

    fn variable(self) -> &'static str {
        match self {
            Self::V3_4 => "WAYPOST_ETCD_3_4",
            Self::V3_5 => "WAYPOST_ETCD_3_5",
        }
    }
}

impl fmt::Display for EtcdVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V3_4 => "3.4",
            Self::V3_5 => "3.5",
        })
    }
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
