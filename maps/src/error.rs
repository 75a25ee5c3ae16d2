//! Why bytes are not a map, or an incremental does not fit one.

use nacre_types::Epoch;

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MapError {
    #[error("the {what} does not decode: {reason}")]
    Malformed { what: &'static str, reason: String },
    #[error("the incremental of epoch {found} does not follow epoch {have}")]
    NotNext { have: Epoch, found: Epoch },
    #[error("the incremental of epoch {epoch} was made for another map: ask for a full one")]
    WrongBase { epoch: Epoch },
    #[error("the map belongs to cluster {found}, this is cluster {expected}")]
    WrongCluster { expected: String, found: String },
}

impl MapError {
    pub(crate) fn malformed(what: &'static str, reason: impl ToString) -> MapError {
        MapError::Malformed { what, reason: reason.to_string() }
    }
}
