//! Disk requests on their way, by token.

use crate::DiskRequest;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

/// What a request was for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    /// A part of the record in flight, from that byte of it on.
    Journal {
        at: u64,
    },
    JournalFlush,
    /// Data for fresh blocks, of the record with that number.
    Direct {
        seq: u64,
    },
    WriteBack,
    CheckpointFlush,
    Read {
        read: u64,
        run: usize,
    },
    Merge {
        merge: u64,
    },
    Discard,
}

#[derive(Debug, Default)]
pub(crate) struct Io {
    requests: VecDeque<DiskRequest>,
    purposes: BTreeMap<u64, Purpose>,
    next_token: u64,
}

impl Io {
    fn token(&mut self, purpose: Purpose) -> u64 {
        self.next_token += 1;
        self.purposes.insert(self.next_token, purpose);
        self.next_token
    }

    pub fn write(&mut self, purpose: Purpose, offset: u64, segments: Vec<Bytes>) {
        let token = self.token(purpose);
        self.requests.push_back(DiskRequest::Write { token, offset, segments });
    }

    pub fn read(&mut self, purpose: Purpose, offset: u64, length: usize) {
        let token = self.token(purpose);
        self.requests.push_back(DiskRequest::Read { token, offset, length });
    }

    pub fn flush(&mut self, purpose: Purpose) {
        let token = self.token(purpose);
        self.requests.push_back(DiskRequest::Flush { token });
    }

    pub fn discard(&mut self, offset: u64, length: u64) {
        let token = self.token(Purpose::Discard);
        self.requests.push_back(DiskRequest::Discard { token, offset, length });
    }

    /// Every request has been taken.
    pub fn is_drained(&self) -> bool {
        self.requests.is_empty()
    }

    pub fn next_request(&mut self) -> Option<DiskRequest> {
        self.requests.pop_front()
    }

    /// `None` for a token that this mount has not given out.
    pub fn ended(&mut self, token: u64) -> Option<Purpose> {
        self.purposes.remove(&token)
    }

    pub fn is_idle(&self) -> bool {
        self.purposes.is_empty()
    }
}
