//! What happens without being asked for: progress of watches, and compaction.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use waypost_proto::etcdserverpb::CompactionRequest;

use super::engine::{Engine, lock, read};
use super::options::AutoCompaction;
use crate::error::Refusal;

/// How often a compaction by number of revisions is looked at.
const REVISION_INTERVAL: Duration = Duration::from_secs(300);
/// Samples of the revision that are kept for the time of retention.
const SAMPLES: u32 = 10;
/// The shortest time between two samples.
const SHORTEST_SAMPLE: Duration = Duration::from_millis(100);

/// Tells idle watches of progress.
pub(super) async fn progress(engine: Engine, stop: CancellationToken) {
    loop {
        let next = lock(&engine.shared.watches).hub.next_tick();
        let due = async {
            match next {
                Some(at) => {
                    let wait = at.saturating_sub(engine.shared.now()).max(1);
                    tokio::time::sleep(Duration::from_millis(wait)).await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = engine.shared.opened.notified() => {}
            () = due => {
                let now = engine.shared.now();
                engine.shared.with_hub(|hub| hub.tick(now));
            }
        }
    }
}

/// Gives up history, if that is wanted.
pub(super) async fn compact(engine: Engine, stop: CancellationToken) {
    let running = async {
        match engine.shared.options.auto_compaction {
            AutoCompaction::Off => std::future::pending().await,
            AutoCompaction::Periodic(retention) => periodic(&engine, retention).await,
            AutoCompaction::Revisions(kept) => loop {
                tokio::time::sleep(REVISION_INTERVAL).await;
                compact_to(&engine, revision(&engine).saturating_sub(kept)).await;
            },
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = running => {}
    }
}

async fn periodic(engine: &Engine, retention: Duration) {
    let interval = (retention.min(Duration::from_secs(3600)) / SAMPLES).max(SHORTEST_SAMPLE);
    let mut samples = VecDeque::from([(Instant::now(), revision(engine))]);
    loop {
        tokio::time::sleep(interval).await;
        let mut old = None;
        while let Some((at, revision)) = samples.front().copied()
            && at.elapsed() >= retention
        {
            old = Some(revision);
            samples.pop_front();
        }
        samples.push_back((Instant::now(), revision(engine)));
        if let Some(revision) = old {
            compact_to(engine, revision).await;
        }
    }
}

fn revision(engine: &Engine) -> i64 {
    read(&engine.shared.space).store().revision()
}

async fn compact_to(engine: &Engine, revision: i64) {
    if revision <= read(&engine.shared.space).store().compacted().max(0) {
        return;
    }
    let request = CompactionRequest { revision, physical: false };
    let outcome = engine
        .write(0, move |desk| {
            desk.refuse_if_corrupt()?;
            let applied = desk.space.compact(&request)?;
            Ok(desk.applied(applied))
        })
        .await;
    match outcome {
        // Someone else was faster.
        Ok(_) | Err(Refusal::Compacted) => {}
        Err(error) => tracing::warn!(%error, revision, "history was not given up"),
    }
}
