//! `named-addr`: the lease id in the key; name and address, one space between them, as value.
//!
//! `/services/my-service/7587862094531234567` → `my-service localhost:8080`. A last segment that is no number is no
//! key of this layout, so that it can share its prefix with others.

use std::time::Duration;

use crate::{
    instance::Instance,
    layout::{
        Carries, DecodeCause, DecodeError, EncodeError, Encoded, KeySpan, Layout, PartKey, RawKv, address,
        go_json::text_of, lease_id, path::Path, single_part,
    },
    name::ServiceName,
};

#[derive(Debug)]
pub(super) struct NamedAddr {
    path: Path,
}

// === impl NamedAddr ===

impl NamedAddr {
    pub(super) fn new(prefix: Option<&str>) -> Self {
        Self { path: Path::new(prefix.unwrap_or("/services")) }
    }
}

impl Layout for NamedAddr {
    fn name(&self) -> &'static str {
        "named-addr"
    }

    fn prefix(&self) -> &str {
        self.path.prefix()
    }

    fn default_ttl(&self) -> Duration {
        Duration::from_secs(5)
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
        let value = format!("{} {}", instance.service, instance.address());
        Ok(Encoded::one(self.path.instance_key(instance.service.as_str(), &id), value, lost))
    }

    fn service_spans(&self, service: &ServiceName) -> Vec<KeySpan> {
        vec![self.path.instances(service.as_str())]
    }

    fn catalog_span(&self) -> Option<KeySpan> {
        self.path.everything()
    }

    fn identify(&self, key: &[u8]) -> Option<PartKey> {
        self.path.identify(key).filter(|part| lease_id::is_number(part.id.as_str()))
    }

    fn decode(&self, parts: &[Option<RawKv<'_>>]) -> Result<Option<Instance>, DecodeError> {
        let Some((kv, part)) = single_part(self, parts) else { return Ok(None) };
        decode(kv, part).map_err(|cause| DecodeError::new(self.name(), kv, cause))
    }
}

fn decode(kv: RawKv<'_>, part: PartKey) -> Result<Option<Instance>, DecodeCause> {
    let text = text_of(kv.value);
    let (name, rest) = text.trim().split_once(' ').ok_or(DecodeCause::Missing("name and address"))?;
    if part.service != name {
        return Ok(None);
    }
    Ok(Some(Instance::new(part.service, address(rest.as_bytes())?).with_id(part.id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_names_another_service_is_no_instance_of_this_one() {
        let decode = |value: &str| {
            let kv = RawKv { key: b"/services/s/7", value: value.as_bytes(), lease: 7 };
            NamedAddr::new(None).decode(&[Some(kv)])
        };
        assert_eq!(decode("s a:1\n").unwrap().unwrap().address(), "a:1");
        assert_eq!(decode("other a:1").unwrap(), None);
        assert!(decode("a:1").is_err());
        assert!(NamedAddr::new(None).identify(b"/services/s/pod-7").is_none());
    }
}
