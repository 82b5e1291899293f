//! `waypost resolve`.

use clap::Args;
use serde::Serialize;
use waypost::model::{ServiceName, Status};

use crate::args::LayoutArgs;
use crate::exit::Exit;
use crate::report;
use crate::session::Session;

/// Print the addresses that take calls for a service, one per line.
///
/// Instances that are draining or down are left out. Exit code 3 when there is none.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  waypost resolve greeter\n  curl http://$(waypost resolve web | head -1)/"
)]
pub(crate) struct ResolveArgs {
    /// The service.
    service: ServiceName,
    /// Those that are draining or down too.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    layout: LayoutArgs,
}

#[derive(Serialize)]
struct Answer<'a> {
    service: &'a ServiceName,
    revision: i64,
    addresses: &'a [String],
}

// === impl ResolveArgs ===

impl ResolveArgs {
    pub(crate) async fn run(self, mut session: Session) -> anyhow::Result<Exit> {
        let layouts = session.layouts(self.layout)?;
        let (snapshot, subscription) = session.discover(&layouts, Some(self.service.clone())).await?;
        let addresses: Vec<String> = snapshot
            .instances()
            .filter(|instance| self.all || instance.status == Status::Up)
            .map(|instance| instance.address())
            .collect();

        let out = &mut session.out;
        if out.is_json() {
            out.json(&Answer {
                service: &self.service,
                revision: snapshot.revision(),
                addresses: &addresses,
            })?;
        } else {
            for address in &addresses {
                out.bytes(address.as_bytes())?;
                out.bytes(b"\n")?;
            }
            out.flush()?;
        }
        if addresses.is_empty() {
            report::warn(&format!(
                "service {}: no instance takes calls, {} are registered ({})",
                self.service,
                snapshot.len(),
                subscription.describe()
            ));
            return Ok(Exit::NothingFound);
        }
        Ok(Exit::Ok)
    }
}
