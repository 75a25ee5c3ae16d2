//! The handle of a cluster: what a driver steps, and where every operation starts.

use crate::objecter::{Ask, Call, Linger, LingerShared, MonitorContact, Objecter, Owner, Waiting};
use crate::slot::{Reply, Slot};
use crate::{ClientConfig, ClientEffect, ClientEvent, Pool, Result};
use nacre_maps::OsdMap;
use nacre_types::{ClientId, EntityName, Epoch, Instant, Machine, ObjectId, OsdId, Outbox, PgId, PoolId};
use nacre_wire::messages::{Command, CommandReply, PgAdmin, PgAdminReply};
use nacre_wire::op::{ObjectOp, OsdOp};
use nacre_wire::{Data, ErrorCode, ObjectName, OpError};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// A cluster, as one client sees it. Cheap to clone; belongs to one thread.
///
/// The driver passes every event to [`step`](Cluster::step), carries out [`take_effects`](Cluster::take_effects), ticks
/// at [`next_deadline`](Cluster::next_deadline), and steps `Wake` whenever the waker it set was woken.
#[derive(Clone)]
pub struct Cluster {
    shared: Rc<Shared>,
}

struct Shared {
    objecter: RefCell<Objecter>,
    effects: RefCell<Outbox<ClientEffect>>,
    driver: RefCell<Option<Waker>>,
    /// Calls whose futures were dropped, and lingers whose handles were: forgotten at the next step.
    dropped_calls: RefCell<Vec<u64>>,
    dropped_lingers: RefCell<Vec<u64>>,
    timeout: Cell<Option<Duration>>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").finish_non_exhaustive()
    }
}

impl Cluster {
    pub fn new(config: ClientConfig) -> Cluster {
        let timeout = Cell::new(config.timeout);
        let shared = Shared {
            objecter: RefCell::new(Objecter::new(config)),
            effects: RefCell::default(),
            driver: RefCell::default(),
            dropped_calls: RefCell::default(),
            dropped_lingers: RefCell::default(),
            timeout,
        };
        Cluster { shared: Rc::new(shared) }
    }

    // What the driver uses.

    pub fn step(&self, now: Instant, event: ClientEvent) {
        let wakers = {
            let mut objecter = self.shared.objecter.borrow_mut();
            for call in self.shared.dropped_calls.take() {
                objecter.cancel(call);
            }
            for linger in self.shared.dropped_lingers.take() {
                objecter.cancel_linger(linger);
            }
            objecter.step(now, event, &mut self.shared.effects.borrow_mut());
            objecter.take_wakers()
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// What to do now, in order.
    pub fn take_effects(&self) -> Vec<ClientEffect> {
        self.shared.effects.borrow_mut().take()
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.shared.objecter.borrow().next_deadline()
    }

    /// Woken when the driver has to step `Wake`.
    pub fn set_waker(&self, waker: Waker) {
        *self.shared.driver.borrow_mut() = Some(waker);
    }

    pub fn check(&self) {
        self.shared.objecter.borrow().check();
    }

    // What everybody uses.

    pub fn client_id(&self) -> ClientId {
        self.shared.objecter.borrow().config().client_id
    }

    pub fn entity(&self) -> EntityName {
        self.shared.objecter.borrow().config().entity.clone()
    }

    pub fn fsid(&self) -> String {
        self.shared.objecter.borrow().config().fsid.clone()
    }

    /// Default deadline of everything started from here on; `None` waits for ever. Pools keep what they were made with.
    pub fn set_timeout(&self, timeout: Option<Duration>) {
        self.shared.timeout.set(timeout);
    }

    pub fn timeout(&self) -> Option<Duration> {
        self.shared.timeout.get()
    }

    /// The newest osdmap there is here.
    pub fn current_osdmap(&self) -> Option<Rc<OsdMap>> {
        self.shared.objecter.borrow().osdmap()
    }

    /// The osdmap, once there is one.
    pub async fn osdmap(&self) -> Result<Rc<OsdMap>> {
        if let Some(map) = self.current_osdmap() {
            return Ok(map);
        }
        self.wait_for_map(Epoch::ZERO).await
    }

    /// An osdmap of that epoch or a later one.
    pub async fn wait_for_map(&self, epoch: Epoch) -> Result<Rc<OsdMap>> {
        self.call(Ask::Map(epoch), self.timeout()).await?;
        Ok(self.current_osdmap().expect("a map was waited for"))
    }

    /// Monitors as last heard, by name and address: at first those of the configuration.
    pub fn monitors(&self) -> Vec<(String, String)> {
        let objecter = self.shared.objecter.borrow();
        match objecter.monmap() {
            Some(map) => map.mons.iter().map(|(name, info)| (name.clone(), info.address.clone())).collect(),
            None => objecter.config().mons.clone(),
        }
    }

    /// A command to the monitors, as JSON with a `prefix`. Where it changed the osdmap, that map is here afterwards.
    pub async fn command(
        &self,
        json: impl Into<String>,
        input: impl Into<bytes::Bytes>,
    ) -> Result<CommandReply> {
        let ask = Ask::Monitors(Command { json: json.into(), input: input.into() });
        let Reply::Command(reply) = self.call(ask, self.timeout()).await? else { return Err(mixed_up()) };
        if reply.epoch > 0 {
            self.wait_for_map(Epoch(reply.epoch)).await?;
        }
        Ok(reply)
    }

    /// A question or order for one OSD: `status`, `dump ops`, ...
    pub async fn osd_admin(&self, osd: OsdId, command: &str, json: &str) -> Result<PgAdminReply> {
        let admin = PgAdmin { command: command.into(), json: json.into() };
        self.admin(Ask::Osd { osd, admin }).await
    }

    /// The same at an address of one's own knowledge, whatever the map says (an OSD that is down may yet run), and not
    /// waiting for longer than that.
    pub async fn osd_admin_at(
        &self,
        osd: OsdId,
        address: &str,
        command: &str,
        json: &str,
        timeout: Duration,
    ) -> Result<PgAdminReply> {
        let admin = PgAdmin { command: command.into(), json: json.into() };
        let ask = Ask::OsdAt { osd, address: address.into(), admin };
        let Reply::Admin(reply) = self.call(ask, Some(timeout)).await? else { return Err(mixed_up()) };
        Ok(reply)
    }

    /// A question to the monitors that is given up after that time.
    pub async fn ask_monitors(&self, json: &str, timeout: Duration) -> Result<CommandReply> {
        let ask = Ask::Monitors(Command { json: json.into(), input: bytes::Bytes::new() });
        let Reply::Command(reply) = self.call(ask, Some(timeout)).await? else { return Err(mixed_up()) };
        Ok(reply)
    }

    /// A question or order for a PG's primary: `query`, `scrub`, `repair`, ...
    pub async fn pg_admin(&self, pg: PgId, command: &str, json: &str) -> Result<PgAdminReply> {
        let admin = PgAdmin { command: command.into(), json: json.into() };
        self.admin(Ask::PgAdmin { pg, admin }).await
    }

    async fn admin(&self, ask: Ask) -> Result<PgAdminReply> {
        let Reply::Admin(reply) = self.call(ask, self.timeout()).await? else { return Err(mixed_up()) };
        Ok(reply)
    }

    /// All pools, by name.
    pub async fn pools(&self) -> Result<Vec<(PoolId, String)>> {
        let map = self.osdmap().await?;
        let mut pools: Vec<_> = map.pools().map(|(id, pool)| (id, pool.name.clone())).collect();
        pools.sort_by(|a, b| a.1.cmp(&b.1));
        Ok(pools)
    }

    pub async fn pool(&self, name: &str) -> Result<Pool> {
        let mut map = self.osdmap().await?;
        if map.pool_by_name(name).is_none() {
            // It may be newer than the map here: any answer of the monitors tells their epoch.
            let _ = self.command(r#"{"prefix":"osd stat"}"#, "").await;
            let newest = self.shared.objecter.borrow().newest_epoch();
            map = self.wait_for_map(newest).await?;
        }
        if let Some((id, pool)) = map.pool_by_name(name) {
            return Ok(Pool::new(self.clone(), id, &pool.name));
        }
        let known: Vec<&str> = map.pools().map(|(_, pool)| pool.name.as_str()).take(20).collect();
        let hint = match known.is_empty() {
            true => "there are no pools yet".into(),
            false => format!("there are: {}", known.join(", ")),
        };
        Err(OpError::new(ErrorCode::NotFound, format!("there is no pool '{name}' ({hint})")))
    }

    /// Shuts a client out: OSDs refuse whatever it still sends. Answers once the map that says so is here.
    pub async fn blocklist_add(&self, client: ClientId, duration: Duration) -> Result<()> {
        let seconds = duration.as_secs().max(1);
        let json = format!(r#"{{"prefix":"osd blocklist add","client":"{client}","expire":{seconds}}}"#);
        self.command(json, "").await.map(drop)
    }

    pub async fn blocklist_remove(&self, client: ClientId) -> Result<()> {
        let json = format!(r#"{{"prefix":"osd blocklist rm","client":"{client}"}}"#);
        self.command(json, "").await.map(drop)
    }

    /// Clients shut out, with the wall time until when, in milliseconds.
    pub async fn blocklist(&self) -> Result<Vec<(ClientId, u64)>> {
        let map = self.osdmap().await?;
        Ok(map.blocklist().iter().map(|(&client, &until)| (client, until)).collect())
    }

    /// Lets time pass, by the driver's clock.
    pub async fn sleep(&self, duration: Duration) {
        // A pause cannot fail; if the cluster handle goes away the future is never polled again.
        let _ = self.call(Ask::Sleep, Some(duration)).await;
    }

    /// Everything that waits for an answer, oldest first.
    pub fn waiting(&self) -> Vec<Waiting> {
        self.shared.objecter.borrow().waiting()
    }

    pub fn monitor_contact(&self) -> MonitorContact {
        self.shared.objecter.borrow().monitor_contact()
    }

    /// Object operations on the wire, and their bytes of payload.
    pub fn inflight(&self) -> (usize, usize) {
        self.shared.objecter.borrow().inflight()
    }

    /// The driver's clock at its last step.
    pub fn now(&self) -> Instant {
        self.shared.objecter.borrow().now()
    }

    /// Wall time as last told, in milliseconds: for stamps only.
    pub fn wall_ms(&self) -> u64 {
        self.shared.objecter.borrow().wall_ms()
    }

    /// From the seeded generator.
    pub(crate) fn random(&self) -> u64 {
        self.shared.objecter.borrow_mut().random()
    }

    pub(crate) fn call(&self, ask: Ask, timeout: Option<Duration>) -> CallFuture {
        self.call_under(ask, timeout, None)
    }

    pub(crate) fn call_under(&self, ask: Ask, timeout: Option<Duration>, lease: Option<u64>) -> CallFuture {
        let slot = Slot::new();
        let mut call = Call::new(ask, Owner::Future(slot.clone()), timeout);
        call.lease = lease;
        let seq = self.shared.objecter.borrow_mut().submit(call);
        self.wake_driver();
        CallFuture { cluster: self.clone(), seq, slot, done: false }
    }

    /// An operation on an object; failures of the object's are in the reply.
    pub(crate) fn operate(
        &self,
        object: ObjectId,
        op: OsdOp,
        data: Data,
        timeout: Option<Duration>,
        lease: Option<u64>,
    ) -> CallFuture {
        let op = Box::new(OsdOp { object: Some(ObjectName::from(&object)), ..op });
        self.call_under(Ask::Object { object, op, data }, timeout, lease)
    }

    /// Prepares something to be said again and again; begins with [`LingerHandle::begin`].
    pub(crate) fn linger(
        &self,
        id: u64,
        object: ObjectId,
        op: ObjectOp,
        is_watch: bool,
        holds: Duration,
    ) -> LingerHandle {
        let shared = Rc::new(LingerShared::default());
        let linger = Linger {
            object,
            op,
            is_watch,
            period: holds / 3,
            holds,
            shared: shared.clone(),
            next: Instant::MAX,
            call: None,
            interrupted: false,
            route: None,
        };
        self.shared.objecter.borrow_mut().add_linger(id, linger);
        LingerHandle { cluster: self.clone(), id, shared }
    }

    pub(crate) fn new_linger_id(&self) -> u64 {
        self.shared.objecter.borrow_mut().new_linger_id()
    }

    pub(crate) fn ack_notify(&self, object: &ObjectId, notify_id: u64, cookie: u64, reply: bytes::Bytes) {
        self.shared.objecter.borrow_mut().ack_notify(object, notify_id, cookie, reply);
        self.wake_driver();
    }

    fn wake_driver(&self) {
        let waker = self.shared.driver.borrow().clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

pub(crate) fn mixed_up() -> OpError {
    OpError::new(ErrorCode::Internal, "the answer is of another kind than the request")
}

/// Waits for one call. Dropping it forgets the call: what was sent may or may not take effect, once.
pub(crate) struct CallFuture {
    cluster: Cluster,
    seq: u64,
    slot: Rc<Slot>,
    done: bool,
}

impl Future for CallFuture {
    type Output = Result<Reply>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Reply>> {
        let poll = self.slot.poll(cx.waker());
        self.done = poll.is_ready();
        poll
    }
}

impl Drop for CallFuture {
    fn drop(&mut self) {
        if !self.done {
            self.cluster.shared.dropped_calls.borrow_mut().push(self.seq);
            self.cluster.wake_driver();
        }
    }
}

/// Keeps a watch or lease renewed while it lives; its end is also the OSD's end of it.
pub(crate) struct LingerHandle {
    pub(crate) cluster: Cluster,
    pub(crate) id: u64,
    pub(crate) shared: Rc<LingerShared>,
}

impl LingerHandle {
    /// It has been said for the first time. It is renewed at once: the PG may have moved since.
    pub(crate) fn begin(&self, valid_until: Instant) {
        self.shared.valid_until.set(valid_until);
        self.cluster.shared.objecter.borrow_mut().begin_linger(self.id);
        self.cluster.wake_driver();
    }
}

impl Drop for LingerHandle {
    fn drop(&mut self) {
        self.cluster.shared.dropped_lingers.borrow_mut().push(self.id);
        self.cluster.wake_driver();
    }
}
