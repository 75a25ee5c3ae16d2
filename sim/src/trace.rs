//! What happened, as a rolling hash (for comparing two runs) and, where asked for, as text (for people).

use crate::network::NodeId;
use nacre_types::Instant;
use nacre_wire::Packet;
use std::fmt;

/// Folds every event of a run into one number; the same seed must give the same one.
pub struct Trace {
    hash: u64,
    events: u64,
    /// Prints each line as it happens.
    print: bool,
    /// The newest lines, for the report of a failure.
    recent: std::collections::VecDeque<String>,
}

/// Lines kept for a failure's report.
const RECENT_MAX: usize = 400;

impl Trace {
    pub fn new(print: bool) -> Trace {
        Trace { hash: 0xcbf2_9ce4_8422_2325, events: 0, print, recent: Default::default() }
    }

    /// Records an event: hashed always, kept as text for the report.
    pub fn event(&mut self, at: Instant, text: fmt::Arguments<'_>) {
        let mut hasher = Fold(self.hash);
        hasher.number(at.0);
        // Hashing the text while it is formatted: no allocation unless it is kept.
        let _ = fmt::write(&mut hasher, text);
        self.hash = hasher.0;
        self.events += 1;
        if self.print {
            println!("{at} {text}");
        }
    }

    /// Records the arrival of a packet: too many of them to hash their text.
    pub fn packet(&mut self, at: Instant, from: NodeId, to: NodeId, packet: &Packet) {
        let mut hasher = Fold(self.hash);
        hasher.number(at.0);
        hasher.number(from.number() << 40 | to.number() << 16 | u64::from(packet.message.kind()));
        hasher.number(packet.pg.map_or(0, |pg| u64::from(pg.pool.0) << 32 | u64::from(pg.seed)));
        hasher.number(packet.epoch.0);
        hasher.number(packet.request.client.0 ^ packet.request.seq);
        hasher.number(packet.data.bytes.len() as u64);
        self.hash = hasher.0;
        self.events += 1;
        if self.print {
            let name = packet.message.name();
            match packet.pg {
                Some(pg) => println!("{at} {from} -> {to} {name} {pg} e{}", packet.epoch),
                None => println!("{at} {from} -> {to} {name} e{}", packet.epoch),
            }
        }
    }

    /// Records an event worth keeping for the report: faults, state changes, answers to clients.
    pub fn note(&mut self, at: Instant, text: fmt::Arguments<'_>) {
        self.event(at, text);
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(format!("{at} {text}"));
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn events(&self) -> u64 {
        self.events
    }

    pub fn recent(&self) -> impl Iterator<Item = &str> {
        self.recent.iter().map(String::as_str)
    }
}

/// FNV-1a, a word at a time where it can.
struct Fold(u64);

impl Fold {
    fn number(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }
}

impl fmt::Write for Fold {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for chunk in text.as_bytes().chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.number(u64::from_le_bytes(word));
        }
        Ok(())
    }
}
