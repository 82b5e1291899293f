//! What a layout has a place for, and what of an instance it therefore loses.

use std::{fmt, ops::BitOr};

use crate::{
    instance::{DEFAULT_WEIGHT, Instance, Status},
    scheme::Scheme,
};

/// A set of the things that a layout has a place for. Service name and primary address are in every layout.
///
/// ```
/// use waypost_model::{Carries, layout};
/// let plain = layout("grpc", None)?.carries();
/// assert!(plain.contains(Carries::WEIGHT | Carries::ZONE));
/// assert!(!plain.contains(Carries::SCHEME));
/// # Ok::<(), waypost_model::UnknownLayout>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Carries(u8);

/// Something that an instance says and a layout has no place for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Field {
    /// The id: the layout makes its own.
    Id,
    /// The name of the service as it is: the key has a changed one.
    Service,
    /// The scheme of the primary endpoint, when it is not `grpc`.
    Scheme,
    /// The weight.
    Weight,
    /// The zone.
    Zone,
    /// The version.
    Version,
    /// The status, when it is not `up`.
    Status,
    /// The metadata of that key.
    Metadata(String),
    /// The endpoint at that index, from 1: the primary is never lost.
    Endpoint(usize),
}

// === impl Carries ===

impl Carries {
    /// Nothing but service and address.
    pub const NOTHING: Self = Self(0);
    /// An id that the caller chooses.
    pub const ID: Self = Self(1);
    /// The scheme of the endpoint.
    pub const SCHEME: Self = Self(1 << 1);
    /// The weight.
    pub const WEIGHT: Self = Self(1 << 2);
    /// The zone.
    pub const ZONE: Self = Self(1 << 3);
    /// The version.
    pub const VERSION: Self = Self(1 << 4);
    /// The status.
    pub const STATUS: Self = Self(1 << 5);
    /// Metadata of any key but those that the format itself uses.
    pub const METADATA: Self = Self(1 << 6);
    /// More than one endpoint.
    pub const ENDPOINTS: Self = Self(1 << 7);

    /// Both.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` is in this.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// What of `instance` has no place. `reserved` are the metadata keys that the format itself uses.
    pub(crate) fn lost(self, instance: &Instance, reserved: &[&str]) -> Vec<Field> {
        let mut lost = Vec::new();
        let mut note = |place: Self, said: bool, field: Field| {
            if said && !self.contains(place) {
                lost.push(field);
            }
        };
        note(Self::ID, !instance.has_default_id(), Field::Id);
        note(Self::SCHEME, instance.endpoints.primary().scheme != Scheme::Grpc, Field::Scheme);
        note(Self::WEIGHT, instance.weight != DEFAULT_WEIGHT, Field::Weight);
        note(Self::ZONE, instance.zone_text().is_some(), Field::Zone);
        note(Self::VERSION, instance.version_text().is_some(), Field::Version);
        note(Self::STATUS, instance.status != Status::Up, Field::Status);
        for index in 1..instance.endpoints.len() {
            note(Self::ENDPOINTS, true, Field::Endpoint(index));
        }
        for key in instance.metadata.keys() {
            if !self.contains(Self::METADATA) || reserved.contains(&key.as_str()) {
                lost.push(Field::Metadata(key.clone()));
            }
        }
        lost
    }
}

impl BitOr for Carries {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.and(other)
    }
}

// === impl Field ===

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Id => "id",
            Self::Service => "service name",
            Self::Scheme => "scheme",
            Self::Weight => "weight",
            Self::Zone => "zone",
            Self::Version => "version",
            Self::Status => "status",
            Self::Metadata(key) => return write!(f, "metadata {key:?}"),
            Self::Endpoint(index) => return write!(f, "endpoint {index}"),
        })
    }
}
