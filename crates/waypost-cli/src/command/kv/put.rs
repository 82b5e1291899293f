//! `waypost kv put`.

use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::ffi::OsStringExt as _;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use waypost::etcd::Put;

use super::show::{self, ShownKeyValue};
use crate::exit::Exit;
use crate::session::Session;

/// Write a key.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  waypost kv put greeting hello\n  waypost kv put greeting < file")]
pub(crate) struct PutArgs {
    /// The key.
    #[arg(allow_hyphen_values = true)]
    key: OsString,
    /// The value; standard input when it is not given.
    #[arg(allow_hyphen_values = true, conflicts_with = "ignore_value")]
    value: Option<OsString>,
    /// The lease to attach the key to, in hexadecimal.
    #[arg(long, value_name = "ID", value_parser = parse_lease, conflicts_with = "ignore_lease")]
    lease: Option<i64>,
    /// Show what was there before.
    #[arg(long)]
    prev_kv: bool,
    /// Keep the value that is there; the key must exist.
    #[arg(long)]
    ignore_value: bool,
    /// Keep the lease that is there; the key must exist.
    #[arg(long)]
    ignore_lease: bool,
}

#[derive(Serialize)]
struct Answer {
    revision: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_kv: Option<ShownKeyValue>,
}

fn parse_lease(text: &str) -> Result<i64, String> {
    i64::from_str_radix(text, 16).map_err(|error| format!("a lease is a hexadecimal number: {error}"))
}

// === impl PutArgs ===

impl PutArgs {
    pub(crate) async fn run(self, mut session: Session) -> anyhow::Result<Exit> {
        let value = match self.value {
            Some(value) => value.into_vec(),
            None if self.ignore_value => Vec::new(),
            None => read_standard_input()?,
        };
        let mut put = Put::new(self.key.into_vec(), value).lease(self.lease.unwrap_or(0));
        if self.prev_kv {
            put = put.prev_kv();
        }
        if self.ignore_value {
            put = put.ignore_value();
        }
        if self.ignore_lease {
            put = put.ignore_lease();
        }
        let answer = session.client.put(put).await?;

        let out = &mut session.out;
        if out.is_json() {
            out.json(&Answer {
                revision: answer.header.as_ref().map_or(0, |header| header.revision),
                prev_kv: answer.prev_kv.as_ref().map(ShownKeyValue::from),
            })?;
        } else {
            out.line("OK")?;
            if let Some(before) = &answer.prev_kv {
                show::print(out, before, false)?;
                out.flush()?;
            }
        }
        Ok(Exit::Ok)
    }
}

fn read_standard_input() -> anyhow::Result<Vec<u8>> {
    let mut value = Vec::new();
    std::io::stdin().read_to_end(&mut value).context("cannot read the value from standard input")?;
    Ok(value)
}
