//! `go-zero`: `{service}/{lease id}`, the address as value.
//!
//! `user.rpc/7587869134498413333` → `10.0.0.1:8080`. A configured positive number may stand for the lease id. When
//! read, any id is taken, as go-zero does: it looks at the values only.

use std::time::Duration;

use crate::{
    instance::Instance,
    layout::{
        Carries, DecodeError, EncodeError, Encoded, Layout, RawKv, address, lease_id,
        path::{Path, path_keys},
        single_part,
    },
};

#[derive(Debug)]
pub(super) struct GoZero {
    path: Path,
}

// === impl GoZero ===

impl GoZero {
    pub(super) fn new(prefix: Option<&str>) -> Self {
        Self { path: Path::new(prefix.unwrap_or_default()) }
    }
}

impl Layout for GoZero {
    path_keys!();

    fn name(&self) -> &'static str {
        "go-zero"
    }

    fn default_ttl(&self) -> Duration {
        Duration::from_secs(10)
    }

    fn carries(&self) -> Carries {
        Carries::NOTHING
    }

    fn id_is_lease(&self) -> bool {
        true
    }

    fn encode(&self, instance: &Instance, lease: i64) -> Result<Encoded, EncodeError> {
        EncodeError::check_ports(instance)?;
        let (id, lost) = lease_id::number(self.name(), self.carries(), instance, lease)?;
        Ok(Encoded::one(self.path.instance_key(instance.service.as_str(), &id), instance.address(), lost))
    }

    fn decode(&self, parts: &[Option<RawKv<'_>>]) -> Result<Option<Instance>, DecodeError> {
        let Some((kv, part)) = single_part(self, parts) else { return Ok(None) };
        let endpoint = address(kv.value).map_err(|cause| DecodeError::new(self.name(), kv, cause))?;
        Ok(Some(Instance::new(part.service, endpoint).with_id(part.id)))
    }
}
