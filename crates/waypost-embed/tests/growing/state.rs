//! Everything that can be asked of a store, to be compared with another's answers.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use bytes::Bytes;
use waypost_etcd::{
    Client, Error, EventKind, KeyRange, Put, Range, SortOrder, SortTarget, WatchEvent, WatchSpec,
};
use waypost_proto::mvccpb::KeyValue;
use waypost_testkit::Etcd;

use crate::fill::Revisions;
use crate::{ROOT, client, root};

/// No answer takes so long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a watch tells: the key as it is, and as it was.
type Change = (EventKind, KeyValue, Option<KeyValue>);

/// The answers of one server.
pub(crate) struct State {
    /// What was read how, or why it was refused.
    reads: BTreeMap<String, Result<Vec<KeyValue>, String>>,
    /// What a watch from the oldest revision tells.
    history: Vec<Change>,
    /// By id: the time to live that was granted, and the keys.
    leases: BTreeMap<i64, (Duration, Vec<Bytes>)>,
    /// What `etcdctl` says of users and roles.
    accounts: Vec<(String, String)>,
    /// Who may do what, and why not.
    rights: Vec<(String, Result<(), String>)>,
    /// Of the whole history that is left.
    pub(crate) hash: String,
}

// === impl State ===

impl State {
    pub(crate) async fn of(etcd: &Etcd, revisions: &Revisions) -> Self {
        let root = root(etcd);
        Self {
            reads: reads(etcd, revisions).await,
            history: history(&root, revisions).await,
            leases: leases(&root).await,
            accounts: accounts(etcd).await,
            rights: rights(etcd).await,
            hash: Self::hash(etcd).await,
        }
    }

    /// How many keys there are now.
    pub(crate) fn keys(&self) -> usize {
        self.reads["now"].as_ref().unwrap().len()
    }

    /// The hash of everything, as `etcdctl` tells it.
    pub(crate) async fn hash(etcd: &Etcd) -> String {
        let said = etcd.etcdctl([ROOT, "endpoint", "hashkv"]).await;
        said.trim().rsplit(", ").next().unwrap().to_owned()
    }

    /// Panics with the first difference.
    pub(crate) fn assert_same(&self, before: &Self, whose: &str) {
        assert!(self.reads.keys().eq(before.reads.keys()));
        for (how, before) in &before.reads {
            match (&self.reads[how], before) {
                (Ok(now), Ok(before)) => same(now, before, &format!("{whose}: {how}")),
                (now, before) => assert_eq!(now, before, "{whose}: {how}"),
            }
        }
        same(&self.history, &before.history, &format!("{whose}: the history"));
        let leases = |state: &Self| state.leases.clone().into_iter().collect::<Vec<_>>();
        same(&leases(self), &leases(before), &format!("{whose}: leases"));
        same(&self.accounts, &before.accounts, &format!("{whose}: users and roles"));
        same(&self.rights, &before.rights, &format!("{whose}: rights"));
        assert_eq!(self.hash, before.hash, "{whose}: the hash");
    }
}

/// Says which of 100,000 differs rather than all of them.
fn same<T: PartialEq + Debug>(now: &[T], before: &[T], what: &str) {
    let different = now.iter().zip(before).position(|(now, before)| now != before);
    if let Some(at) = different {
        panic!("{what}: {at} differs: {:?} instead of {:?}", now[at], before[at]);
    }
    assert_eq!(now.len(), before.len(), "{what}: how many there are");
}

async fn reads(etcd: &Etcd, revisions: &Revisions) -> BTreeMap<String, Result<Vec<KeyValue>, String>> {
    let Revisions { compacted, last } = *revisions;
    // A debug build reads 100,000 keys in seconds: what is not of all of them is asked of one in a hundred.
    let all = || Range::new(KeyRange::prefix(""));
    let some = || Range::new(KeyRange::prefix("k/055"));
    let middle = i64::midpoint(compacted, last);
    let mut questions = vec![
        ("now".to_owned(), all()),
        ("when it was compacted".to_owned(), all().revision(compacted)),
        ("in the middle".to_owned(), all().revision(middle)),
        // Only what has one order: etcd gives keys of one revision or version in any.
        ("by value".to_owned(), some().sort(SortTarget::Value, SortOrder::Descend)),
        ("backwards".to_owned(), some().sort(SortTarget::Key, SortOrder::Descend).limit(100)),
        ("since".to_owned(), some().min_mod_revision(compacted)),
        ("keys only".to_owned(), some().keys_only()),
        ("from a key".to_owned(), Range::new(KeyRange::from("k/109"))),
        ("one".to_owned(), Range::key("own")),
    ];
    for revision in [2, compacted - 1, compacted, compacted + 1, last - 1, last, last + 1] {
        questions.push((format!("some at revision {revision}"), some().revision(revision)));
    }
    let root = root(etcd);
    let mut answers = BTreeMap::new();
    for (how, range) in questions {
        let answer = root.range(range).await.map(|answer| {
            assert_eq!(answer.header.unwrap().revision, last, "{how}");
            answer.kvs
        });
        answers.insert(how, answer.map_err(|error| words(&error, etcd)));
    }
    assert!(answers[&format!("some at revision {}", compacted - 1)].is_err());
    assert!(answers[&format!("some at revision {compacted}")].is_ok());
    answers
}

/// What is said wherever the server is.
fn words(error: &Error, etcd: &Etcd) -> String {
    error.to_string().replace(&etcd.url(), "SERVER")
}

async fn history(root: &Client, revisions: &Revisions) -> Vec<Change> {
    let mut watcher = root.watch();
    watcher.add(WatchSpec::new(KeyRange::prefix("")).from(revisions.compacted + 1).prev_kv());
    let mut history = Vec::new();
    loop {
        match tokio::time::timeout(PATIENCE, watcher.next()).await.expect("an event") {
            WatchEvent::Events { revision, events, .. } => {
                history.extend(events.into_iter().map(|event| (event.kind, event.kv, event.prev_kv)));
                if revision == revisions.last {
                    return history;
                }
            }
            WatchEvent::Started { .. } | WatchEvent::Progress { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn leases(root: &Client) -> BTreeMap<i64, (Duration, Vec<Bytes>)> {
    let mut leases = BTreeMap::new();
    for id in root.leases().await.unwrap() {
        let lease = root.lease_time_to_live(id, true).await.unwrap();
        let left = lease.ttl.expect("it lives");
        // A restored lease has its whole time again; none has more.
        assert!(left <= lease.granted && left + PATIENCE * 4 > lease.granted, "{lease:?}");
        let mut keys = lease.keys;
        keys.sort();
        leases.insert(id, (lease.granted, keys));
    }
    leases
}

async fn accounts(etcd: &Etcd) -> Vec<(String, String)> {
    let mut said = Vec::new();
    for line in [
        "user list",
        "user get root",
        "user get ann",
        "user get bob --detail",
        "user get certified",
        "user get idle",
        "role list",
        "role get reader",
        "role get writer",
        "role get empty",
        "auth status",
    ] {
        let answer = etcd.etcdctl(std::iter::once(ROOT).chain(line.split(' '))).await;
        said.push((line.to_owned(), answer));
    }
    said
}

/// Nothing is changed by that: what is put is refused, or refused for another reason.
async fn rights(etcd: &Etcd) -> Vec<(String, Result<(), String>)> {
    let mut tried = Vec::new();
    let users =
        [None, Some(("ann", "pass")), Some(("ann", "wrong")), Some(("bob", "word")), Some(("idle", "pass"))];
    for user in users {
        let client = client(etcd, user);
        let who = user.map_or_else(|| "nobody".to_owned(), |(name, password)| format!("{name}:{password}"));
        for (what, range) in [
            ("open/", KeyRange::prefix("open/")),
            ("open/a", KeyRange::key("open/a")),
            ("own", KeyRange::key("own")),
            ("shut/a", KeyRange::key("shut/a")),
            ("k/05", KeyRange::prefix("k/05")),
            ("everything", KeyRange::prefix("")),
        ] {
            let read = client.range(Range::new(range).limit(1)).await;
            tried.push((format!("{who} reads {what}"), read.map(drop).map_err(|error| words(&error, etcd))));
        }
        // A lease that is not there refuses whoever was not refused before.
        for key in ["open/a", "own", "shut/a", "k/050000", "k/060000", "zz", "y"] {
            let put = client.put(Put::new(key, "").lease(0x7fff_ffff)).await;
            tried.push((format!("{who} writes {key}"), put.map(drop).map_err(|error| words(&error, etcd))));
        }
    }
    tried
}
