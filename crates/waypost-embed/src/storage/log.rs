//! The log: batches in the order in which they were committed, until the database has them.
//!
//! A file of fixed length in two halves, whose blocks are taken from the disk when it is made, so that a commit is one write
//! and one sync without a change of the file system's own records. Frames of ascending sequence number fill one half;
//! when the database has all that the other half holds, the next frame starts there. The database has the number up to
//! which it holds everything, so that nothing in the log ever has to be erased: frames up to that number are passed over.
//!
//! A frame is written when the one before it is on the disk. So a broken frame is the end of the log if nothing of the
//! log follows it, and damage otherwise.

use std::io;

use redb::StorageBackend as _;

use super::frame;
use super::medium::Disk;
use super::overlay::Overlay;
use crate::backend::WriteBatch;

/// A log that is written.
#[derive(Debug)]
pub(crate) struct Log {
    disk: Disk,
    /// Different for each file there has been in this folder.
    salt: u64,
    /// Bytes in a half.
    half: u64,
    /// Where the half starts that is written.
    start: u64,
    /// Where the next frame comes, from the start of the half.
    at: u64,
    /// Up to where each half has been written since the log was opened.
    written: [u64; 2],
    buffer: Vec<u8>,
}

/// Zeros that are written behind a frame where the half was not written before, in bytes. The file system then notes once
/// for so many bytes, and not with each commit, that its blocks are in use: such a note is a commit of its own journal.
const AHEAD: u64 = 256 << 10;

/// What a log holds that the database does not.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    pub(crate) overlay: Overlay,
    /// The last batch in it.
    pub(crate) sequence: u64,
}

/// Why a log is not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplayError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("batch {missing} is damaged or missing, while batch {found} after it is there")]
    Gap { missing: u64, found: u64 },
    #[error("batch {sequence} is whole and is no batch")]
    Malformed { sequence: u64 },
}

// === impl Log ===

impl Log {
    /// A log whose halves are both free.
    pub(crate) fn new(disk: Disk, salt: u64) -> io::Result<Self> {
        let half = disk.len()? / 2 / frame::ALIGN as u64 * frame::ALIGN as u64;
        Ok(Self { disk, salt, half, start: 0, at: 0, written: [0; 2], buffer: Vec::new() })
    }

    /// Reads what follows batch `stored`.
    pub(crate) fn replay(&self, stored: u64) -> Result<Replayed, ReplayError> {
        let mut halves = Vec::new();
        for start in [0, self.half] {
            let mut bytes = vec![0; usize::try_from(self.half).map_err(io::Error::other)?];
            self.disk.read(start, &mut bytes)?;
            halves.push(bytes);
        }
        // An empty half is as good as one that is passed over.
        halves.sort_by_key(|bytes| frame::decode(self.salt, bytes).map(|frame| frame.sequence));
        let mut replayed = Replayed { overlay: Overlay::default(), sequence: stored };
        let mut ends = Vec::new();
        for bytes in &halves {
            let mut at = 0;
            let mut previous = None;
            while let Some(frame) = bytes.get(at..).and_then(|rest| frame::decode(self.salt, rest)) {
                let sequence = frame.sequence;
                if previous.is_some_and(|previous| sequence <= previous) {
                    // Of an earlier use of the half.
                    break;
                }
                if sequence > replayed.sequence {
                    let missing = replayed.sequence + 1;
                    if sequence > missing {
                        return Err(ReplayError::Gap { missing, found: sequence });
                    }
                    let operations = frame.operations().ok_or(ReplayError::Malformed { sequence })?;
                    for operation in operations {
                        replayed.overlay.apply(operation);
                    }
                    replayed.sequence = sequence;
                }
                previous = Some(sequence);
                at += frame.length;
            }
            ends.push(at);
        }
        for (bytes, end) in halves.iter().zip(ends) {
            self.nothing_follows(bytes, end, replayed.sequence)?;
        }
        Ok(replayed)
    }

    /// Looks for a later frame behind the end, which would make the end damage.
    fn nothing_follows(&self, bytes: &[u8], end: usize, last: u64) -> Result<(), ReplayError> {
        for at in (end..bytes.len()).step_by(frame::ALIGN) {
            let Some(rest) = bytes.get(at..) else { break };
            // A checksum is expensive, and most of this is not a frame.
            let later = rest.get(8..16).and_then(|bytes| bytes.first_chunk()).map(|n| u64::from_le_bytes(*n));
            if later.is_none_or(|later| later <= last || later - last > bytes.len() as u64) {
                continue;
            }
            if let Some(frame) = frame::decode(self.salt, rest) {
                return Err(ReplayError::Gap { missing: last + 1, found: frame.sequence });
            }
        }
        Ok(())
    }

    pub(crate) fn salt(&self) -> u64 {
        self.salt
    }

    /// Bytes of the largest frame.
    pub(crate) fn capacity(&self) -> u64 {
        self.half
    }

    /// Whether a frame of this length fits into the half that is written.
    pub(crate) fn has_room(&self, length: u64) -> bool {
        self.at + length <= self.half
    }

    /// Whether so much is written that the database should take it.
    pub(crate) fn is_half_full(&self) -> bool {
        self.at >= self.half / 2
    }

    /// Goes on in the other half, which must be free.
    pub(crate) fn turn(&mut self) {
        self.start = self.half - self.start;
        self.at = 0;
    }

    /// Takes the half that is written for full.
    pub(crate) fn fill(&mut self) {
        self.at = self.half;
    }

    /// Writes a batch and syncs. After an error nothing more may be written.
    pub(crate) fn append(&mut self, sequence: u64, batch: &WriteBatch) -> io::Result<()> {
        self.buffer.clear();
        frame::encode(self.salt, sequence, batch, &mut self.buffer).ok_or(io::ErrorKind::InvalidInput)?;
        let length = self.buffer.len() as u64;
        let written = &mut self.written[usize::from(self.start != 0)];
        if self.at + length > *written {
            *written = (self.at + length + AHEAD).min(self.half).max(self.at + length);
            let upto = usize::try_from(*written - self.at).map_err(io::Error::other)?;
            self.buffer.resize(upto, 0);
        }
        self.disk.write(self.start + self.at, &self.buffer)?;
        self.disk.sync_data()?;
        self.at += length;
        // A batch of the size of the half should not be kept.
        self.buffer.shrink_to(1 << 20);
        Ok(())
    }

    /// Takes back what a failed [`append`](Self::append) may have written, as far as the disk lets it.
    pub(crate) fn take_back(&self) -> io::Result<()> {
        self.disk.write(self.start + self.at, &[0; frame::HEADER])?;
        self.disk.sync_data()
    }
}
