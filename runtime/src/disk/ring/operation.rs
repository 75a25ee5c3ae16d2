//! One request on its way through the ring, with the memory that the kernel reads from or writes into.
//!
//! The memory belongs to the operation, which the ring keeps until the kernel has reported its end.
#![allow(unsafe_code)]

use super::barrier::GroupId;
use crate::disk::{AlignedBuffer, BufferPool};
use bytes::Bytes;
use io_uring::{opcode, squeue, types};
use std::time::Instant;

/// The most one submission moves; longer requests are continued. Far below the 2 GiB at which the kernel cuts.
const STEP_BYTES: usize = 64 << 20;
const IOVECS_MAX: usize = 1024;

pub(super) enum Kind {
    Read {
        token: u64,
    },
    Write {
        token: u64,
        group: GroupId,
        /// Written durably: its end is the end of its group's flush as well.
        durable: bool,
    },
    Flush {
        tokens: Vec<u64>,
    },
}

/// Where the bytes are.
enum Memory {
    None,
    Buffer(AlignedBuffer),
    /// Segments that the device can take from where they are.
    InPlace {
        segments: Vec<Bytes>,
        iovecs: Vec<libc::iovec>,
    },
    /// Segments that are copied into one buffer when the operation is submitted.
    Scattered(Vec<Bytes>),
}

pub(super) struct Operation {
    pub(super) kind: Kind,
    pub(super) offset: u64,
    pub(super) length: usize,
    /// Bytes moved by earlier submissions.
    pub(super) done: usize,
    pub(super) retries: u32,
    pub(super) started: Instant,
    memory: Memory,
}

impl Operation {
    pub(super) fn read(token: u64, offset: u64, length: usize) -> Operation {
        Operation::new(Kind::Read { token }, offset, length, Memory::None)
    }

    /// `alignment` is what the device asks of memory.
    pub(super) fn write(
        token: u64,
        group: GroupId,
        offset: u64,
        segments: Vec<Bytes>,
        alignment: usize,
    ) -> Operation {
        let length = segments.iter().map(Bytes::len).sum();
        let aligned =
            |s: &Bytes| (s.as_ptr() as usize).is_multiple_of(alignment) && s.len().is_multiple_of(alignment);
        let memory = match segments.iter().all(aligned) {
            true => Memory::InPlace { segments, iovecs: Vec::new() },
            false => Memory::Scattered(segments),
        };
        Operation::new(Kind::Write { token, group, durable: false }, offset, length, memory)
    }

    pub(super) fn flush(tokens: Vec<u64>) -> Operation {
        Operation::new(Kind::Flush { tokens }, 0, 0, Memory::None)
    }

    fn new(kind: Kind, offset: u64, length: usize, memory: Memory) -> Operation {
        Operation { kind, offset, length, done: 0, retries: 0, started: Instant::now(), memory }
    }

    /// The entry that carries out what is left of the operation. Its pointers are good for as long as `self` is
    /// neither dropped nor asked for another entry.
    pub(super) fn entry(&mut self, file: types::Fd, pool: &BufferPool) -> squeue::Entry {
        match &self.kind {
            Kind::Flush { .. } => {
                return opcode::Fsync::new(file).flags(types::FsyncFlags::DATASYNC).build();
            }
            Kind::Read { .. } => {
                if let Memory::None = self.memory {
                    self.memory = Memory::Buffer(pool.take(self.length));
                }
            }
            Kind::Write { .. } => {
                if let Memory::Scattered(segments) = &self.memory {
                    self.memory = Memory::Buffer(gather(pool, segments, self.length));
                }
            }
        }
        let (done, at) = (self.done, self.offset + self.done as u64);
        let step = (self.length - done).min(STEP_BYTES);
        let flags = match self.kind {
            Kind::Write { durable: true, .. } => libc::RWF_DSYNC,
            _ => 0,
        };
        match (&mut self.memory, &self.kind) {
            (Memory::Buffer(buffer), Kind::Read { .. }) => {
                let start = buffer.as_mut_slice()[done..].as_mut_ptr();
                opcode::Read::new(file, start, step as u32).offset(at).build()
            }
            (Memory::Buffer(buffer), _) => {
                let start = buffer.as_slice()[done..].as_ptr();
                opcode::Write::new(file, start, step as u32).offset(at).rw_flags(flags).build()
            }
            (Memory::InPlace { segments, iovecs }, _) => {
                fill_iovecs(iovecs, segments, done, step);
                match iovecs.as_slice() {
                    [one] => opcode::Write::new(file, one.iov_base.cast(), one.iov_len as u32)
                        .offset(at)
                        .rw_flags(flags)
                        .build(),
                    many => opcode::Writev::new(file, many.as_ptr(), many.len() as u32)
                        .offset(at)
                        .rw_flags(flags)
                        .build(),
                }
            }
            (Memory::None | Memory::Scattered(_), _) => unreachable!("memory was provided above"),
        }
    }

    /// The bytes of a completed read, or of a write that had to be gathered; none of one that went from where it was.
    pub(super) fn into_bytes(self) -> Bytes {
        match self.memory {
            Memory::Buffer(buffer) => buffer.into_bytes(),
            _ => Bytes::new(),
        }
    }

    /// Gives up the memory without freeing it: the kernel may still use it.
    pub(super) fn leak(self) {
        std::mem::forget(self);
    }
}

fn gather(pool: &BufferPool, segments: &[Bytes], length: usize) -> AlignedBuffer {
    let mut buffer = pool.take(length);
    let mut rest = buffer.as_mut_slice();
    for segment in segments {
        let (here, after) = rest.split_at_mut(segment.len());
        here.copy_from_slice(segment);
        rest = after;
    }
    assert!(rest.is_empty(), "the segments are as long as their sum");
    buffer
}

/// Points `iovecs` at `step` bytes of the segments after the first `skip`.
fn fill_iovecs(iovecs: &mut Vec<libc::iovec>, segments: &[Bytes], mut skip: usize, mut step: usize) {
    iovecs.clear();
    for segment in segments {
        if skip >= segment.len() {
            skip -= segment.len();
            continue;
        }
        if step == 0 || iovecs.len() == IOVECS_MAX {
            break;
        }
        let part = &segment[skip..];
        let part = &part[..part.len().min(step)];
        skip = 0;
        step -= part.len();
        iovecs.push(libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() });
    }
}

// SAFETY: the raw pointers in `iovecs` point into `segments`, owned by the same value, whose bytes do not move with it.
unsafe impl Send for Operation {}
