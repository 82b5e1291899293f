//! What a command works with: a client to etcd, the layouts, and standard output.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use waypost::discovery::{Discovery, DiscoveryOptions, Subscription};
use waypost::embed::SharedServer;
use waypost::etcd::{Client, KeyRange, Range};
use waypost::model::{KeySpan, Layout, ServiceName, Snapshot};

use crate::args::{Cli, Connection, Environment, LayoutArgs};
use crate::output::Output;
use crate::report;

/// How long etcd, which has just answered, may take to answer discovery.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a command works with.
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) out: Output,
    pub(crate) connection: Connection,
    environment: Environment,
    /// What stood before the command's name.
    outer: LayoutArgs,
}

// === impl Session ===

impl Session {
    /// At what `connection` names, whose store was opened if it has one.
    pub(crate) fn new(
        cli: &Cli,
        connection: Connection,
        store: Option<&SharedServer>,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            client: Client::new(connection.options(store)?)?,
            out: Output::new(cli.output.output, cli.output.color),
            connection,
            environment: Environment::of_process(),
            outer: cli.layout.clone(),
        })
    }

    /// The layouts to read.
    pub(crate) fn layouts(&self, given: LayoutArgs) -> anyhow::Result<Vec<Arc<dyn Layout>>> {
        Ok(given.or(&self.outer, self.environment).several()?)
    }

    /// The layout to write.
    pub(crate) fn layout(&self, given: LayoutArgs) -> anyhow::Result<Arc<dyn Layout>> {
        Ok(given.or(&self.outer, self.environment).one()?)
    }

    /// What is registered now, of one service or (`None`) of all, and what follows it.
    pub(crate) async fn discover(
        &self,
        layouts: &[Arc<dyn Layout>],
        service: Option<ServiceName>,
    ) -> anyhow::Result<(Arc<Snapshot>, Subscription)> {
        let discovery = Discovery::new(
            self.client.clone(),
            DiscoveryOptions::new(layouts.iter().cloned()).empty_grace(None),
        );
        let mut subscription = match &service {
            Some(service) => discovery.service(service.clone()),
            None => discovery.catalog()?,
        };
        self.probe(layouts, service.as_ref()).await?;
        if tokio::time::timeout(PATIENCE, subscription.ready()).await.is_err() {
            let cause = subscription.last_error().unwrap_or_else(|| "no answer".into());
            bail!("reading {} ({}): {cause}", subscription.scope(), subscription.describe());
        }
        let snapshot = subscription.mark_seen();
        if snapshot.skipped() > 0 {
            report::warn(&format!(
                "{} values are not instances and are left out; -v names them",
                snapshot.skipped()
            ));
        }
        Ok((snapshot, subscription))
    }

    /// Fails with etcd's own words where it is away or refuses: discovery would go on trying.
    pub(crate) async fn probe(
        &self,
        layouts: &[Arc<dyn Layout>],
        service: Option<&ServiceName>,
    ) -> anyhow::Result<()> {
        for layout in layouts {
            let spans = match service {
                Some(service) => layout.service_spans(service),
                None => layout.catalog_span().into_iter().collect(),
            };
            for span in spans {
                self.client.range(Range::new(key_range(span)).limit(1).keys_only()).await?;
            }
        }
        Ok(())
    }
}

/// The keys of a span of a layout.
pub(crate) fn key_range(span: KeySpan) -> KeyRange {
    match span {
        KeySpan::Key(key) => KeyRange::key(key),
        KeySpan::Prefix(prefix) => KeyRange::prefix(prefix),
    }
}
