//! `waypost demo`, and the hidden command that is one server of it.

use std::time::Duration;

use clap::Args;
use waypost::Waypost;
use waypost::discovery::DiscoveryOptions;
use waypost::model::ServiceName;
use waypost::registry::RegistryOptions;

use crate::args::{LayoutArgs, parse_duration};
use crate::demo::{self, Plan, Spawner};
use crate::exit::Exit;
use crate::session::Session;

/// See it all at work: servers register, a client calls, one server is killed, one drained, one joins.
///
/// Three greeting servers, which are processes of their own, register in etcd. A client calls them through the channel at
/// a steady rate. Then one is killed (SIGKILL), one is drained and stopped (SIGTERM), and a new one joins. The exit code
/// is 1 if any call failed. Without --endpoints the store is embedded, in a temporary folder: nothing has to be installed.
///
/// Calls are marked idempotent, since a greeting has no side effects: one whose server dies is made again elsewhere.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  waypost demo\n  waypost demo --endpoints http://10.0.0.1:2379 --duration 60s --output json"
)]
pub(crate) struct DemoArgs {
    /// Calls per second.
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// How long to call.
    #[arg(long, default_value = "20s", value_parser = parse_duration)]
    duration: Duration,
    /// How many callers share the calls.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    callers: u32,
    /// The name under which the servers register.
    #[arg(long, default_value = "greeter")]
    service: ServiceName,
    /// Go on until interrupted.
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    layout: LayoutArgs,
}

/// One server of the demo: ends with SIGTERM, or when standard input does.
#[derive(Args, Debug)]
pub(crate) struct GreeterArgs {
    /// The name under which to register.
    #[arg(long)]
    service: ServiceName,
    #[command(flatten)]
    layout: LayoutArgs,
}

// === impl DemoArgs ===

impl DemoArgs {
    pub(crate) async fn run(self, session: Session) -> anyhow::Result<Exit> {
        let layout = session.layout(self.layout)?;
        session.probe(std::slice::from_ref(&layout), Some(&self.service)).await?;
        let spawner = Spawner::new(&session.connection, &*layout, &self.service)?;
        let waypost = Waypost::new(
            session.client.clone(),
            RegistryOptions::new(layout.clone()),
            DiscoveryOptions::new([layout]),
        );
        let plan = Plan {
            service: self.service,
            rate: self.rate,
            duration: self.duration,
            callers: self.callers,
            keep: self.keep,
        };
        demo::run(plan, &waypost, &session.connection, spawner, session.out).await
    }
}

// === impl GreeterArgs ===

impl GreeterArgs {
    pub(crate) async fn run(self, session: Session) -> anyhow::Result<Exit> {
        let layout = session.layout(self.layout)?;
        let waypost = Waypost::new(
            session.client.clone(),
            RegistryOptions::new(layout.clone()),
            DiscoveryOptions::new([layout]),
        );
        demo::serve(&waypost, &self.service, session.out).await?;
        Ok(Exit::Ok)
    }
}
