//! What a running channel is told anew: by its program, and by a service config that changes.

use crate::meter::count;
use crate::service_config::ServiceConfig;
use crate::settings::{Settings, Tuning};
use crate::shared::Shared;
use futures::StreamExt;
use futures::stream::BoxStream;
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Changes how calls are made from now on. Calls under way go on as they began.
#[derive(Clone)]
pub(crate) struct Steering {
    pub(crate) shared: Arc<Shared>,
    pub(crate) settings: Arc<Settings>,
    /// What the driver is told.
    pub(crate) tuning: watch::Sender<Tuning>,
    /// What connections ask the health of.
    pub(crate) health: watch::Sender<Option<Arc<str>>>,
    /// The service config that the channel was built with.
    pub(crate) own: Arc<ServiceConfig>,
}

/// Service configs as they come: a JSON document, or `None` where there is none any more.
pub(crate) type Documents = BoxStream<'static, Option<String>>;

// === impl Steering ===

impl Steering {
    /// Goes on under this config; `None` for that which the channel was built with.
    pub(crate) fn adopt(&self, config: Option<ServiceConfig>) {
        let config = config.map_or_else(|| Arc::clone(&self.own), Arc::new);
        let policy = &self.settings.retry;
        self.shared.plan.rcu(|plan| plan.next(Arc::clone(&config), policy));
        self.shared.config_error.store(None);
        let configured = config.health_check.as_deref().map(Arc::from);
        let asked: Option<Arc<str>> = configured.or_else(|| self.settings.health_check.clone());
        // Each connection would ask anew for the same health.
        self.health.send_if_modified(|known| {
            let other = *known != asked;
            *known = asked;
            other
        });
        self.tuning.send_modify(|tuning| {
            tuning.configured = config.load_balancing.clone().unwrap_or_default();
        });
    }

    /// Goes on under the config in this document, or as before if it is none.
    fn read(&self, document: Option<&str>) {
        match document.map(str::parse).transpose() {
            Ok(config) => {
                let service = self.shared.service();
                tracing::info!(service, present = config.is_some(), "another service config");
                self.adopt(config);
            }
            Err(error) => {
                tracing::warn!(service = self.shared.service(), %error, "the service config stays as it was");
                count(&self.shared.counters.rejected_configs);
                self.shared.config_error.store(Some(Arc::new(error)));
            }
        }
    }

    /// Takes each document as it comes, for as long as the channel is there.
    pub(crate) async fn follow(self, mut documents: Documents, stop: CancellationToken) {
        let all = async {
            while let Some(document) = documents.next().await {
                self.read(document.as_deref());
            }
        };
        stop.run_until_cancelled(all).await;
    }
}
