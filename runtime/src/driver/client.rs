//! Drives a client: one local task per cluster carries packets and time in and packets out, while the program's own tasks
//! await what they have asked of the [`Cluster`].

use super::reactor::{Alarm, log};
use crate::clock::Clock;
use crate::messenger::{BindError, Messenger, MessengerConfig, MessengerEvent};
use crate::tls::Credentials;
use nacre_client::{ClientConfig, ClientEffect, ClientEvent, Cluster};
use nacre_types::ClientId;
use nacre_wire::Address;
use std::fs::File;
use std::io::{self, Read as _};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// Events handled before the program's tasks, which what they bring has woken, get their turn.
const EVENTS_PER_TURN: usize = 64;

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("no random numbers from the system: {0}")]
    Random(io::Error),
}

/// A client at work. Dropping it ends the work at once; [`Connection::shutdown`] in order.
pub struct Connection {
    cluster: Cluster,
    messenger: Rc<Messenger>,
    task: AbortHandle,
}

/// Starts a client. Must run inside a `LocalSet`. Nothing is awaited from the cluster yet: what is asked of it later fails
/// by itself after `timeout` if there is none.
pub async fn connect(credentials: Credentials, timeout: Duration) -> Result<Connection, ConnectError> {
    let mons = credentials.monitors.iter().map(|mon| (mon.name.clone(), mon.address.clone())).collect();
    let client_id = ClientId(random().map_err(ConnectError::Random)?);
    let seed = random().map_err(ConnectError::Random)?;
    let config = ClientConfig::new(credentials.entity.clone(), client_id, &credentials.fsid, mons, seed);
    let messenger = Messenger::bind(MessengerConfig::new(credentials, None))?;
    Ok(Connection::start(ClientConfig { timeout: Some(timeout), ..config }, messenger))
}

impl Connection {
    /// The same with settings and a messenger of one's own.
    pub fn start(config: ClientConfig, messenger: Messenger) -> Connection {
        let cluster = Cluster::new(config);
        let messenger = Rc::new(messenger);
        let task = tokio::task::spawn_local(drive(cluster.clone(), messenger.clone())).abort_handle();
        Connection { cluster, messenger, task }
    }

    pub fn cluster(&self) -> Cluster {
        self.cluster.clone()
    }

    pub fn messenger(&self) -> &Messenger {
        &self.messenger
    }

    /// Says goodbye to everybody. What is still awaited is not answered any more.
    pub async fn shutdown(self) {
        self.task.abort();
        self.messenger.shutdown().await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Turns the waker that the machine knows into a notice that the task awaits.
struct Woken(Notify);

impl Wake for Woken {
    fn wake(self: Arc<Woken>) {
        self.0.notify_one();
    }
}

async fn drive(cluster: Cluster, messenger: Rc<Messenger>) {
    let clock = Clock::start();
    let woken = Arc::new(Woken(Notify::new()));
    let waker = Waker::from(woken.clone());
    let mut alarm = Alarm::new(clock);
    let mut monitors = cluster.monitors();
    let mut event = Some(ClientEvent::Tick { wall_ms: clock.wall_ms() });
    loop {
        for _ in 0..EVENTS_PER_TURN {
            let Some(next) = event.take().or_else(|| messenger.try_event().and_then(to_event)) else { break };
            cluster.set_waker(waker.clone());
            cluster.step(clock.now(), next);
            carry_out(&cluster, &messenger);
        }
        let now_known = cluster.monitors();
        if now_known != monitors {
            messenger.set_monitors(now_known.clone());
            monitors = now_known;
        }
        // Whom the events have woken comes first.
        tokio::task::yield_now().await;
        event = tokio::select! {
            biased;
            () = woken.0.notified() => Some(ClientEvent::Wake),
            event = messenger.next_event() => to_event(event),
            () = alarm.wait(cluster.next_deadline()) => Some(ClientEvent::Tick { wall_ms: clock.wall_ms() }),
        };
    }
}

fn to_event(event: MessengerEvent) -> Option<ClientEvent> {
    match event {
        MessengerEvent::Received { from, packet } => Some(ClientEvent::Received { from, packet }),
        MessengerEvent::SessionClosed { session, .. } => Some(ClientEvent::SessionClosed(session)),
        MessengerEvent::ConnectFailed { address: Address::AnyMon, rejected, reason, .. } => {
            Some(ClientEvent::MonitorsUnreachable { reason, rejected })
        }
        // The objecter sends again what is not answered.
        MessengerEvent::SessionOpened(_) | MessengerEvent::ConnectFailed { .. } => None,
    }
}

fn carry_out(cluster: &Cluster, messenger: &Messenger) {
    for effect in cluster.take_effects() {
        match effect {
            ClientEffect::Send { to, packet } => messenger.send(to, packet),
            ClientEffect::CloseSession(session) => messenger.close_session(session),
            ClientEffect::Log { level, text } => log(level, &text),
        }
    }
}

fn random() -> io::Result<u64> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}
