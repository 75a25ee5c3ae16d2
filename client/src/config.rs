//! What a client has to be told.

use nacre_types::{ClientId, EntityName};
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct ClientConfig {
    pub entity: EntityName,
    /// Random: names this run of the client for ever.
    pub client_id: ClientId,
    pub fsid: String,
    /// Monitors to start with, as (name, address).
    pub mons: Vec<(String, String)>,
    pub seed: u64,
    /// After how long an operation fails with what it waited for; `None` waits for ever.
    pub timeout: Option<Duration>,
    /// Object operations on the wire at once; more wait their turn.
    pub inflight_ops_max: usize,
    /// Bytes of payload on the wire at once.
    pub inflight_bytes_max: usize,
    /// Of so many object operations one, on average, has measured where its time goes. 0 for none.
    pub measure_one_in: u32,
}

impl ClientConfig {
    pub fn new(
        entity: EntityName,
        client_id: ClientId,
        fsid: &str,
        mons: Vec<(String, String)>,
        seed: u64,
    ) -> ClientConfig {
        ClientConfig {
            entity,
            client_id,
            fsid: fsid.into(),
            mons,
            seed,
            timeout: Some(Duration::from_secs(30)),
            inflight_ops_max: 1024,
            inflight_bytes_max: 128 << 20,
            measure_one_in: 64,
        }
    }
}
