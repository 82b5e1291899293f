//! One file of the disk cache: its name, its contents, and how it is replaced.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use waypost_model::{Instance, InstanceId, InstanceKey, Scope, ServiceName, Snapshot};

use crate::cache::Cached;
use crate::reader::Reader;

/// The name of the format, and the version that is written.
const FORMAT: &str = "waypost-discovery-cache";
const VERSION: u64 = 1;

/// Of a file name that is longer, this much is kept: file systems allow 255 bytes.
const LONGEST_NAME: usize = 200;

const ENCODED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'.').remove(b'_').remove(b'-').remove(b'=').remove(b',').remove(b'@');

/// The contents of a file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Image {
    format: String,
    version: u64,
    service: Option<ServiceName>,
    layouts: Vec<LayoutName>,
    revision: i64,
    written: u64,
    instances: Vec<Entry>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct LayoutName {
    name: String,
    prefix: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    service: ServiceName,
    id: InstanceId,
    layout: u8,
    lease: i64,
    instance: Arc<Instance>,
}

/// Read before the rest, which another version may write otherwise.
#[derive(Deserialize)]
struct Header {
    #[serde(default)]
    format: String,
    #[serde(default)]
    version: u64,
}

/// Why a file is of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error("there is no such file")]
    Missing,
    #[error("it cannot be read")]
    Io(#[source] io::Error),
    #[error("it is not JSON of the format {FORMAT}: {0}")]
    Malformed(#[from] serde_json::Error),
    #[error("it is of format {format:?} version {version}; this program reads {FORMAT} version {VERSION}")]
    Format { format: String, version: u64 },
    #[error("it is about another scope or other layouts")]
    Foreign,
}

/// The name of the file of a reader.
pub(crate) fn name(reader: &Reader) -> String {
    let scope = match &reader.scope {
        Scope::Service(service) => format!("service.{service}"),
        Scope::Catalog => "catalog".to_owned(),
    };
    let layouts: Vec<String> =
        layouts(reader).iter().map(|layout| format!("{}={}", layout.name, layout.prefix)).collect();
    let plain = format!("{scope}@{}", layouts.join(","));
    let mut name = utf8_percent_encode(&plain, ENCODED).to_string();
    if name.len() > LONGEST_NAME {
        let hash = fnv_1a(name.as_bytes());
        // Percent-encoded: every byte is a character.
        name.truncate(LONGEST_NAME);
        name = format!("{name}~{hash:016x}");
    }
    name.push_str(".json");
    name
}

// === impl Image ===

impl Image {
    pub(crate) fn of(
        snapshot: &Snapshot,
        reader: &Reader,
        lease: impl Fn(&InstanceKey) -> i64,
        now: SystemTime,
    ) -> Self {
        let entry = |(key, instance): (&InstanceKey, &Arc<Instance>)| Entry {
            service: key.service.clone(),
            id: key.id.clone(),
            layout: key.layout,
            lease: lease(key),
            instance: Arc::clone(instance),
        };
        Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            service: service(reader),
            layouts: layouts(reader),
            revision: snapshot.revision(),
            written: now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            instances: snapshot.map().iter().map(entry).collect(),
        }
    }

    pub(crate) fn load(path: &Path, reader: &Reader) -> Result<Self, LoadError> {
        let bytes = fs::read(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => LoadError::Missing,
            _ => LoadError::Io(error),
        })?;
        let Header { format, version } = serde_json::from_slice(&bytes)?;
        if format != FORMAT || version != VERSION {
            return Err(LoadError::Format { format, version });
        }
        let image: Self = serde_json::from_slice(&bytes)?;
        let in_layouts = |entry: &Entry| usize::from(entry.layout) < reader.layouts.len();
        if image.service != service(reader)
            || image.layouts != layouts(reader)
            || !image.instances.iter().all(in_layouts)
        {
            return Err(LoadError::Foreign);
        }
        Ok(image)
    }

    /// Replaces the file as a whole.
    pub(crate) fn store(&self, path: &Path) -> io::Result<()> {
        let directory = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(directory)?;
        let beside = path.with_extension(format!("{}.tmp", process::id()));
        let stored = self.write(&beside).and_then(|()| fs::rename(&beside, path));
        if stored.is_err() {
            // Of both errors the first says what is wrong.
            let _ = fs::remove_file(&beside);
        }
        stored?;
        sync_directory(directory)
    }

    pub(crate) fn into_cached(self, path: PathBuf) -> Cached {
        let entry = |entry: Entry| {
            let Entry { service, id, layout, lease, instance } = entry;
            (InstanceKey { service, id, layout }, instance, lease)
        };
        // A date that does not fit is no date.
        let written = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(self.written));
        Cached {
            path,
            written: written.unwrap_or(SystemTime::UNIX_EPOCH),
            revision: self.revision.max(0),
            instances: self.instances.into_iter().map(entry).collect(),
        }
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let mut file = io::BufWriter::new(fs::File::create(path)?);
        serde_json::to_writer(&mut file, self)?;
        file.flush()?;
        file.get_ref().sync_all()
    }
}

fn service(reader: &Reader) -> Option<ServiceName> {
    match &reader.scope {
        Scope::Service(service) => Some(service.clone()),
        Scope::Catalog => None,
    }
}

fn layouts(reader: &Reader) -> Vec<LayoutName> {
    let layouts = reader.layouts.iter();
    layouts
        .map(|layout| LayoutName { name: layout.name().to_owned(), prefix: layout.prefix().to_owned() })
        .collect()
}

/// Makes a rename durable. Only Unix lets a directory be opened for it.
fn sync_directory(directory: &Path) -> io::Result<()> {
    if cfg!(unix) { fs::File::open(directory)?.sync_all() } else { Ok(()) }
}

/// Only tells long names apart; the contents are checked.
fn fnv_1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use waypost_model::{Existence, SnapshotParts, layout};

    use super::*;

    fn reader(service: &str) -> Reader {
        Reader::service(service.parse().unwrap(), &[layout("grpc", None).unwrap()])
    }

    fn snapshot(service: &str) -> Snapshot {
        let instance =
            Arc::new(Instance::new(service.parse().unwrap(), "10.0.0.1:80".parse().unwrap()).with_zone("a"));
        Snapshot::new(SnapshotParts {
            revision: 17,
            instances: [(InstanceKey::of(&instance, 0), instance)].into_iter().collect(),
            existence: Existence::Present,
            ..Snapshot::absent(Scope::Service(service.parse().unwrap())).to_parts()
        })
    }

    fn stored(directory: &Path) -> PathBuf {
        let reader = reader("greeter");
        let path = directory.join(name(&reader));
        Image::of(&snapshot("greeter"), &reader, |_| 42, SystemTime::now()).store(&path).unwrap();
        path
    }

    #[test]
    fn what_is_stored_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let path = stored(&directory.path().join("made/on/demand"));
        let cached = Image::load(&path, &reader("greeter")).unwrap().into_cached(path.clone());
        assert_eq!(cached.revision, 17);
        let [(key, instance, lease)] = cached.instances.as_slice() else { panic!("one instance") };
        assert_eq!((key.id.as_str(), *lease), ("10.0.0.1:80", 42));
        assert_eq!(instance.zone.as_deref(), Some("a"));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn files_of_no_use_are_refused_by_name_of_the_flaw() {
        let directory = tempfile::tempdir().unwrap();
        let path = stored(directory.path());
        let good = fs::read_to_string(&path).unwrap();
        let load = |contents: &str| {
            fs::write(&path, contents).unwrap();
            Image::load(&path, &reader("greeter")).unwrap_err().to_string()
        };
        assert!(load("").contains("not JSON"));
        assert!(load(&good[..good.len() / 2]).contains("not JSON"));
        assert!(load("{}").contains("format \"\" version 0"));
        assert!(load(&good.replace("\"version\":1", "\"version\":2")).contains("version 2"));
        assert!(load(&good.replace("\"layout\":0", "\"layout\":7")).contains("another scope"));
        assert!(load(&good.replace("10.0.0.1:80", "not an address")).contains("not JSON"));
        assert!(load(&good.replace("services", "elsewhere")).contains("another scope"));
        fs::write(&path, &good).unwrap();
        assert!(Image::load(&path, &reader("other")).is_err());
        fs::remove_file(&path).unwrap();
        assert!(matches!(Image::load(&path, &reader("greeter")), Err(LoadError::Missing)));
    }

    #[test]
    fn names_are_safe_and_bounded() {
        assert_eq!(name(&reader("svc/echo")), "service.svc%2Fecho@grpc=services.json");
        let long = name(&reader(&"é".repeat(120)));
        assert!(long.len() <= 255 && long.is_ascii(), "{long}");
        assert_ne!(long, name(&reader(&format!("{}e", "é".repeat(119)))));
    }
}
