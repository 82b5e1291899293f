//! `waypost drain`.

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use serde::Serialize;
use waypost::etcd::{Op, Put};
use waypost::model::{Carries, Instance, InstanceId, ServiceName, Status};

use super::stored::{ATTEMPTS, Stored};
use crate::args::LayoutArgs;
use crate::exit::Exit;
use crate::report;
use crate::session::Session;

/// Mark an instance as draining: it gets no new calls and finishes those it has.
///
/// Its value is rewritten under its own lease, so that it still goes with its process. The process that registered it
/// takes the mark over and keeps it.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  waypost drain greeter 10.0.0.5:50051\n  waypost drain greeter 10.0.0.5:50051 --undo"
)]
pub(crate) struct DrainArgs {
    /// The service.
    service: ServiceName,
    /// The id of the instance, as `waypost ls SERVICE` shows it.
    id: InstanceId,
    /// Mark it as up again.
    #[arg(long)]
    undo: bool,
    #[command(flatten)]
    layout: LayoutArgs,
}

#[derive(Serialize)]
struct Answer<'a> {
    service: &'a ServiceName,
    id: &'a InstanceId,
    layout: &'static str,
    before: Status,
    status: Status,
    /// The revision of the change; absent when it was so already.
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<i64>,
}

// === impl DrainArgs ===

impl DrainArgs {
    pub(crate) async fn run(self, mut session: Session) -> anyhow::Result<Exit> {
        let layouts = session.layouts(self.layout.clone())?;
        let wanted = if self.undo { Status::Up } else { Status::Draining };
        for _ in 0..ATTEMPTS {
            let Some(stored) = Stored::find(&session.client, &layouts, &self.service, &self.id).await? else {
                report::warn(&format!("service {} has no instance {}", self.service, self.id));
                return Ok(Exit::NothingFound);
            };
            let layout = &stored.layout;
            ensure!(
                layout.carries().contains(Carries::STATUS),
                "layout {} has no place for a status: stop the process of {}/{}, or `waypost deregister` it",
                layout.name(),
                self.service,
                self.id
            );
            let Some(instance) = stored.instance()? else {
                bail!("the keys of {}/{} do not make an instance", self.service, self.id);
            };
            let before = instance.status;
            if before == wanted {
                self.answer(&mut session, layout.name(), before, wanted, None)?;
                return Ok(Exit::Ok);
            }
            let ops = rewrite(&stored, instance, wanted)
                .with_context(|| format!("{}/{} cannot be rewritten", self.service, self.id))?;
            if let Some(revision) = stored.change(&session.client, ops).await? {
                self.answer(&mut session, layout.name(), before, wanted, Some(revision))?;
                return Ok(Exit::Ok);
            }
        }
        bail!("{}/{} keeps changing: {ATTEMPTS} attempts to rewrite it came too late", self.service, self.id)
    }

    fn answer(
        &self,
        session: &mut Session,
        layout: &'static str,
        before: Status,
        status: Status,
        revision: Option<i64>,
    ) -> anyhow::Result<()> {
        let Self { service, id, .. } = self;
        let out = &mut session.out;
        if out.is_json() {
            out.json(&Answer { service, id, layout, before, status, revision })?;
        } else if let Some(revision) = revision {
            out.line(format_args!("{service}/{id} is {status}, was {before} (revision {revision})"))?;
        } else {
            out.line(format_args!("{service}/{id} is {status} already"))?;
        }
        Ok(())
    }
}

/// The writes that give the instance that status and keep its lease.
fn rewrite(stored: &Stored, instance: Instance, wanted: Status) -> anyhow::Result<Vec<Op>> {
    let as_it_is = stored.layout.encode(&instance, stored.lease())?;
    let encoded = stored.layout.encode(&instance.with_status(wanted), stored.lease())?;
    let mut ops = Vec::new();
    for kv in stored.keys() {
        let entry = encoded.entries.iter().find(|entry| entry.key == kv.key);
        let entry = entry.context("its key is not the one that this layout writes")?;
        if entry.value != kv.value {
            ops.push(Op::put(Put::new(kv.key.clone(), entry.value.clone()).ignore_lease()));
        }
        let same =
            as_it_is.entries.iter().any(|entry| entry.key == kv.key && is_same(&entry.value, &kv.value));
        if !same {
            report::warn(
                "the value was written by other software; what Waypost does not know of it is not kept",
            );
        }
    }
    Ok(ops)
}

/// Whether two values say the same: as bytes, or as JSON whatever its spacing.
fn is_same(ours: &[u8], theirs: &[u8]) -> bool {
    let json = |bytes| serde_json::from_slice::<serde_json::Value>(bytes).ok();
    ours == theirs || json(ours).is_some_and(|value| Some(value) == json(theirs))
}
