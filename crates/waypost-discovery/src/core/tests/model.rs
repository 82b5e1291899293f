//! Any interleaving of writes, events told once or twice, ranges and wiped stores gives the set that the store holds.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use waypost_model::{InstanceKey, RawKv, parse_layouts};

use super::*;

/// A store with its history, and how far each span has been told of it.
struct Store {
    layouts: Vec<Arc<dyn Layout>>,
    revision: i64,
    keys: BTreeMap<Vec<u8>, Held>,
    history: Vec<Written>,
    told: Vec<usize>,
}

#[derive(Clone, Debug)]
enum Written {
    Put(Held),
    Delete { key: Vec<u8>, mod_revision: i64 },
}

#[derive(Clone, Debug)]
enum Step {
    /// Instance `id` of a layout says that it is at address `host`.
    Put {
        layout: usize,
        id: u8,
        host: u8,
        lease: i64,
    },
    /// A key of a layout has a value that does not decode.
    Spoil {
        layout: usize,
        id: u8,
    },
    /// A key below the span that is of another service.
    Stray {
        layout: usize,
    },
    /// The n-th key of all, if there are as many, is deleted.
    Delete(usize),
    /// A span is told up to this many writes.
    Tell {
        span: usize,
        writes: usize,
    },
    /// A span is told again what it was told before.
    TellAgain {
        span: usize,
        writes: usize,
    },
    /// Everything is read.
    Range,
    /// The store loses everything and starts over, and everything is read.
    Wipe {
        revision: i64,
    },
    Settle,
}

fn layouts() -> Vec<Arc<dyn Layout>> {
    parse_layouts("kratos,grpc,fields", None).unwrap()
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let put = (0..3_usize, 0..4_u8, 0..4_u8, 0..3_i64);
    let step = prop_oneof![
        6 => put.prop_map(|(layout, id, host, lease)| Step::Put { layout, id, host, lease }),
        1 => (0..3_usize, 0..4_u8).prop_map(|(layout, id)| Step::Spoil { layout, id }),
        1 => (0..2_usize).prop_map(|layout| Step::Stray { layout }),
        4 => (0..12_usize).prop_map(Step::Delete),
        6 => (0..8_usize, 0..6_usize).prop_map(|(span, writes)| Step::Tell { span, writes }),
        2 => (0..8_usize, 1..6_usize).prop_map(|(span, writes)| Step::TellAgain { span, writes }),
        1 => Just(Step::Range),
        1 => (1..40_i64).prop_map(|revision| Step::Wipe { revision }),
        4 => Just(Step::Settle),
    ];
    proptest::collection::vec(step, 0..80)
}

fn instance(layout: &Arc<dyn Layout>, id: u8, host: u8) -> Instance {
    let instance = Instance::new(service(), format!("h{host}:80").parse().unwrap());
    if layout.exclusive() { instance } else { instance.with_id(format!("i{id}").parse().unwrap()) }
}

// === impl Store ===

impl Store {
    fn write(&mut self, step: &Step) {
        match step {
            Step::Put { layout, id, host, lease } => {
                let layout = Arc::clone(&self.layouts[*layout]);
                let entries = layout.encode(&instance(&layout, *id, *host), *lease).unwrap().entries;
                self.revision += 1;
                for entry in entries {
                    self.put(entry.key, entry.value, *lease);
                }
            }
            Step::Spoil { layout, id } => {
                let layout = Arc::clone(&self.layouts[*layout]);
                let entries = layout.encode(&instance(&layout, *id, 0), 0).unwrap().entries;
                self.revision += 1;
                self.put(entries.last().unwrap().key.clone(), b"\xff".to_vec(), 0);
            }
            Step::Stray { layout } => {
                self.revision += 1;
                let key = format!("{}/s/below/x", self.layouts[*layout].prefix());
                self.put(key.into_bytes(), b"\xff".to_vec(), 0);
            }
            Step::Delete(nth) => {
                let Some(key) = self.keys.keys().nth(*nth).cloned() else { return };
                self.revision += 1;
                self.keys.remove(&key);
                self.history.push(Written::Delete { key, mod_revision: self.revision });
            }
            _ => {}
        }
    }

    fn put(&mut self, key: Vec<u8>, value: Vec<u8>, lease: i64) {
        let held = Held { key: key.clone(), value, mod_revision: self.revision, lease };
        self.history.push(Written::Put(held.clone()));
        self.keys.insert(key, held);
    }

    fn range(&mut self, bench: &mut Bench) {
        let held: Vec<Held> = self.keys.values().cloned().collect();
        bench.range(self.revision, &held);
        self.told = vec![self.history.len(); self.told.len()];
    }

    /// What a reader of the whole store would show, worked out the long way.
    fn expected(&self) -> BTreeMap<InstanceKey, Instance> {
        let mut all: Vec<(InstanceKey, Instance)> = Vec::new();
        for (index, layout) in (0_u8..).zip(&self.layouts) {
            let spans = layout.service_spans(&service());
            let mut groups: BTreeMap<String, Vec<Option<RawKv<'_>>>> = BTreeMap::new();
            for held in self.keys.values().filter(|held| spans.iter().any(|span| span.contains(&held.key))) {
                let Some(part) = layout.identify(&held.key) else { continue };
                if part.service != service() {
                    continue;
                }
                let parts = groups
                    .entry(part.id.as_str().to_owned())
                    .or_insert_with(|| vec![None; usize::from(layout.parts())]);
                parts[usize::from(part.part)] =
                    Some(RawKv { key: &held.key, value: &held.value, lease: held.lease });
            }
            for (id, parts) in groups {
                if let Ok(Some(instance)) = layout.decode(&parts) {
                    let id = id.parse().unwrap();
                    all.push((InstanceKey { service: service(), id, layout: index }, instance));
                }
            }
        }
        let hidden = |key: &InstanceKey, instance: &Instance| {
            all.iter()
                .any(|(other, better)| other.layout < key.layout && better.address() == instance.address())
        };
        all.iter().filter(|(key, instance)| !hidden(key, instance)).cloned().collect()
    }
}

// === impl Written ===

impl Written {
    fn key(&self) -> &[u8] {
        match self {
            Self::Put(held) => &held.key,
            Self::Delete { key, .. } => key,
        }
    }

    fn revision(&self) -> i64 {
        match self {
            Self::Put(held) => held.mod_revision,
            Self::Delete { mod_revision, .. } => *mod_revision,
        }
    }
}

fn tell(bench: &mut Bench, span: usize, writes: &[Written]) {
    let keys = &bench.core.reader.spans[span].keys;
    let events: Vec<Event<'_>> = writes
        .iter()
        .filter(|written| keys.contains(written.key()))
        .map(|written| match written {
            Written::Put(held) => Event::Put(held.kv()),
            Written::Delete { key, mod_revision } => Event::Delete { key, mod_revision: *mod_revision },
        })
        .collect();
    let last = match events.last() {
        None => return,
        Some(Event::Put(kv)) => kv.mod_revision,
        Some(Event::Delete { mod_revision, .. }) => *mod_revision,
    };
    bench.core.apply(span, last, events, bench.now);
}

/// Publishes, and checks what a subscriber checks.
fn settle(bench: &mut Bench, seen: &mut Option<Snapshot>, set: &mut BTreeSet<InstanceKey>) {
    let Some(publication) = bench.publish() else { return };
    let snapshot = publication.snapshot;
    if let Some(seen) = seen {
        assert!(publication.rewind || snapshot.revision() >= seen.revision());
        for change in snapshot.changes_since(seen) {
            match change {
                waypost_model::Change::Added { key, .. } => assert!(set.insert(key), "added twice"),
                waypost_model::Change::Removed { key, .. } => assert!(set.remove(&key), "removed twice"),
                waypost_model::Change::Updated { key, .. } => assert!(set.contains(&key)),
            }
        }
    } else {
        set.extend(snapshot.map().keys().cloned());
    }
    assert!(set.iter().eq(snapshot.map().keys()));
    *seen = Some(snapshot);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_interleaving_gives_what_the_store_holds(steps in steps()) {
        let mut bench = Bench::new(&layouts(), None);
        let spans = bench.core.reader.spans.len();
        let mut store = Store {
            layouts: layouts(),
            revision: 1,
            keys: BTreeMap::new(),
            history: Vec::new(),
            told: vec![0; spans],
        };
        let (mut seen, mut set) = (None, BTreeSet::new());
        store.range(&mut bench);
        for step in &steps {
            match step {
                Step::Tell { span, writes } => {
                    let span = span % spans;
                    let from = store.told[span];
                    // A revision is told as a whole.
                    let mut to = (from + writes).min(store.history.len());
                    while to > from
                        && to < store.history.len()
                        && store.history[to].revision() == store.history[to - 1].revision()
                    {
                        to += 1;
                    }
                    store.told[span] = to;
                    let writes = store.history[from..to].to_vec();
                    tell(&mut bench, span, &writes);
                }
                Step::TellAgain { span, writes } => {
                    let span = span % spans;
                    let to = store.told[span];
                    let writes = store.history[to.saturating_sub(*writes)..to].to_vec();
                    tell(&mut bench, span, &writes);
                }
                Step::Range => store.range(&mut bench),
                Step::Wipe { revision } => {
                    store.keys.clear();
                    store.history.clear();
                    store.revision = *revision;
                    store.range(&mut bench);
                }
                Step::Settle => settle(&mut bench, &mut seen, &mut set),
                write => store.write(write),
            }
        }
        for span in 0..spans {
            let writes = store.history[store.told[span]..].to_vec();
            tell(&mut bench, span, &writes);
        }
        settle(&mut bench, &mut seen, &mut set);
        let shown: BTreeMap<InstanceKey, Instance> = bench
            .core
            .shown
            .instances
            .iter()
            .map(|(key, instance)| (key.clone(), Instance::clone(instance)))
            .collect();
        prop_assert_eq!(shown, store.expected());

        // What was gathered from events is recognised as what a range would find.
        for span in 0..spans {
            let keys = &bench.core.reader.spans[span].keys;
            let held: Vec<&Held> = store.keys.values().filter(|held| keys.contains(&held.key)).collect();
            let newest = held.iter().max_by_key(|held| held.mod_revision).map(|held| held.kv());
            prop_assert!(bench.core.table().recognises(span, held.len() as u64, newest));
        }
    }
}
