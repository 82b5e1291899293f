//! `single`: one instance per service, the address as value.
//!
//! `/services/notification-server` → `10.0.0.5:8080`. The id is the last segment of the name of the service.

use std::time::Duration;

use crate::{
    instance::Instance,
    layout::{
        Carries, DecodeError, EncodeError, Encoded, Field, KeySpan, Layout, PartKey, RawKv, address,
        path::Path, single_part,
    },
    name::{InstanceId, ServiceName},
};

#[derive(Debug)]
pub(super) struct Single {
    path: Path,
}

// === impl Single ===

impl Single {
    pub(super) fn new(prefix: Option<&str>) -> Self {
        Self { path: Path::new(prefix.unwrap_or("/services")) }
    }
}

impl Layout for Single {
    fn name(&self) -> &'static str {
        "single"
    }

    fn prefix(&self) -> &str {
        self.path.prefix()
    }

    fn default_ttl(&self) -> Duration {
        Duration::from_secs(10)
    }

    fn carries(&self) -> Carries {
        Carries::NOTHING
    }

    fn exclusive(&self) -> bool {
        true
    }

    fn encode(&self, instance: &Instance, _lease: i64) -> Result<Encoded, EncodeError> {
        EncodeError::check_ports(instance)?;
        let lost = lost(self.carries(), instance);
        Ok(Encoded::one(self.path.key(instance.service.as_str()), instance.address(), lost))
    }

    fn service_spans(&self, service: &ServiceName) -> Vec<KeySpan> {
        vec![KeySpan::Key(self.path.key(service.as_str()))]
    }

    fn catalog_span(&self) -> Option<KeySpan> {
        self.path.everything()
    }

    fn identify(&self, key: &[u8]) -> Option<PartKey> {
        let service = ServiceName::new(self.path.rest(key)?).ok()?;
        Some(PartKey { id: only_id(&service), service, part: 0 })
    }

    fn decode(&self, parts: &[Option<RawKv<'_>>]) -> Result<Option<Instance>, DecodeError> {
        let Some((kv, part)) = single_part(self, parts) else { return Ok(None) };
        let endpoint = address(kv.value).map_err(|cause| DecodeError::new(self.name(), kv, cause))?;
        Ok(Some(Instance::new(part.service, endpoint).with_id(part.id)))
    }
}

/// The id of the only instance of `service`.
pub(super) fn only_id(service: &ServiceName) -> InstanceId {
    let name = service.as_str();
    InstanceId::trusted(name.rsplit('/').next().unwrap_or(name))
}

/// What a layout with one instance per service loses: the id only if it is neither the default one nor [`only_id`].
pub(super) fn lost(carries: Carries, instance: &Instance) -> Vec<Field> {
    let mut lost = carries.lost(instance, &[]);
    if instance.id == only_id(&instance.service) {
        lost.retain(|field| *field != Field::Id);
    }
    lost
}
