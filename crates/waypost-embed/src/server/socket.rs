//! Sockets that are listened on.

use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net as std_unix;
use std::path::Path;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_util::either::Either;

use super::StartError;
use super::address::{Address, Place};
use super::reach::Reach;

/// A socket that accepts connections.
#[derive(Debug)]
pub(super) enum Listening {
    Tcp(TcpListener),
    Unix {
        /// First: it goes while the socket is listened on still, so that no successor has taken its place.
        _file: SocketFile,
        listener: UnixListener,
    },
}

/// A connection, served by the runtime in which it was [attached](Accepted::attach).
pub(super) type Stream = Either<TcpStream, UnixStream>;

/// A connection that no runtime has yet.
#[derive(Debug)]
pub(super) enum Accepted {
    Tcp(std::net::TcpStream),
    Unix(std_unix::UnixStream),
}

/// The file of a Unix socket. Removed when this is dropped, unless another socket has taken its place.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: Reach,
    /// Device and number of the file.
    identity: (u64, u64),
}

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

// === impl Listening ===

impl Listening {
    /// Binds an address; gives the URL at which it is reached, too. `mode` is that of the file of a Unix socket.
    pub(super) async fn bind(address: &Address, mode: u32) -> Result<(Self, String), StartError> {
        let failed = |source| StartError::Listen { url: address.url.clone(), source };
        match &address.place {
            Place::Tcp(authority) => {
                let listener = TcpListener::bind(authority).await.map_err(failed)?;
                let url = address.at(listener.local_addr().map_err(failed)?);
                Ok((Self::Tcp(listener), url))
            }
            Place::Unix(path) => {
                let (file, listener) = bind_unix(path, mode).map_err(failed)?;
                Ok((Self::Unix { _file: file, listener }, address.url.clone()))
            }
        }
    }

    /// The next connection. Cancel safe.
    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                if let Err(error) = stream.set_nodelay(true) {
                    // It has ended already, which whoever reads from it finds out.
                    tracing::debug!(%error, "a connection ended at once");
                }
                Ok(Accepted::Tcp(stream.into_std()?))
            }
            Self::Unix { listener, .. } => Ok(Accepted::Unix(listener.accept().await?.0.into_std()?)),
        }
    }
}

// === impl Accepted ===

impl Accepted {
    /// Has the runtime of the caller serve it.
    pub(super) fn attach(self) -> io::Result<Stream> {
        Ok(match self {
            Self::Tcp(stream) => Either::Left(TcpStream::from_std(stream)?),
            Self::Unix(stream) => Either::Right(UnixStream::from_std(stream)?),
        })
    }
}

/// Listens on a path. A socket file on which nobody listens is what a killed process left, and is replaced.
fn bind_unix(path: &Path, mode: u32) -> io::Result<(SocketFile, UnixListener)> {
    let reach = Reach::of(path)?;
    let path = reach.path();
    let name = SockAddr::unix(path)?;
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&name)?;
    let metadata = std::fs::symlink_metadata(path)?;
    let identity = (metadata.dev(), metadata.ino());
    // Before `listen`, so that nobody connects who may not.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok((SocketFile { path: reach, identity }, UnixListener::from_std(socket.into())?))
}

fn remove_stale(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt as _;
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
        }
        Ok(_) => {}
    }
    match std_unix::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens on this socket")),
    }
}

// === impl SocketFile ===

impl Drop for SocketFile {
    fn drop(&mut self) {
        let path = self.path.path();
        let ours = std::fs::symlink_metadata(path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.identity);
        if ours && let Err(error) = std::fs::remove_file(path) {
            tracing::debug!(%error, path = %path.display(), "a socket file stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_file_is_private_and_goes_with_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let (file, listener) = bind_unix(&path, 0o600).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop((file, listener));
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn what_a_killed_process_left_is_replaced_and_what_is_in_use_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        drop(std_unix::UnixListener::bind(&path).unwrap());
        let _held = bind_unix(&path, 0o660).unwrap();
        let refused = bind_unix(&path, 0o660).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        assert!(std_unix::UnixStream::connect(&path).is_ok());
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes");
        std::fs::write(&path, "mine").unwrap();
        assert_eq!(bind_unix(&path, 0o600).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    }

    #[tokio::test]
    async fn the_file_of_a_successor_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let first = bind_unix(&path, 0o600).unwrap();
        std::fs::rename(&path, folder.path().join("moved")).unwrap();
        let _second = bind_unix(&path, 0o600).unwrap();
        drop(first);
        assert!(path.exists());
    }
}
