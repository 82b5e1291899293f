//! One running copy of a service.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use crate::{
    endpoint::{Endpoint, Endpoints},
    excerpt::Excerpt,
    name::{InstanceId, ServiceName},
};

/// The weight of an instance that does not state one.
pub const DEFAULT_WEIGHT: u32 = 100;

/// One running copy of a service.
///
/// Its JSON form has every field; when read, all but `service` and `endpoints` may be missing or null, and unknown
/// ones are ignored. The id is then the address of the first endpoint.
///
/// ```
/// use waypost_model::Instance;
/// let instance = Instance::new("greeter".parse()?, "10.0.0.1:50051".parse()?).with_version("1.2.0");
/// let json = serde_json::to_string(&instance)?;
/// assert_eq!(json, concat!(
///     r#"{"service":"greeter","id":"10.0.0.1:50051","endpoints":["grpc://10.0.0.1:50051"],"weight":100,"#,
///     r#""zone":null,"version":"1.2.0","status":"up","metadata":{}}"#,
/// ));
/// let short: Instance = serde_json::from_str(
///     r#"{"service":"greeter","endpoints":["10.0.0.1:50051"],"version":"1.2.0"}"#,
/// )?;
/// assert_eq!(short, instance);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Instance {
    /// The service it belongs to.
    pub service: ServiceName,
    /// Its identity within the service.
    pub id: InstanceId,
    /// Where it listens.
    pub endpoints: Endpoints,
    /// Its share of the load relative to others, [`DEFAULT_WEIGHT`] by default. 0 means none.
    pub weight: u32,
    /// The failure domain it runs in. An empty text counts as none.
    pub zone: Option<String>,
    /// The version of what runs. An empty text counts as none.
    pub version: Option<String>,
    /// Whether it wants calls.
    pub status: Status,
    /// Whatever else is said about it.
    pub metadata: BTreeMap<String, String>,
}

/// Whether an instance wants calls. The text form is lower case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It takes calls.
    #[default]
    Up,
    /// It finishes what it has and wants nothing new.
    Draining,
    /// It takes no calls.
    Down,
}

/// A text that is none of `up`, `draining` and `down`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("status {0} is none of up, draining, down")]
pub struct InvalidStatus(Excerpt);

// === impl Instance ===

impl Instance {
    /// An instance that is up, with the default weight, and whose id is the address of `endpoint`.
    pub fn new(service: ServiceName, endpoint: Endpoint) -> Self {
        Self {
            service,
            id: InstanceId::trusted(&endpoint.authority()),
            endpoints: Endpoints::new(endpoint),
            weight: DEFAULT_WEIGHT,
            zone: None,
            version: None,
            status: Status::Up,
            metadata: BTreeMap::new(),
        }
    }

    /// With another id.
    pub fn with_id(mut self, id: InstanceId) -> Self {
        self.id = id;
        self
    }

    /// With another weight.
    pub fn with_weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// With a zone.
    pub fn with_zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// With a version.
    pub fn with_version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// With another status.
    pub fn with_status(mut self, status: Status) -> Self {
        self.status = status;
        self
    }

    /// With one more entry of metadata.
    pub fn with_metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// With one more endpoint.
    pub fn with_endpoint(mut self, endpoint: Endpoint) -> Self {
        self.endpoints.push(endpoint);
        self
    }

    /// `host:port` of the primary endpoint.
    pub fn address(&self) -> String {
        self.endpoints.primary().authority()
    }

    /// Whether the id is the one that [`Instance::new`] gives.
    pub fn has_default_id(&self) -> bool {
        self.id == self.address().as_str()
    }

    pub(crate) fn zone_text(&self) -> Option<&str> {
        self.zone.as_deref().filter(|zone| !zone.is_empty())
    }

    pub(crate) fn version_text(&self) -> Option<&str> {
        self.version.as_deref().filter(|version| !version.is_empty())
    }
}

impl<'de> Deserialize<'de> for Instance {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Form {
            service: ServiceName,
            id: Option<InstanceId>,
            endpoints: Endpoints,
            weight: Option<u32>,
            zone: Option<String>,
            version: Option<String>,
            status: Option<Status>,
            metadata: Option<BTreeMap<String, String>>,
        }

        let form = Form::deserialize(deserializer)?;
        let address = form.endpoints.primary().authority();
        let id = form.id.map_or_else(|| InstanceId::new(address), Ok).map_err(D::Error::custom)?;
        Ok(Self {
            service: form.service,
            id,
            endpoints: form.endpoints,
            weight: form.weight.unwrap_or(DEFAULT_WEIGHT),
            zone: form.zone,
            version: form.version,
            status: form.status.unwrap_or_default(),
            metadata: form.metadata.unwrap_or_default(),
        })
    }
}

// === impl Status ===

impl Status {
    /// The text form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Draining => "draining",
            Self::Down => "down",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Status {
    type Err = InvalidStatus;

    fn from_str(text: &str) -> Result<Self, InvalidStatus> {
        match text {
            "up" => Ok(Self::Up),
            "draining" => Ok(Self::Draining),
            "down" => Ok(Self::Down),
            other => Err(InvalidStatus(Excerpt::new(other))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_needs_a_service_and_an_endpoint() {
        for bad in [
            r#"{"endpoints":["a:1"]}"#,
            r#"{"service":"a","endpoints":[]}"#,
            r#"{"service":"a","endpoints":["a:0"]}"#,
            r#"{"service":"a b","endpoints":["a:1"]}"#,
            r#"{"service":"a","endpoints":["a:1"],"status":"odd"}"#,
        ] {
            assert!(serde_json::from_str::<Instance>(bad).is_err(), "{bad}");
        }
        let nulls = r#"{"service":"a","endpoints":["a:1"],"id":null,"weight":null,"status":null,"metadata":null,"x":1}"#;
        let instance: Instance = serde_json::from_str(nulls).unwrap();
        assert_eq!(instance, Instance::new("a".parse().unwrap(), "a:1".parse().unwrap()));
    }

    #[test]
    fn json_keeps_everything() {
        let instance = Instance::new("a/b".parse().unwrap(), "http://[::1]:1".parse().unwrap())
            .with_id("7".parse().unwrap())
            .with_weight(0)
            .with_zone("z")
            .with_version("v")
            .with_status(Status::Draining)
            .with_metadata("k", "<&>\u{2028}")
            .with_endpoint("grpc://h:2".parse().unwrap());
        let json = serde_json::to_vec(&instance).unwrap();
        assert_eq!(serde_json::from_slice::<Instance>(&json).unwrap(), instance);
    }

    #[test]
    fn status_is_read_as_it_is_written() {
        for status in [Status::Up, Status::Draining, Status::Down] {
            assert_eq!(status.to_string().parse::<Status>().unwrap(), status);
        }
        assert!("UP".parse::<Status>().is_err());
    }
}
