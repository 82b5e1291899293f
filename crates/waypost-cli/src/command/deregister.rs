//! `waypost deregister`.

use anyhow::bail;
use clap::Args;
use serde::Serialize;
use waypost::etcd::{Delete, Op};
use waypost::model::{InstanceId, ServiceName};

use super::stored::{ATTEMPTS, Stored};
use crate::args::LayoutArgs;
use crate::exit::Exit;
use crate::report;
use crate::session::Session;

/// Delete the keys of an instance that nobody keeps alive any more.
///
/// A registration that is alive notices and comes back within one round trip: stop its process, or drain it.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  waypost deregister greeter 10.0.0.5:50051")]
pub(crate) struct DeregisterArgs {
    /// The service.
    service: ServiceName,
    /// The id of the instance, as `waypost ls SERVICE` shows it.
    id: InstanceId,
    #[command(flatten)]
    layout: LayoutArgs,
}

#[derive(Serialize)]
struct Answer<'a> {
    service: &'a ServiceName,
    id: &'a InstanceId,
    layout: &'static str,
    deleted: usize,
    revision: i64,
}

// === impl DeregisterArgs ===

impl DeregisterArgs {
    pub(crate) async fn run(self, mut session: Session) -> anyhow::Result<Exit> {
        let Self { service, id, layout } = self;
        let layouts = session.layouts(layout)?;
        for _ in 0..ATTEMPTS {
            let Some(stored) = Stored::find(&session.client, &layouts, &service, &id).await? else {
                report::warn(&format!("service {service} has no instance {id}"));
                return Ok(Exit::NothingFound);
            };
            let ops = stored.keys().map(|kv| Op::delete(Delete::key(kv.key.clone())));
            let Some(revision) = stored.change(&session.client, ops).await? else { continue };

            let deleted = stored.keys().count();
            let out = &mut session.out;
            if out.is_json() {
                let layout = stored.layout.name();
                out.json(&Answer { service: &service, id: &id, layout, deleted, revision })?;
            } else {
                out.line(format_args!("{service}/{id} is deregistered (revision {revision})"))?;
            }
            if stored.lease() != 0 {
                report::warn(
                    "it had a lease: if its process is alive it registers again within one round trip; stop the \
                     process, or drain the instance",
                );
            }
            return Ok(Exit::Ok);
        }
        bail!("{service}/{id} keeps changing: {ATTEMPTS} attempts to delete it came too late")
    }
}
