//! The position of one change in history, and its record key.

/// One change of one key: the revision, and the place of the change within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    /// The store's revision.
    pub main: i64,
    /// Place among the changes of that revision, from 0.
    pub sub: u32,
}

/// Length of a record key, without the mark of a deletion.
const LEN: usize = 17;

// === impl Revision ===

impl Revision {
    /// The change number `sub` of revision `main`.
    pub fn new(main: i64, sub: u32) -> Self {
        Self { main, sub }
    }

    /// The record key: of a deletion if `tombstone`.
    pub fn encode(self, tombstone: bool) -> Vec<u8> {
        let mut key = Vec::with_capacity(LEN + usize::from(tombstone));
        key.extend_from_slice(&self.main.to_be_bytes());
        key.push(b'_');
        key.extend_from_slice(&i64::from(self.sub).to_be_bytes());
        if tombstone {
            key.push(b't');
        }
        key
    }

    /// Reads a record key; the second part tells whether it is that of a deletion. `None`: not a record key.
    pub fn decode(key: &[u8]) -> Option<(Self, bool)> {
        let (main, rest) = key.split_first_chunk::<8>()?;
        let (mark, rest) = rest.split_first()?;
        let (sub, rest) = rest.split_first_chunk::<8>()?;
        let tombstone = match rest {
            [] => false,
            [b't'] => true,
            _ => return None,
        };
        let main = i64::from_be_bytes(*main);
        let sub = u32::try_from(i64::from_be_bytes(*sub)).ok()?;
        (*mark == b'_' && main > 0).then_some((Self { main, sub }, tombstone))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_keys_are_those_of_etcd() {
        let key = Revision::new(0x0102, 3).encode(false);
        assert_eq!(key, b"\0\0\0\0\0\0\x01\x02_\0\0\0\0\0\0\0\x03");
        assert_eq!(Revision::decode(&key), Some((Revision::new(0x0102, 3), false)));
        let key = Revision::new(7, 0).encode(true);
        assert_eq!(key.last(), Some(&b't'));
        assert_eq!(Revision::decode(&key), Some((Revision::new(7, 0), true)));
    }

    #[test]
    fn what_is_no_record_key_is_refused() {
        let good = Revision::new(7, 0).encode(true);
        for len in 0..LEN {
            assert_eq!(Revision::decode(&good[..len]), None);
        }
        let mut longer = good.clone();
        longer.push(b't');
        assert_eq!(Revision::decode(&longer), None);
        let mut marked = good.clone();
        marked[8] = b'-';
        assert_eq!(Revision::decode(&marked), None);
        let mut negative = good.clone();
        negative[0] = 0xff;
        assert_eq!(Revision::decode(&negative), None);
        let mut far = good;
        far[9] = 1;
        assert_eq!(Revision::decode(&far), None);
    }
}
