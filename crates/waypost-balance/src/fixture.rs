//! Endpoints for unit tests.

use crate::EndpointState;
use std::sync::Arc;
use std::time::Instant;
use waypost_model::{Endpoint, Instance, InstanceKey};

/// `count` endpoints that take calls.
pub(crate) fn fleet(count: u16, now: Instant) -> Vec<Arc<EndpointState>> {
    (1..=count)
        .map(|port| {
            let endpoint = Endpoint::new("127.0.0.1", port).expect("an IP address is a host");
            let instance =
                Arc::new(Instance::new("greeter".parse().expect("letters are a name"), endpoint.clone()));
            let state = EndpointState::new(InstanceKey::of(&instance, 0), endpoint, instance, now);
            state.open();
            Arc::new(state)
        })
        .collect()
}

pub(crate) fn reweigh(state: &EndpointState, weight: u32) {
    let instance = (*state.instance()).clone().with_weight(weight);
    state.set_instance(state.key(), Arc::new(instance));
}
