//! Loads a whole file from keys in order: each page is written once, when it is full.

use std::io::{Seek, SeekFrom, Write};

use super::error::WriteError;
use super::meta::Meta;
use super::page::{BUCKET, ELEMENT, HEADER, Header, flags};

/// Bytes of the longest key that bbolt takes.
pub const MAX_KEY: usize = 32768;
/// Bytes of the longest value that bbolt takes.
pub const MAX_VALUE: usize = (1 << 31) - 2;

/// Bytes of a page.
const PAGE: usize = 4096;
/// Pages before the first of the tree: two metas and an empty freelist.
const FIRST: u64 = 3;
const FREELIST: u64 = 2;

/// Writes a bbolt file to where `output` is positioned, in ascending order of buckets and keys.
///
/// Memory is a page per level of the tree of one bucket (three at a million entries) and the longest value, never the
/// store. What is written is a valid database only when [`finish`](Self::finish) has returned, which goes back to
/// write the two metas at the start. Give it a `BufWriter`: it writes page by page.
#[derive(Debug)]
pub struct Writer<W> {
    pages: Pages<W>,
    root: Tree,
    entries: u64,
    buckets: u64,
    /// A bucket failed: the file has pages that belong to nothing.
    incomplete: bool,
}

/// One bucket that is being written.
#[derive(Debug)]
pub struct BucketWriter<'a, W> {
    pages: &'a mut Pages<W>,
    tree: Tree,
    entries: &'a mut u64,
}

/// What a finished file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// Buckets.
    pub buckets: u64,
    /// Entries of all buckets.
    pub entries: u64,
    /// Bytes of the file; a multiple of 4096.
    pub bytes: u64,
}

/// The output, and the number of the next page.
#[derive(Debug)]
struct Pages<W> {
    output: W,
    /// Where page 0 is in the output.
    start: u64,
    next: u64,
}

/// The pages of one bucket that are still open, leaf first.
#[derive(Debug, Default)]
struct Tree {
    levels: Vec<Level>,
    last: Option<Vec<u8>>,
}

/// The open page of one level.
#[derive(Debug, Default)]
struct Level {
    elements: Vec<Element>,
    /// Keys and values, one after the other.
    data: Vec<u8>,
    /// Whether a page of this level has been written.
    written: bool,
}

#[derive(Debug)]
struct Element {
    link: Link,
    key: usize,
    value: usize,
}

/// What an element says besides its key and value.
#[derive(Clone, Copy, Debug)]
enum Link {
    Entry,
    Bucket,
    Child(u64),
}

// === impl Writer ===

impl<W: Write + Seek> Writer<W> {
    /// Begins a file where `output` is positioned. What follows there is overwritten, not cut off.
    pub fn new(mut output: W) -> Result<Self, WriteError> {
        let start = output.stream_position()?;
        output.write_all(&[0; PAGE * 2])?;
        let mut freelist = [0; PAGE];
        freelist[..HEADER].copy_from_slice(
            &Header { id: FREELIST, flags: flags::FREELIST, count: 0, overflow: 0 }.encode(),
        );
        output.write_all(&freelist)?;
        let pages = Pages { output, start, next: FIRST };
        Ok(Self { pages, root: Tree::default(), entries: 0, buckets: 0, incomplete: false })
    }

    /// Writes one bucket: `fill` gives its entries in ascending order of their keys. Names must ascend as well.
    ///
    /// `sequence` is the bucket's counter, which etcd leaves at 0. After an error the file cannot be finished.
    pub fn bucket<E: From<WriteError>>(
        &mut self,
        name: &[u8],
        sequence: u64,
        fill: impl FnOnce(&mut BucketWriter<'_, W>) -> Result<(), E>,
    ) -> Result<(), E> {
        if std::mem::replace(&mut self.incomplete, true) {
            return Err(WriteError::Incomplete.into());
        }
        self.root.check(name)?;
        let mut bucket =
            BucketWriter { pages: &mut self.pages, tree: Tree::default(), entries: &mut self.entries };
        fill(&mut bucket)?;
        let root = bucket.tree.close(&mut self.pages)?;
        let mut record = [0; BUCKET];
        record[..8].copy_from_slice(&root.to_le_bytes());
        record[8..].copy_from_slice(&sequence.to_le_bytes());
        self.root.push(&mut self.pages, name, &record, Link::Bucket)?;
        self.buckets += 1;
        self.incomplete = false;
        Ok(())
    }

    /// Writes what is left and the metas, and flushes. The output is then positioned at the end of the file.
    pub fn finish(mut self) -> Result<(W, Summary), WriteError> {
        if self.incomplete {
            return Err(WriteError::Incomplete);
        }
        let root = self.root.close(&mut self.pages)?;
        let Pages { mut output, start, next: pages } = self.pages;
        output.seek(SeekFrom::Start(start))?;
        for id in 0..2 {
            // Of the two metas, page 0 is that of the even transaction.
            let transaction = 2 - id;
            let meta = Meta { page_size: 4096, root, sequence: 0, freelist: FREELIST, pages, transaction }
                .encode(id);
            output.write_all(&meta)?;
            output.write_all(&vec![0; PAGE - meta.len()])?;
        }
        let bytes = pages * PAGE as u64;
        output.seek(SeekFrom::Start(start + bytes))?;
        output.flush()?;
        Ok((output, Summary { buckets: self.buckets, entries: self.entries, bytes }))
    }
}

// === impl BucketWriter ===

impl<W: Write> BucketWriter<'_, W> {
    /// Appends an entry, whose key must come after that of the last.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), WriteError> {
        self.tree.check(key)?;
        if value.len() > MAX_VALUE {
            return Err(WriteError::ValueLength(value.len()));
        }
        self.tree.push(self.pages, key, value, Link::Entry)?;
        *self.entries += 1;
        Ok(())
    }
}

// === impl Tree ===

impl Tree {
    fn check(&self, key: &[u8]) -> Result<(), WriteError> {
        if key.is_empty() || key.len() > MAX_KEY {
            return Err(WriteError::KeyLength(key.len()));
        }
        match &self.last {
            Some(previous) if previous.as_slice() >= key => {
                Err(WriteError::Order { key: key.to_vec(), previous: previous.clone() })
            }
            _ => Ok(()),
        }
    }

    fn push<W: Write>(
        &mut self,
        pages: &mut Pages<W>,
        key: &[u8],
        value: &[u8],
        link: Link,
    ) -> Result<(), WriteError> {
        let last = self.last.get_or_insert_default();
        last.clear();
        last.extend_from_slice(key);
        self.push_at(pages, 0, key, value, link)
    }

    /// Adds an element to the open page of `level`, which is written first if it would run over a page.
    fn push_at<W: Write>(
        &mut self,
        pages: &mut Pages<W>,
        level: usize,
        key: &[u8],
        value: &[u8],
        link: Link,
    ) -> Result<(), WriteError> {
        if self.levels.len() == level {
            self.levels.push(Level::default());
        }
        // A branch of one child would not make the tree any narrower.
        let least = if level == 0 { 1 } else { 2 };
        let open = &self.levels[level];
        if open.elements.len() >= least && open.bytes() + ELEMENT + key.len() + value.len() > PAGE {
            self.write(pages, level)?;
        }
        let open = &mut self.levels[level];
        open.elements.push(Element { link, key: key.len(), value: value.len() });
        open.data.extend_from_slice(key);
        open.data.extend_from_slice(value);
        Ok(())
    }

    /// Writes the open page of `level` and enters it in the level above.
    fn write<W: Write>(&mut self, pages: &mut Pages<W>, level: usize) -> Result<(), WriteError> {
        let id = pages.write(&self.levels[level], level > 0)?;
        let open = &mut self.levels[level];
        let first = open.data[..open.elements[0].key].to_vec();
        open.elements.clear();
        open.data.clear();
        // One value of many pages must not be remembered as capacity for the rest of the bucket.
        open.data.shrink_to(16 * PAGE);
        open.written = true;
        self.push_at(pages, level + 1, &first, &[], Link::Child(id))
    }

    /// Writes all open pages; the number of the topmost.
    fn close<W: Write>(&mut self, pages: &mut Pages<W>) -> Result<u64, WriteError> {
        if self.levels.is_empty() {
            self.levels.push(Level::default());
        }
        let mut level = 0;
        while self.levels[level].written {
            self.write(pages, level)?;
            level += 1;
        }
        pages.write(&self.levels[level], level > 0)
    }
}

// === impl Level ===

impl Level {
    fn bytes(&self) -> usize {
        HEADER + self.elements.len() * ELEMENT + self.data.len()
    }
}

// === impl Pages ===

impl<W: Write> Pages<W> {
    fn write(&mut self, level: &Level, branch: bool) -> Result<u64, WriteError> {
        let id = self.next;
        let length = level.bytes();
        let count = length.div_ceil(PAGE);
        let overflow = u32::try_from(count - 1).map_err(|_| WriteError::ValueLength(length))?;
        let elements = u16::try_from(level.elements.len()).map_err(|_| WriteError::ValueLength(length))?;
        let flags = if branch { flags::BRANCH } else { flags::LEAF };
        let mut head = Vec::with_capacity(length - level.data.len());
        head.extend(Header { id, flags, count: elements, overflow }.encode());
        let mut data = HEADER + level.elements.len() * ELEMENT;
        for element in &level.elements {
            let position = size(data - head.len())?;
            let (key, value) = (size(element.key)?, size(element.value)?);
            let leaf = |flags: u32| [flags, position, key, value].map(u32::to_le_bytes);
            match element.link {
                Link::Entry => head.extend(leaf(0).as_flattened()),
                Link::Bucket => head.extend(leaf(flags::BUCKET).as_flattened()),
                Link::Child(child) => {
                    head.extend([position, key].map(u32::to_le_bytes).as_flattened());
                    head.extend(child.to_le_bytes());
                }
            }
            data += element.key + element.value;
        }
        self.output.write_all(&head)?;
        self.output.write_all(&level.data)?;
        self.output.write_all(&[0; PAGE][..count * PAGE - length])?;
        self.next += count as u64;
        Ok(id)
    }
}

/// No page holds more than one value beyond 4 KiB, so that its parts fit 32 bits.
fn size(length: usize) -> Result<u32, WriteError> {
    u32::try_from(length).map_err(|_| WriteError::ValueLength(length))
}
