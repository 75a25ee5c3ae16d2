//! The codes an operation can fail with: few, stable, and mapped to errno where a kernel or NBD client needs one.

/// Why an operation did not happen. Numbers are the wire's and never change.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, prost::Enumeration)]
#[repr(i32)]
pub enum ErrorCode {
    Ok = 0,
    /// No such pool, object, image, key, OSD: the message says which.
    NotFound = 1,
    AlreadyExists = 2,
    /// The entity lacks the capability.
    NotPermitted = 3,
    /// The request itself is wrong, at whatever cluster.
    InvalidArgument = 4,
    /// An offset or size beyond what an object or image may have.
    TooLarge = 5,
    /// A comparison, assertion or expected version did not hold.
    Canceled = 6,
    /// Somebody else holds the lock, or still uses the thing.
    Busy = 7,
    /// The sender lost its lock or was fenced: it must stop writing.
    Fenced = 8,
    /// The cluster or pool is full.
    NoSpace = 9,
    QuotaExceeded = 10,
    /// The disk failed, or no good copy is left.
    Io = 11,
    /// Not now; the sender retries (PG not active, wrong primary, map too old).
    TryAgain = 12,
    TimedOut = 13,
    /// This version does not know the operation.
    NotSupported = 14,
    /// The monitors have no quorum.
    NoQuorum = 15,
    /// The container is not empty.
    NotEmpty = 16,
    /// A bug: the message says where.
    Internal = 17,
    OutOfRange = 18,
    ReadOnly = 19,
}

impl ErrorCode {
    pub fn from_raw(raw: i32) -> ErrorCode {
        ErrorCode::try_from(raw).unwrap_or(ErrorCode::Internal)
    }

    /// The nearest Linux errno, positive; 0 for `Ok`.
    pub fn errno(self) -> i32 {
        match self {
            ErrorCode::Ok => 0,
            ErrorCode::NotFound => 2,
            ErrorCode::AlreadyExists => 17,
            ErrorCode::NotPermitted => 1,
            ErrorCode::InvalidArgument => 22,
            ErrorCode::TooLarge => 27,
            ErrorCode::Canceled => 125,
            ErrorCode::Busy => 16,
            ErrorCode::Fenced => 108,
            ErrorCode::NoSpace => 28,
            ErrorCode::QuotaExceeded => 122,
            ErrorCode::Io => 5,
            ErrorCode::TryAgain => 11,
            ErrorCode::TimedOut => 110,
            ErrorCode::NotSupported => 95,
            ErrorCode::NoQuorum => 112,
            ErrorCode::NotEmpty => 39,
            ErrorCode::Internal => 14,
            ErrorCode::OutOfRange => 34,
            ErrorCode::ReadOnly => 30,
        }
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            ErrorCode::Ok => "ok",
            ErrorCode::NotFound => "not found",
            ErrorCode::AlreadyExists => "already exists",
            ErrorCode::NotPermitted => "not permitted",
            ErrorCode::InvalidArgument => "invalid argument",
            ErrorCode::TooLarge => "too large",
            ErrorCode::Canceled => "comparison failed",
            ErrorCode::Busy => "busy",
            ErrorCode::Fenced => "fenced",
            ErrorCode::NoSpace => "no space left",
            ErrorCode::QuotaExceeded => "quota exceeded",
            ErrorCode::Io => "input/output error",
            ErrorCode::TryAgain => "try again",
            ErrorCode::TimedOut => "timed out",
            ErrorCode::NotSupported => "not supported",
            ErrorCode::NoQuorum => "no quorum",
            ErrorCode::NotEmpty => "not empty",
            ErrorCode::Internal => "internal error",
            ErrorCode::OutOfRange => "out of range",
            ErrorCode::ReadOnly => "read-only",
        })
    }
}

/// A failed operation as a client sees it: the code to act on and a sentence to show.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct OpError {
    pub code: ErrorCode,
    pub message: String,
}

impl OpError {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> OpError {
        OpError { code, message: message.into() }
    }
}
