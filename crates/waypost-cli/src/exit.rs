//! How a command ends: the exit codes, what leads to which, and the help text that says so.

use std::io;
use std::process::ExitCode;

use waypost::discovery::NoCatalog;
use waypost::etcd::{self, ErrorKind};
use waypost::registry::RegisterError;

use crate::args::UsageError;

/// How a command ends. The numbers are stable: scripts rely on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// It did what was asked.
    Ok = 0,
    /// It failed.
    Failed = 1,
    /// The arguments make no sense.
    Usage = 2,
    /// It did what was asked, and there is nothing of what was asked for.
    NothingFound = 3,
    /// No endpoint of etcd answers.
    Unreachable = 4,
    /// etcd refuses: user, password, permission, or somebody else has the key.
    Refused = 5,
}

/// The exit codes as `--help` lists them.
pub(crate) const HELP: &str = "\
Exit codes:
  0  done
  1  failed
  2  the arguments make no sense
  3  nothing found (resolve, ls, call, kv get, an instance to drain or deregister)
  4  etcd cannot be reached
  5  refused: user, password or permission, or the key belongs to somebody else";

// === impl Exit ===

impl Exit {
    /// What an error leads to. The innermost error that has a meaning of its own decides.
    pub(crate) fn of(error: &anyhow::Error) -> Self {
        let mut exit = None;
        for cause in error.chain() {
            exit = Self::of_cause(cause).or(exit);
            // What is below is the network's: a pipe that broke there is not our output's.
            if cause.is::<etcd::Error>() {
                break;
            }
        }
        exit.unwrap_or(Self::Failed)
    }

    fn of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<Self> {
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            // The reader of our output has seen enough, as in `waypost ls | head -1`.
            return (error.kind() == io::ErrorKind::BrokenPipe).then_some(Self::Ok);
        }
        if let Some(error) = cause.downcast_ref::<etcd::Error>() {
            return Some(match error.kind() {
                ErrorKind::Unavailable | ErrorKind::TimedOut => Self::Unreachable,
                ErrorKind::Unauthenticated | ErrorKind::PermissionDenied => Self::Refused,
                ErrorKind::Config => Self::Usage,
                _ => Self::Failed,
            });
        }
        if let Some(error) = cause.downcast_ref::<RegisterError>() {
            return match error {
                RegisterError::Conflict { .. } => Some(Self::Refused),
                RegisterError::Address { .. } | RegisterError::Encode { .. } => Some(Self::Usage),
                _ => None,
            };
        }
        let usage = cause.is::<UsageError>() || cause.is::<NoCatalog>();
        usage.then_some(Self::Usage)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
