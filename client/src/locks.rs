//! Advisory locks on objects, once or as a lease that is kept renewed.

use crate::cluster::LingerHandle;
use crate::{Object, Result};
use nacre_types::ClientId;
use nacre_wire::op::{BreakLock, Key, Lock, LockHolder, LockInfo, ObjectOpKind};
use nacre_wire::{ErrorCode, OpError};
use prost::Message;
use std::time::Duration;

/// How to lock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LockRequest {
    pub name: String,
    /// Tells apart several holders in one client.
    pub cookie: String,
    pub shared: bool,
    /// After which an unrenewed lock may be taken by others; `None` for never.
    pub duration: Option<Duration>,
    pub description: String,
}

impl LockRequest {
    pub fn exclusive(name: &str, cookie: &str) -> LockRequest {
        LockRequest {
            name: name.into(),
            cookie: cookie.into(),
            shared: false,
            duration: None,
            description: String::new(),
        }
    }

    fn op(&self, may_renew: bool) -> Lock {
        Lock {
            name: self.name.clone(),
            cookie: self.cookie.clone(),
            shared: self.shared,
            duration_ms: self.duration.map_or(0, |d| d.as_millis() as u64),
            description: self.description.clone(),
            may_renew,
        }
    }
}

/// A lock with a duration, renewed by the client as long as this lives. Dropped, it is given back as soon as the driver
/// turns; unlock to know when.
pub struct Lease {
    handle: LingerHandle,
    object: Object,
    request: LockRequest,
}

impl Lease {
    /// For operations that must only go out under the lease.
    pub(crate) fn id(&self) -> u64 {
        self.handle.id
    }

    /// Whether the lock is certainly ours now; if not, why.
    pub fn check(&self) -> Result<()> {
        if let Some(error) = &*self.handle.shared.lost.borrow() {
            return Err(OpError::new(ErrorCode::Fenced, error.message.clone()));
        }
        if self.handle.shared.valid_until.get() <= self.handle.cluster.now() {
            let text = format!("the lease of lock '{}' has run out", self.request.name);
            return Err(OpError::new(ErrorCode::Fenced, text));
        }
        Ok(())
    }

    /// Gives the lock back.
    pub async fn unlock(self) -> Result<()> {
        let Lease { handle, object, request } = self;
        let over = OpError::new(ErrorCode::Fenced, "the lock was given back");
        *handle.shared.lost.borrow_mut() = Some(over);
        drop(handle);
        object.unlock(&request.name, &request.cookie).await
    }
}

impl Object {
    /// Takes a lock: `Busy` if somebody else holds it, `AlreadyExists` if this client with that cookie does.
    pub async fn lock(&self, request: &LockRequest) -> Result<()> {
        self.one(ObjectOpKind::Lock(request.op(false))).await.map(drop)
    }

    /// Takes a lock and keeps it: the duration must be set.
    pub async fn lease(&self, request: LockRequest) -> Result<Lease> {
        let Some(holds) = request.duration.filter(|duration| !duration.is_zero()) else {
            return Err(OpError::new(ErrorCode::InvalidArgument, "a lease needs a duration"));
        };
        let cluster = self.pool().cluster();
        let renewal = ObjectOpKind::Lock(request.op(true));
        // Made before the lock is asked for: a future that is dropped half-way gives back what it may have got.
        let id = cluster.new_linger_id();
        let handle = cluster.linger(id, self.id()?, renewal.clone().into(), false, holds);
        // The OSD's clock starts later than this, so the lease is never believed longer than it is.
        let asked = cluster.now();
        if let Err(error) = self.one(renewal).await {
            if error.code == ErrorCode::Busy {
                *handle.shared.lost.borrow_mut() = Some(error.clone());
            }
            return Err(error);
        }
        handle.begin(asked + holds);
        Ok(Lease { handle, object: self.clone(), request })
    }

    pub async fn unlock(&self, name: &str, cookie: &str) -> Result<()> {
        let lock = LockRequest::exclusive(name, cookie).op(false);
        self.one(ObjectOpKind::Unlock(lock)).await.map(drop)
    }

    /// Takes a lock away from its holder.
    pub async fn break_lock(&self, name: &str, client: ClientId, cookie: &str) -> Result<()> {
        let lock = BreakLock { name: name.into(), client: client.0, cookie: cookie.into() };
        self.one(ObjectOpKind::BreakLock(lock)).await.map(drop)
    }

    pub async fn lock_holders(&self, name: &str) -> Result<Vec<LockHolder>> {
        let key = Key { key: bytes::Bytes::copy_from_slice(name.as_bytes()) };
        let response = self.one(ObjectOpKind::GetLock(key)).await?;
        let info = LockInfo::decode(response.answer(0)).map_err(crate::request::undecodable)?;
        Ok(info.holders)
    }
}
