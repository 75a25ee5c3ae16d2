//! What is stored and what is not: discarding, zeroing, and the map of allocated ranges.

use super::layout::{Piece, data_name};
use super::{Image, ImageExtent, WINDOW};
use crate::{ErrorCode, Object, OpError, Result, concurrent};

/// Objects that one call of `extents` looks at: the caller asks on from where it ended.
const EXTENT_OBJECTS_MAX: u64 = 2048;
/// Objects under way at once while discarding: most requests only find that nothing is there.
const DISCARD_WINDOW: usize = 64;

impl Image {
    /// Drops a range: it reads as zeroes and takes no space where whole objects go.
    pub async fn discard(&self, offset: u64, length: u64) -> Result<()> {
        self.check_writable()?;
        self.ready().await?;
        let _pass = self.inner.writes.enter().await;
        self.check_range(offset, length)?;
        self.clear(offset, length).await
    }

    /// Makes a range read as zeroes. Costs nothing to speak of where nothing is stored.
    pub async fn write_zeroes(&self, offset: u64, length: u64) -> Result<()> {
        self.discard(offset, length).await
    }

    /// Clears a range, through the open gate.
    pub(super) async fn clear(&self, offset: u64, length: u64) -> Result<()> {
        let pool = self.data_pool();
        let (size, bytes) = (self.size(), self.object_bytes());
        let clear = |piece: Piece| {
            let object = pool.object(data_name(&self.inner.id, piece.object));
            // The image's last object is whole up to the image's end.
            let end = piece.object * bytes + piece.offset + piece.length;
            let to_end = piece.offset + piece.length == bytes || end == size;
            async move {
                match (piece.offset, to_end) {
                    (0, true) => remove_if_there(&object).await,
                    (offset, true) => object.truncate(offset).await,
                    (offset, false) => object.zero(offset, piece.length).await,
                }
            }
        };
        concurrent::all(self.inner.layout.pieces(offset, length), DISCARD_WINDOW, clear).await.map(drop)
    }

    /// Which parts of a range are stored. Covers the range from `offset` on without gaps, but may end before
    /// `offset + length` where that spans very many objects.
    pub async fn extents(&self, offset: u64, length: u64) -> Result<Vec<ImageExtent>> {
        self.ready().await?;
        self.check_range(offset, length)?;
        let pool = self.data_pool();
        let length = length.min(EXTENT_OBJECTS_MAX * self.object_bytes());
        let map = |piece: Piece| {
            let object = pool.object(data_name(&self.inner.id, piece.object));
            async move {
                match object.extents(piece.offset, piece.length).await {
                    Ok(extents) => Ok((piece, extents)),
                    Err(error) if error.code == ErrorCode::NotFound => Ok((piece, Vec::new())),
                    Err(error) => Err(error),
                }
            }
        };
        let parts = concurrent::all(self.inner.layout.pieces(offset, length), WINDOW, map).await?;
        let mut all = Extents::default();
        for (piece, extents) in parts {
            let base = piece.object * self.object_bytes();
            let end = base + piece.offset + piece.length;
            let mut at = base + piece.offset;
            for (offset, length) in extents {
                let start = base.saturating_add(offset).clamp(at, end);
                let stop = base.saturating_add(offset).saturating_add(length).clamp(start, end);
                all.push(at, start, false);
                all.push(start, stop, true);
                at = stop;
            }
            all.push(at, end, false);
        }
        Ok(all.extents)
    }
}

#[derive(Default)]
struct Extents {
    extents: Vec<ImageExtent>,
}

impl Extents {
    fn push(&mut self, start: u64, end: u64, allocated: bool) {
        match self.extents.last_mut() {
            _ if start >= end => {}
            Some(last) if last.allocated == allocated => last.length += end - start,
            _ => self.extents.push(ImageExtent { offset: start, length: end - start, allocated }),
        }
    }
}

/// Removes an object. Asks first: a removal that fails would still be recorded by the OSDs, a question is not.
pub(super) async fn remove_if_there(object: &Object) -> Result<()> {
    let missing = |error: OpError| if error.code == ErrorCode::NotFound { Ok(()) } else { Err(error) };
    match object.stat().await {
        Ok(_) => object.remove().await.or_else(missing),
        Err(error) => missing(error),
    }
}
