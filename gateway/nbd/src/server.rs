//! The server: accepts connections, counts them, and stops in an orderly way.
//!
//! [`Server::serve_unix`] and [`Server::serve_tcp`] bind and return; connections are served by tasks on the current
//! `LocalSet`. [`Server::stop`] (or a [`StopHandle`], from any thread) closes the listeners, lets every connection
//! finish the requests it has begun, and closes it.

mod listener;

use std::cell::Cell;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, ToSocketAddrs};
use tokio::sync::{Notify, watch};
use tokio::task::spawn_local;

use crate::config::{Config, ConfigError};
use crate::export::Exports;
use crate::session::budget::ServerBudget;
use crate::session::{SessionContext, serve};
use crate::stats::{Counters, Stats};
pub use listener::ServeError;
use listener::UnixSocket;

/// Serves exports. Cheap to clone; the clones are one server.
#[derive(Clone)]
pub struct Server {
    shared: Rc<Shared>,
}

struct Shared {
    exports: Rc<dyn Exports>,
    config: Rc<Config>,
    budget: Rc<ServerBudget>,
    counters: Rc<Counters>,
    stop: Arc<watch::Sender<bool>>,
    /// Listeners and connections there are.
    tasks: Cell<usize>,
    task_ended: Notify,
}

/// Asks a server to stop, from wherever.
#[derive(Clone, Debug)]
pub struct StopHandle(Arc<watch::Sender<bool>>);

impl StopHandle {
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Server {
    /// A server of `exports`, not listening yet.
    pub fn new(exports: Rc<dyn Exports>, config: Config) -> Result<Server, ConfigError> {
        config.validate()?;
        let shared = Shared {
            exports,
            budget: ServerBudget::new(config.server_bytes_max),
            config: Rc::new(config),
            counters: Rc::default(),
            stop: Arc::new(watch::Sender::new(false)),
            tasks: Cell::new(0),
            task_ended: Notify::new(),
        };
        Ok(Server { shared: Rc::new(shared) })
    }

    /// Listens on a UNIX socket at `path`, created now and removed when the server stops. A socket file that nobody
    /// listens on any more is replaced; anything else at `path` is an error.
    pub async fn serve_unix(&self, path: impl AsRef<Path>) -> Result<(), ServeError> {
        let socket = UnixSocket::bind(path.as_ref()).await?;
        let server = self.clone();
        let name = format!("unix:{}", path.as_ref().display());
        self.spawn(async move {
            let mut number = 0u64;
            while let Some(stream) = server.accept(&name, || socket.accept()).await {
                number += 1;
                server.serve_stream(stream, format!("{name}#{number}"));
            }
        });
        Ok(())
    }

    /// Listens on a TCP address, and returns it with the port that was chosen if it was 0. There is no encryption and
    /// no authentication: bind to addresses that only trusted hosts reach.
    pub async fn serve_tcp(
        &self,
        address: impl ToSocketAddrs + std::fmt::Debug,
    ) -> Result<SocketAddr, ServeError> {
        let name = format!("{address:?}");
        let bind = async {
            let listener = TcpListener::bind(address).await?;
            let local = listener.local_addr()?;
            Ok((listener, local))
        };
        let (listener, local) = bind.await.map_err(|source| ServeError::Tcp { address: name, source })?;
        let server = self.clone();
        self.spawn(async move {
            let name = format!("tcp:{local}");
            while let Some((stream, peer)) = server.accept(&name, || listener.accept()).await {
                match listener::tune_tcp(&stream) {
                    Ok(()) => server.serve_stream(stream, peer.to_string()),
                    Err(error) => tracing::warn!(%peer, %error, "cannot set up the connection"),
                }
            }
        });
        Ok(local)
    }

    /// Serves one connection that is there already. `peer` names it in the log.
    pub fn serve_stream<S: AsyncRead + AsyncWrite + Unpin + 'static>(&self, stream: S, peer: String) {
        let shared = &self.shared;
        let connections_max = shared.config.connections_max as u64;
        if shared.counters.read().connections >= connections_max {
            shared.counters.update(|stats| stats.connections_refused += 1);
            return tracing::warn!(peer, connections_max, "refused a connection: there are too many");
        }
        shared.counters.update(|stats| {
            stats.connections += 1;
            stats.connections_accepted += 1;
        });
        let context = SessionContext {
            exports: Rc::clone(&shared.exports),
            config: Rc::clone(&shared.config),
            budget: Rc::clone(&shared.budget),
            counters: Rc::clone(&shared.counters),
            stop: shared.stop.subscribe(),
            peer,
        };
        let counted = CountedConnection(Rc::clone(&shared.counters));
        self.spawn(async move {
            let _counted = counted;
            serve(context, stream).await;
        });
    }

    /// Stops, and waits until every connection is closed; at most the configured drain timeout or so.
    pub async fn stop(&self) {
        self.stop_handle().stop();
        self.stopped().await;
    }

    /// Waits until the server was asked to stop and has done so.
    pub async fn stopped(&self) {
        self.stop_requested().await;
        while self.shared.tasks.get() > 0 {
            self.shared.task_ended.notified().await;
        }
        // Others may be waiting as well.
        self.shared.task_ended.notify_one();
    }

    pub fn stop_handle(&self) -> StopHandle {
        StopHandle(Arc::clone(&self.shared.stop))
    }

    pub fn stats(&self) -> Stats {
        self.shared.counters.read()
    }

    async fn stop_requested(&self) {
        // Cannot fail: we hold the sender.
        let _ = self.shared.stop.subscribe().wait_for(|stop| *stop).await;
    }

    /// The next connection, or `None` when the server stops.
    async fn accept<T, F: Future<Output = std::io::Result<T>>>(
        &self,
        name: &str,
        accept: impl Fn() -> F,
    ) -> Option<T> {
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.stop_requested() => return None,
                accepted = accept() => accepted,
            };
            match accepted {
                Ok(connection) => return Some(connection),
                Err(error) => {
                    // Out of descriptors, most likely; the connection stays in the backlog. Do not spin on it.
                    tracing::warn!(listener = name, %error, "cannot accept a connection");
                    tokio::time::sleep(listener::ACCEPT_RETRY).await;
                }
            }
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.shared.tasks.set(self.shared.tasks.get() + 1);
        let running = RunningTask(Rc::clone(&self.shared));
        spawn_local(async move {
            let _running = running;
            task.await;
        });
    }
}

/// Notes the end of a task, however it ends.
struct RunningTask(Rc<Shared>);

impl Drop for RunningTask {
    fn drop(&mut self) {
        self.0.tasks.set(self.0.tasks.get() - 1);
        self.0.task_ended.notify_one();
    }
}

/// Notes the end of a connection, however it ends.
struct CountedConnection(Rc<Counters>);

impl Drop for CountedConnection {
    fn drop(&mut self) {
        self.0.update(|stats| {
            stats.connections -= 1;
            stats.connections_panicked += u64::from(std::thread::panicking());
        });
    }
}
