//! `addr-key`: the address is both the id and the value.
//!
//! `/myrpc/services/UserService/127.0.0.1:8080` → `127.0.0.1:8080`.

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
pub(super) struct AddrKey {
    path: Path,
}

// === impl AddrKey ===

impl AddrKey {
    pub(super) fn new(prefix: Option<&str>) -> Self {
        Self { path: Path::new(prefix.unwrap_or("/myrpc/services")) }
    }
}

impl Layout for AddrKey {
    path_keys!();

    fn name(&self) -> &'static str {
        "addr-key"
    }

    fn default_ttl(&self) -> Duration {
        Duration::from_secs(10)
    }

    fn carries(&self) -> Carries {
        Carries::NOTHING
    }

    fn encode(&self, instance: &Instance, _lease: i64) -> Result<Encoded, EncodeError> {
        EncodeError::check_ports(instance)?;
        let address = instance.address();
        let key = self.path.instance_key(instance.service.as_str(), &address);
        Ok(Encoded::one(key, address, self.carries().lost(instance, &[])))
    }

    fn decode(&self, parts: &[Option<RawKv<'_>>]) -> Result<Option<Instance>, DecodeError> {
        let Some((kv, part)) = single_part(self, parts) else { return Ok(None) };
        let endpoint = address(kv.value).map_err(|cause| DecodeError::new(self.name(), kv, cause))?;
        Ok(Some(Instance::new(part.service, endpoint).with_id(part.id)))
    }
}
