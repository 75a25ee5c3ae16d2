//! What can be asked.

use nacre_types::{ClientId, EntityName, OsdId, PgId};
use std::fmt;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Question {
    Pg(PgId),
    Osd(OsdId),
    Operation(Operation),
    /// A request by the id that `dump_ops` and logs show: `4:12`.
    Request(String),
    /// Whatever has waited longest.
    AnyOperation,
    /// Why commands are not answered.
    Monitors,
}

/// An operation on an object, by whomever.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Operation {
    pub pool: String,
    pub namespace: String,
    pub object: String,
    /// Whose rights count, if anybody's in particular.
    pub entity: Option<EntityName>,
    /// Which client it is, if it may have been shut out.
    pub client: Option<ClientId>,
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Question::Pg(pg) => write!(f, "PG {pg}"),
            Question::Osd(osd) => write!(f, "{osd}"),
            Question::Operation(op) => write!(f, "operations on {}/{}", op.pool, op.object),
            Question::Request(id) => write!(f, "request {id}"),
            Question::AnyOperation => f.write_str("operations"),
            Question::Monitors => f.write_str("commands to the monitors"),
        }
    }
}
