//! Paths of Unix sockets that the system's addresses have no room for.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// A path by which a socket can be bound and connected to for as long as this lives.
#[derive(Debug)]
pub(crate) struct Reach {
    path: PathBuf,
    /// The folder that the path begins in, where the path has no room for its name.
    _folder: Option<File>,
}

/// Bytes of a path in an address: 108 with the zero at the end, 104 where the BSDs' layout is used.
const LONGEST: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

// === impl Reach ===

impl Reach {
    /// The path as it is, or through an open folder if it is too long: the folder must be there then.
    ///
    /// # Errors
    /// `InvalidInput` when the path is too long and the system, or its name alone, leaves no way around it; otherwise when
    /// the folder cannot be opened.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        if path.as_os_str().len() <= LONGEST {
            return Ok(Self { path: path.to_owned(), _folder: None });
        }
        through_folder(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(target_os = "linux")]
fn through_folder(path: &Path) -> io::Result<Reach> {
    use std::os::fd::AsRawFd as _;
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(too_long(path)) };
    let folder = File::open(parent)?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name);
    if short.as_os_str().len() > LONGEST {
        return Err(too_long(path));
    }
    Ok(Reach { path: short, _folder: Some(folder) })
}

#[cfg(not(target_os = "linux"))]
fn through_folder(path: &Path) -> io::Result<Reach> {
    Err(too_long(path))
}

fn too_long(path: &Path) -> io::Error {
    let length = path.as_os_str().len();
    let text = format!(
        "{} has {length} bytes, and the path of a socket at most {LONGEST}: choose a shorter one",
        path.display()
    );
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn a_short_path_stays_and_a_long_one_is_reached_through_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let short = folder.path().join("s");
        assert_eq!(Reach::of(&short).unwrap().path(), short);

        let deep = folder.path().join("d".repeat(120)).join("e".repeat(120));
        std::fs::create_dir_all(&deep).unwrap();
        let (server, client) = (Reach::of(&deep.join("s")).unwrap(), Reach::of(&deep.join("s")).unwrap());
        let _listener = UnixListener::bind(server.path()).unwrap();
        assert!(deep.join("s").exists());
        UnixStream::connect(client.path()).unwrap();
    }

    #[test]
    fn a_name_that_is_too_long_by_itself_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = Reach::of(&folder.path().join("n".repeat(120))).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains("at most 107"), "{error}");
    }
}
