//! The keys of one instance as they are in etcd, to be changed by an operator.

use std::sync::Arc;

use waypost::etcd::{Client, Compare, KeyValue, Op, Txn};
use waypost::model::{Instance, InstanceId, Layout, RawKv, ServiceName};

use crate::session::key_range;

/// Keys per request.
const PAGE: i64 = 1000;
/// How often an instance may change between reading and writing before we give up.
pub(super) const ATTEMPTS: u32 = 5;

/// The keys of one instance, by part; `None` where one is missing.
pub(super) struct Stored {
    pub(super) layout: Arc<dyn Layout>,
    parts: Vec<Option<KeyValue>>,
}

// === impl Stored ===

impl Stored {
    /// Looks for the instance in each layout; the first that has it wins.
    pub(super) async fn find(
        client: &Client,
        layouts: &[Arc<dyn Layout>],
        service: &ServiceName,
        id: &InstanceId,
    ) -> anyhow::Result<Option<Self>> {
        for layout in layouts {
            let in_key = layout.service_in_key(service);
            let mut parts = vec![None; usize::from(layout.parts())];
            for span in layout.service_spans(service) {
                let mut pages = client.pages(key_range(span), PAGE);
                while let Some(page) = pages.next().await {
                    for kv in page?.kvs {
                        let Some(whose) = layout.identify(&kv.key) else { continue };
                        if whose.service == in_key
                            && whose.id == *id
                            && let Some(part) = parts.get_mut(usize::from(whose.part))
                        {
                            *part = Some(kv);
                        }
                    }
                }
            }
            if parts.iter().any(Option::is_some) {
                return Ok(Some(Self { layout: Arc::clone(layout), parts }));
            }
        }
        Ok(None)
    }

    /// The keys that are there.
    pub(super) fn keys(&self) -> impl Iterator<Item = &KeyValue> {
        self.parts.iter().flatten()
    }

    /// The lease of the instance, 0 for none.
    pub(super) fn lease(&self) -> i64 {
        self.keys().map(|kv| kv.lease).next().unwrap_or(0)
    }

    /// The instance, or `None` when the keys do not make one.
    pub(super) fn instance(&self) -> anyhow::Result<Option<Instance>> {
        let raw: Vec<Option<RawKv<'_>>> = self
            .parts
            .iter()
            .map(|part| part.as_ref().map(|kv| RawKv { key: &kv.key, value: &kv.value, lease: kv.lease }))
            .collect();
        Ok(self.layout.decode(&raw)?)
    }

    /// Carries the operations out if the keys are still as they were read: the revision, or `None` if they are not.
    pub(super) async fn change(
        &self,
        client: &Client,
        ops: impl IntoIterator<Item = Op>,
    ) -> anyhow::Result<Option<i64>> {
        let unchanged = self.keys().map(|kv| Compare::mod_revision(kv.key.clone()).equal(kv.mod_revision));
        let answer = client.txn(Txn::new().when(unchanged).then(ops)).await?;
        let revision = answer.header.as_ref().map_or(0, |header| header.revision);
        Ok(answer.succeeded.then_some(revision))
    }
}
