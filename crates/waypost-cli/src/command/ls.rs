//! `waypost ls`.

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;
use waypost::model::{Instance, Layout, ServiceName, Snapshot, Status};

use super::shown::ShownInstance;
use crate::args::LayoutArgs;
use crate::exit::Exit;
use crate::output::{Output, cell, status_cell};
use crate::report;
use crate::session::Session;

/// List services with their instances counted, or the instances of one service.
///
/// Exit code 3 when there is none.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  waypost ls\n  waypost ls greeter --output json\n  waypost ls --layout grpc,kratos"
)]
pub(crate) struct LsArgs {
    /// List its instances.
    service: Option<ServiceName>,
    #[command(flatten)]
    layout: LayoutArgs,
}

#[derive(Serialize)]
struct Services<'a> {
    revision: i64,
    services: Vec<ServiceLine<'a>>,
}

#[derive(Serialize)]
struct ServiceLine<'a> {
    service: &'a ServiceName,
    instances: usize,
    up: usize,
    draining: usize,
    down: usize,
}

#[derive(Serialize)]
struct Instances<'a> {
    service: &'a ServiceName,
    revision: i64,
    #[serde(rename = "instances")]
    found: Vec<ShownInstance<'a>>,
}

// === impl LsArgs ===

impl LsArgs {
    pub(crate) async fn run(self, mut session: Session) -> anyhow::Result<Exit> {
        let layouts = session.layouts(self.layout)?;
        let (snapshot, subscription) = session.discover(&layouts, self.service.clone()).await?;
        match &self.service {
            Some(service) => instances(&mut session.out, service, &snapshot, &layouts)?,
            None => services(&mut session.out, &snapshot)?,
        }
        if snapshot.is_empty() {
            report::warn(&format!(
                "{}: nothing is registered ({})",
                snapshot.scope(),
                subscription.describe()
            ));
            return Ok(Exit::NothingFound);
        }
        Ok(Exit::Ok)
    }
}

fn services(out: &mut Output, snapshot: &Snapshot) -> anyhow::Result<()> {
    let mut by_service: BTreeMap<&ServiceName, Vec<&Arc<Instance>>> = BTreeMap::new();
    for (key, instance) in snapshot.map() {
        by_service.entry(&key.service).or_default().push(instance);
    }
    let lines = by_service.into_iter().map(|(service, instances)| {
        let of = |status| instances.iter().filter(|instance| instance.status == status).count();
        ServiceLine {
            service,
            instances: instances.len(),
            up: of(Status::Up),
            draining: of(Status::Draining),
            down: of(Status::Down),
        }
    });
    if out.is_json() {
        out.json(&Services { revision: snapshot.revision(), services: lines.collect() })?;
    } else if !snapshot.is_empty() {
        let rows = lines.map(|line| {
            vec![
                cell(line.service),
                cell(line.instances),
                cell(line.up),
                cell(line.draining),
                cell(line.down),
            ]
        });
        out.table(&["SERVICE", "INSTANCES", "UP", "DRAINING", "DOWN"], &[1, 2, 3, 4], rows)?;
    }
    Ok(())
}

fn instances(
    out: &mut Output,
    service: &ServiceName,
    snapshot: &Snapshot,
    layouts: &[Arc<dyn Layout>],
) -> anyhow::Result<()> {
    let shown = snapshot.map().iter().map(|(key, instance)| ShownInstance::new(key, instance, layouts));
    if out.is_json() {
        out.json(&Instances { service, revision: snapshot.revision(), found: shown.collect() })?;
    } else if !snapshot.is_empty() {
        let rows = shown.map(|ShownInstance { layout, instance }| {
            vec![
                cell(&instance.id),
                cell(instance.endpoints.primary()),
                status_cell(instance.status),
                cell(instance.weight),
                cell(instance.zone.as_deref().unwrap_or("-")),
                cell(instance.version.as_deref().unwrap_or("-")),
                cell(layout),
                cell(metadata(instance)),
            ]
        });
        let heading = ["ID", "ENDPOINT", "STATUS", "WEIGHT", "ZONE", "VERSION", "LAYOUT", "METADATA"];
        out.table(&heading, &[3], rows)?;
    }
    Ok(())
}

fn metadata(instance: &Instance) -> String {
    if instance.metadata.is_empty() {
        return "-".to_owned();
    }
    let pairs: Vec<String> = instance.metadata.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(" ")
}
