//! Memory for O_DIRECT I/O: aligned to 4 KiB, in sizes of powers of two, kept for reuse up to a bound.
//!
//! A buffer goes back to its pool when it is dropped, on whatever thread that is; a read's buffer lives on inside the
//! [`Bytes`] it was handed out as.
#![allow(unsafe_code)]

use bytes::Bytes;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const ALIGNMENT: usize = 4096;
/// Classes of 4 KiB << class, up to 4 MiB; larger buffers are not kept.
const CLASSES: usize = 11;
/// Memory kept for reuse per pool. More is given back to the allocator.
const KEPT_BYTES_MAX: usize = 48 << 20;

/// Hands out aligned buffers and takes them back.
#[derive(Clone, Default)]
pub struct BufferPool {
    shelves: Arc<Mutex<Shelves>>,
}

#[derive(Default)]
struct Shelves {
    free: [Vec<Raw>; CLASSES],
    kept_bytes: usize,
}

/// An owned allocation.
struct Raw {
    start: NonNull<u8>,
    capacity: usize,
}

// SAFETY: a `Raw` is the only owner of its allocation, which belongs to no thread.
unsafe impl Send for Raw {}
// SAFETY: shared references to a `Raw` only allow reading initialised memory.
unsafe impl Sync for Raw {}

impl Raw {
    fn new(capacity: usize) -> Raw {
        let layout = Raw::layout(capacity);
        // SAFETY: the capacity is at least 4 KiB, so the layout is not of size zero. Zeroed, so always initialised.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        Raw { start, capacity }
    }

    fn layout(capacity: usize) -> Layout {
        Layout::from_size_align(capacity, ALIGNMENT).expect("a buffer's size fits the address space")
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with exactly this layout, and owned by us alone.
        unsafe { dealloc(self.start.as_ptr(), Raw::layout(self.capacity)) }
    }
}

impl BufferPool {
    pub fn new() -> BufferPool {
        BufferPool::default()
    }

    /// A buffer of `length` bytes with unspecified (but initialised) content.
    pub fn take(&self, length: usize) -> AlignedBuffer {
        let capacity = match class_of(length) {
            Some(class) => ALIGNMENT << class,
            None => length.next_multiple_of(ALIGNMENT),
        };
        let kept = class_of(length).and_then(|class| {
            let mut shelves = self.lock();
            let raw = shelves.free[class].pop()?;
            shelves.kept_bytes -= raw.capacity;
            Some(raw)
        });
        let raw = kept.unwrap_or_else(|| Raw::new(capacity));
        AlignedBuffer { raw: Some(raw), length, home: self.clone() }
    }

    pub fn kept_bytes(&self) -> usize {
        self.lock().kept_bytes
    }

    fn put(&self, raw: Raw) {
        let Some(class) = class_of(raw.capacity) else { return };
        let mut shelves = self.lock();
        if shelves.kept_bytes + raw.capacity <= KEPT_BYTES_MAX {
            shelves.kept_bytes += raw.capacity;
            shelves.free[class].push(raw);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shelves> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn class_of(length: usize) -> Option<usize> {
    let class = length.max(ALIGNMENT).next_power_of_two().trailing_zeros() - ALIGNMENT.trailing_zeros();
    ((class as usize) < CLASSES).then_some(class as usize)
}

/// Memory aligned to 4 KiB.
pub struct AlignedBuffer {
    /// Always there until dropped.
    raw: Option<Raw>,
    length: usize,
    home: BufferPool,
}

impl AlignedBuffer {
    fn raw(&self) -> &Raw {
        self.raw.as_ref().expect("a buffer keeps its memory until it is dropped")
    }

    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the allocation has at least `length` initialised bytes and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.raw().start.as_ptr(), self.length) }
    }

    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `&mut self` is the only reference to it.
        unsafe { std::slice::from_raw_parts_mut(self.raw().start.as_ptr(), self.length) }
    }

    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.raw().start.as_ptr()
    }

    /// The same memory as immutable bytes; no copy.
    pub fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for AlignedBuffer {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        if let Some(raw) = self.raw.take() {
            self.home.put(raw);
        }
    }
}
