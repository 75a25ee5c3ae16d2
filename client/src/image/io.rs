//! Reading and writing: ranges of the image, cut into objects, in parallel.

use super::layout::{Piece, data_name};
use super::{Image, WINDOW};
use crate::{ErrorCode, Pool, Result, concurrent};
use bytes::{Bytes, BytesMut};

/// A piece of what a read returned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Segment {
    Data(Bytes),
    /// This many bytes that are zero because nothing is stored there.
    Zero(u64),
}

/// A part of an image's range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ImageExtent {
    pub offset: u64,
    pub length: u64,
    /// Whether anything is stored; what is not reads as zeroes.
    pub allocated: bool,
}

impl Image {
    /// Reads exactly `length` bytes.
    pub async fn read(&self, offset: u64, length: u64) -> Result<Bytes> {
        let mut segments = self.read_segments(offset, length).await?;
        if let [Segment::Data(bytes)] = &mut segments[..] {
            return Ok(std::mem::take(bytes));
        }
        let mut all = BytesMut::with_capacity(length as usize);
        for segment in segments {
            match segment {
                Segment::Data(bytes) => all.extend_from_slice(&bytes),
                Segment::Zero(bytes) => all.resize(all.len() + bytes as usize, 0),
            }
        }
        Ok(all.freeze())
    }

    /// Reads exactly `length` bytes, as they lie: without copying, and zeroes only as their number.
    pub async fn read_segments(&self, offset: u64, length: u64) -> Result<Vec<Segment>> {
        self.ready().await?;
        self.check_range(offset, length)?;
        let pool = self.data_pool();
        let id = &self.inner.id;
        let mut pieces = self.inner.layout.pieces(offset, length);
        let parts = match (pieces.next(), pieces.next()) {
            (None, _) => return Ok(Vec::new()),
            (Some(only), None) => vec![read_piece(&pool, id, only).await?],
            _ => {
                let pieces = self.inner.layout.pieces(offset, length);
                concurrent::all(pieces, WINDOW, |piece| read_piece(&pool, id, piece)).await?
            }
        };
        let mut segments: Vec<Segment> = Vec::with_capacity(parts.len());
        for (data, zeroes) in parts {
            if !data.is_empty() {
                segments.push(Segment::Data(data));
            }
            match segments.last_mut() {
                _ if zeroes == 0 => {}
                Some(Segment::Zero(before)) => *before += zeroes,
                _ => segments.push(Segment::Zero(zeroes)),
            }
        }
        Ok(segments)
    }

    pub async fn write(&self, offset: u64, bytes: impl Into<Bytes>) -> Result<()> {
        let bytes = bytes.into();
        self.check_writable()?;
        self.ready().await?;
        let _pass = self.inner.writes.enter().await;
        self.check_range(offset, bytes.len() as u64)?;
        let pool = self.data_pool();
        let id = &self.inner.id;
        let mut pieces = self.inner.layout.pieces(offset, bytes.len() as u64);
        match (pieces.next(), pieces.next()) {
            (None, _) => Ok(()),
            (Some(only), None) => pool.object(data_name(id, only.object)).write(only.offset, bytes).await,
            _ => {
                let mut rest = bytes.clone();
                let pieces = self.inner.layout.pieces(offset, bytes.len() as u64).map(move |piece| {
                    let part = rest.split_to(piece.length as usize);
                    (piece, part)
                });
                let write = |(piece, part): (Piece, Bytes)| {
                    let object = pool.object(data_name(id, piece.object));
                    async move { object.write(piece.offset, part).await }
                };
                concurrent::all(pieces, WINDOW, write).await.map(drop)
            }
        }
    }

    /// Writes `new` if the range holds exactly `expected` (equally long, and inside one object), else `Canceled`.
    pub async fn compare_and_write(
        &self,
        offset: u64,
        expected: impl Into<Bytes>,
        new: impl Into<Bytes>,
    ) -> Result<()> {
        let (expected, new) = (expected.into(), new.into());
        self.check_writable()?;
        self.ready().await?;
        let _pass = self.inner.writes.enter().await;
        let length = expected.len().max(new.len()) as u64;
        self.check_range(offset, length)?;
        let mut pieces = self.inner.layout.pieces(offset, length);
        match (pieces.next(), pieces.next()) {
            (Some(only), None) => {
                let object = self.data_pool().object(data_name(&self.inner.id, only.object));
                object.compare_and_write(only.offset, expected, new).await
            }
            _ => {
                let text = "comparing and writing must stay inside one object of the image";
                Err(crate::OpError::new(ErrorCode::InvalidArgument, text))
            }
        }
    }

    /// Waits for every write that was started before: each is durable when it completes, so nothing else is to do.
    pub async fn flush(&self) -> Result<()> {
        self.inner.writes.drain().await;
        Ok(())
    }
}

/// What is stored of a piece, and how many zeroes follow.
async fn read_piece(pool: &Pool, id: &str, piece: Piece) -> Result<(Bytes, u64)> {
    let mut data = match pool.object(data_name(id, piece.object)).read(piece.offset, piece.length).await {
        Ok(data) => data,
        Err(error) if error.code == ErrorCode::NotFound => Bytes::new(),
        Err(error) => return Err(error),
    };
    data.truncate(piece.length as usize);
    let zeroes = piece.length.saturating_sub(data.len() as u64);
    Ok((data, zeroes))
}
