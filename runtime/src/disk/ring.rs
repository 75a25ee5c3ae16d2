//! A disk in use by a mounted store: [`DiskRequest`]s in, [`DiskDone`]s out, through one io_uring owned by one reactor.
//!
//! What it guarantees:
//! - A flush covers every write emitted before it, and reports success only if `fdatasync` (or the durable write that
//!   stands for it) succeeded. After one failed flush every later one fails: the kernel forgets what it could not write.
//! - Requests are carried out whole: short transfers are continued, interrupted ones repeated; any other error ends the
//!   request. No more than [`IN_FLIGHT_MAX`] are with the kernel, the rest wait in memory in order.
//! - Discards run beside all others, one after the other; no flush waits for one.
//! - Memory outlives the transfer, also when the ring is dropped: that waits for what is in flight.
//!
//! On a block device a lone write followed by a flush, which is what a journal commit is, goes down as one durable write
//! (RWF_DSYNC): one wake-up of the reactor instead of two, and one FUA write where the device can do that. Not so on a
//! file: there the kernel flushes from a worker bound to one CPU, which on a busy machine waits for its turn (measured:
//! 4 ms instead of 0.1).
//!
//! [`DiskRing::push`] queues, [`DiskRing::submit`] hands everything queued to the kernel in one system call.
#![allow(unsafe_code)]

mod barrier;
mod operation;

use super::discard::{Discarded, Discarder};
use super::error::disk_error;
use super::{FileDisk, FlushPolicy};
use barrier::Barrier;
use bytes::Bytes;
use io_uring::{IoUring, squeue, types};
use nacre_store::{DiskDone, DiskError, DiskRequest};
use nacre_types::checksum::{BLOCK, BLOCK_U64};
use operation::{Kind, Operation};
use std::collections::VecDeque;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Requests with the kernel at a time. Deeper queues only add latency: the device's own has 128 to 1024 entries.
pub const IN_FLIGHT_MAX: usize = 256;
/// A device that answers EAGAIN or EINTR to one request this often is broken.
const RETRIES_MAX: u32 = 1000;
/// How long dropping the ring waits for the kernel before it gives up the buffers of what is in flight.
const DROP_WAIT: Duration = Duration::from_secs(10);

/// Counters since the start.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct RingStats {
    pub reads: u64,
    pub writes: u64,
    /// Flushes asked for.
    pub flushes: u64,
    /// `fdatasync` calls made: flushes that became ready together share one.
    pub syncs: u64,
    /// Flushes that needed none because their one write was durable by itself.
    pub durable_writes: u64,
    pub discards: u64,
    pub continued: u64,
    pub retried: u64,
}

pub struct DiskRing {
    ring: IoUring,
    disk: FileDisk,
    wake: AsyncFd<OwnedFd>,
    operations: Vec<Option<Operation>>,
    vacant: Vec<usize>,
    waiting: VecDeque<usize>,
    in_flight: usize,
    /// Entries in the submission queue that the kernel has not been told of.
    unsubmitted: bool,
    barrier: Barrier,
    /// From the first discard on.
    discarder: Option<Discarder>,
    /// One at a time: the kernel reports a write-back error to one caller only.
    sync_in_flight: bool,
    done: VecDeque<DiskDone>,
    durable_writes: bool,
    stats: RingStats,
    /// The kernel ties the ring to the thread that made it.
    one_thread: PhantomData<Rc<()>>,
}

impl DiskRing {
    /// Takes the disk over. Must be called on the reactor's thread, inside its tokio runtime.
    pub fn start(disk: FileDisk) -> io::Result<DiskRing> {
        let build = |modern: bool| {
            let mut builder = IoUring::builder();
            builder.setup_cqsize(4 * IN_FLIGHT_MAX as u32);
            if modern {
                // Completions are worked off when the reactor asks (6.1 and later), not by interrupting it.
                builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
            }
            builder.build(IN_FLIGHT_MAX as u32)
        };
        let durable_writes = disk.geometry.block_device && disk.geometry.direct;
        let ring = build(true).or_else(|_| build(false))?;
        // The file is not registered with the ring: the kernel takes registered files' references back at leisure after the
        // ring has gone, and the lock with them.
        let event = rustix::event::eventfd(
            0,
            rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK,
        )?;
        ring.submitter().register_eventfd(event.as_raw_fd())?;
        // SAFETY: the eventfd is owned by the `AsyncFd` alone and stays open for as long as that is registered.
        let wake =
            unsafe { AsyncFd::register_with_interest(event, Interest::READABLE) }.map_err(io::Error::from)?;
        Ok(DiskRing {
            ring,
            disk,
            wake,
            operations: Vec::new(),
            vacant: Vec::new(),
            waiting: VecDeque::new(),
            in_flight: 0,
            unsubmitted: false,
            barrier: Barrier::new(),
            discarder: None,
            sync_in_flight: false,
            done: VecDeque::new(),
            durable_writes,
            stats: RingStats::default(),
            one_thread: PhantomData,
        })
    }

    /// Whether commits may go down as one durable write; at the start, true for block devices.
    pub fn set_durable_writes(&mut self, allowed: bool) {
        self.durable_writes = allowed;
    }

    pub fn stats(&self) -> RingStats {
        self.stats
    }

    pub fn describe(&self) -> String {
        self.disk.describe()
    }

    pub fn capacity_bytes(&self) -> u64 {
        self.disk.geometry.capacity_bytes
    }

    /// How long the oldest unfinished request has been waiting; a device that does not answer shows here.
    pub fn oldest_wait(&self) -> Option<Duration> {
        self.operations.iter().flatten().map(|operation| operation.started.elapsed()).max()
    }

    /// Nothing queued, nothing in flight, nothing to take.
    pub fn is_idle(&self) -> bool {
        let discarding = self.discarder.as_ref().is_some_and(|discarder| !discarder.is_idle());
        self.in_flight == 0 && self.waiting.is_empty() && self.done.is_empty() && !discarding
    }

    /// Queues a request. [`DiskRing::submit`] starts it.
    pub fn push(&mut self, request: DiskRequest) {
        match request {
            DiskRequest::Read { token, offset, length } => {
                self.stats.reads += 1;
                match self.check(offset, length) {
                    Ok(()) => self.enqueue(Operation::read(token, offset, length)),
                    Err(error) => self.done.push_back(DiskDone { token, result: Err(error) }),
                }
            }
            DiskRequest::Write { token, offset, segments } => {
                self.stats.writes += 1;
                let length = segments.iter().map(|segment| segment.len()).sum();
                match self.check(offset, length) {
                    Ok(()) => {
                        let group = self.barrier.add_write();
                        let alignment = self.disk.geometry.memory_alignment;
                        self.enqueue(Operation::write(token, group, offset, segments, alignment));
                    }
                    Err(error) => self.done.push_back(DiskDone { token, result: Err(error) }),
                }
            }
            DiskRequest::Flush { token } => {
                self.stats.flushes += 1;
                self.barrier.add_flush(token);
            }
            DiskRequest::Discard { token, offset, length } => {
                self.stats.discards += 1;
                let checked = self.check(offset, length as usize);
                if let Err(error) = checked.and_then(|()| self.start_discard(token, offset, length)) {
                    self.done.push_back(DiskDone { token, result: Err(error) });
                }
            }
        }
    }

    /// Hands what is queued to the kernel, as far as it takes it, and takes up completions.
    pub fn submit(&mut self) {
        loop {
            self.start_flushes();
            self.issue();
            let deferred = self.ring.submission().taskrun();
            if self.unsubmitted || deferred {
                self.enter();
            }
            self.reap();
            // A flush whose writes have ended starts now, and so does a request to be continued or repeated: no other
            // completion may come to wake the reactor for it.
            let flush = self.barrier.is_ready() && !self.sync_in_flight;
            let request = !self.waiting.is_empty() && self.in_flight < IN_FLIGHT_MAX;
            if !flush && !request {
                return;
            }
        }
    }

    /// The next of the finished requests that the last [`DiskRing::submit`] has found.
    pub fn take_done(&mut self) -> Option<DiskDone> {
        self.done.pop_front()
    }

    /// The next finished request, if one is at hand; looks for more and starts what is queued.
    pub fn try_done(&mut self) -> Option<DiskDone> {
        if self.done.is_empty() {
            self.submit();
        }
        self.done.pop_front()
    }

    /// Waits for the next finished request. Cancel-safe: a request is taken only when it is returned.
    pub async fn next_done(&mut self) -> DiskDone {
        loop {
            if let Some(done) = self.try_done() {
                return done;
            }
            match self.wake.readable().await {
                // Each completion signals anew, so the counter need not be read back to zero.
                Ok(mut guard) => guard.clear_ready(),
                Err(error) => panic!("the reactor's runtime has ended under its disk: {error}"),
            }
        }
    }

    /// Gives the disk back for synchronous use, once everything has ended and been taken.
    pub fn into_disk(self) -> io::Result<FileDisk> {
        assert!(self.is_idle(), "a disk is given back when nothing is under way");
        Ok(FileDisk {
            file: self.disk.file.try_clone()?,
            path: self.disk.path.clone(),
            geometry: self.disk.geometry.clone(),
            pool: self.disk.pool.clone(),
            flush_failure: self.disk.flush_failure.clone(),
        })
    }

    fn check(&self, offset: u64, length: usize) -> Result<(), DiskError> {
        assert!(
            offset.is_multiple_of(BLOCK_U64) && length.is_multiple_of(BLOCK) && length > 0,
            "requests are of whole blocks"
        );
        let capacity = self.disk.geometry.capacity_bytes;
        match offset.checked_add(length as u64) {
            Some(end) if end <= capacity => Ok(()),
            _ => Err(DiskError::OutOfRange { offset, length, capacity }),
        }
    }

    fn enqueue(&mut self, operation: Operation) {
        let index = self.vacant.pop().unwrap_or_else(|| {
            self.operations.push(None);
            self.operations.len() - 1
        });
        self.operations[index] = Some(operation);
        self.waiting.push_back(index);
    }

    fn start_discard(&mut self, token: u64, offset: u64, length: u64) -> Result<(), DiskError> {
        if self.disk.geometry.discard_granularity.is_none() {
            let reason = format!("{} discards nothing", self.disk.path.display());
            return Err(DiskError::Io { offset, reason });
        }
        if self.discarder.is_none() {
            let started = self
                .disk
                .file
                .try_clone()
                .and_then(|file| Discarder::start(file, self.wake.get_ref().try_clone()?))
                .map_err(|error| disk_error(offset, "discard", &error))?;
            self.discarder = Some(started);
        }
        if let Some(discarder) = &mut self.discarder {
            discarder.push(token, offset, length);
        }
        Ok(())
    }

    fn start_flushes(&mut self) {
        if self.sync_in_flight {
            return;
        }
        let tokens = self.barrier.take_ready();
        if tokens.is_empty() {
            return;
        }
        if let Some(failure) = &self.disk.flush_failure {
            let failure = failure.clone();
            self.flushed(tokens, Err(failure));
        } else if self.disk.geometry.flush == FlushPolicy::WriteThrough {
            self.flushed(tokens, Ok(Bytes::new()));
        } else {
            self.stats.syncs += 1;
            self.sync_in_flight = true;
            self.enqueue(Operation::flush(tokens));
        }
    }

    fn flushed(&mut self, tokens: Vec<u64>, result: Result<Bytes, DiskError>) {
        let done = tokens.into_iter().map(|token| DiskDone { token, result: result.clone() });
        self.done.extend(done);
    }

    /// Moves waiting operations into the submission queue.
    fn issue(&mut self) {
        let durable_writes = self.durable_writes
            && self.disk.geometry.flush == FlushPolicy::Flush
            && self.disk.flush_failure.is_none()
            && !self.sync_in_flight;
        while self.in_flight < IN_FLIGHT_MAX {
            let Some(index) = self.waiting.pop_front() else { break };
            let operation = self.operations[index].as_mut().expect("a waiting operation exists");
            if let Kind::Write { group, durable, .. } = &mut operation.kind {
                *durable |= durable_writes && operation.done == 0 && self.barrier.flushes_only(*group);
            }
            let entry = operation
                .entry(types::Fd(self.disk.file.as_raw_fd()), &self.disk.pool)
                .user_data(index as u64);
            self.in_flight += 1;
            self.queue_entry(&entry);
        }
    }

    fn queue_entry(&mut self, entry: &squeue::Entry) {
        // SAFETY: the entry's pointers lead into an `Operation` that stays in `self.operations`, unchanged, until its
        // completion has been reaped; dropping the ring waits for that or leaks the operation.
        while unsafe { self.ring.submission().push(entry) }.is_err() {
            // Only if an earlier submission did not go through. The kernel takes entries unless it is short of memory.
            self.enter();
        }
        self.unsubmitted = true;
    }

    /// One io_uring_enter: submits and lets the kernel post deferred completions.
    fn enter(&mut self) {
        const GETEVENTS: u32 = 1;
        let count = self.ring.submission().len() as u32;
        // SAFETY: no argument is passed that the kernel could write to.
        match unsafe { self.ring.submitter().enter::<libc::sigset_t>(count, 0, GETEVENTS, None) } {
            Ok(submitted) => self.unsubmitted = submitted < count as usize,
            // Nothing was taken; the next call tries again. EBUSY: the completion queue must be emptied first.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY)) => {}
            Err(error) => panic!("io_uring_enter: {error}"),
        }
    }

    fn reap(&mut self) {
        while let Some(Discarded { token, offset, result }) =
            self.discarder.as_mut().and_then(Discarder::take)
        {
            let what = || format!("discard at {}", self.disk.path.display());
            let result = result.map(|()| Bytes::new()).map_err(|error| disk_error(offset, &what(), &error));
            if let Err(error) = &result {
                // The store goes on without; nobody else would say why.
                tracing::warn!("{error}; nothing more will be discarded before the next start");
            }
            self.done.push_back(DiskDone { token, result });
        }
        loop {
            let Some(completion) = self.ring.completion().next() else { return };
            self.in_flight -= 1;
            self.completed(completion.user_data() as usize, completion.result());
        }
    }

    fn completed(&mut self, index: usize, result: i32) {
        let operation = self.operations[index].as_mut().expect("a completion belongs to an operation");
        let ended: Result<(), io::Error> = match -result {
            errno @ (libc::EINTR | libc::EAGAIN) if operation.retries == RETRIES_MAX => {
                Err(io::Error::from_raw_os_error(errno))
            }
            libc::EINTR | libc::EAGAIN | libc::ECANCELED => {
                operation.retries += 1;
                self.stats.retried += 1;
                return self.waiting.push_front(index);
            }
            errno if errno > 0 => Err(io::Error::from_raw_os_error(errno)),
            _ if matches!(operation.kind, Kind::Flush { .. }) => Ok(()),
            _ => {
                // O_DIRECT goes on at a block boundary only; a part of a block is moved again.
                let moved = (result as usize) / BLOCK * BLOCK;
                operation.done += moved;
                if operation.done == operation.length {
                    Ok(())
                } else if moved > 0 {
                    self.stats.continued += 1;
                    return self.waiting.push_front(index);
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                }
            }
        };
        let operation = self.operations[index].take().expect("checked above");
        self.vacant.push(index);
        self.finish(operation, ended);
    }

    fn finish(&mut self, operation: Operation, ended: Result<(), io::Error>) {
        let (offset, length) = (operation.offset, operation.length);
        let failure = |what: &str, error: io::Error| {
            let at = self.disk.path.display();
            disk_error(offset, &format!("{what} of {length} bytes at {at}"), &error)
        };
        match operation.kind {
            Kind::Read { token } => {
                let result = ended.map(|()| operation.into_bytes()).map_err(|error| failure("read", error));
                self.done.push_back(DiskDone { token, result });
            }
            Kind::Write { token, group, durable } => {
                let result = ended.map(|()| operation.into_bytes()).map_err(|error| failure("write", error));
                self.barrier.write_ended(group);
                let flushes = if durable { self.barrier.take_flushed() } else { Vec::new() };
                if let (true, Err(error)) = (durable, &result) {
                    self.disk.flush_failure = Some(error.clone());
                }
                self.stats.durable_writes += flushes.len() as u64;
                self.done.push_back(DiskDone { token, result: result.clone() });
                self.flushed(flushes, result.map(|_| Bytes::new()));
            }
            Kind::Flush { tokens } => {
                self.sync_in_flight = false;
                match ended {
                    Ok(()) => self.flushed(tokens, Ok(Bytes::new())),
                    Err(error) => {
                        let error = disk_error(0, &format!("flush of {}", self.disk.path.display()), &error);
                        self.disk.flush_failure = Some(error.clone());
                        self.flushed(tokens, Err(error));
                    }
                }
            }
        }
    }
}

impl Drop for DiskRing {
    fn drop(&mut self) {
        // What has not reached the kernel never will; what has, may still touch its buffers.
        self.waiting.clear();
        if let Some(discarder) = self.discarder.take() {
            discarder.stop(DROP_WAIT);
        }
        let deadline = Instant::now() + DROP_WAIT;
        while self.in_flight > 0 && Instant::now() < deadline {
            let timeout = types::Timespec::new().nsec(100_000_000);
            let arguments = types::SubmitArgs::new().timespec(&timeout);
            // Errors (a timeout among them) lead to the next round or past the deadline.
            let _ = self.ring.submitter().submit_with_args(1, &arguments);
            while let Some(completion) = self.ring.completion().next() {
                self.in_flight -= 1;
                self.operations[completion.user_data() as usize] = None;
            }
        }
        if self.in_flight > 0 {
            self.operations.drain(..).flatten().for_each(Operation::leak);
        }
    }
}
