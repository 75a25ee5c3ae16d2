//! Bounds of one request, beside those that `nacre_wire::op` names. What exceeds one fails with a sentence that says so.

use nacre_wire::op::{KEY_BYTES_MAX, OMAP_VALUE_BYTES_MAX, XATTR_BYTES_MAX};
use nacre_wire::transaction::{DATA_BYTES_MAX, OBJECT_BYTES_MAX};
use nacre_wire::{ErrorCode, OpError};

/// Most bytes the reads of one request answer: as much as one request may write, well inside a frame.
pub const READ_BYTES_MAX: u64 = DATA_BYTES_MAX as u64;
/// Most bytes of keys and values in one answer. Listings stop there and say that more follows.
pub const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Largest payload of a notification and of its replies.
pub const NOTIFY_BYTES_MAX: usize = 64 << 10;
/// Most owners of one shared lock.
pub const LOCK_HOLDERS_MAX: usize = 256;

pub(crate) fn fail<T>(code: ErrorCode, message: impl Into<String>) -> Result<T, OpError> {
    Err(OpError::new(code, message))
}

/// The end of a range inside the largest object.
pub(crate) fn end_of(offset: u64, length: u64) -> Result<u64, OpError> {
    match offset.checked_add(length).filter(|&end| end <= OBJECT_BYTES_MAX) {
        Some(end) => Ok(end),
        None => fail(
            ErrorCode::TooLarge,
            format!("{length} bytes at {offset} reach beyond the largest object of {OBJECT_BYTES_MAX} bytes"),
        ),
    }
}

pub(crate) fn check_key(what: &str, key: &[u8]) -> Result<(), OpError> {
    match key.len() {
        0 => fail(ErrorCode::InvalidArgument, format!("{what} must not be empty")),
        n if n > KEY_BYTES_MAX => {
            fail(ErrorCode::TooLarge, format!("{what} of {n} bytes is too long: at most {KEY_BYTES_MAX}"))
        }
        _ => Ok(()),
    }
}

pub(crate) fn check_xattr_value(value: &[u8]) -> Result<(), OpError> {
    match value.len() {
        n if n > XATTR_BYTES_MAX => fail(
            ErrorCode::TooLarge,
            format!("an xattr value of {n} bytes is too large: at most {XATTR_BYTES_MAX}"),
        ),
        _ => Ok(()),
    }
}

pub(crate) fn check_omap_value(value: &[u8]) -> Result<(), OpError> {
    match value.len() {
        n if n > OMAP_VALUE_BYTES_MAX => fail(
            ErrorCode::TooLarge,
            format!("an omap value of {n} bytes is too large: at most {OMAP_VALUE_BYTES_MAX}"),
        ),
        _ => Ok(()),
    }
}
