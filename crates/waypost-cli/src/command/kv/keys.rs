//! Which keys: one, a range, a prefix, or from one on.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use clap::Args;
use waypost::etcd::KeyRange;

/// Which keys.
#[derive(Args, Debug)]
pub(crate) struct Keys {
    /// The key, or the first one of a range.
    #[arg(allow_hyphen_values = true)]
    key: OsString,
    /// The end of the range: the first key that is no longer in it.
    #[arg(allow_hyphen_values = true)]
    range_end: Option<OsString>,
    /// Every key that begins with KEY; an empty KEY is every key.
    #[arg(long, conflicts_with = "range_end")]
    prefix: bool,
}

// === impl Keys ===

impl Keys {
    pub(crate) fn range(self, from_key: bool) -> KeyRange {
        let key = self.key.into_vec();
        match self.range_end {
            Some(end) => KeyRange::new(key, end.into_vec()),
            None if self.prefix => KeyRange::prefix(key),
            None if from_key => KeyRange::from(key),
            None => KeyRange::key(key),
        }
    }
}
