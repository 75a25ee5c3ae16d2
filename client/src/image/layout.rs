//! From a range of the image to ranges of its data objects.

use crate::{ErrorCode, OpError, Result};

/// 4 KiB to 16 MiB: an object must fit one request.
const ORDERS: std::ops::RangeInclusive<u32> = 12..=24;
/// 4 MiB, as Ceph's.
pub(super) const ORDER_DEFAULT: u32 = 22;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Layout {
    order: u32,
}

/// A part of a range that lies in one object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Piece {
    pub(super) object: u64,
    /// In the object.
    pub(super) offset: u64,
    pub(super) length: u64,
}

impl Layout {
    pub(super) fn new(order: u32) -> Result<Layout> {
        if ORDERS.contains(&order) {
            return Ok(Layout { order });
        }
        let (low, high) = (ORDERS.start(), ORDERS.end());
        let text = format!("an image's object order is {low} to {high}, not {order}");
        Err(OpError::new(ErrorCode::InvalidArgument, text))
    }

    pub(super) fn object_bytes(&self) -> u64 {
        1 << self.order
    }

    /// Objects that an image of `size` bytes may have.
    pub(super) fn objects(&self, size: u64) -> u64 {
        size.div_ceil(self.object_bytes())
    }

    pub(super) fn pieces(&self, offset: u64, length: u64) -> impl Iterator<Item = Piece> + use<> {
        let order = self.order;
        let bytes = 1_u64 << order;
        let (mut at, end) = (offset, offset + length);
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let within = at & (bytes - 1);
            let length = (bytes - within).min(end - at);
            let piece = Piece { object: at >> order, offset: within, length };
            at += length;
            Some(piece)
        })
    }
}

pub(super) fn data_name(id: &str, object: u64) -> String {
    format!("data.{id}.{object:016x}")
}

pub(super) fn data_prefix(id: &str) -> String {
    format!("data.{id}.")
}

pub(super) fn header_name(id: &str) -> String {
    format!("header.{id}")
}
