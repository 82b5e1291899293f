//! A set of 10,000 endpoints, one of which comes and goes, and a pool that follows it.

use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use waypost_balance::Policy;
use waypost_channel::{Channel, Pool, Unconnected};
use waypost_discovery::subscription::{Publisher, channel};
use waypost_model::{
    Endpoint, Existence, Instance, InstanceKey, Scope, ServiceName, Snapshot, SnapshotParts,
};

pub(crate) const ENDPOINTS: u16 = 10_000;
/// From the new table to the next update: the old one has been taken apart by then.
pub(crate) const SPACE: Duration = Duration::from_millis(20);

/// The set. Its snapshots share all but what has changed, as those of the discovery do.
pub(crate) struct Registry {
    publisher: Publisher,
    parts: SnapshotParts,
    /// What comes and goes.
    last: (InstanceKey, Arc<Instance>),
}

/// For pools that live on the calling thread, not on the one that picks.
pub(crate) fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// The pool has published what was asked of it, and has had the time to take the old table apart.
pub(crate) async fn settled(pool: &Pool<Unconnected>, expected: usize) {
    pool.wait_for(|stats| stats.registered == expected && stats.ready() == expected).await;
    tokio::time::sleep(SPACE).await;
}

// === impl Registry ===

impl Registry {
    /// With all of them, and the pool has them.
    pub(crate) fn start(runtime: &Runtime, policy: impl Policy + 'static) -> (Self, Pool<Unconnected>) {
        let service: ServiceName = "many".parse().expect("name");
        let scope = Scope::Service(service.clone());
        let (publisher, subscription) = channel(scope.clone());
        let instance = |n: u16| {
            let endpoint = Endpoint::new(format!("10.0.{}.{}", n / 256, n % 256), 50051).expect("address");
            let instance = Arc::new(Instance::new(service.clone(), endpoint));
            (InstanceKey::of(&instance, 0), instance)
        };
        let parts = SnapshotParts {
            instances: (0..ENDPOINTS).map(instance).collect(),
            existence: Existence::Present,
            ..Snapshot::absent(scope).to_parts()
        };
        let mut registry = Self { publisher, parts, last: instance(ENDPOINTS - 1) };
        let pool = {
            let _entered = runtime.enter();
            Channel::builder(subscription).policy(waypost_channel::Policy::custom(policy)).pool(Unconnected)
        };
        let all = registry.snapshot();
        registry.publish(all);
        runtime.block_on(settled(&pool, usize::from(ENDPOINTS)));
        (registry, pool)
    }

    /// The last endpoint goes, comes, goes; and how many there are then.
    pub(crate) fn next(&mut self) -> (Snapshot, usize) {
        let (key, instance) = &self.last;
        if self.parts.instances.remove(key).is_none() {
            self.parts.instances.insert(key.clone(), Arc::clone(instance));
        }
        let snapshot = self.snapshot();
        let expected = snapshot.len();
        (snapshot, expected)
    }

    pub(crate) fn publish(&self, snapshot: Snapshot) {
        assert!(self.publisher.publish(snapshot), "the pool is there");
    }

    fn snapshot(&mut self) -> Snapshot {
        self.parts.revision += 1;
        Snapshot::new(self.parts.clone())
    }
}
