//! The main job as a newcomer sees it: real processes, real sockets, and a fleet that changes under load.
//!
//! [`script`] says what happens when, [`tally`] counts who served: both without I/O. [`child`] starts and ends the
//! servers, [`load`] calls them, [`board`] shows it, [`stage`] brings them together.

mod board;
mod child;
mod load;
mod script;
mod server;
mod stage;
mod summary;
mod tally;

use std::time::Duration;

use waypost::model::ServiceName;

pub(crate) use self::child::Spawner;
pub(crate) use self::server::serve;
pub(crate) use self::stage::run;

/// What the demo is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) service: ServiceName,
    /// Calls per second, at least 1.
    pub(crate) rate: u32,
    pub(crate) duration: Duration,
    pub(crate) callers: u32,
    /// Go on after the duration, until interrupted.
    pub(crate) keep: bool,
}
