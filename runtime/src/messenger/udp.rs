//! The endpoint's socket as quinn uses it.
//!
//! quinn's own would be watched for room to write all the time, and the kernel reports room whenever a peer has read
//! anything: many wake-ups for nothing. This one is taken to have room until a send says otherwise, and is watched for
//! writing only then. And a receive call that did not fill its batch has emptied the socket; no second call has to find
//! that out.
#![allow(unsafe_code)]

use quinn::udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller};
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Instant;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// quinn's tokio runtime with sockets of ours.
#[derive(Debug)]
pub(super) struct Reactor;

impl Runtime for Reactor {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        TokioRuntime.spawn(future);
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        socket.set_nonblocking(true)?;
        let state = UdpSocketState::new((&socket).into())?;
        let socket = watch(socket, Interest::READABLE)?;
        Ok(Arc::new(EndpointSocket { socket, state, full: AtomicBool::new(false) }))
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
}

fn watch(socket: UdpSocket, interest: Interest) -> io::Result<AsyncFd<UdpSocket>> {
    // SAFETY: the socket is owned by the `AsyncFd` alone, always has the same descriptor, and stays open for as long as that
    // is registered.
    unsafe { AsyncFd::register_with_interest(socket, interest) }.map_err(io::Error::from)
}

#[derive(Debug)]
struct EndpointSocket {
    /// Watched for reading.
    socket: AsyncFd<UdpSocket>,
    state: UdpSocketState,
    /// The last send found no room.
    full: AtomicBool,
}

impl AsyncUdpSocket for EndpointSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Room { socket: self, watched: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let sent = self.state.send(self.socket.get_ref().into(), transmit);
        if matches!(&sent, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
            self.full.store(true, Ordering::Relaxed);
        }
        sent
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let batch = buffers.len().min(meta.len()).min(BATCH_SIZE);
        loop {
            let mut guard = ready!(self.socket.poll_read_ready(cx))?;
            match self.state.recv(self.socket.get_ref().into(), buffers, meta) {
                Ok(count) => {
                    if count < batch {
                        // What arrives from now on is reported anew.
                        guard.clear_ready();
                    }
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.get_ref().local_addr()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }
}

/// One connection's wait for room to write.
#[derive(Debug)]
struct Room {
    socket: Arc<EndpointSocket>,
    /// The same socket under another descriptor, while it is full. A new watch starts with the state as it is.
    watched: Option<AsyncFd<UdpSocket>>,
}

impl UdpPoller for Room {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let room = self.get_mut();
        if room.watched.is_none() && !room.socket.full.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        let watched = match room.watched.take() {
            Some(watched) => watched,
            None => {
                let copy = room.socket.socket.get_ref().try_clone()?;
                watch(copy, Interest::WRITABLE)?
            }
        };
        if let Poll::Ready(ready) = watched.poll_write_ready(cx) {
            room.socket.full.store(false, Ordering::Relaxed);
            return Poll::Ready(ready.map(|_| ()));
        }
        room.watched = Some(watched);
        Poll::Pending
    }
}
