//! `waypost kv get`.

use clap::{Args, ValueEnum};
use serde::Serialize;
use waypost::etcd::{Range, SortOrder, SortTarget};

use super::keys::Keys;
use super::show::{self, ShownKeyValue};
use crate::exit::Exit;
use crate::session::Session;

/// Read keys. Exit code 3 when there is none.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  waypost kv get greeting\n  waypost kv get services/ --prefix --output json"
)]
#[expect(clippy::struct_excessive_bools, reason = "etcdctl's options")]
pub(crate) struct GetArgs {
    #[command(flatten)]
    keys: Keys,
    /// Every key from KEY on.
    #[arg(long, conflicts_with_all = ["prefix", "range_end"])]
    from_key: bool,
    /// At most this many; 0 is no limit.
    #[arg(long, default_value_t = 0)]
    limit: i64,
    /// As of this revision; 0 is now.
    #[arg(long, default_value_t = 0)]
    rev: i64,
    /// Without values.
    #[arg(long)]
    keys_only: bool,
    /// Only how many there are.
    #[arg(long)]
    count_only: bool,
    /// Without keys.
    #[arg(long, conflicts_with_all = ["keys_only", "count_only"])]
    print_value_only: bool,
    /// By what to sort.
    #[arg(long, value_enum, ignore_case = true, default_value_t)]
    sort_by: SortBy,
    /// In which direction.
    #[arg(long, value_enum, ignore_case = true)]
    order: Option<Order>,
    /// Linearizable (l), or from the asked member's own state (s), which works without a leader.
    #[arg(long, value_enum, default_value_t)]
    consistency: Consistency,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum SortBy {
    #[default]
    Key,
    Create,
    Modify,
    Value,
    Version,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Order {
    Ascend,
    Descend,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Consistency {
    #[default]
    L,
    S,
}

#[derive(Serialize)]
struct Answer {
    revision: i64,
    /// How many there are, whatever the limit.
    count: i64,
    /// Whether the limit left some out.
    more: bool,
    kvs: Vec<ShownKeyValue>,
}

// === impl GetArgs ===

impl GetArgs {
    pub(crate) async fn run(self, mut session: Session) -> anyhow::Result<Exit> {
        let mut range = Range::new(self.keys.range(self.from_key))
            .limit(self.limit)
            .revision(self.rev)
            .sort(self.sort_by.into(), self.order.map_or(SortOrder::None, Into::into));
        if self.keys_only {
            range = range.keys_only();
        }
        if self.count_only {
            range = range.count_only();
        }
        if self.consistency == Consistency::S {
            range = range.serializable();
        }
        let answer = session.client.range(range).await?;

        let out = &mut session.out;
        if out.is_json() {
            out.json(&Answer {
                revision: answer.header.as_ref().map_or(0, |header| header.revision),
                count: answer.count,
                more: answer.more,
                kvs: answer.kvs.iter().map(ShownKeyValue::from).collect(),
            })?;
        } else if self.count_only {
            out.line(answer.count)?;
        } else {
            for kv in &answer.kvs {
                show::print(out, kv, self.print_value_only)?;
            }
            out.flush()?;
        }
        Ok(if answer.count == 0 && !self.count_only { Exit::NothingFound } else { Exit::Ok })
    }
}

impl From<SortBy> for SortTarget {
    fn from(by: SortBy) -> Self {
        match by {
            SortBy::Key => Self::Key,
            SortBy::Create => Self::Create,
            SortBy::Modify => Self::Mod,
            SortBy::Value => Self::Value,
            SortBy::Version => Self::Version,
        }
    }
}

impl From<Order> for SortOrder {
    fn from(order: Order) -> Self {
        match order {
            Order::Ascend => Self::Ascend,
            Order::Descend => Self::Descend,
        }
    }
}
