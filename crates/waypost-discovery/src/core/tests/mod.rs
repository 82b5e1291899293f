//! The rules, case by case, and against a model for any interleaving.

mod cases;
mod empty;
mod model;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use waypost_model::{Instance, Layout, ServiceName, Snapshot, layout};

use super::{Core, Event, Kv, Moment, Publication};
use crate::reader::Reader;

/// A core that reads the service `s`, and a clock.
struct Bench {
    core: Core,
    now: Moment,
}

/// A key as the store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    key: Vec<u8>,
    value: Vec<u8>,
    mod_revision: i64,
    lease: i64,
}

fn service() -> ServiceName {
    "s".parse().unwrap()
}

fn grpc() -> Vec<Arc<dyn Layout>> {
    vec![layout("grpc", None).unwrap()]
}

/// The instance `host` of `s`, at revision `mod_revision`, in the first layout.
fn held(layouts: &[Arc<dyn Layout>], host: &str, mod_revision: i64, lease: i64) -> Held {
    let instance = Instance::new(service(), format!("{host}:80").parse().unwrap());
    let entry = layouts[0].encode(&instance, lease).unwrap().entries.remove(0);
    Held { key: entry.key, value: entry.value, mod_revision, lease }
}

fn hosts(snapshot: &Snapshot) -> Vec<String> {
    snapshot.instances().map(|instance| instance.address().trim_end_matches(":80").to_owned()).collect()
}

// === impl Held ===

impl Held {
    fn kv(&self) -> Kv<'_> {
        Kv { key: &self.key, value: &self.value, mod_revision: self.mod_revision, lease: self.lease }
    }
}

// === impl Bench ===

impl Bench {
    fn new(layouts: &[Arc<dyn Layout>], grace: Option<Duration>) -> Self {
        let reader = Arc::new(Reader::service(service(), layouts));
        let now = Moment { monotonic: Instant::now(), wall: SystemTime::UNIX_EPOCH };
        Self { core: Core::new(reader, grace), now }
    }

    /// `grpc`, with the grace of 30 s.
    fn grpc() -> Self {
        Self::new(&grpc(), Some(Duration::from_secs(30)))
    }

    fn pass(&mut self, seconds: u64) {
        self.now.monotonic += Duration::from_secs(seconds);
        self.now.wall += Duration::from_secs(seconds);
    }

    /// A range of everything, at `revision`.
    fn range(&mut self, revision: i64, held: &[Held]) {
        let mut table = self.core.blank_table();
        for span in 0..self.core.reader.spans.len() {
            let keys = &self.core.reader.spans[span].keys;
            for held in held.iter().filter(|held| keys.contains(&held.key)) {
                table.put(span, held.kv());
            }
            table.told(span, revision);
        }
        self.core.ranged(table, self.now);
    }

    fn put(&mut self, held: &Held) {
        let spans = &self.core.reader.spans;
        let span = spans.iter().position(|span| span.keys.contains(&held.key)).unwrap();
        self.core.apply(span, held.mod_revision, [Event::Put(held.kv())], self.now);
    }

    fn delete(&mut self, held: &Held, mod_revision: i64) {
        let spans = &self.core.reader.spans;
        let span = spans.iter().position(|span| span.keys.contains(&held.key)).unwrap();
        let event = Event::Delete { key: &held.key, mod_revision };
        self.core.apply(span, mod_revision, [event], self.now);
    }

    /// The end of a batch; nothing may be asked.
    fn publish(&mut self) -> Option<Publication> {
        let effects = self.core.settle(self.now);
        assert_eq!(effects.probe, None);
        effects.publish
    }

    fn snapshot(&mut self) -> Snapshot {
        self.publish().expect("something to publish").snapshot
    }
}
