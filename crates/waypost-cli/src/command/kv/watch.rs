//! `waypost kv watch`.

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Serialize;
use waypost::etcd::{Event, EventKind, ResetReason, WatchEvent, WatchSpec};

use super::keys::Keys;
use super::show::{self, ShownKeyValue};
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::report;
use crate::session::Session;

/// Follow the changes of keys until interrupted.
///
/// It goes on where it was when the connection breaks. Where etcd's history is gone it ends, since changes may have
/// been missed.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  waypost kv watch greeting\n  waypost kv watch services/ --prefix --output json"
)]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    keys: Keys,
    /// From this revision on; 0 is from now.
    #[arg(long, default_value_t = 0)]
    rev: i64,
    /// Show what was there before.
    #[arg(long)]
    prev_kv: bool,
}

#[derive(Serialize)]
struct Change {
    event: &'static str,
    #[serde(flatten)]
    kv: ShownKeyValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_kv: Option<ShownKeyValue>,
}

// === impl WatchArgs ===

impl WatchArgs {
    pub(crate) async fn run(self, mut session: Session) -> anyhow::Result<Exit> {
        let mut interrupt = Interrupt::new()?;
        let mut watcher = session.client.watch();
        let mut spec = WatchSpec::new(self.keys.range(false)).from(self.rev);
        if self.prev_kv {
            spec = spec.prev_kv();
        }
        watcher.add(spec);
        let mut started = false;
        loop {
            let event = tokio::select! {
                event = watcher.next() => event,
                () = interrupt.next() => return Ok(Exit::Ok),
            };
            match event {
                WatchEvent::Started { .. } => started = true,
                WatchEvent::Events { events, .. } => {
                    for event in &events {
                        show_event(&mut session, event)?;
                    }
                }
                WatchEvent::Refused { error, .. } => return Err(error.into()),
                WatchEvent::Interrupted { cause } if !started => return Err(cause.into()),
                WatchEvent::Interrupted { cause } => report::warn(&format!("{cause}; trying again")),
                WatchEvent::Reset { reason: ResetReason::Compacted { compact_revision }, .. } => {
                    bail!(
                        "etcd's history begins at revision {compact_revision}: name it or a later one with --rev"
                    )
                }
                WatchEvent::Reset { reason, .. } => {
                    return Err(anyhow::anyhow!("{reason}")).context("the watch cannot go on");
                }
                _ => {}
            }
        }
    }
}

fn show_event(session: &mut Session, event: &Event) -> anyhow::Result<()> {
    let name = match event.kind {
        EventKind::Put => "PUT",
        EventKind::Delete => "DELETE",
    };
    let out = &mut session.out;
    if out.is_json() {
        out.json(&Change {
            event: name,
            kv: ShownKeyValue::from(&event.kv),
            prev_kv: event.prev_kv.as_ref().map(ShownKeyValue::from),
        })?;
        return Ok(());
    }
    out.bytes(name.as_bytes())?;
    out.bytes(b"\n")?;
    if let Some(before) = &event.prev_kv {
        show::print(out, before, false)?;
    }
    show::print(out, &event.kv, false)?;
    out.flush()?;
    Ok(())
}
