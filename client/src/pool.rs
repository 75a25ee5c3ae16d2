//! A pool, and the objects in it.

use crate::cluster::CallFuture;
use crate::slot::Reply;
use crate::{Cluster, ErrorCode, ObjectRequest, OpError, Response, Result};
use bytes::Bytes;
use nacre_types::{ObjectId, PoolId, SnapId};
use nacre_wire::Data;
use nacre_wire::op::{Notify, NotifyReply, ObjectOpKind, OsdOp, SnapList, StatReply};
use prost::Message;
use std::rc::Rc;
use std::time::Duration;

/// The snapshots that writes through a handle preserve the state for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SnapContext {
    /// Newest snapshot id known.
    pub seq: u64,
    /// Existing snapshots, newest first.
    pub snaps: Vec<u64>,
}

/// A handle of a pool: where to read and write, and how. Cheap to clone and to derive others from.
#[derive(Clone, Debug)]
pub struct Pool {
    cluster: Cluster,
    id: PoolId,
    name: Rc<str>,
    namespace: Rc<str>,
    snap_context: Rc<SnapContext>,
    read_snap: SnapId,
    timeout: Option<Duration>,
    lease: Option<u64>,
    full_try: bool,
}

impl Pool {
    pub(crate) fn new(cluster: Cluster, id: PoolId, name: &str) -> Pool {
        let timeout = cluster.timeout();
        Pool {
            cluster,
            id,
            name: name.into(),
            namespace: "".into(),
            snap_context: Rc::default(),
            read_snap: SnapId::HEAD,
            timeout,
            lease: None,
            full_try: false,
        }
    }

    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    pub fn id(&self) -> PoolId {
        self.id
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    pub fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// The same pool, in a namespace.
    #[must_use]
    pub fn with_namespace(&self, namespace: &str) -> Pool {
        Pool { namespace: namespace.into(), ..self.clone() }
    }

    /// Writes preserve what these snapshots saw.
    #[must_use]
    pub fn with_snap_context(&self, context: SnapContext) -> Pool {
        Pool { snap_context: Rc::new(context), ..self.clone() }
    }

    /// Reads see the state at that snapshot.
    #[must_use]
    pub fn at_snap(&self, snap: SnapId) -> Pool {
        Pool { read_snap: snap, ..self.clone() }
    }

    /// Operations fail after that long; `None` waits for ever.
    #[must_use]
    pub fn with_timeout(&self, timeout: Option<Duration>) -> Pool {
        Pool { timeout, ..self.clone() }
    }

    /// Operations only go out while the lease holds, and fail with `Fenced` once it is lost.
    #[must_use]
    pub fn under_lease(&self, lease: &crate::Lease) -> Pool {
        Pool { lease: Some(lease.id()), ..self.clone() }
    }

    /// Operations proceed although the cluster or pool is full: for small changes without which nothing can be removed.
    #[must_use]
    pub(crate) fn even_if_full(&self) -> Pool {
        Pool { full_try: true, ..self.clone() }
    }

    pub fn object(&self, name: impl Into<String>) -> Object {
        Object { pool: self.clone(), name: name.into() }
    }

    /// A new self-managed snapshot of this pool: nothing is preserved until writers have it in their context.
    pub async fn create_snap(&self) -> Result<SnapId> {
        let json = format!(r#"{{"prefix":"selfmanaged-snap create","pool":{}}}"#, quoted(&self.name));
        let reply = self.cluster.command(json, "").await?;
        let number = reply.json.split("\"snapid\"").nth(1).unwrap_or_default();
        let digits: String =
            number.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
        digits.parse().map(SnapId).map_err(|_| {
            OpError::new(ErrorCode::Internal, format!("the monitors' answer names no snapid: {}", reply.json))
        })
    }

    /// Removes a self-managed snapshot; the OSDs trim what only it needed.
    pub async fn remove_snap(&self, snap: SnapId) -> Result<()> {
        let json = format!(
            r#"{{"prefix":"selfmanaged-snap rm","pool":{},"snapid":{}}}"#,
            quoted(&self.name),
            snap.0
        );
        self.cluster.command(json, "").await.map(drop)
    }
}

/// A string as JSON.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if (c as u32) < 0x20 => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// One object of a pool, whether it exists or not.
#[derive(Clone, Debug)]
pub struct Object {
    pool: Pool,
    name: String,
}

impl Object {
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its id at the head, if the name is legal.
    pub fn id(&self) -> Result<ObjectId> {
        ObjectId::new(self.pool.id, &self.pool.namespace, &self.name)
            .map_err(|error| OpError::new(ErrorCode::InvalidArgument, error.to_string()))
    }

    /// Runs several operations as one.
    pub async fn run(&self, request: ObjectRequest) -> Result<Response> {
        // Nothing of the request is kept in the future: it would be moved with it.
        let call = self.start(request)?;
        let Reply::Operation { reply, data, .. } = call.await? else {
            return Err(crate::cluster::mixed_up());
        };
        match ErrorCode::from_raw(reply.code) {
            ErrorCode::Ok => Ok(Response::new(reply, &data)),
            code => Err(OpError::new(code, reply.message)),
        }
    }

    fn start(&self, request: ObjectRequest) -> Result<CallFuture> {
        let mutates = request.ops.iter().filter_map(|op| op.kind.as_ref()).any(ObjectOpKind::is_mutation);
        let mut object = self.id()?;
        object.snap = self.pool.read_snap;
        let context = &self.pool.snap_context;
        let op = OsdOp {
            ops: request.ops,
            snap_seq: if mutates { context.seq } else { 0 },
            snaps: if mutates { context.snaps.clone() } else { Vec::new() },
            full_try: self.pool.full_try,
            ..OsdOp::default()
        };
        let data = match request.data.len() {
            1 => request.data.into_iter().next().unwrap_or_default(),
            _ => Data::concat(&request.data),
        };
        Ok(self.pool.cluster.operate(object, op, data, self.pool.timeout, self.pool.lease))
    }

    pub(crate) async fn one(&self, kind: ObjectOpKind) -> Result<Response> {
        self.run(ObjectRequest::new().op(kind)).await
    }

    /// Up to `length` bytes from `offset` on; fewer at the object's end.
    pub async fn read(&self, offset: u64, length: u64) -> Result<Bytes> {
        Ok(self.run(ObjectRequest::new().read(offset, length)).await?.data(0))
    }

    pub async fn write(&self, offset: u64, bytes: impl Into<Bytes>) -> Result<()> {
        self.run(ObjectRequest::new().write(offset, bytes)).await.map(drop)
    }

    pub async fn write_full(&self, bytes: impl Into<Bytes>) -> Result<()> {
        self.run(ObjectRequest::new().write_full(bytes)).await.map(drop)
    }

    pub async fn append(&self, bytes: impl Into<Bytes>) -> Result<()> {
        self.run(ObjectRequest::new().append(bytes)).await.map(drop)
    }

    pub async fn truncate(&self, size: u64) -> Result<()> {
        self.run(ObjectRequest::new().truncate(size)).await.map(drop)
    }

    pub async fn zero(&self, offset: u64, length: u64) -> Result<()> {
        self.run(ObjectRequest::new().zero(offset, length)).await.map(drop)
    }

    pub async fn create(&self, exclusive: bool) -> Result<()> {
        self.run(ObjectRequest::new().create(exclusive)).await.map(drop)
    }

    pub async fn remove(&self) -> Result<()> {
        self.run(ObjectRequest::new().remove()).await.map(drop)
    }

    pub async fn stat(&self) -> Result<StatReply> {
        self.run(ObjectRequest::new().stat()).await?.stat(0)
    }

    /// Writes `new` at `offset` if `expected` is there, else fails with `Canceled`.
    pub async fn compare_and_write(
        &self,
        offset: u64,
        expected: impl Into<Bytes>,
        new: impl Into<Bytes>,
    ) -> Result<()> {
        self.run(ObjectRequest::new().compare(offset, expected).write(offset, new)).await.map(drop)
    }

    pub async fn get_xattr(&self, name: impl AsRef<[u8]>) -> Result<Bytes> {
        Ok(self.run(ObjectRequest::new().get_xattr(name)).await?.data(0))
    }

    pub async fn xattrs(&self) -> Result<Vec<(Bytes, Bytes)>> {
        Ok(self.run(ObjectRequest::new().get_xattrs()).await?.pairs(0)?.0)
    }

    pub async fn set_xattr(&self, name: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Result<()> {
        self.run(ObjectRequest::new().set_xattr(name, value)).await.map(drop)
    }

    pub async fn remove_xattr(&self, name: impl AsRef<[u8]>) -> Result<()> {
        self.run(ObjectRequest::new().remove_xattr(name)).await.map(drop)
    }

    pub async fn omap_get<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<(Bytes, Bytes)>> {
        Ok(self.run(ObjectRequest::new().omap_get(keys)).await?.pairs(0)?.0)
    }

    /// One page of pairs, and whether more follow.
    pub async fn omap_page(
        &self,
        after: impl AsRef<[u8]>,
        prefix: impl AsRef<[u8]>,
        entries_max: u32,
    ) -> Result<(Vec<(Bytes, Bytes)>, bool)> {
        self.run(ObjectRequest::new().omap_list(after, prefix, entries_max)).await?.pairs(0)
    }

    /// All pairs with a prefix, page by page.
    pub async fn omap(&self, prefix: impl AsRef<[u8]>) -> Result<Vec<(Bytes, Bytes)>> {
        let mut all: Vec<(Bytes, Bytes)> = Vec::new();
        loop {
            let after = all.last().map(|(key, _)| key.clone()).unwrap_or_default();
            let (page, more) = self.omap_page(after, prefix.as_ref(), 0).await?;
            let empty = page.is_empty();
            all.extend(page);
            if !more || empty {
                return Ok(all);
            }
        }
    }

    pub async fn omap_set<K: AsRef<[u8]>, V: Into<Bytes>>(
        &self,
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<()> {
        self.run(ObjectRequest::new().omap_set(pairs)).await.map(drop)
    }

    pub async fn omap_remove<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> Result<()> {
        self.run(ObjectRequest::new().omap_remove(keys)).await.map(drop)
    }

    pub async fn omap_clear(&self) -> Result<()> {
        self.run(ObjectRequest::new().omap_clear()).await.map(drop)
    }

    /// Allocated parts of a range, as (offset, length).
    pub async fn extents(&self, offset: u64, length: u64) -> Result<Vec<(u64, u64)>> {
        self.run(ObjectRequest::new().map_extents(offset, length)).await?.extents(0)
    }

    pub async fn list_snaps(&self) -> Result<SnapList> {
        self.run(ObjectRequest::new().list_snaps()).await?.snaps(0)
    }

    /// Tells all watchers, and waits until they have answered or the timeout has passed.
    pub async fn notify(&self, payload: impl Into<Bytes>, timeout: Duration) -> Result<NotifyReply> {
        let timeout_ms = timeout.as_millis() as u64;
        let kind = ObjectOpKind::Notify(Notify { payload: payload.into(), timeout_ms });
        let response = self.one(kind).await?;
        NotifyReply::decode(response.answer(0)).map_err(crate::request::undecodable)
    }
}
