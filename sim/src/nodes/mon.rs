//! A simulated monitor: its records survive, its memory does not.

use crate::world::{Input, Node, Output};
use bytes::Bytes;
use nacre_mon::{Mon, MonConfig, MonEffect, MonEvent, Write};
use nacre_types::{Epoch, Instant, Machine, Outbox, Rng};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// What a monitor's disk holds.
#[derive(Clone, Default)]
pub struct MonDisk {
    pub records: BTreeMap<Vec<u8>, Bytes>,
}

impl MonDisk {
    pub fn new(writes: Vec<Write>) -> MonDisk {
        let mut disk = MonDisk::default();
        disk.apply(writes);
        disk
    }

    fn apply(&mut self, writes: Vec<Write>) {
        for write in writes {
            match write.value {
                Some(value) => self.records.insert(write.key, value),
                None => self.records.remove(&write.key),
            };
        }
    }
}

pub struct MonNode {
    mon: Mon,
    disk: MonDisk,
    /// Batches on their way to the disk, in order.
    writing: VecDeque<(Instant, u64, Vec<Write>)>,
    latency_mean: Duration,
    rng: Rng,
    outbox: Outbox<MonEffect>,
}

impl MonNode {
    pub fn open(
        config: MonConfig,
        disk: MonDisk,
        now: Instant,
        latency_mean: Duration,
        mut rng: Rng,
    ) -> MonNode {
        let records = disk.records.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        let mon = Mon::open(MonConfig { seed: rng.next_u64(), ..config }, records, now);
        let mon = mon.expect("what a monitor wrote, a monitor opens");
        MonNode { mon, disk, writing: VecDeque::new(), latency_mean, rng, outbox: Outbox::new() }
    }

    /// The process dies: some batches of those under way may still have landed, in order.
    pub fn crash(mut self) -> MonDisk {
        let landed = self.rng.range(0, self.writing.len() as u64 + 1);
        for (_, _, writes) in self.writing.drain(..).take(landed as usize) {
            self.disk.apply(writes);
        }
        self.disk
    }

    pub fn mon(&self) -> &Mon {
        &self.mon
    }

    fn step(&mut self, now: Instant, event: MonEvent, out: &mut Vec<Output>) {
        let mut outbox = std::mem::take(&mut self.outbox);
        self.mon.step(now, event, &mut outbox);
        for effect in outbox.drain() {
            match effect {
                MonEffect::Send { to, packet } => out.push(Output::Send { to, packet }),
                MonEffect::Persist { token, writes } => {
                    let after = self.latency_mean.mul_f64(0.5 + self.rng.below(1000) as f64 / 1000.0);
                    let earliest = self.writing.back().map_or(now, |(at, _, _)| *at);
                    self.writing.push_back(((now + after).max(earliest), token, writes));
                }
                MonEffect::CloseSession(session) => out.push(Output::CloseSession(session)),
                MonEffect::Sign { token, entity, .. } => {
                    // Certificates are the messenger's; here only the answer matters.
                    let result = Ok(format!("certificate of {entity}"));
                    let mut more = Outbox::new();
                    self.mon.step(now, MonEvent::Signed { token, result }, &mut more);
                    for effect in more.drain() {
                        if let MonEffect::Send { to, packet } = effect {
                            out.push(Output::Send { to, packet });
                        }
                    }
                }
                MonEffect::Log { text, .. } => out.push(Output::Log(text)),
            }
        }
        self.outbox = outbox;
    }
}

impl Node for MonNode {
    fn handle(&mut self, now: Instant, wall_ms: u64, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Packet { from, packet } => self.step(now, MonEvent::Received { from, packet }, out),
            Input::SessionClosed(session) => self.step(now, MonEvent::SessionClosed(session), out),
            Input::Refused(..) => self.step(now, MonEvent::Tick { wall_ms }, out),
        }
    }

    fn wake(&mut self, now: Instant, wall_ms: u64, out: &mut Vec<Output>) {
        while let Some((at, _, _)) = self.writing.front()
            && *at <= now
        {
            let (_, token, writes) = self.writing.pop_front().expect("it has a front");
            self.disk.apply(writes);
            self.step(now, MonEvent::Persisted { token }, out);
        }
        if self.mon.next_deadline().is_some_and(|at| at <= now) {
            self.step(now, MonEvent::Tick { wall_ms }, out);
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        let disk = self.writing.front().map(|(at, _, _)| *at);
        [disk, self.mon.next_deadline()].into_iter().flatten().min()
    }

    fn map(&self) -> Option<(Epoch, u64)> {
        let map = self.mon.osdmap();
        Some((map.epoch(), map.hash()))
    }

    fn check(&self) {
        self.mon.check();
    }
}
