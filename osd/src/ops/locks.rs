//! Advisory locks with leases, kept in an xattr of the object they lock.
//!
//! A holder is a client instance and a cookie. A lease that has run out does not end the lock: it lets others take
//! it. Whoever lost a lock that way, or by `BreakLock`, is refused from then on where it asserts the lock.

use super::limits::{LOCK_HOLDERS_MAX, check_key, fail};
use bytes::Bytes;
use nacre_types::{ClientId, EntityName, mutant};
use nacre_wire::op::{BreakLock, Lock, LockHolder, LockInfo};
use nacre_wire::{ErrorCode, OpError};
use prost::Message;

/// All holders of one lock. Exclusive means there is only one.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct LockState {
    #[prost(message, repeated, tag = "1")]
    holders: Vec<StoredHolder>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct StoredHolder {
    #[prost(uint64, tag = "1")]
    client: u64,
    #[prost(string, tag = "2")]
    entity: String,
    #[prost(string, tag = "3")]
    cookie: String,
    #[prost(bool, tag = "4")]
    shared: bool,
    #[prost(string, tag = "5")]
    description: String,
    /// Wall milliseconds; 0 for never.
    #[prost(uint64, tag = "6")]
    expires_ms: u64,
}

impl StoredHolder {
    fn is(&self, client: u64, cookie: &str) -> bool {
        self.client == client && self.cookie == cookie
    }

    fn expired(&self, wall_ms: u64) -> bool {
        self.expires_ms != 0 && self.expires_ms <= wall_ms
    }
}

impl LockState {
    pub(crate) fn load(value: Option<Bytes>) -> Result<LockState, OpError> {
        match value {
            None => Ok(LockState::default()),
            Some(value) => LockState::decode(value)
                .map_err(|_| OpError::new(ErrorCode::Io, "the stored state of the lock does not decode")),
        }
    }

    /// The xattr's new value; `None` when nobody holds the lock any more.
    pub(crate) fn store(&self) -> Option<Bytes> {
        (!self.holders.is_empty()).then(|| self.encode_to_vec().into())
    }

    pub(crate) fn lock(
        &mut self,
        lock: &Lock,
        client: ClientId,
        entity: &EntityName,
        wall_ms: u64,
    ) -> Result<(), OpError> {
        check_lock(lock)?;
        let mine = |holder: &StoredHolder| holder.is(client.0, &lock.cookie);
        if !lock.may_renew && self.holders.iter().any(mine) {
            let text = format!("this client holds lock '{}' already", lock.name);
            return fail(ErrorCode::AlreadyExists, text);
        }
        let mut others: Vec<StoredHolder> = self.holders.iter().filter(|h| !mine(h)).cloned().collect();
        others.retain(|holder| !holder.expired(wall_ms));
        if let Some(other) = others.iter().find(|other| !(other.shared && lock.shared)) {
            return fail(
                ErrorCode::Busy,
                format!(
                    "lock '{}' is held by {} (client {}, cookie '{}'){}",
                    lock.name,
                    other.entity,
                    ClientId(other.client),
                    other.cookie,
                    if other.shared { ", shared" } else { "" }
                ),
            );
        }
        if others.len() >= LOCK_HOLDERS_MAX {
            let text = format!("lock '{}' has {LOCK_HOLDERS_MAX} holders, no more are possible", lock.name);
            return fail(ErrorCode::Busy, text);
        }
        others.push(StoredHolder {
            client: client.0,
            entity: entity.to_string(),
            cookie: lock.cookie.clone(),
            shared: lock.shared,
            description: lock.description.clone(),
            expires_ms: if lock.duration_ms == 0 { 0 } else { wall_ms.saturating_add(lock.duration_ms) },
        });
        self.holders = others;
        Ok(())
    }

    pub(crate) fn unlock(&mut self, lock: &Lock, client: ClientId) -> Result<(), OpError> {
        self.take(&lock.name, client.0, &lock.cookie)
    }

    pub(crate) fn break_lock(&mut self, lock: &BreakLock) -> Result<(), OpError> {
        self.take(&lock.name, lock.client, &lock.cookie)
    }

    fn take(&mut self, name: &str, client: u64, cookie: &str) -> Result<(), OpError> {
        let before = self.holders.len();
        self.holders.retain(|holder| !holder.is(client, cookie));
        if self.holders.len() == before {
            let client = ClientId(client);
            let text = format!("client {client} with cookie '{cookie}' does not hold lock '{name}'");
            return fail(ErrorCode::NotFound, text);
        }
        Ok(())
    }

    pub(crate) fn assert_held(&self, lock: &Lock, client: ClientId) -> Result<(), OpError> {
        let held = self.holders.iter().any(|h| h.is(client.0, &lock.cookie) && (lock.shared || !h.shared));
        if held || mutant!(LockNotChecked) {
            Ok(())
        } else {
            fail(ErrorCode::Fenced, format!("this client lost lock '{}'", lock.name))
        }
    }

    pub(crate) fn info(&self, wall_ms: u64) -> LockInfo {
        let holders = self.holders.iter().map(|holder| LockHolder {
            client: holder.client,
            entity: holder.entity.clone(),
            cookie: holder.cookie.clone(),
            shared: holder.shared,
            description: holder.description.clone(),
            remaining_ms: holder.expires_ms.saturating_sub(wall_ms),
            expired: holder.expired(wall_ms),
        });
        LockInfo { holders: holders.collect() }
    }
}

fn check_lock(lock: &Lock) -> Result<(), OpError> {
    check_key("a lock's name", lock.name.as_bytes())?;
    for (what, text) in [("cookie", &lock.cookie), ("description", &lock.description)] {
        if text.len() > 256 {
            return fail(ErrorCode::TooLarge, format!("a lock's {what} has at most 256 bytes"));
        }
    }
    Ok(())
}
