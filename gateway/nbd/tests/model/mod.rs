//! An export in memory, the model that tests and the example serve. Sparse in units of 4 KiB; its contents are what the
//! protocol says they must be, so a test can compare.
//!
//! A closed [`Gate`] holds requests inside the export, which is how tests get many in flight at a time of their choosing.

#![allow(dead_code, reason = "each test and the example use a part of it")]

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::Bytes;
use nacre_nbd::{
    BlockSizes, Errno, Export, ExportError, ExportFuture, ExportInfo, Exports, Extent, ExtentState, Failure,
    Segment,
};
use tokio::sync::watch;

/// The unit in which space is allocated.
pub const BLOCK_BYTES: u64 = 4096;

/// Holds requests while it is closed.
#[derive(Clone)]
pub struct Gate(Rc<watch::Sender<bool>>);

impl Gate {
    fn new() -> Gate {
        Gate(Rc::new(watch::Sender::new(true)))
    }

    pub fn close(&self) {
        self.0.send_replace(false);
    }

    pub fn open(&self) {
        self.0.send_replace(true);
    }

    async fn pass(&self) {
        if !*self.0.borrow() {
            self.0.subscribe().wait_for(|open| *open).await.expect("the gate outlives its waiters");
        }
    }
}

/// A disk in memory.
pub struct Memory {
    bytes: RefCell<Vec<u8>>,
    allocated: RefCell<Vec<bool>>,
    pub read_only: bool,
    pub block_sizes: BlockSizes,
    pub gate: Gate,
    /// Every request fails with this while it is set.
    pub failure: RefCell<Option<Failure>>,
    /// Requests inside now, and the most there ever were.
    pub inside: Rc<Cell<usize>>,
    pub inside_peak: Rc<Cell<usize>>,
    /// Bytes of write payloads inside now, and the most there ever were.
    pub payload: Rc<Cell<usize>>,
    pub payload_peak: Rc<Cell<usize>>,
    pub flushes: Cell<usize>,
    /// Set by a write that asked for FUA.
    pub fua_seen: Cell<bool>,
}

impl Memory {
    pub fn new(size: usize) -> Memory {
        Memory {
            bytes: RefCell::new(vec![0; size]),
            allocated: RefCell::new(vec![false; size.div_ceil(BLOCK_BYTES as usize)]),
            read_only: false,
            block_sizes: BlockSizes::default(),
            gate: Gate::new(),
            failure: RefCell::default(),
            inside: Rc::default(),
            inside_peak: Rc::default(),
            payload: Rc::default(),
            payload_peak: Rc::default(),
            flushes: Cell::default(),
            fua_seen: Cell::default(),
        }
    }

    pub fn contents(&self) -> Vec<u8> {
        self.bytes.borrow().clone()
    }

    pub fn fill(&self, offset: u64, data: &[u8]) {
        let begin = offset as usize;
        self.bytes.borrow_mut()[begin..begin + data.len()].copy_from_slice(data);
        self.mark(offset, data.len() as u64, true);
    }

    fn mark(&self, offset: u64, length: u64, allocated: bool) {
        let (first, last) = if allocated {
            (offset / BLOCK_BYTES, (offset + length).div_ceil(BLOCK_BYTES))
        } else {
            // Only blocks that are covered whole.
            (offset.div_ceil(BLOCK_BYTES), (offset + length) / BLOCK_BYTES)
        };
        if first < last {
            self.allocated.borrow_mut()[first as usize..last as usize].fill(allocated);
        }
    }

    /// Runs of equal state in a range, cut at its ends.
    fn extents(&self, offset: u64, length: u64) -> Vec<Extent> {
        let end = offset + length;
        let allocated = self.allocated.borrow();
        let mut extents: Vec<Extent> = Vec::new();
        let mut position = offset;
        while position < end {
            let block = position / BLOCK_BYTES;
            let next = ((block + 1) * BLOCK_BYTES).min(end);
            let state = if allocated[block as usize] { ExtentState::Data } else { ExtentState::Hole };
            match extents.last_mut() {
                Some(last) if last.state == state => last.length += next - position,
                _ => extents.push(Extent { length: next - position, state }),
            }
            position = next;
        }
        extents
    }

    async fn enter(self: &Rc<Self>, payload_bytes: usize) -> Result<Inside, Failure> {
        let inside = Inside { memory: Rc::clone(self), payload_bytes };
        self.inside.set(self.inside.get() + 1);
        self.inside_peak.set(self.inside_peak.get().max(self.inside.get()));
        self.payload.set(self.payload.get() + payload_bytes);
        self.payload_peak.set(self.payload_peak.get().max(self.payload.get()));
        self.gate.pass().await;
        match self.failure.borrow().clone() {
            Some(failure) => Err(failure),
            None => Ok(inside),
        }
    }
}

struct Inside {
    memory: Rc<Memory>,
    payload_bytes: usize,
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.memory.inside.set(self.memory.inside.get() - 1);
        self.memory.payload.set(self.memory.payload.get() - self.payload_bytes);
    }
}

impl Export for Memory {
    fn size(&self) -> u64 {
        self.bytes.borrow().len() as u64
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn block_sizes(&self) -> BlockSizes {
        self.block_sizes
    }

    fn description(&self) -> String {
        "a disk in memory".to_owned()
    }

    fn read(
        self: Rc<Self>,
        offset: u64,
        length: u32,
    ) -> ExportFuture<'static, Result<Vec<Segment>, Failure>> {
        Box::pin(async move {
            let _inside = self.enter(0).await?;
            let bytes = self.bytes.borrow();
            let mut position = offset as usize;
            let segments = self.extents(offset, u64::from(length)).into_iter().map(|extent| {
                let begin = position;
                position += extent.length as usize;
                match extent.state {
                    ExtentState::Data => Segment::Data(Bytes::copy_from_slice(&bytes[begin..position])),
                    ExtentState::Zero | ExtentState::Hole => Segment::Zero(extent.length),
                }
            });
            Ok(segments.collect())
        })
    }

    fn write(
        self: Rc<Self>,
        offset: u64,
        data: Bytes,
        fua: bool,
    ) -> ExportFuture<'static, Result<(), Failure>> {
        Box::pin(async move {
            let _inside = self.enter(data.len()).await?;
            self.fill(offset, &data);
            self.fua_seen.set(self.fua_seen.get() | fua);
            Ok(())
        })
    }

    fn flush(self: Rc<Self>) -> ExportFuture<'static, Result<(), Failure>> {
        Box::pin(async move {
            let _inside = self.enter(0).await?;
            self.flushes.set(self.flushes.get() + 1);
            Ok(())
        })
    }

    fn trim(
        self: Rc<Self>,
        offset: u64,
        length: u64,
        fua: bool,
    ) -> ExportFuture<'static, Result<(), Failure>> {
        self.write_zeroes(offset, length, false, fua)
    }

    fn write_zeroes(
        self: Rc<Self>,
        offset: u64,
        length: u64,
        no_hole: bool,
        _fua: bool,
    ) -> ExportFuture<'static, Result<(), Failure>> {
        Box::pin(async move {
            let _inside = self.enter(0).await?;
            let begin = offset as usize;
            self.bytes.borrow_mut()[begin..begin + length as usize].fill(0);
            self.mark(offset, length, no_hole);
            Ok(())
        })
    }

    fn block_status(
        self: Rc<Self>,
        offset: u64,
        length: u64,
    ) -> ExportFuture<'static, Result<Vec<Extent>, Failure>> {
        Box::pin(async move {
            let _inside = self.enter(0).await?;
            Ok(self.extents(offset, length))
        })
    }
}

/// Exports by name.
#[derive(Default)]
pub struct Disks(pub Vec<(String, Rc<Memory>)>);

impl Exports for Disks {
    fn lookup<'a>(&'a self, name: &'a str) -> ExportFuture<'a, Result<Rc<dyn Export>, ExportError>> {
        let found = self.0.iter().find(|(known, _)| known == name);
        let result = match found {
            Some((_, disk)) => Ok(Rc::clone(disk) as Rc<dyn Export>),
            None if name == "forbidden" => Err(ExportError::Denied("forbidden is forbidden".to_owned())),
            None => Err(ExportError::NotFound(format!("there is no export {name:?}"))),
        };
        Box::pin(std::future::ready(result))
    }

    fn list(&self) -> ExportFuture<'_, Result<Vec<ExportInfo>, ExportError>> {
        let infos = self
            .0
            .iter()
            .map(|(name, disk)| ExportInfo { name: name.clone(), description: disk.description() });
        Box::pin(std::future::ready(Ok(infos.collect())))
    }
}

/// What tests fail requests with.
pub fn broken() -> Failure {
    Failure::new(Errno::Io, "the disk is broken")
}
