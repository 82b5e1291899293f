//! The header of a page and the elements of leaves and branches.

/// Bytes of a page header, and of an element of either kind.
pub(crate) const HEADER: usize = 16;
/// Bytes of an element of a leaf or of a branch.
pub(crate) const ELEMENT: usize = 16;
/// Bytes of a bucket's own record: root page and sequence.
pub(crate) const BUCKET: usize = 16;

/// What a page holds, as its flags.
pub(crate) mod flags {
    pub(crate) const BRANCH: u16 = 1;
    pub(crate) const LEAF: u16 = 2;
    pub(crate) const META: u16 = 4;
    pub(crate) const FREELIST: u16 = 16;
    /// Of a leaf element: the value is a bucket.
    pub(crate) const BUCKET: u32 = 1;
}

/// The first bytes of every page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) id: u64,
    pub(crate) flags: u16,
    pub(crate) count: u16,
    pub(crate) overflow: u32,
}

/// A page of a leaf or a branch whose elements have been checked to lie within it.
#[derive(Debug)]
pub(crate) struct Node {
    bytes: Vec<u8>,
    start: usize,
    pub(crate) branch: bool,
    pub(crate) count: usize,
}

/// An element of a leaf.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeafElement<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
    pub(crate) bucket: bool,
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The `length` bytes that begin `position` after the start of the element at `at`.
fn part(bytes: &[u8], at: usize, position: usize, length: usize) -> Option<&[u8]> {
    let from = at.checked_add(position)?;
    bytes.get(from..from.checked_add(length)?)
}

fn size_at(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u32_at(bytes, at)?).ok()
}

// === impl Header ===

impl Header {
    pub(crate) fn encode(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&self.id.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.flags.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.count.to_le_bytes());
        bytes[12..].copy_from_slice(&self.overflow.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            id: u64_at(bytes, 0)?,
            flags: u16_at(bytes, 8)?,
            count: u16_at(bytes, 10)?,
            overflow: u32_at(bytes, 12)?,
        })
    }
}

// === impl Node ===

impl Node {
    /// Checks the page that begins at `start` of `bytes` and reaches to their end.
    pub(crate) fn new(bytes: Vec<u8>, start: usize) -> Result<Self, &'static str> {
        let page = bytes.get(start..).unwrap_or_default();
        let header = Header::decode(page).ok_or("its header is cut off")?;
        let branch = match header.flags {
            flags::BRANCH => true,
            flags::LEAF => false,
            _ => return Err("it is neither a leaf nor a branch"),
        };
        let node = Self { start, branch, count: usize::from(header.count), bytes };
        if branch && node.count == 0 {
            return Err("it is a branch without children");
        }
        let mut previous: Option<&[u8]> = None;
        for index in 0..node.count {
            let key = if branch { node.try_child(index).map(|(key, _)| key) } else { node.try_leaf(index) };
            let key = key.ok_or("an element reaches out of it")?;
            if previous.is_some_and(|previous| previous >= key) {
                return Err("its keys are not in order");
            }
            previous = Some(key);
        }
        Ok(node)
    }

    /// The child of a branch; `None` past its last.
    pub(crate) fn child(&self, index: usize) -> Option<u64> {
        (self.branch && index < self.count).then(|| self.try_child(index)).flatten().map(|(_, page)| page)
    }

    /// The element of a leaf; `None` past its last.
    pub(crate) fn element(&self, index: usize) -> Option<LeafElement<'_>> {
        (!self.branch && index < self.count).then(|| self.try_element(index)).flatten()
    }

    fn page(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    fn try_child(&self, index: usize) -> Option<(&[u8], u64)> {
        let (page, at) = (self.page(), HEADER + index * ELEMENT);
        let key = part(page, at, size_at(page, at)?, size_at(page, at + 4)?)?;
        Some((key, u64_at(page, at + 8)?))
    }

    fn try_leaf(&self, index: usize) -> Option<&[u8]> {
        self.try_element(index).map(|element| element.key)
    }

    fn try_element(&self, index: usize) -> Option<LeafElement<'_>> {
        let (page, at) = (self.page(), HEADER + index * ELEMENT);
        let flags = u32_at(page, at)?;
        let (position, key, value) =
            (size_at(page, at + 4)?, size_at(page, at + 8)?, size_at(page, at + 12)?);
        Some(LeafElement {
            key: part(page, at, position, key)?,
            value: part(page, at, position.checked_add(key)?, value)?,
            bucket: flags & flags::BUCKET != 0,
        })
    }
}
