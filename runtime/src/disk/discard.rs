//! Discards, on a thread of their own: the kernel carries them out in its caller's time, and some devices take long.
#![allow(unsafe_code)]

use rustix::ioctl::{Setter, ioctl, opcode};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Tells a block device that a range holds nothing of value.
pub(super) fn discard(file: &File, offset: u64, length: u64) -> io::Result<()> {
    /// BLKDISCARD of <linux/fs.h>.
    const OPCODE: rustix::ioctl::Opcode = opcode::none(0x12, 119);
    loop {
        // SAFETY: BLKDISCARD reads two 64-bit numbers, start and length, and writes nothing.
        let result = unsafe { ioctl(file, Setter::<OPCODE, [u64; 2]>::new([offset, length])) };
        match result {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

struct Order {
    token: u64,
    offset: u64,
    length: u64,
}

/// One that has ended.
pub(super) struct Discarded {
    pub token: u64,
    pub offset: u64,
    pub result: io::Result<()>,
}

/// The thread, seen from the reactor.
pub(super) struct Discarder {
    orders: mpsc::Sender<Order>,
    ended: mpsc::Receiver<Discarded>,
    under_way: usize,
}

impl Discarder {
    /// `wake` is an eventfd that is signalled at each end.
    pub(super) fn start(file: File, wake: OwnedFd) -> io::Result<Discarder> {
        let (orders, taken) = mpsc::channel::<Order>();
        let (report, ended) = mpsc::channel();
        let work = move || {
            for Order { token, offset, length } in taken {
                let result = discard(&file, offset, length);
                if report.send(Discarded { token, offset, result }).is_err() {
                    return;
                }
                // It fails only where the counter is full, and then the reactor is about to wake anyway.
                let _ = rustix::io::write(&wake, &1_u64.to_ne_bytes());
            }
        };
        thread::Builder::new().name("discard".into()).spawn(work)?;
        Ok(Discarder { orders, ended, under_way: 0 })
    }

    pub(super) fn push(&mut self, token: u64, offset: u64, length: u64) {
        self.orders.send(Order { token, offset, length }).expect("the thread lasts as long as its orders");
        self.under_way += 1;
    }

    pub(super) fn take(&mut self) -> Option<Discarded> {
        let ended = self.ended.try_recv().ok()?;
        self.under_way -= 1;
        Some(ended)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.under_way == 0
    }

    /// Ends the thread, and with it its hold of the device; not if the device takes longer than `wait`.
    pub(super) fn stop(self, wait: Duration) {
        drop(self.orders);
        // Its end closes the channel.
        while self.ended.recv_timeout(wait).is_ok() {}
    }
}
