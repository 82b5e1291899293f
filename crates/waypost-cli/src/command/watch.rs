//! `waypost watch`.

use std::io;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;
use waypost::model::{Change, Freshness, Instance, Layout, Scope, ServiceName, Snapshot};

use super::shown::ShownInstance;
use crate::args::LayoutArgs;
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::output::{Output, Tone};
use crate::report::printable;
use crate::session::Session;

/// Follow the instances of one service, or of all, until interrupted.
///
/// It begins with those that are there. While etcd is away it says so and goes on by itself.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  waypost watch greeter\n  waypost watch --output json | jq .event")]
pub(crate) struct WatchArgs {
    /// Follow only this one.
    service: Option<ServiceName>,
    #[command(flatten)]
    layout: LayoutArgs,
}

/// One line of JSON.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Line<'a> {
    Added { revision: i64, instance: ShownInstance<'a> },
    Updated { revision: i64, instance: ShownInstance<'a>, before: &'a Instance },
    Removed { revision: i64, instance: ShownInstance<'a> },
    Live { revision: i64 },
    Stale { revision: i64, cause: &'a str },
}

// === impl WatchArgs ===

impl WatchArgs {
    pub(crate) async fn run(self, mut session: Session) -> anyhow::Result<Exit> {
        let mut interrupt = Interrupt::new()?;
        let layouts = session.layouts(self.layout)?;
        let scope = self.service.clone().map_or(Scope::Catalog, Scope::Service);
        let mut seen = Arc::new(Snapshot::absent(scope));
        let (mut newest, mut subscription) = session.discover(&layouts, self.service).await?;
        let mut freshness = None;
        loop {
            for change in newest.changes_since(&seen) {
                show_change(&mut session.out, newest.revision(), &change, &layouts)?;
            }
            if freshness.as_ref() != Some(newest.freshness()) {
                show_freshness(&mut session.out, newest.revision(), newest.freshness())?;
                freshness = Some(newest.freshness().clone());
            }
            seen = newest;
            newest = tokio::select! {
                newest = subscription.changed() => newest,
                () = interrupt.next() => return Ok(Exit::Ok),
            };
        }
    }
}

fn show_change(
    out: &mut Output,
    revision: i64,
    change: &Change,
    layouts: &[Arc<dyn Layout>],
) -> io::Result<()> {
    let shown = |instance| ShownInstance::new(change.key(), instance, layouts);
    let (line, sign, tone, instance) = match change {
        Change::Added { instance, .. } => {
            (Line::Added { revision, instance: shown(instance) }, "+", Tone::Good, instance)
        }
        Change::Updated { before, after, .. } => {
            (Line::Updated { revision, instance: shown(after), before }, "~", Tone::Doubtful, after)
        }
        Change::Removed { instance, .. } => {
            (Line::Removed { revision, instance: shown(instance) }, "-", Tone::Bad, instance)
        }
    };
    if out.is_json() {
        return out.json(&line);
    }
    let text = printable(&match change {
        Change::Updated { before, after, .. } => {
            format!("{} {}  {}", after.service, after.id, difference(before, after))
        }
        _ => format!(
            "{} {}  {} {} weight {}",
            instance.service,
            instance.id,
            instance.endpoints.primary(),
            instance.status,
            instance.weight
        ),
    });
    let sign = out.toned(sign, tone);
    out.line(format_args!("{sign} {text}"))
}

/// What is not as it was.
fn difference(before: &Instance, after: &Instance) -> String {
    let mut parts = Vec::new();
    let mut note = |what: &str, before: String, after: String| {
        if before != after {
            parts.push(format!("{what} {before} → {after}"));
        }
    };
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_owned());
    note("status", before.status.to_string(), after.status.to_string());
    note("weight", before.weight.to_string(), after.weight.to_string());
    note("endpoint", before.endpoints.primary().to_string(), after.endpoints.primary().to_string());
    note("zone", or_none(&before.zone), or_none(&after.zone));
    note("version", or_none(&before.version), or_none(&after.version));
    if before.metadata != after.metadata {
        parts.push("metadata changed".to_owned());
    }
    if parts.is_empty() { "other endpoints changed".to_owned() } else { parts.join(", ") }
}

fn show_freshness(out: &mut Output, revision: i64, freshness: &Freshness) -> io::Result<()> {
    if out.is_json() {
        return match freshness {
            Freshness::Live => out.json(&Line::Live { revision }),
            Freshness::Stale { cause, .. } => out.json(&Line::Stale { revision, cause }),
        };
    }
    let text = match freshness {
        Freshness::Live => out.toned("* following etcd", Tone::Quiet),
        Freshness::Stale { cause, .. } => out.toned(printable(&format!("* stale: {cause}")), Tone::Doubtful),
    };
    out.line(text)
}
