//! Progress notifications: on demand for a stream as a whole, and now and then for watches that asked for them.

use super::StreamId;
use super::hub::Hub;
use super::response::{Body, NO_WATCH, Response};
use super::stream::{Notify, State, Watch};

/// The shortest progress interval in milliseconds.
const SHORTEST_INTERVAL_MS: u64 = 100;

impl Hub {
    /// Answers a progress request: one notification for the stream as a whole, if it has watches and all of them have got
    /// everything up to now; nothing otherwise.
    pub fn progress(&mut self, stream: StreamId) {
        let revision = self.revision;
        let Some(state) = self.streams.get(&stream) else { return };
        if !state.watches.is_empty() && state.watches.values().all(|watch| is_current(watch, revision)) {
            self.push(stream, Response { watch_id: NO_WATCH, revision, body: Body::Progress });
        }
    }

    /// When [`tick`](Self::tick) has something to do next, in milliseconds; `None` without streams.
    pub fn next_tick(&self) -> Option<u64> {
        self.ticks.first().map(|(at, _)| *at)
    }

    /// Notifies the watches that asked for it and were idle for a whole interval.
    pub fn tick(&mut self, now_ms: u64) {
        while let Some((at, stream)) = self.ticks.first().copied()
            && at <= now_ms
        {
            self.ticks.remove(&(at, stream));
            let tick_at = now_ms.saturating_add(self.progress_interval(stream));
            let revision = self.revision;
            let congested = self.is_congested(stream);
            let Some(state) = self.streams.get_mut(&stream) else { continue };
            state.tick_at = tick_at;
            self.ticks.insert((tick_at, stream));
            let mut idle = Vec::new();
            for (id, watch) in &mut state.watches {
                match watch.notify {
                    Notify::Busy => watch.notify = Notify::Idle,
                    Notify::Idle if is_current(watch, revision) && !congested => idle.push(*id),
                    Notify::Idle | Notify::Never => {}
                }
            }
            for watch_id in idle {
                self.push(stream, Response { watch_id, revision, body: Body::Progress });
            }
        }
    }

    /// The interval of a stream, in milliseconds: up to a tenth longer than configured, so that the streams of clients that
    /// came together are not notified together.
    pub(super) fn progress_interval(&self, stream: StreamId) -> u64 {
        let interval = self.options.progress_interval_ms.max(SHORTEST_INTERVAL_MS);
        let spread = stream.0.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        interval.saturating_add(spread % (interval / 10))
    }
}

/// Whether the watch has got everything up to the revision, and starts there at the latest.
fn is_current(watch: &Watch, revision: i64) -> bool {
    watch.state == State::InStep && watch.start <= revision
}
