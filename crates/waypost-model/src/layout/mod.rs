//! How instances are written as etcd keys and values, and read back: one [`Layout`] per format.
//!
//! A layout is a contract with software that is not ours. Writing is exact to the byte; reading is liberal: unknown
//! fields, nulls and absent optional fields are no errors. A key names an instance by itself, since a delete carries
//! no value. What an instance says and a layout has no place for is listed in [`Encoded::lost`].
//!
//! | name | key | default prefix | lease |
//! |---|---|---|---|
//! | `grpc` | `{prefix}/{service}/{id}` | `services` | 10 s |
//! | `addr-key` | `{prefix}/{service}/{host:port}` | `/myrpc/services` | 10 s |
//! | `fields` | `{service}`, `{service}.ip`, `{service}.port`, `{service}.protocol` | none | 10 s |
//! | `plain` | `{prefix}/{service}/{id}` | `/services` | 30 s |
//! | `single` | `{prefix}/{service}` | `/services` | 10 s |
//! | `json` | `{prefix}/{service}/{id}` | `/services` | 30 s |
//! | `named-addr` | `{prefix}/{service}/{lease id}` | `/services` | 5 s |
//! | `go-zero` | `{service}/{lease id or number}` | none | 10 s |
//! | `kratos` | `{prefix}/{service}/{id}` | `/microservices` | 15 s |
//! | `kitex` | `{prefix}/{service}/{host:port}` | `kitex/registry-etcd` | 60 s |
//! | `hertz` | `{prefix}/{service}/{host:port}` | `hertz/registry-etcd` | 60 s |
//! | `go-micro` | `{prefix}/{service}/{id}` | `/micro/registry` | 90 s |
//! | `skydns` | `{prefix}/{labels of the service, reversed}/{id}` | `/skydns` | 30 s |
//! | `dubbo` | `{prefix}/{interface}/providers/{url}` | `/dubbo` | 30 s |

use std::{collections::BTreeMap, fmt::Debug, str::FromStr, sync::Arc, time::Duration};

use crate::{
    endpoint::Endpoint,
    excerpt::Excerpt,
    instance::Instance,
    name::{InstanceId, ServiceName},
};

mod addr_key;
mod carries;
mod dubbo;
mod error;
mod fields;
mod go_json;
mod go_micro;
mod go_zero;
mod grpc;
mod hertz;
mod json;
mod kitex;
mod kratos;
mod lease_id;
mod named_addr;
mod path;
mod plain;
#[cfg(test)]
mod properties;
mod single;
mod skydns;

pub use self::carries::{Carries, Field};
pub use self::error::{DecodeCause, DecodeError, EncodeError};
pub use self::path::KeySpan;

/// One format of instances in etcd.
///
/// ```
/// use waypost_model::{RawKv, layout};
///
/// let kratos = layout("kratos", None)?;
/// let key = b"/microservices/hello/7";
/// let value = br#"{"id":"7","name":"hello","version":"v1","metadata":null,"endpoints":["grpc://10.0.0.1:9000"]}"#;
/// let whose = kratos.identify(key).ok_or("not a key of this layout")?;
/// assert_eq!((whose.service.as_str(), whose.id.as_str()), ("hello", "7"));
/// let instance = kratos.decode(&[Some(RawKv { key, value, lease: 0 })])?.ok_or("no instance")?;
/// assert_eq!((instance.address().as_str(), instance.version.as_deref()), ("10.0.0.1:9000", Some("v1")));
/// assert!(!kratos.service_spans(&"hello".parse()?)[0].contains(b"/microservices/helloworld/7"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Layout: Send + Sync + Debug {
    /// Its name, one of [`LAYOUT_NAMES`].
    fn name(&self) -> &'static str;

    /// The prefix it was made with, without the separator at its end; may be empty.
    fn prefix(&self) -> &str;

    /// The TTL of the leases of the software whose format it is.
    fn default_ttl(&self) -> Duration;

    /// What it has a place for.
    fn carries(&self) -> Carries;

    /// Keys per instance.
    fn parts(&self) -> u8 {
        1
    }

    /// Whether there is one instance per service, so that creation must compare the create revision of part 0 with 0.
    fn exclusive(&self) -> bool {
        false
    }

    /// Whether the id is the lease id unless the instance brings a number of its own, so that
    /// [`encode`](Self::encode) needs the lease.
    fn id_is_lease(&self) -> bool {
        false
    }

    /// The name under which [`identify`](Self::identify) reports the keys of `service`. The name itself, but in a
    /// layout that cannot write it as it is (`go-micro` writes `/` as `-`).
    fn service_in_key(&self, service: &ServiceName) -> ServiceName {
        service.clone()
    }

    /// The keys and values of `instance` under `lease` (0: no lease).
    fn encode(&self, instance: &Instance, lease: i64) -> Result<Encoded, EncodeError>;

    /// What to read and watch for one service. Every key of it is in there; keys of services whose names continue
    /// that of `service` by `/` (or, in `skydns`, whose names end in it) may be, and are told apart by
    /// [`identify`](Self::identify). Empty when the layout cannot hold such a name.
    fn service_spans(&self, service: &ServiceName) -> Vec<KeySpan>;

    /// Everything of the layout; `None` when no prefix bounds it.
    fn catalog_span(&self) -> Option<KeySpan>;

    /// Whose key that is, told from the key alone. `None`: it is not a key of this layout.
    fn identify(&self, key: &[u8]) -> Option<PartKey>;

    /// The instance of a set of [`parts`](Self::parts) keys. `Ok(None)`: there is no instance, since the set is
    /// still partial, the value says that it is deleted, or it names another service than its key.
    fn decode(&self, parts: &[Option<RawKv<'_>>]) -> Result<Option<Instance>, DecodeError>;
}

/// A key and value to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
}

/// An instance as a layout writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// What to put: one entry per part, in the order of the parts.
    pub entries: Vec<Entry>,
    /// What the instance says and the layout has no place for.
    pub lost: Vec<Field>,
}

/// A key and value as they were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawKv<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
    /// The lease it is attached to, 0 for none.
    pub lease: i64,
}

/// What a key says by itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PartKey {
    /// The service.
    pub service: ServiceName,
    /// The instance of it.
    pub id: InstanceId,
    /// Which of the keys of the instance, from 0.
    pub part: u8,
}

/// There is no layout of that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no layout is called {name}; there are: {}", LAYOUT_NAMES.join(", "))]
pub struct UnknownLayout {
    name: Excerpt,
}

/// The names of all layouts, the default first.
pub const LAYOUT_NAMES: &[&str] = &[
    "grpc",
    "addr-key",
    "fields",
    "plain",
    "single",
    "json",
    "named-addr",
    "go-zero",
    "kratos",
    "kitex",
    "hertz",
    "go-micro",
    "skydns",
    "dubbo",
];

/// The layout called `name`, under `prefix` or else its own default prefix.
pub fn layout(name: &str, prefix: Option<&str>) -> Result<Arc<dyn Layout>, UnknownLayout> {
    Ok(match name {
        "grpc" => Arc::new(grpc::Grpc::new(prefix)),
        "addr-key" => Arc::new(addr_key::AddrKey::new(prefix)),
        "fields" => Arc::new(fields::Fields::new(prefix)),
        "plain" => Arc::new(plain::Plain::new(prefix)),
        "single" => Arc::new(single::Single::new(prefix)),
        "json" => Arc::new(json::JsonAddr::new(prefix)),
        "named-addr" => Arc::new(named_addr::NamedAddr::new(prefix)),
        "go-zero" => Arc::new(go_zero::GoZero::new(prefix)),
        "kratos" => Arc::new(kratos::Kratos::new(prefix)),
        "kitex" => Arc::new(kitex::Kitex::new(prefix)),
        "hertz" => Arc::new(hertz::hertz(prefix)),
        "go-micro" => Arc::new(go_micro::GoMicro::new(prefix)),
        "skydns" => Arc::new(skydns::SkyDns::new(prefix)),
        "dubbo" => Arc::new(dubbo::Dubbo::new(prefix)),
        _ => return Err(UnknownLayout { name: Excerpt::new(name) }),
    })
}

/// The layouts of a comma-separated list such as `grpc,kratos`; a name that is given twice counts once. `prefix` goes
/// to all of them.
pub fn parse_layouts(names: &str, prefix: Option<&str>) -> Result<Vec<Arc<dyn Layout>>, UnknownLayout> {
    let mut layouts: Vec<Arc<dyn Layout>> = Vec::new();
    for name in names.split(',').map(str::trim) {
        let layout = layout(name, prefix)?;
        if layouts.iter().all(|known| known.name() != layout.name()) {
            layouts.push(layout);
        }
    }
    Ok(layouts)
}

// === impl Encoded ===

impl Encoded {
    fn one(key: Vec<u8>, value: impl Into<Vec<u8>>, lost: Vec<Field>) -> Self {
        Self { entries: vec![Entry { key, value: value.into() }], lost }
    }
}

/// The key and value of a layout of one part, and whose it is.
fn single_part<'a>(layout: &dyn Layout, parts: &[Option<RawKv<'a>>]) -> Option<(RawKv<'a>, PartKey)> {
    let kv = (*parts.first()?)?;
    Some((kv, layout.identify(kv.key)?))
}

/// The address of a value that is one. Space around it, such as the line end of a shell, is ignored.
fn address(value: &[u8]) -> Result<Endpoint, DecodeCause> {
    Ok(go_json::text_of(value).trim().parse()?)
}

/// Takes the text of `key` out of `metadata` if it is a `T`. What is not stays there; null is taken for absent.
fn take_parsed<T: FromStr>(metadata: &mut BTreeMap<String, String>, key: &str) -> Option<T> {
    let text = metadata.get(key)?;
    let parsed = text.parse().ok();
    if parsed.is_some() || text == "null" {
        metadata.remove(key);
    }
    parsed
}
