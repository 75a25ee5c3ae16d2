//! Why a monitor's store cannot be opened.

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the monitor's store is empty: create it with `nacre mon mkfs` or let it join a cluster")]
    Empty,
    #[error(
        "the monitor's store is damaged: {record}: {reason}; remove this monitor, wipe its store and add it again, \
         so that it copies everything from the others"
    )]
    Corrupt { record: String, reason: String },
    #[error(
        "the monitor's store has format {found}, this version knows {known}: use the version that wrote it"
    )]
    Format { found: u32, known: u32 },
    #[error("the store belongs to {what} {found}, the configuration says {expected}")]
    WrongIdentity { what: &'static str, found: String, expected: String },
    #[error("the monitor's configuration is wrong: {0}")]
    Config(String),
}
