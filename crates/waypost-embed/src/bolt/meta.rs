//! The meta page: where the tree begins and how far the file goes.

use super::page::{HEADER, Header, flags, u32_at, u64_at};

/// What says that a file is bbolt's.
const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
/// Bytes of a meta without its page header, and of what its checksum covers.
const LENGTH: usize = 64;
const SUMMED: usize = 56;

/// The content of a meta page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) page_size: u32,
    pub(crate) root: u64,
    pub(crate) sequence: u64,
    /// Its page; all ones when none was written, as etcd has it. A reader needs none.
    pub(crate) freelist: u64,
    /// One more than the last page in use.
    pub(crate) pages: u64,
    pub(crate) transaction: u64,
}

// === impl Meta ===

impl Meta {
    /// The page with header; `id` is 0 or 1.
    pub(crate) fn encode(self, id: u64) -> Vec<u8> {
        let mut bytes = Header { id, flags: flags::META, count: 0, overflow: 0 }.encode().to_vec();
        for number in [MAGIC, VERSION, self.page_size, 0] {
            bytes.extend(number.to_le_bytes());
        }
        for number in [self.root, self.sequence, self.freelist, self.pages, self.transaction] {
            bytes.extend(number.to_le_bytes());
        }
        let sum = fnv1a(&bytes[HEADER..]);
        bytes.extend(sum.to_le_bytes());
        bytes
    }

    /// What is wrong with it, if it is not a meta page.
    pub(crate) fn decode(page: &[u8]) -> Result<Self, String> {
        let meta = page.get(HEADER..HEADER + LENGTH).ok_or("it is shorter than a meta page")?;
        let number = |at| u32_at(meta, at).unwrap_or_default();
        let long = |at| u64_at(meta, at).unwrap_or_default();
        if number(0) != MAGIC {
            return Err(format!("its magic number is {:#010x} and not {MAGIC:#010x}", number(0)));
        }
        if number(4) != VERSION {
            return Err(format!("its version is {} and not {VERSION}", number(4)));
        }
        if long(SUMMED) != fnv1a(&meta[..SUMMED]) {
            return Err("the checksum of its meta page is wrong".to_owned());
        }
        let page_size = number(8);
        if !page_size.is_power_of_two() || !(512..=1 << 16).contains(&page_size) {
            return Err(format!("its page size is {page_size}"));
        }
        Ok(Self {
            page_size,
            root: long(16),
            sequence: long(24),
            freelist: long(32),
            pages: long(40),
            transaction: long(48),
        })
    }
}

/// FNV-1a of 64 bits.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
