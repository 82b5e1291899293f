//! Names: validated once, here, and cheap to clone afterwards.

use std::{borrow::Borrow, cmp::Ordering, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::excerpt::Excerpt;

/// The name of a service, such as `greeter` or `svc/echo`.
///
/// One to 255 bytes of UTF-8 without whitespace and control characters. It may contain `.` and `/`, but it neither
/// starts nor ends with `/`, and has no `//`.
///
/// ```
/// use waypost_model::ServiceName;
/// assert_eq!("svc/echo".parse::<ServiceName>()?.as_str(), "svc/echo");
/// assert!("svc//echo".parse::<ServiceName>().is_err());
/// # Ok::<(), waypost_model::InvalidName>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ServiceName(Arc<str>);

/// The identity of an instance within its service: the last part of its key in etcd.
///
/// One to 512 bytes of UTF-8 without `/`, whitespace and control characters. By default it is the address of the
/// instance.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(Arc<str>);

/// Why a text is not a [`ServiceName`] or an [`InstanceId`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {text} {reason}")]
pub struct InvalidName {
    what: &'static str,
    text: Excerpt,
    reason: &'static str,
}

// === impl ServiceName ===

impl Ord for ServiceName {
    /// As text. Clones of one name are equal without a look at it: the keys of a service's instances share theirs.
    fn cmp(&self, other: &Self) -> Ordering {
        if Arc::ptr_eq(&self.0, &other.0) { Ordering::Equal } else { self.0.cmp(&other.0) }
    }
}

impl PartialOrd for ServiceName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl ServiceName {
    /// The longest name, in bytes.
    pub const MAX_BYTES: usize = 255;

    /// Checks `name`.
    pub fn new(name: impl AsRef<str>) -> Result<Self, InvalidName> {
        let name = name.as_ref();
        match flaw(name, Self::MAX_BYTES).or_else(|| path_flaw(name)) {
            None => Ok(Self(name.into())),
            Some(reason) => Err(InvalidName { what: "service name", text: Excerpt::new(name), reason }),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

// === impl InstanceId ===

impl InstanceId {
    /// The longest id, in bytes: room for the longest address.
    pub const MAX_BYTES: usize = 512;

    /// Checks `id`.
    pub fn new(id: impl AsRef<str>) -> Result<Self, InvalidName> {
        let id = id.as_ref();
        let slash = || id.contains('/').then_some("contains '/'");
        match flaw(id, Self::MAX_BYTES).or_else(slash) {
            None => Ok(Self(id.into())),
            Some(reason) => Err(InvalidName { what: "instance id", text: Excerpt::new(id), reason }),
        }
    }

    /// For texts that are ids by construction: an address, the last segment of a service name, a decimal number.
    pub(crate) fn trusted(id: &str) -> Self {
        debug_assert!(Self::new(id).is_ok(), "{id:?}");
        Self(id.into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn flaw(text: &str, max_bytes: usize) -> Option<&'static str> {
    if text.is_empty() {
        Some("is empty")
    } else if text.len() > max_bytes {
        Some("is too long")
    } else if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        Some("contains whitespace or a control character")
    } else {
        None
    }
}

fn path_flaw(text: &str) -> Option<&'static str> {
    if text.starts_with('/') {
        Some("starts with '/'")
    } else if text.ends_with('/') {
        Some("ends with '/'")
    } else if text.contains("//") {
        Some("contains '//'")
    } else {
        None
    }
}

macro_rules! text_type {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = InvalidName;

            fn try_from(text: &str) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                &*self.0 == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                &*self.0 == *other
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::new(String::deserialize(deserializer)?).map_err(D::Error::custom)
            }
        }
    };
}

text_type!(ServiceName);
text_type!(InstanceId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_names_may_be_paths_and_host_names() {
        for good in ["a", "svc/echo", "user.rpc", "org.apache.demo.Greeter", "größe", "a/b/c"] {
            assert_eq!(ServiceName::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "/a", "a/", "a//b", "/", "a b", "a\n", "a\u{7f}", "a\u{2003}b"] {
            assert!(ServiceName::new(bad).is_err(), "{bad:?}");
        }
        assert!(ServiceName::new("x".repeat(255)).is_ok());
        assert!(ServiceName::new("x".repeat(256)).is_err());
    }

    #[test]
    fn instance_ids_have_no_slash() {
        for good in ["1", "10.0.0.1:80", "[::1]:80", "0b1e6ba8-9a53-11f0-8de9-0242ac120002"] {
            assert_eq!(InstanceId::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "a/b", "/", "a b", "a\0"] {
            assert!(InstanceId::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_error_names_the_text_and_the_flaw_without_quoting_all_of_it() {
        let text = ServiceName::new("a b").unwrap_err().to_string();
        assert_eq!(text, "service name \"a b\" contains whitespace or a control character");
        assert!(ServiceName::new("x".repeat(1 << 20)).unwrap_err().to_string().len() < 300);
    }
}
