//! Keys that are paths: `{prefix}/{service}/{id}`.

use crate::{
    layout::PartKey,
    name::{InstanceId, ServiceName},
};

/// A set of keys to read or watch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeySpan {
    /// That key.
    Key(Vec<u8>),
    /// Every key that begins so. Empty: every key.
    Prefix(Vec<u8>),
}

/// The part of the key space below a prefix.
#[derive(Clone, Debug)]
pub(crate) struct Path {
    prefix: String,
    /// The prefix with the separator at its end, or empty: a read of it never matches a longer name.
    base: String,
}

/// The methods of a [`Layout`](crate::layout::Layout) whose keys are `{prefix}/{service}/{id}` under its field `path`.
macro_rules! path_keys {
    () => {
        fn prefix(&self) -> &str {
            self.path.prefix()
        }

        fn service_spans(&self, service: &$crate::ServiceName) -> Vec<$crate::KeySpan> {
            vec![self.path.instances(service.as_str())]
        }

        fn catalog_span(&self) -> Option<$crate::KeySpan> {
            self.path.everything()
        }

        fn identify(&self, key: &[u8]) -> Option<$crate::PartKey> {
            self.path.identify(key)
        }
    };
}

pub(super) use path_keys;

// === impl KeySpan ===

impl KeySpan {
    /// Whether `key` is in it.
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::Key(one) => key == one,
            Self::Prefix(prefix) => key.starts_with(prefix),
        }
    }
}

// === impl Path ===

impl Path {
    /// One `/` at the end of `prefix` is the separator; the prefix `/` therefore means keys like `/service/id`.
    pub(crate) fn new(prefix: &str) -> Self {
        let shown = prefix.strip_suffix('/').unwrap_or(prefix);
        let base = if prefix.is_empty() { String::new() } else { format!("{shown}/") };
        Self { prefix: shown.to_owned(), base }
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// `{prefix}/{rest}`.
    pub(crate) fn key(&self, rest: &str) -> Vec<u8> {
        [self.base.as_bytes(), rest.as_bytes()].concat()
    }

    /// `{prefix}/{service}/{id}`.
    pub(crate) fn instance_key(&self, service: &str, id: &str) -> Vec<u8> {
        self.key(&format!("{service}/{id}"))
    }

    /// Everything under `{prefix}/{service}/`.
    pub(crate) fn instances(&self, service: &str) -> KeySpan {
        KeySpan::Prefix(self.key(&format!("{service}/")))
    }

    /// Everything under the prefix; `None` when it is empty.
    pub(crate) fn everything(&self) -> Option<KeySpan> {
        (!self.base.is_empty()).then(|| KeySpan::Prefix(self.base.clone().into_bytes()))
    }

    /// What follows `{prefix}/`, if it is text.
    pub(crate) fn rest<'k>(&self, key: &'k [u8]) -> Option<&'k str> {
        std::str::from_utf8(key.strip_prefix(self.base.as_bytes())?).ok()
    }

    /// Service and id of `{prefix}/{service}/{id}`: the id is the last segment, the service may have several.
    pub(crate) fn identify(&self, key: &[u8]) -> Option<PartKey> {
        let (service, id) = self.rest(key)?.rsplit_once('/')?;
        Some(PartKey { service: ServiceName::new(service).ok()?, id: InstanceId::new(id).ok()?, part: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_ends_in_one_separator() {
        for (prefix, key) in [("", "s/1"), ("p", "p/s/1"), ("p/", "p/s/1"), ("/", "/s/1"), ("/p", "/p/s/1")] {
            assert_eq!(Path::new(prefix).instance_key("s", "1"), key.as_bytes(), "{prefix:?}");
        }
    }

    #[test]
    fn the_id_is_the_last_segment() {
        let part = Path::new("p").identify(b"p/svc/echo/1").unwrap();
        assert_eq!((part.service.as_str(), part.id.as_str(), part.part), ("svc/echo", "1", 0));
        for other in ["p", "p/", "p/s", "p/s/", "p//1", "q/s/1", "p/s//1", "ps/1", ""] {
            assert_eq!(Path::new("p").identify(other.as_bytes()), None, "{other:?}");
        }
        assert_eq!(Path::new("").identify(b"a/\xff"), None);
    }
}
