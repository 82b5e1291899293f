//! A lease as it is stored: `leasepb.Lease` under eight bytes of its id.

use bytes::Bytes;
use prost::Message as _;

use crate::backend::Bucket;
use crate::mvcc::Malformed;

/// etcd's `leasepb.Lease`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(super) struct Record {
    #[prost(int64, tag = "1")]
    pub(super) id: i64,
    /// Seconds granted.
    #[prost(int64, tag = "2")]
    pub(super) ttl: i64,
    /// Seconds left when this was written; 0 means all of them.
    #[prost(int64, tag = "3")]
    pub(super) remaining_ttl: i64,
}

// === impl Record ===

impl Record {
    pub(super) fn key(id: i64) -> Bytes {
        Bytes::copy_from_slice(&id.to_be_bytes())
    }

    pub(super) fn read(key: &[u8], value: &[u8]) -> Result<Self, Malformed> {
        let malformed = |reason: String| Malformed::new(Bucket::Lease, key, reason);
        let record = Self::decode(value).map_err(|error| malformed(error.to_string()))?;
        if key != record.id.to_be_bytes() || record.id == 0 {
            return Err(malformed(format!("the value says lease {}", record.id)));
        }
        if record.ttl < 0 || record.remaining_ttl < 0 {
            return Err(malformed(format!("a TTL of {} with {} left", record.ttl, record.remaining_ttl)));
        }
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_that_of_etcd() {
        let record = Record { id: -6, ttl: 60, remaining_ttl: 0 };
        assert_eq!(Record::key(-6)[..], [255, 255, 255, 255, 255, 255, 255, 250]);
        let value = record.encode_to_vec();
        assert_eq!(value, [8, 250, 255, 255, 255, 255, 255, 255, 255, 255, 1, 16, 60]);
        assert_eq!(Record::read(&Record::key(-6), &value), Ok(record));
    }

    #[test]
    fn malformed_records_are_named() {
        let value = Record { id: 7, ttl: 60, remaining_ttl: 0 }.encode_to_vec();
        let error = Record::read(&Record::key(8), &value).unwrap_err().to_string();
        assert!(error.ends_with("the value says lease 7"), "{error}");
        assert!(error.contains(r"bucket lease: key \x00\x00\x00\x00\x00\x00\x00\x08"), "{error}");
        assert!(Record::read(b"short", &value).is_err());
        assert!(Record::read(&Record::key(7), b"\xff").is_err());
        let value = Record { id: 7, ttl: -1, remaining_ttl: 0 }.encode_to_vec();
        assert!(Record::read(&Record::key(7), &value).is_err());
    }
}
