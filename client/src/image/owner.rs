//! Exclusive ownership: a lease on the header that shuts out whoever held it before.
//!
//! A lock on the header does not reach the data objects. So an owner whose lease ran out or who is pushed out is
//! blocklisted first: from then on no OSD takes anything it still has under way. And an owner whose lease has run out
//! by its own clock sends nothing until it has renewed it (see `Pool::under_lease`).

use super::OpenOptions;
use crate::{ErrorCode, Lease, LockRequest, Object, OpError, Result};
use nacre_types::ClientId;
use nacre_wire::op::LockHolder;
use std::time::Duration;

pub(super) const OWNER_LOCK: &str = "owner";
/// A blocklisted client is a run that is over, or should be: a day is longer than any packet lives.
const BLOCKLIST_DURATION: Duration = Duration::from_secs(24 * 3600);
const RETRY_PERIOD: Duration = Duration::from_secs(1);

pub(super) async fn acquire(
    object: &Object,
    image: &str,
    duration: Duration,
    options: &OpenOptions,
) -> Result<Lease> {
    let cluster = object.pool().cluster();
    let me = cluster.client_id();
    let cookie = format!("{:016x}", cluster.random());
    let mut waited = Duration::ZERO;
    loop {
        for holder in object.lock_holders(OWNER_LOCK).await? {
            match holder.client == me.0 {
                true if !holder.expired => {
                    let text = format!("image '{image}' is open in this client already");
                    return Err(OpError::new(ErrorCode::Busy, text));
                }
                // A former opening here: whoever shuts out itself is of no more use.
                true => take(object, &holder).await?,
                false if holder.expired || options.take_over => {
                    cluster.blocklist_add(ClientId(holder.client), BLOCKLIST_DURATION).await?;
                    take(object, &holder).await?;
                }
                false => {}
            }
        }
        let request = LockRequest {
            duration: Some(duration),
            description: cluster.entity().to_string(),
            ..LockRequest::exclusive(OWNER_LOCK, &cookie)
        };
        match object.lease(request).await {
            Err(error) if error.code == ErrorCode::Busy && waited < options.wait => {
                cluster.sleep(RETRY_PERIOD).await;
                waited += RETRY_PERIOD;
            }
            Err(error) if error.code == ErrorCode::Busy => {
                let text = format!("image '{image}' is in use by another client: {}", error.message);
                return Err(OpError::new(ErrorCode::Busy, text));
            }
            result => return result,
        }
    }
}

async fn take(object: &Object, holder: &LockHolder) -> Result<()> {
    match object.break_lock(OWNER_LOCK, ClientId(holder.client), &holder.cookie).await {
        Err(error) if error.code == ErrorCode::NotFound => Ok(()),
        result => result,
    }
}
