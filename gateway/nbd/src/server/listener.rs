//! Sockets to listen on: the life of a UNIX socket's file, and the tuning of accepted connections.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, UnixListener, UnixStream};

/// Pause after a failed accept.
pub(super) const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Buffer of a UNIX socket in either direction: a queue of 32 reads of 128 KiB. The kernel lowers it to its limit
/// (`net.core.wmem_max`). TCP's buffers are left alone: setting them would switch off their growth.
const UNIX_BUFFER_BYTES: usize = 4 << 20;
/// A TCP peer that vanished without a word is noticed after this long, and five probes.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// Why a server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("{path}: another server is listening on this socket; stop it, or choose another path")]
    InUse { path: PathBuf },
    #[error("{path}: exists and is not a socket; remove it, or choose another path")]
    NotASocket { path: PathBuf },
    #[error("{path}: cannot listen: {source}")]
    Unix { path: PathBuf, source: io::Error },
    #[error("{address}: cannot listen: {source}")]
    Tcp { address: String, source: io::Error },
}

/// A bound UNIX socket; its file goes with it.
pub(super) struct UnixSocket {
    listener: UnixListener,
    path: PathBuf,
    /// The file we made, so that we never remove another's.
    inode: Option<(u64, u64)>,
}

impl UnixSocket {
    pub(super) async fn bind(path: &Path) -> Result<UnixSocket, ServeError> {
        let failed = |source| ServeError::Unix { path: path.to_owned(), source };
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                remove_stale(path).await?;
                UnixListener::bind(path)
            }
            bound => bound,
        };
        let listener = listener.map_err(failed)?;
        Ok(UnixSocket { listener, path: path.to_owned(), inode: inode(path) })
    }

    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        let (stream, _) = self.listener.accept().await?;
        let socket = SockRef::from(&stream);
        socket.set_send_buffer_size(UNIX_BUFFER_BYTES)?;
        socket.set_recv_buffer_size(UNIX_BUFFER_BYTES)?;
        Ok(stream)
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        if self.inode.is_some() && inode(&self.path) == self.inode {
            // A leftover file does no harm: the next server replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// Removes a socket file whose server is gone; refuses for anything else.
async fn remove_stale(path: &Path) -> Result<(), ServeError> {
    let failed = |source| ServeError::Unix { path: path.to_owned(), source };
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if !meta.file_type().is_socket() {
        return Err(ServeError::NotASocket { path: path.to_owned() });
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // Full backlogs and missing permissions also mean that somebody is there.
        Ok(_) | Err(_) => Err(ServeError::InUse { path: path.to_owned() }),
    }
}

/// Replies leave at once, and dead peers are noticed.
pub(super) fn tune_tcp(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL).with_retries(5);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

#[cfg(test)]
mod tests;
