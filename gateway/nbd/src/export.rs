//! What the server serves: the two traits a backend implements, and the values they exchange.
//!
//! [`Exports`] finds exports by name; [`Export`] is one of them. Both are object safe and single-threaded: methods
//! return boxed local futures, and an export's methods take `Rc<Self>`, so a future may outlive the connection that
//! asked for it. Many futures of one export run at the same time; the server imposes no order between them, as NBD
//! imposes none.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use bytes::Bytes;

use crate::protocol::{Errno, MAX_PAYLOAD_BYTES, PREFERRED_BLOCK_BYTES};

/// A boxed future on the local thread.
pub type ExportFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// The names a server can open.
pub trait Exports {
    /// Opens the export called `name`; the empty name asks for a default one.
    ///
    /// Called for every information request, not only when a client attaches, so it should be cheap and should not yet
    /// claim exclusive ownership. It must end by itself: the server puts no deadline on it.
    fn lookup<'a>(&'a self, name: &'a str) -> ExportFuture<'a, Result<Rc<dyn Export>, ExportError>>;

    /// The exports to show to a client that asks for a list.
    fn list(&self) -> ExportFuture<'_, Result<Vec<ExportInfo>, ExportError>>;
}

/// One line of the list of exports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportInfo {
    pub name: String,
    /// For people; may be empty.
    pub description: String,
}

/// Why an export cannot be opened or listed. The text goes to the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Denied(String),
    #[error("{0}")]
    Unavailable(String),
    #[error("the server is shutting down")]
    ShuttingDown,
}

/// A block device being served.
///
/// Offsets and lengths are in bytes; the server has checked them against [`size`](Export::size),
/// [`block_sizes`](Export::block_sizes) and [`read_only`](Export::read_only) before it calls a method, and no length is
/// zero. `read` and `write` are at most `block_sizes().maximum` long; `trim`, `write_zeroes`, `cache` and
/// `block_status` may cover the whole export in one call and must bound their own concurrency.
pub trait Export {
    /// Size in bytes, asked at every request: a grown export is usable at once.
    fn size(&self) -> u64;

    /// Whether writes, trims and zeroing are refused with `EPERM`.
    fn read_only(&self) -> bool {
        false
    }

    fn block_sizes(&self) -> BlockSizes {
        BlockSizes::default()
    }

    /// Shown to people by `NBD_INFO_DESCRIPTION`.
    fn description(&self) -> String {
        String::new()
    }

    /// Whether zeroing is certainly faster than writing zeroes. Where it is not, a client's fast-zero request fails with
    /// `ENOTSUP` and the client writes the zeroes itself.
    fn zeroes_fast(&self, no_hole: bool) -> bool {
        !no_hole
    }

    /// Reads `length` bytes. The segments must add up to exactly `length`.
    fn read(self: Rc<Self>, offset: u64, length: u32)
    -> ExportFuture<'static, Result<Vec<Segment>, Failure>>;

    /// Writes `data`; with `fua`, it must be durable when the future completes.
    fn write(
        self: Rc<Self>,
        offset: u64,
        data: Bytes,
        fua: bool,
    ) -> ExportFuture<'static, Result<(), Failure>>;

    /// Makes durable every write completed before this call, by whichever connection: the server tells clients that
    /// they may spread their requests over several connections.
    fn flush(self: Rc<Self>) -> ExportFuture<'static, Result<(), Failure>>;

    /// Drops a range the client no longer needs; it may read back as anything.
    fn trim(
        self: Rc<Self>,
        offset: u64,
        length: u64,
        fua: bool,
    ) -> ExportFuture<'static, Result<(), Failure>>;

    /// Makes a range read as zeroes; with `no_hole` its space stays provisioned.
    fn write_zeroes(
        self: Rc<Self>,
        offset: u64,
        length: u64,
        no_hole: bool,
        fua: bool,
    ) -> ExportFuture<'static, Result<(), Failure>>;

    /// Describes the range from `offset` on: at least one extent, none empty. It may stop before `offset + length`,
    /// and should after a few thousand extents; clients ask again for the rest.
    fn block_status(
        self: Rc<Self>,
        offset: u64,
        length: u64,
    ) -> ExportFuture<'static, Result<Vec<Extent>, Failure>>;

    /// A hint that a range will be read soon.
    fn cache(self: Rc<Self>, _offset: u64, _length: u64) -> ExportFuture<'static, Result<(), Failure>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// A piece of what a read returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    Data(Bytes),
    /// This many bytes that read as zeroes, and need not cross the wire.
    Zero(u64),
}

impl Segment {
    pub fn length(&self) -> u64 {
        match self {
            Segment::Data(data) => data.len() as u64,
            Segment::Zero(length) => *length,
        }
    }
}

/// A run of bytes in one state of allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub length: u64,
    pub state: ExtentState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtentState {
    /// Allocated, contents unknown.
    Data,
    /// Allocated, reads as zeroes.
    Zero,
    /// Not allocated, reads as zeroes.
    Hole,
}

impl ExtentState {
    /// The `base:allocation` status flags.
    pub fn flags(self) -> u32 {
        use crate::protocol::{STATE_HOLE, STATE_ZERO};
        match self {
            ExtentState::Data => 0,
            ExtentState::Zero => STATE_ZERO,
            ExtentState::Hole => STATE_HOLE | STATE_ZERO,
        }
    }
}

/// The sizes a client should respect, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSizes {
    /// Every offset and length must be a multiple of it. A power of two up to 64 KiB.
    pub minimum: u32,
    /// Aligned requests of this size are efficient. A power of two, at least 512 and at least `minimum`.
    pub preferred: u32,
    /// The longest read or write; at least `preferred`, at most [`MAX_PAYLOAD_BYTES`].
    pub maximum: u32,
}

impl Default for BlockSizes {
    fn default() -> Self {
        BlockSizes { minimum: 1, preferred: PREFERRED_BLOCK_BYTES, maximum: MAX_PAYLOAD_BYTES }
    }
}

impl BlockSizes {
    /// The nearest sizes the protocol allows.
    pub(crate) fn legal(self) -> BlockSizes {
        let minimum = self.minimum.clamp(1, 1 << 16).next_power_of_two();
        let preferred = self.preferred.clamp(minimum.max(512), MAX_PAYLOAD_BYTES / 2).next_power_of_two();
        let maximum = self.maximum.clamp(preferred, MAX_PAYLOAD_BYTES);
        BlockSizes { minimum, preferred, maximum: maximum - maximum % minimum }
    }
}

/// Why a request failed: the code NBD has for it, and a sentence for the client's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub errno: Errno,
    pub message: Cow<'static, str>,
}

impl Failure {
    pub fn new(errno: Errno, message: impl Into<Cow<'static, str>>) -> Failure {
        Failure { errno, message: message.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.errno)
    }
}

impl std::error::Error for Failure {}
