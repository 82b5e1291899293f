//! Why a call finds no endpoint: which service, how many registered and ready, since when, what was read, what failed.

use crate::driver::now;
use crate::fleet::{Census, LinkPhase, Outlook};
use crate::table::Table;
use std::fmt::{self, Write as _};
use waypost_discovery::Subscription;
use waypost_model::{Existence, Freshness};

/// Causes that are named; the others are counted.
const MOST_CAUSES: usize = 5;

/// No endpoint is ready.
pub(crate) fn unready<C>(table: &Table<C>, service: &str, subscription: &Subscription) -> String {
    let mut text = String::new();
    let written = match table.outlook {
        Outlook::Unread => unread(&mut text, service, subscription),
        _ => none_ready(&mut text, service, &table.census, subscription),
    };
    // Writing to a `String` does not fail.
    debug_assert!(written.is_ok());
    text
}

/// The driver has ended, so that no endpoint will ever be ready.
pub(crate) fn ended(service: &str) -> String {
    format!("{service}: the channel's task has ended with the runtime that it ran on")
}

fn unread(text: &mut String, service: &str, subscription: &Subscription) -> fmt::Result {
    write!(text, "{service}: nothing has been read from the registry yet ({})", subscription.describe())?;
    match subscription.last_error() {
        Some(error) => write!(text, ": {error}"),
        None => text.write_str(": no answer yet"),
    }
}

fn none_ready(text: &mut String, service: &str, census: &Census, subscription: &Subscription) -> fmt::Result {
    let snapshot = subscription.snapshot();
    match (census.registered, snapshot.existence()) {
        (0, Existence::Emptied) => write!(text, "{service}: no instance is registered any more")?,
        (0, _) => write!(text, "{service}: no instance is registered")?,
        (1, _) => write!(text, "{service}: the one registered instance is not ready")?,
        (count, _) => write!(text, "{service}: none of {count} registered instances is ready")?,
    }
    write!(
        text,
        " ({} registered, {} ready, {} idle, {} connecting, {} failing, {} unhealthy, {} ejected, {} unusable, {} draining, {} down",
        census.registered,
        census.count(LinkPhase::Ready),
        census.count(LinkPhase::Idle),
        census.count(LinkPhase::Connecting),
        census.count(LinkPhase::Waiting),
        census.count(LinkPhase::Unfit),
        census.endpoints().filter(|endpoint| endpoint.ejection.is_some()).count(),
        census.unusable.len(),
        census.draining,
        census.down,
    )?;
    if let Some(since) = census.unready_since {
        write!(text, "; for {:.1} s", now().saturating_duration_since(since).as_secs_f64())?;
    }
    write!(text, "), read from {} at revision {}", subscription.describe(), snapshot.revision())?;
    if let Freshness::Stale { since, cause } = snapshot.freshness() {
        // A clock that was set back makes it zero.
        let age = since.elapsed().unwrap_or_default().as_secs_f64();
        write!(text, ", stale for {age:.1} s: {cause}")?;
    }
    if let Some(error) = subscription.last_error() {
        write!(text, "; the registry's last error: {error}")?;
    }
    if snapshot.skipped() > 0 {
        write!(text, "; {} values there do not decode", snapshot.skipped())?;
    }
    causes(text, census)
}

fn causes(text: &mut String, census: &Census) -> fmt::Result {
    let failed =
        || census.endpoints().filter(|known| known.phase != LinkPhase::Ready && known.error.is_some());
    for endpoint in failed().take(MOST_CAUSES) {
        let (id, at) = (endpoint.state.key().id, endpoint.state.endpoint());
        let error = endpoint.error.as_deref().unwrap_or_default();
        write!(text, "; {id} at {at}: {error} (attempt {})", endpoint.failures)?;
        if let Some(why) = &endpoint.ejection {
            write!(text, ", and ejected for its calls: {why}")?;
        }
    }
    let failing = failed().count();
    let left = MOST_CAUSES.saturating_sub(failing);
    for (key, reason) in census.unusable.iter().take(left) {
        write!(text, "; {}: {reason}", key.id)?;
    }
    match (failing + census.unusable.len()).saturating_sub(MOST_CAUSES) {
        0 => Ok(()),
        more => write!(text, "; and {more} more"),
    }
}
