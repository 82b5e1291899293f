//! The channel: what callers hold.

use crate::builder::ChannelBuilder;
use crate::call;
use crate::http2::Http2Dialer;
use crate::policy::Policy;
use crate::pool::{NotReady, Pool};
use crate::service_config::{InvalidServiceConfig, ServiceConfig};
use crate::settings::Settings;
use crate::shared::Shared;
use crate::stats::{CallStats, ChannelStats};
use crate::steering::{Documents, Steering};
use futures::future::BoxFuture;
use http::{Request, Response};
use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::body::Body;
use waypost_balance::OutlierSettings;
use waypost_discovery::Subscription;

/// A gRPC channel to all instances of a service, as the registry has them at each moment.
///
/// A [`tower::Service`] that tonic's generated clients take as their transport. Cheap to clone; clones share connections. When
/// the last clone is dropped, connections close as their last calls end.
///
/// A call never fails outside of gRPC: whatever goes wrong is a response with a status, so the error type is [`Infallible`].
/// `poll_ready` is always ready: the endpoint is picked when the call is made, never before, so that a call goes to an endpoint
/// that is ready then. Dropping the future of a call cancels it.
#[derive(Clone)]
pub struct Channel {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) shared: Arc<Shared>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) pool: Pool<Http2Dialer>,
    pub(crate) steering: Steering,
    /// Service configs that come later, until they are followed.
    pub(crate) documents: Mutex<Option<Documents>>,
    /// Set once they are followed, so that calls need not lock.
    pub(crate) started: OnceLock<()>,
    pub(crate) stop: CancellationToken,
    /// Ends what follows them with the last clone.
    pub(crate) _stop: DropGuard,
}

// === impl Channel ===

impl Channel {
    /// A channel to what `subscription` says.
    pub fn builder(subscription: Subscription) -> ChannelBuilder {
        ChannelBuilder::new(subscription)
    }

    /// A channel to what `subscription` says, with everything as by default.
    pub fn new(subscription: Subscription) -> Self {
        Self::builder(subscription).build()
    }

    /// Waits until at least one endpoint is ready.
    ///
    /// Fails with the reason that a call would get: when nothing is registered, when the first attempt to connect to each
    /// endpoint has failed, and when nothing could be read from the registry in time. Cancel safe.
    pub async fn ready(&self) -> Result<(), NotReady> {
        self.inner.start();
        self.inner.pool.ready().await
    }

    /// The endpoints and what they carry, as of now.
    pub fn stats(&self) -> ChannelStats {
        self.inner.pool.stats()
    }

    /// Waits until `condition` holds for the [`stats`](Self::stats), and answers them. Looks each time that an endpoint comes,
    /// goes, is connected or lost; a condition on counters alone is not looked at in between. Cancel safe; ends with the last
    /// stats if the channel's task ends.
    pub async fn wait_for(&self, condition: impl FnMut(&ChannelStats) -> bool) -> ChannelStats {
        self.inner.start();
        self.inner.pool.wait_for(condition).await
    }

    /// The calls since the channel was built.
    pub fn call_stats(&self) -> CallStats {
        self.inner.call_stats()
    }

    /// Spreads calls by another policy from now on. Calls under way are not touched, and connections are kept: at no instant is
    /// there no endpoint to pick.
    pub fn set_policy(&self, policy: impl Into<Policy>) {
        self.inner.pool.set_policy(policy);
    }

    /// The policy by which calls are spread. One that was [set](Self::set_policy) just now is in effect a moment later.
    pub fn policy(&self) -> Policy {
        self.inner.pool.policy()
    }

    /// Sets endpoints aside by other rules from now on; `None` for never, which ends all ejections.
    pub fn set_outlier_detection(&self, settings: impl Into<Option<OutlierSettings>>) {
        self.inner.pool.set_outlier_detection(settings);
    }

    /// When endpoints are set aside. What was [set](Self::set_outlier_detection) just now is in effect a moment later.
    pub fn outlier_detection(&self) -> Option<OutlierSettings> {
        self.inner.pool.outlier_detection()
    }

    /// Calls go by this service config from now on; `None` for that which the channel was
    /// [built with](ChannelBuilder::service_config). Calls under way go on as they began. What the config says of policy and outlier
    /// detection counts more than [`set_policy`](Self::set_policy) and [`set_outlier_detection`](Self::set_outlier_detection).
    pub fn set_service_config(&self, config: impl Into<Option<ServiceConfig>>) {
        self.inner.steering.adopt(config.into());
    }

    /// The service config by which calls go.
    pub fn service_config(&self) -> Arc<ServiceConfig> {
        Arc::clone(&self.inner.shared.plan.load().config)
    }

    /// Why the newest of the [service configs that come](ChannelBuilder::service_config_updates) is not in use; `None` if it is.
    pub fn service_config_error(&self) -> Option<Arc<InvalidServiceConfig>> {
        self.inner.shared.config_error.load_full()
    }

    pub(crate) fn from_inner(inner: Arc<Inner>) -> Self {
        Self { inner }
    }
}

impl tower::Service<Request<Body>> for Channel {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(call::run(Arc::clone(&self.inner), request))
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stats = self.stats();
        f.debug_struct("Channel")
            .field("service", &self.inner.shared.service())
            .field("registered", &stats.registered)
            .field("ready", &stats.ready())
            .finish_non_exhaustive()
    }
}

// === impl Inner ===

impl Inner {
    pub(crate) fn call_stats(&self) -> CallStats {
        self.shared.counters.read()
    }

    /// Starts what runs beside the calls on the runtime of the caller, if it does not run yet.
    pub(crate) fn start(&self) {
        self.started.get_or_init(|| {
            self.pool.start();
            let documents = self.documents.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(documents) = documents {
                tokio::spawn(self.steering.clone().follow(documents, self.stop.clone()));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use waypost_model::Scope;

    /// Above 1,032 bytes glibc's allocator takes a lock for each, which callers on other threads wait for.
    #[test]
    fn a_call_is_small() {
        let (_publisher, subscription) =
            waypost_discovery::subscription::channel(Scope::Service("small".parse().unwrap()));
        let channel = Channel::new(subscription);
        let call = call::run(Arc::clone(&channel.inner), Request::new(Body::empty()));
        assert!(size_of_val(&call) <= 1032, "{} bytes", size_of_val(&call));
    }
}
