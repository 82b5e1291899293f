//! The SHA-256 that etcd puts after a snapshot, and `snapshot restore` checks.
//!
//! A database is a multiple of 512 bytes long; a file that is 32 bytes longer than one ends with the hash of all before.

use std::io::{self, Read, Seek, SeekFrom, Write};

use sha2::{Digest, Sha256};

/// Bytes of the hash.
pub const LENGTH: usize = 32;

/// The hash of what passes by, for a snapshot that is streamed.
///
/// ```
/// let mut hash = waypost_embed::bolt::seal::Hash::default();
/// hash.update(b"abc");
/// assert_eq!(hash.finish()[..4], [0xba, 0x78, 0x16, 0xbf]);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Hash(Sha256);

/// What [`check`] found at the end of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seal {
    /// The hash is there and right.
    Intact,
    /// There is no hash: the file is a database as it lies in a data directory.
    Absent,
    /// There is a hash of something else: the file was damaged on its way.
    Broken,
}

/// Appends the hash of the whole of `file`, which is read from its start.
pub fn append<F: Read + Write + Seek>(file: &mut F) -> io::Result<()> {
    file.rewind()?;
    let hash = hash_of(file)?;
    file.seek(SeekFrom::End(0))?;
    file.write_all(&hash)?;
    file.flush()
}

/// Reads the whole of `file` and compares it with the hash at its end.
pub fn check<F: Read + Seek>(file: &mut F) -> io::Result<Seal> {
    let length = file.seek(SeekFrom::End(0))?;
    if length % 512 != LENGTH as u64 {
        return Ok(Seal::Absent);
    }
    file.rewind()?;
    let hash = hash_of(&mut file.by_ref().take(length - LENGTH as u64))?;
    let mut written = [0; LENGTH];
    file.read_exact(&mut written)?;
    Ok(if hash == written { Seal::Intact } else { Seal::Broken })
}

fn hash_of(input: &mut impl Read) -> io::Result<[u8; LENGTH]> {
    let mut hash = Hash::default();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match input.read(&mut buffer) {
            Ok(0) => return Ok(hash.finish()),
            Ok(length) => hash.update(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

// === impl Hash ===

impl Hash {
    /// Adds what comes next.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of all that was added.
    pub fn finish(self) -> [u8; LENGTH] {
        self.0.finalize().into()
    }
}
