//! What a registry counts.

use std::sync::Arc;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry as MetricsRegistry,
};

use crate::state::RegistrationState;

/// The metrics of one registry. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {
    registrations: Family<Labels, Gauge>,
    pub(crate) leases_lost: Counter,
    pub(crate) puts: Counter,
    pub(crate) retries: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    service: Arc<str>,
    state: &'static str,
}

// === impl Metrics ===

impl Metrics {
    /// Moves a registration of `service` from one state to another; ended ones are not counted.
    pub(crate) fn moved(&self, service: &str, from: Option<&RegistrationState>, to: &RegistrationState) {
        let gauge = |state: &RegistrationState| {
            self.registrations.get_or_create_owned(&Labels { service: service.into(), state: state.name() })
        };
        if let Some(from) = from.filter(|state| !state.is_final()) {
            gauge(from).dec();
        }
        if !to.is_final() {
            gauge(to).inc();
        }
    }

    pub(crate) fn register(&self, registry: &mut MetricsRegistry) {
        registry.register(
            "waypost_registrations",
            "Registrations by service and state",
            self.registrations.clone(),
        );
        // The library adds `_total` to the names of counters.
        registry.register(
            "waypost_lease_lost",
            "Leases that were lost and had to be granted anew",
            self.leases_lost.clone(),
        );
        registry.register(
            "waypost_registration_puts",
            "Keys that were put to register instances",
            self.puts.clone(),
        );
        registry.register(
            "waypost_registration_retries",
            "Grants, puts and removals that failed and are tried again",
            self.retries.clone(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registration_is_counted_in_one_state_at_a_time() {
        let metrics = Metrics::default();
        let mut registry = MetricsRegistry::default();
        metrics.register(&mut registry);
        let first = RegistrationState::Registering { attempt: 0, cause: None };
        let second = RegistrationState::Registered { lease: 7, revision: 2 };
        metrics.moved("greeter", None, &first);
        metrics.moved("greeter", Some(&first), &second);
        metrics.leases_lost.inc();
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains(r#"waypost_registrations{service="greeter",state="registering"} 0"#), "{text}");
        assert!(text.contains(r#"waypost_registrations{service="greeter",state="registered"} 1"#), "{text}");
        assert!(text.contains("waypost_lease_lost_total 1"), "{text}");
        metrics.moved("greeter", Some(&second), &RegistrationState::Deregistered);
        text.clear();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains(r#"waypost_registrations{service="greeter",state="registered"} 0"#), "{text}");
    }
}
