//! Reads a file and trusts nothing in it.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::path::Path;

use super::error::ReadError;
use super::meta::Meta;
use super::page::{BUCKET, HEADER, Header, Node, u64_at};

/// Levels of a tree that are followed. Real trees have five at the most: a page of 4 KiB branches at least by two, and by
/// a hundred with etcd's keys.
const DEPTH: usize = 64;

/// Reads buckets and entries of a bbolt file: a snapshot of etcd, with or without its trailing SHA-256, or the file `db` of
/// a data directory whose etcd does not run.
///
/// Any bytes may be given. Every offset and length is checked against the page and the file; a page is visited once in
/// a traversal, so that a file without end is found out; no more is held than one page (with its overflow pages) for
/// each of at most 64 levels.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    name: String,
    meta: Meta,
    /// Pages that may be used: those in use by the meta, which are all in the file.
    pages: u64,
}

/// A bucket of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BucketInfo {
    /// Its name.
    pub name: Vec<u8>,
    /// Its counter; 0 in files of etcd.
    pub sequence: u64,
}

/// What a traversal calls with each key and value; `Break` ends it.
pub type VisitEntry<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// Called with each element of a tree's leaves: the page's number, the key, the value, and whether that is a bucket. An error
/// names the page and what is wrong with it.
type VisitElement<'a> =
    dyn FnMut(u64, &[u8], &[u8], bool) -> Result<ControlFlow<()>, (u64, &'static str)> + 'a;

/// Where a bucket's tree is.
#[derive(Debug)]
enum Root {
    Page(u64),
    /// The leaf is in the value of page `page`.
    Inline {
        page: u64,
        value: Vec<u8>,
    },
}

/// Pages that a traversal has seen: a bit for each.
#[derive(Debug)]
struct Seen(Vec<u64>);

// === impl Reader ===

impl Reader<BufReader<File>> {
    /// Opens a file. It is not locked: of a database in use, what is read may be torn, which is reported as corruption.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ReadError> {
        let name = path.as_ref().display().to_string();
        match File::open(path) {
            Ok(file) => Reader::new(BufReader::with_capacity(1 << 16, file), name),
            Err(source) => Err(ReadError::Io { name, source }),
        }
    }
}

impl<R: Read + Seek> Reader<R> {
    /// Reads the metas of `input`, which begins at its position 0. Errors speak of it as `name`.
    pub fn new(mut input: R, name: impl Into<String>) -> Result<Self, ReadError> {
        let name = name.into();
        let io = |source| ReadError::Io { name: name.clone(), source };
        let length = input.seek(SeekFrom::End(0)).map_err(io)?;
        let meta = match find_meta(&mut input).map_err(io)? {
            Ok(meta) => meta,
            Err(cause) => return Err(ReadError::NotBolt { name, cause }),
        };
        let in_file = length / u64::from(meta.page_size);
        if meta.pages > in_file {
            let cause = format!("it has {in_file} of {} pages: it was cut off", meta.pages);
            return Err(ReadError::NotBolt { name, cause });
        }
        Ok(Self { pages: meta.pages, input, name, meta })
    }

    /// Bytes of the database: without a trailing SHA-256, and without space at the end that is not in use.
    pub fn bytes(&self) -> u64 {
        self.pages * u64::from(self.meta.page_size)
    }

    /// The buckets, in the order of their names.
    pub fn buckets(&mut self) -> Result<Vec<BucketInfo>, ReadError> {
        let mut buckets = Vec::new();
        self.walk(Root::Page(self.meta.root), &mut |page, key, value, bucket| {
            let record = bucket.then(|| u64_at(value, 8)).flatten();
            let sequence = record.ok_or((page, "the root bucket holds what is not a bucket"))?;
            buckets.push(BucketInfo { name: key.to_vec(), sequence });
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(buckets)
    }

    /// Visits the entries of a bucket in the order of their keys; false when there is no such bucket.
    pub fn for_each(&mut self, bucket: &[u8], visit: &mut VisitEntry<'_>) -> Result<bool, ReadError> {
        let Some(root) = self.root_of(bucket)? else { return Ok(false) };
        self.walk(root, &mut |page, key, value, bucket| {
            if bucket {
                return Err((page, "it holds a bucket within a bucket, which etcd does not write"));
            }
            Ok(visit(key, value))
        })?;
        Ok(true)
    }

    fn root_of(&mut self, bucket: &[u8]) -> Result<Option<Root>, ReadError> {
        let mut root = None;
        self.walk(Root::Page(self.meta.root), &mut |page, key, value, is_bucket| {
            if key != bucket {
                return Ok(ControlFlow::Continue(()));
            }
            if !is_bucket || value.len() < BUCKET {
                return Err((page, "the root bucket holds what is not a bucket"));
            }
            root = Some(match u64_at(value, 0) {
                Some(0) | None => Root::Inline { page, value: value.to_vec() },
                Some(page) => Root::Page(page),
            });
            Ok(ControlFlow::Break(()))
        })?;
        Ok(root)
    }

    /// Visits the leaf elements of a tree in order.
    fn walk(&mut self, root: Root, visit: &mut VisitElement<'_>) -> Result<(), ReadError> {
        let mut seen = Seen::new(self.pages);
        let mut last: Option<Vec<u8>> = None;
        let (page, node) = match root {
            Root::Page(page) => (page, self.node(page, &mut seen)?),
            Root::Inline { page, value } => {
                let node = Node::new(value, BUCKET).map_err(|cause| self.corrupt(page, cause))?;
                if node.branch {
                    return Err(self.corrupt(page, "an inline bucket is not a leaf"));
                }
                (page, node)
            }
        };
        let mut path = vec![(page, node, 0)];
        while let Some((page, node, next)) = path.last_mut() {
            let page = *page;
            if node.branch {
                let Some(child) = node.child(*next) else {
                    path.pop();
                    continue;
                };
                *next += 1;
                if path.len() == DEPTH {
                    return Err(self.corrupt(page, "the tree is more than 64 levels deep"));
                }
                path.push((child, self.node(child, &mut seen)?, 0));
                continue;
            }
            let first = node.element(0).map(|element| element.key);
            if first.zip(last.as_deref()).is_some_and(|(first, last)| first <= last) {
                return Err(self.corrupt(page, "its keys do not come after those of the page before it"));
            }
            let mut index = 0;
            while let Some(element) = node.element(index) {
                match visit(page, element.key, element.value, element.bucket) {
                    Ok(ControlFlow::Continue(())) => index += 1,
                    Ok(ControlFlow::Break(())) => return Ok(()),
                    Err((page, cause)) => return Err(self.corrupt(page, cause)),
                }
            }
            if let Some(element) = index.checked_sub(1).and_then(|index| node.element(index)) {
                last = Some(element.key.to_vec());
            }
            path.pop();
        }
        Ok(())
    }

    /// Reads the page of a leaf or a branch with its overflow pages.
    fn node(&mut self, page: u64, seen: &mut Seen) -> Result<Node, ReadError> {
        if page < 2 || page >= self.pages {
            return Err(self.corrupt(page, "it is referred to but not in use"));
        }
        let size = u64::from(self.meta.page_size);
        let head = self.bytes_at(page, HEADER as u64)?;
        let Some(header) = Header::decode(&head) else {
            return Err(self.corrupt(page, "its header is cut off"));
        };
        if header.id != page {
            return Err(self.corrupt(page, "it says that it is another page"));
        }
        let count = u64::from(header.overflow) + 1;
        if count > self.pages - page {
            return Err(self.corrupt(page, "it runs over the end of the file"));
        }
        if !(page..page + count).all(|page| seen.insert(page)) {
            return Err(self.corrupt(page, "it is referred to twice"));
        }
        let bytes = self.bytes_at(page, count * size)?;
        Node::new(bytes, 0).map_err(|cause| self.corrupt(page, cause))
    }

    /// Reads as many bytes as there are: memory grows with what the file gives.
    fn bytes_at(&mut self, page: u64, length: u64) -> Result<Vec<u8>, ReadError> {
        let from = page * u64::from(self.meta.page_size);
        let mut bytes = Vec::new();
        let read = self
            .seek(from)
            .and_then(|()| {
                let capacity =
                    usize::try_from(length).map_err(|_| io::Error::from(ErrorKind::OutOfMemory))?;
                bytes.try_reserve_exact(capacity).map_err(|_| io::Error::from(ErrorKind::OutOfMemory))
            })
            .and_then(|()| self.input.by_ref().take(length).read_to_end(&mut bytes));
        match read {
            Ok(read) if read as u64 == length => Ok(bytes),
            Ok(_) => Err(self.corrupt(page, "the file ends within it")),
            Err(source) => Err(ReadError::Io { name: self.name.clone(), source }),
        }
    }

    /// Relative, so that a `BufReader` keeps what it has.
    fn seek(&mut self, to: u64) -> io::Result<()> {
        let from = self.input.stream_position()?;
        match i64::try_from(to).ok().zip(i64::try_from(from).ok()) {
            Some((to, from)) => self.input.seek_relative(to - from),
            None => self.input.seek(SeekFrom::Start(to)).map(drop),
        }
    }

    fn corrupt(&self, page: u64, cause: &'static str) -> ReadError {
        ReadError::Corrupt { name: self.name.clone(), page, cause }
    }
}

/// The valid meta with the higher transaction; else what is wrong with the first.
fn find_meta<R: Read + Seek>(input: &mut R) -> io::Result<Result<Meta, String>> {
    let first = meta_at(input, 0)?;
    // The second is one page into the file, wherever that is if the first does not tell.
    let sizes = first.as_ref().map_or(512..=1 << 16, |meta| meta.page_size..=meta.page_size);
    let mut newest = first.as_ref().ok().copied();
    for page_size in (9..=16).map(|power| 1 << power).filter(|size| sizes.contains(size)) {
        let second = meta_at(input, u64::from(page_size))?.ok().filter(|meta| meta.page_size == page_size);
        newest = newest.into_iter().chain(second).max_by_key(|meta| meta.transaction);
    }
    Ok(newest.map_or(first, Ok))
}

fn meta_at<R: Read + Seek>(input: &mut R, at: u64) -> io::Result<Result<Meta, String>> {
    let mut page = Vec::new();
    input.seek(SeekFrom::Start(at))?;
    input.take(128).read_to_end(&mut page)?;
    Ok(Meta::decode(&page))
}

// === impl Seen ===

impl Seen {
    fn new(pages: u64) -> Self {
        Self(vec![0; usize::try_from(pages / 64 + 1).unwrap_or(0)])
    }

    /// False when the page was there already.
    fn insert(&mut self, page: u64) -> bool {
        let Some(word) = usize::try_from(page / 64).ok().and_then(|index| self.0.get_mut(index)) else {
            return false;
        };
        let bit = 1 << (page % 64);
        let new = *word & bit == 0;
        *word |= bit;
        new
    }
}
