//! Calls to a service through the channel: an operator's probe.

mod bytes_codec;
mod config;
mod load;
mod method;
mod summary;
mod tally;

use std::time::Duration;

use tokio::time::Instant;
use waypost::channel::Channel;
use waypost::model::ServiceName;

use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::output::Output;

pub(crate) use self::config::Followed;
pub(crate) use self::load::Extras;
pub(crate) use self::method::{MethodName, Target, parse_method};

use self::load::Load;
use self::summary::Summary;

/// What to call, how often and for how long.
pub(crate) struct Plan {
    pub(crate) service: ServiceName,
    pub(crate) target: Target,
    pub(crate) extras: Extras,
    /// Calls per second.
    pub(crate) rate: f64,
    pub(crate) duration: Duration,
    /// How many calls may be under way at once.
    pub(crate) callers: u32,
    /// Calls go by a service config in etcd.
    pub(crate) configured: bool,
}

/// Calls until the time is over or SIGINT comes, and tells what came of it.
pub(crate) async fn run(plan: Plan, channel: Channel, mut out: Output) -> anyhow::Result<Exit> {
    let mut interrupt = Interrupt::new()?;
    if !out.is_json() {
        let (method, policy) = (plan.target.path.path().trim_start_matches('/'), channel.policy().name());
        let configured = if plan.configured { ", with the service config in etcd" } else { "" };
        out.line(format_args!(
            "calling {} {method} by {policy}{configured}, {} times a second for {:?}; Ctrl-C ends it",
            plan.service, plan.rate, plan.duration
        ))?;
    }
    let started = Instant::now();
    let load = Load::start(&plan, &channel);
    tokio::select! {
        () = interrupt.next() => {}
        () = tokio::time::sleep(plan.duration) => {}
    }
    // A second signal does not wait for calls under way.
    let tally = tokio::select! {
        tally = load.stop() => tally,
        () = interrupt.next() => load.tally(),
    };
    let summary = Summary::new(&plan, &channel, &tally, started.elapsed());
    if out.is_json() {
        out.json(&summary)?;
    } else {
        summary.print(&mut out)?;
    }
    Ok(if summary.failed > 0 { Exit::Failed } else { Exit::Ok })
}
