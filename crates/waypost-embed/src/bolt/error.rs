//! What can be wrong with a file, and with what is to be written.

use std::io;

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The system failed to read.
    #[error("cannot read {name}")]
    Io {
        /// The file.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// Neither meta page is one of bbolt.
    #[error("{name} is not a bbolt database: {cause}")]
    NotBolt {
        /// The file.
        name: String,
        /// What is wrong with the first meta page.
        cause: String,
    },
    /// A page contradicts the format.
    #[error("{name} is corrupt: page {page}: {cause}")]
    Corrupt {
        /// The file.
        name: String,
        /// The page's number.
        page: u64,
        /// What is wrong with it.
        cause: &'static str,
    },
}

/// Why something could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The system failed to write.
    #[error("cannot write the bbolt database")]
    Io(#[from] io::Error),
    /// Buckets must be given in ascending order of their names, keys in ascending order in their bucket.
    #[error("key {} does not come after {}", key.escape_ascii(), previous.escape_ascii())]
    Order {
        /// The key.
        key: Vec<u8>,
        /// The key before it.
        previous: Vec<u8>,
    },
    /// A key is empty or longer than [`MAX_KEY`](super::MAX_KEY).
    #[error("a key of {0} bytes: bbolt takes 1 to 32768")]
    KeyLength(usize),
    /// A value is longer than [`MAX_VALUE`](super::MAX_VALUE).
    #[error("a value of {0} bytes: bbolt takes up to 2147483646")]
    ValueLength(usize),
    /// A bucket was left half written by an earlier error.
    #[error("an earlier error left the bbolt database incomplete")]
    Incomplete,
}
