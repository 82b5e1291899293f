//! What is asked of etcd besides the watch: all of the spans, whether the store is still the one we know, and which
//! leases are left.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream;
use waypost_etcd::{Client, Error, KeyRange, KeyValue, Range, SortOrder, SortTarget};
use waypost_model::KeySpan;

use crate::core::{Answer, Kv, Table};
use crate::reader::Reader;

/// Leases that are asked after at the same time.
const PROBES_AT_ONCE: usize = 32;

/// A span as it is now at the revision at which we know it.
pub(super) struct Sight {
    keys: u64,
    newest: Option<KeyValue>,
}

/// The span as etcd names it.
pub(super) fn key_range(span: &KeySpan) -> KeyRange {
    match span {
        KeySpan::Key(key) => KeyRange::key(key.clone()),
        KeySpan::Prefix(prefix) => KeyRange::prefix(prefix.clone()),
    }
}

pub(super) fn kv(kv: &KeyValue) -> Kv<'_> {
    Kv { key: &kv.key, value: &kv.value, mod_revision: kv.mod_revision, lease: kv.lease }
}

/// Reads every span into `table`, in pages, each span as of one revision.
pub(super) async fn read(
    client: Client,
    reader: Arc<Reader>,
    mut table: Table,
    page_size: i64,
) -> Result<Table, Error> {
    for (index, span) in reader.spans.iter().enumerate() {
        let mut pages = client.pages(key_range(&span.keys), page_size);
        let mut revision = 0;
        while let Some(page) = pages.next().await {
            let page = page?;
            revision = page.revision;
            for found in &page.kvs {
                table.put(index, kv(found));
            }
        }
        table.told(index, revision);
    }
    Ok(table)
}

/// Looks at each span at the revision that is given for it: how many keys, and which one was changed last.
///
/// Only one key is asked for, with its value: 3.7 leaves the lease out where only keys are asked for.
pub(super) async fn look(client: Client, spans: Vec<(KeyRange, i64)>) -> Result<Vec<Sight>, Error> {
    let mut sights = Vec::with_capacity(spans.len());
    for (range, revision) in spans {
        let newest = Range::new(range).revision(revision).limit(1);
        let answer = client.range(newest.sort(SortTarget::Mod, SortOrder::Descend)).await?;
        let keys = u64::try_from(answer.count).unwrap_or(0);
        sights.push(Sight { keys, newest: answer.kvs.into_iter().next() });
    }
    Ok(sights)
}

/// Whether these sights are of the store that `table` was filled from.
pub(super) fn recognises(table: &Table, sights: &[Sight]) -> bool {
    sights
        .iter()
        .enumerate()
        .all(|(span, sight)| table.recognises(span, sight.keys, sight.newest.as_ref().map(kv)))
}

/// Asks which of these leases are left.
pub(super) async fn probe(client: Client, leases: Vec<i64>) -> Answer {
    let asked = stream::iter(leases).map(|lease| {
        let client = client.clone();
        async move { (lease, client.lease_time_to_live(lease, false).await) }
    });
    let mut asked = asked.buffer_unordered(PROBES_AT_ONCE);
    let mut answer = Answer::default();
    while let Some((lease, found)) = asked.next().await {
        match found {
            Ok(found) if found.ttl.is_some() => {
                answer.alive.insert(lease);
            }
            Ok(_) => {}
            Err(error) => {
                answer.failed = Some(error.to_string().into());
                // etcd is away: the rest would take a timeout each.
                if error.is_transient() {
                    return answer;
                }
            }
        }
    }
    answer
}
