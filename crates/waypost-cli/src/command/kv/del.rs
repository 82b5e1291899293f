//! `waypost kv del`.

use clap::Args;
use serde::Serialize;
use waypost::etcd::Delete;

use super::keys::Keys;
use super::show::{self, ShownKeyValue};
use crate::exit::Exit;
use crate::session::Session;

/// Delete keys, and say how many there were. That there was none is no failure.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  waypost kv del greeting\n  waypost kv del services/old/ --prefix --prev-kv"
)]
pub(crate) struct DelArgs {
    #[command(flatten)]
    keys: Keys,
    /// Every key from KEY on.
    #[arg(long, conflicts_with_all = ["prefix", "range_end"])]
    from_key: bool,
    /// Show what was deleted.
    #[arg(long)]
    prev_kv: bool,
}

#[derive(Serialize)]
struct Answer {
    revision: i64,
    deleted: i64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    prev_kvs: Vec<ShownKeyValue>,
}

// === impl DelArgs ===

impl DelArgs {
    pub(crate) async fn run(self, mut session: Session) -> anyhow::Result<Exit> {
        let mut delete = Delete::new(self.keys.range(self.from_key));
        if self.prev_kv {
            delete = delete.prev_kv();
        }
        let answer = session.client.delete(delete).await?;

        let out = &mut session.out;
        if out.is_json() {
            out.json(&Answer {
                revision: answer.header.as_ref().map_or(0, |header| header.revision),
                deleted: answer.deleted,
                prev_kvs: answer.prev_kvs.iter().map(ShownKeyValue::from).collect(),
            })?;
        } else {
            out.line(answer.deleted)?;
            for kv in &answer.prev_kvs {
                show::print(out, kv, false)?;
            }
            out.flush()?;
        }
        Ok(Exit::Ok)
    }
}
