//! The endpoint's UDP socket: bound, non-blocking, with large kernel buffers.

use super::config::SOCKET_BUFFER_BYTES;
use super::{BindError, MessengerConfig};
use rustix::net::sockopt;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, UdpSocket};

/// The socket, and the receive buffer the kernel granted.
pub(super) fn bind(config: &MessengerConfig) -> Result<(UdpSocket, usize), BindError> {
    let address = config.bind_address();
    open(address).map_err(|source| BindError::Socket { address, source })
}

fn open(address: SocketAddr) -> io::Result<(UdpSocket, usize)> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    // Past the system's limit (net.core.rmem_max) where we may, up to it otherwise.
    if sockopt::set_socket_recv_buffer_size_force(&socket, SOCKET_BUFFER_BYTES).is_err() {
        let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    }
    if sockopt::set_socket_send_buffer_size_force(&socket, SOCKET_BUFFER_BYTES).is_err() {
        let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    }
    // The kernel doubles what was asked for, for its own bookkeeping, and reports that.
    let granted = socket.recv_buffer_size()? / 2;
    if granted < SOCKET_BUFFER_BYTES {
        tracing::warn!(
            "the UDP receive buffer is {granted} bytes, {SOCKET_BUFFER_BYTES} are wanted: \
             raise net.core.rmem_max and net.core.wmem_max for full speed"
        );
    }
    Ok((socket.into(), granted))
}
