//! Sending one object to somebody who misses it: what to read, and the pieces it goes out in.
//!
//! The sender keeps the object from changing (operations on it wait), reads it piece by piece and has a few pieces on
//! their way at a time. The receiver acknowledges each once it is durable.

use super::origin::Origin;
use crate::log::{PgLog, encode_version};
use crate::ops::{INFO_ATTR, ObjectInfo};
use bytes::Bytes;
use nacre_store::{ObjectStore, StoreError};
use nacre_types::{BLOCK_U64, buggify};
use nacre_types::{EVersion, Epoch, Instant, ObjectId, OsdId, RangeSet};
use nacre_wire::messages::Push;
use nacre_wire::op::Extent;
use nacre_wire::transaction::Pair;
use nacre_wire::{Data, ObjectName};
use std::collections::VecDeque;

/// Data bytes per piece: as much as a client's operation may have to wait for at each of its steps.
pub(super) const PIECE_BYTES_MAX: u64 = 256 << 10;
/// Extents per piece, so that a fragmented object does not make endless messages.
const PIECE_EXTENTS_MAX: usize = 128;
/// omap bytes and entries per piece.
const PIECE_OMAP_BYTES_MAX: usize = 256 << 10;
const PIECE_OMAP_ENTRIES_MAX: usize = 1000;
/// Pieces of one object on their way at once.
const PIECES_IN_FLIGHT_MAX: u32 = 2;
/// The low bits of a push's sequence number its piece, the high bits its transfer.
const PIECE_BITS: u32 = 20;

pub(super) fn sequence(transfer: u64, piece: u32) -> u64 {
    transfer << PIECE_BITS | u64::from(piece)
}

pub(super) fn split_sequence(sequence: u64) -> (u64, u32) {
    (sequence >> PIECE_BITS, (sequence & ((1 << PIECE_BITS) - 1)) as u32)
}

/// Why an object is sent; tells statistics apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum PushPurpose {
    Recovery = 0,
    Backfill = 1,
}

/// The version an object has on this disk; zero if it does not exist.
pub(crate) fn stored_version(store: &dyn ObjectStore, object: &ObjectId) -> Result<EVersion, StoreError> {
    let Some(raw) = store.attr(object, INFO_ATTR.as_bytes())? else { return Ok(EVersion::ZERO) };
    let info = ObjectInfo::from_attr(&raw)
        .ok_or_else(|| StoreError::Corrupt(format!("the object info of {object} does not decode")))?;
    Ok(info.version())
}

/// The same for comparing and overwriting: what does not decode is as good as absent.
pub(crate) fn usable_version(store: &dyn ObjectStore, object: &ObjectId) -> Result<EVersion, StoreError> {
    match stored_version(store, object) {
        Err(StoreError::Corrupt(_)) => Ok(EVersion::ZERO),
        other => other,
    }
}

/// One object on its way out.
#[derive(Debug)]
pub(crate) struct Transfer {
    pub to: OsdId,
    pub object: ObjectId,
    pub version: EVersion,
    /// The version it has on the disk.
    pub stored: EVersion,
    pub purpose: u32,
    pub progress: Instant,
    pub bytes_sent: u64,
    size: u64,
    base: Option<EVersion>,
    /// What it is made of at the receiver, and in which version.
    pub origin: Option<(ObjectId, EVersion)>,
    attrs: Vec<Pair>,
    zeroes: Vec<Extent>,
    /// Ranges not yet read, ascending.
    ranges: VecDeque<(u64, u64)>,
    omap: Omap,
    piece: u32,
    in_flight: u32,
    reading: Option<Piece>,
    last_sent: bool,
}

#[derive(Debug)]
enum Omap {
    /// The receiver's is right.
    Unchanged,
    /// What follows that key is to be sent.
    After(Option<Bytes>),
    Sent,
}

#[derive(Debug)]
struct Piece {
    extents: Vec<Extent>,
    data: Vec<Option<Data>>,
    /// Store tokens of this machine, in the order of `extents`.
    tokens: Vec<u64>,
}

/// What to do next for a transfer.
pub(crate) enum Next {
    /// These reads, under tokens given by [`Transfer::reading`].
    Read(Vec<Extent>),
    Send(Box<Push>, Data),
    /// Wait for reads or acknowledgements.
    Wait,
}

impl Transfer {
    /// Plans to send `object` as it is on this disk. With `base` only what changed since, if the log still knows; else,
    /// with an `origin`, only what differs from that.
    #[allow(clippy::too_many_arguments)]
    pub fn plan(
        store: &dyn ObjectStore,
        log: &PgLog,
        object: &ObjectId,
        base: EVersion,
        origin: Option<Origin>,
        to: OsdId,
        purpose: u32,
        now: Instant,
    ) -> Result<Option<Transfer>, StoreError> {
        let version = stored_version(store, object)?;
        let Some(stat) = store.stat(object)?.filter(|_| version != EVersion::ZERO) else { return Ok(None) };
        let size = stat.size;
        let attrs = store.attrs(object)?.into_iter().map(|(key, value)| Pair { key, value }).collect();
        let mut transfer = Transfer {
            to,
            object: object.clone(),
            version,
            stored: version,
            purpose,
            progress: now,
            bytes_sent: 0,
            size,
            base: None,
            origin: None,
            attrs,
            zeroes: Vec::new(),
            ranges: VecDeque::new(),
            omap: Omap::After(None),
            piece: 0,
            in_flight: 0,
            reading: None,
            last_sent: false,
        };
        match changed_since(log, object, base, size) {
            Some((changed, omap_changed)) => {
                transfer.base = Some(base);
                if !omap_changed {
                    transfer.omap = Omap::Unchanged;
                }
                transfer.add(store, &changed)?;
            }
            None if let Some(origin) = origin => {
                let mut differs = RangeSet::new();
                differs.insert(0, size);
                origin.same.iter().for_each(|(start, end)| differs.remove(start, end));
                transfer.origin = Some((origin.object, origin.version));
                transfer.add(store, &differs)?;
            }
            None if size > 0 => transfer.ranges = store.extents(object, 0, size)?.into(),
            None => {}
        }
        Ok(Some(transfer))
    }

    /// The same under another number, if it is the version that is expected.
    pub fn renumbered(mut self, from: EVersion, to: EVersion) -> Option<Transfer> {
        let attr = self.attrs.iter_mut().find(|pair| pair.key == INFO_ATTR.as_bytes())?;
        let info = ObjectInfo::from_attr(&attr.value).filter(|_| self.version == from)?;
        attr.value = info.numbered(to).to_attr();
        self.version = to;
        Some(self)
    }

    /// Ranges to be sent: what is mapped, and that the rest of them is not.
    fn add(&mut self, store: &dyn ObjectStore, ranges: &RangeSet) -> Result<(), StoreError> {
        for (start, end) in ranges.iter() {
            let mut at = start;
            for (offset, length) in store.extents(&self.object, start, end - start)? {
                if offset > at {
                    self.zeroes.push(Extent { offset: at, length: offset - at });
                }
                self.ranges.push_back((offset, length));
                at = offset + length;
            }
            if at < end {
                self.zeroes.push(Extent { offset: at, length: end - at });
            }
        }
        Ok(())
    }

    /// A removal, whose only piece is on its way.
    pub fn removal(object: &ObjectId, version: EVersion, to: OsdId, purpose: u32, now: Instant) -> Transfer {
        Transfer {
            to,
            object: object.clone(),
            version,
            stored: version,
            purpose,
            progress: now,
            bytes_sent: 0,
            size: 0,
            base: None,
            origin: None,
            attrs: Vec::new(),
            zeroes: Vec::new(),
            ranges: VecDeque::new(),
            omap: Omap::Sent,
            piece: 1,
            in_flight: 1,
            reading: None,
            last_sent: true,
        }
    }

    pub fn is_done(&self) -> bool {
        self.last_sent && self.in_flight == 0
    }

    /// The receiver has made one more piece durable.
    pub fn acknowledged(&mut self, now: Instant) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.progress = now;
    }

    /// The reads that [`Next::Read`] asked for were started under these tokens.
    pub fn reading(&mut self, tokens: Vec<u64>) {
        let piece = self.reading.as_mut().expect("reads follow a plan for them");
        assert_eq!(tokens.len(), piece.extents.len());
        piece.tokens = tokens;
    }

    pub fn read_done(&mut self, token: u64, data: Data) {
        let Some(piece) = &mut self.reading else { return };
        if let Some(at) = piece.tokens.iter().position(|&t| t == token) {
            piece.data[at] = Some(data);
        }
    }

    pub fn next(&mut self, store: &dyn ObjectStore, interval: Epoch) -> Result<Next, StoreError> {
        if self.last_sent || self.in_flight >= PIECES_IN_FLIGHT_MAX {
            return Ok(Next::Wait);
        }
        if self.reading.is_none() {
            let extents = self.take_ranges();
            let data = vec![None; extents.len()];
            self.reading = Some(Piece { extents: extents.clone(), data, tokens: Vec::new() });
            if !extents.is_empty() {
                return Ok(Next::Read(extents));
            }
        }
        if self.reading.as_ref().is_some_and(|piece| piece.data.iter().any(Option::is_none)) {
            return Ok(Next::Wait);
        }
        let Some(piece) = self.reading.take() else { return Ok(Next::Wait) };
        let data: Vec<Data> = piece.data.into_iter().flatten().collect();
        let first = self.piece == 0;
        let omap_complete = first && !matches!(self.omap, Omap::Unchanged);
        let omap = self.take_omap(store)?;
        let last = self.ranges.is_empty() && !matches!(self.omap, Omap::After(_));
        let push = Push {
            interval: interval.0,
            object: Some(ObjectName::from(&self.object)),
            version: encode_version(self.version),
            size: self.size,
            extents: piece.extents,
            attrs: if first { std::mem::take(&mut self.attrs) } else { Vec::new() },
            omap,
            first,
            last,
            delete: false,
            base: self.base.and_then(encode_version),
            origin: self.origin.as_ref().map(|(object, _)| ObjectName::from(object)),
            origin_version: self.origin.as_ref().and_then(|(_, version)| encode_version(*version)),
            zeroes: if first { std::mem::take(&mut self.zeroes) } else { Vec::new() },
            omap_complete,
            // The transfer's number is put in by whoever keeps it.
            sequence: u64::from(self.piece),
            purpose: self.purpose,
        };
        let data = Data::concat(&data);
        self.bytes_sent += data.bytes.len() as u64;
        self.piece += 1;
        self.in_flight += 1;
        self.last_sent = last;
        Ok(Next::Send(Box::new(push), data))
    }

    fn take_ranges(&mut self) -> Vec<Extent> {
        let most = if buggify("osd: small push") { BLOCK_U64 } else { PIECE_BYTES_MAX };
        let (mut extents, mut room) = (Vec::new(), most);
        while room > 0
            && extents.len() < PIECE_EXTENTS_MAX
            && let Some((offset, length)) = self.ranges.pop_front()
        {
            let now = length.min(room);
            extents.push(Extent { offset, length: now });
            room -= now;
            if now < length {
                self.ranges.push_front((offset + now, length - now));
            }
        }
        extents
    }

    fn take_omap(&mut self, store: &dyn ObjectStore) -> Result<Vec<Pair>, StoreError> {
        let Omap::After(after) = &self.omap else { return Ok(Vec::new()) };
        let most = if buggify("osd: small omap push") { 2 } else { PIECE_OMAP_ENTRIES_MAX };
        let (pairs, mut more) = store.omap_list(&self.object, after.as_deref(), b"", most)?;
        let (mut taken, mut bytes) = (Vec::new(), 0);
        for (key, value) in pairs {
            bytes += key.len() + value.len();
            if bytes > PIECE_OMAP_BYTES_MAX && !taken.is_empty() {
                more = true;
                break;
            }
            taken.push(Pair { key, value });
        }
        self.omap = match taken.last() {
            Some(last) if more => Omap::After(Some(last.key.clone())),
            _ => Omap::Sent,
        };
        Ok(taken)
    }
}

/// The parts of an object's first `size` bytes that the log says changed after `base`, and whether its omap did.
/// `None` if all of it has to be sent.
fn changed_since(log: &PgLog, object: &ObjectId, base: EVersion, size: u64) -> Option<(RangeSet, bool)> {
    if base == EVersion::ZERO {
        return None;
    }
    // What was reverted to just that is what it was.
    let reverted =
        log.changes_of(object, base)?.filter(|entry| entry.is_revert() && entry.reverts_to == base);
    let reverted = reverted.map(|entry| entry.version).last();
    let (mut changed, mut omap_changed, mut any) = (RangeSet::new(), false, reverted.is_some());
    for entry in log.changes_of(object, reverted.unwrap_or(base))? {
        if entry.whole || entry.is_delete() || entry.makes_anew() {
            return None;
        }
        any = true;
        omap_changed |= entry.omap_changed;
        for extent in &entry.extents {
            changed.insert(extent.offset.min(size), extent.offset.saturating_add(extent.length).min(size));
        }
    }
    any.then_some((changed, omap_changed))
}
