//! `waypost kv`: etcd's keys and values themselves, with etcdctl's options and answers.

mod del;
mod get;
mod keys;
mod put;
mod show;
mod watch;

use clap::Subcommand;

use crate::exit::Exit;
use crate::session::Session;

/// Read and write etcd's keys themselves, with etcdctl's options and answers.
///
/// With `--output json`, `key` and `value` are texts. One that is not UTF-8 is in `key_base64` or `value_base64`
/// instead. Leases are in hexadecimal, as etcdctl writes them.
#[derive(Debug, Subcommand)]
#[command(after_help = "Example:\n  waypost kv get services/greeter/ --prefix --keys-only")]
pub(crate) enum KvCommand {
    Get(get::GetArgs),
    Put(put::PutArgs),
    Del(del::DelArgs),
    Watch(watch::WatchArgs),
}

// === impl KvCommand ===

impl KvCommand {
    pub(crate) async fn run(self, session: Session) -> anyhow::Result<Exit> {
        match self {
            Self::Get(args) => args.run(session).await,
            Self::Put(args) => args.run(session).await,
            Self::Del(args) => args.run(session).await,
            Self::Watch(args) => args.run(session).await,
        }
    }
}
