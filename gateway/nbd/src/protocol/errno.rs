//! The error codes NBD has. They look like Linux errno values, but are the protocol's own.

use std::fmt;

/// An error code on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Errno {
    /// A write to a read-only export.
    Perm = 1,
    Io = 5,
    NoMemory = 12,
    Invalid = 22,
    NoSpace = 28,
    /// A request without payload that is too long.
    Overflow = 75,
    /// Only as the answer to a fast-zero request that would not be fast.
    NotSupported = 95,
    Shutdown = 108,
}

impl Errno {
    pub fn code(self) -> u32 {
        self as u32
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Errno::Perm => "EPERM",
            Errno::Io => "EIO",
            Errno::NoMemory => "ENOMEM",
            Errno::Invalid => "EINVAL",
            Errno::NoSpace => "ENOSPC",
            Errno::Overflow => "EOVERFLOW",
            Errno::NotSupported => "ENOTSUP",
            Errno::Shutdown => "ESHUTDOWN",
        })
    }
}
