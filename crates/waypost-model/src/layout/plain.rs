//! `plain`: the caller's id in the key, the address as value.
//!
//! `/services/your-service/your-service-10.0.0.5` → `10.0.0.5:8080`.

use std::time::Duration;

use crate::{
    instance::Instance,
    layout::{
        Carries, DecodeError, EncodeError, Encoded, Layout, RawKv, address,
        path::{Path, path_keys},
        single_part,
    },
};

#[derive(Debug)]
pub(super) struct Plain {
    path: Path,
}

// === impl Plain ===

impl Plain {
    pub(super) fn new(prefix: Option<&str>) -> Self {
        Self { path: Path::new(prefix.unwrap_or("/services")) }
    }
}

impl Layout for Plain {
    path_keys!();

    fn name(&self) -> &'static str {
        "plain"
    }

    fn default_ttl(&self) -> Duration {
        Duration::from_secs(30)
    }

    fn carries(&self) -> Carries {
        Carries::ID
    }

    fn encode(&self, instance: &Instance, _lease: i64) -> Result<Encoded, EncodeError> {
        EncodeError::check_ports(instance)?;
        let key = self.path.instance_key(instance.service.as_str(), instance.id.as_str());
        Ok(Encoded::one(key, instance.address(), self.carries().lost(instance, &[])))
    }

    fn decode(&self, parts: &[Option<RawKv<'_>>]) -> Result<Option<Instance>, DecodeError> {
        let Some((kv, part)) = single_part(self, parts) else { return Ok(None) };
        let endpoint = address(kv.value).map_err(|cause| DecodeError::new(self.name(), kv, cause))?;
        Ok(Some(Instance::new(part.service, endpoint).with_id(part.id)))
    }
}
