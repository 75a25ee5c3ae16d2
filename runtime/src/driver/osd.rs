//! Drives an OSD: packets, disk completions, index flushes and time go in; packets and disk requests come out.
//!
//! ```text
//!            +---------------------- turn -----------------------+
//!  disk  --->|  packets, then completions, then flushes, then    |---> messenger
//!  index --->|  time: one step each, its effects carried out     |
//!  peers --->|  before the next                                  |
//!            +---------------------------------------------------+
//!                 | a turn finds nothing: the messenger sends what there is, and looks once more
//!                 v still nothing
//!              gathered: one step, one system call ---> disk
//! ```
//!
//! So packets for others are on their way before the disk gets its share, and a journal record carries all that the
//! sockets held when it began.

use super::reactor::{Alarm, Ended, TURNS_IN_A_ROW_MAX, log};
use crate::clock::Clock;
use crate::disk::DiskRing;
use crate::kv::KvFlushes;
use crate::messenger::{Messenger, MessengerEvent};
use nacre_osd::{OsdEffect, OsdEvent};
use nacre_types::{Machine, Outbox};
use nacre_wire::Address;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

/// Packets taken in one turn.
const PACKETS_PER_TURN: usize = 32;
/// A disk that has not answered a request for this long is dead; the cluster does better without it.
const DISK_SILENCE_MAX: Duration = Duration::from_secs(30);
const DISK_LOOK_EVERY: Duration = Duration::from_secs(1);

/// What an OSD's driver works with, besides the machine.
pub struct OsdParts<'a> {
    pub clock: Clock,
    pub messenger: &'a Messenger,
    pub disk: &'a mut DiskRing,
    pub flushes: &'a mut KvFlushes,
}

/// Runs the machine until it stops: in order after `shutdown` resolves, or for a reason of its own. The messenger is
/// left open, so that the caller can say goodbye with it.
pub async fn run_osd<M>(machine: &mut M, parts: OsdParts<'_>, shutdown: impl Future<Output = ()>) -> Ended
where
    M: Machine<Event = OsdEvent, Effect = OsdEffect>,
{
    let alarm = Alarm::new(parts.clock);
    let mut driver = Driver { machine, parts, effects: Outbox::new(), gathering: false, ended: None };
    driver.run(alarm, shutdown).await
}

struct Driver<'a, M> {
    machine: &'a mut M,
    parts: OsdParts<'a>,
    effects: Outbox<OsdEffect>,
    /// The machine has asked for `Gathered`.
    gathering: bool,
    ended: Option<Ended>,
}

impl<M: Machine<Event = OsdEvent, Effect = OsdEffect>> Driver<'_, M> {
    async fn run(&mut self, mut alarm: Alarm, shutdown: impl Future<Output = ()>) -> Ended {
        let mut shutdown = pin!(shutdown);
        let mut stopping = false;
        let mut look = interval(DISK_LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.tick();
        let mut turns = 0;
        loop {
            let busy = self.turn();
            if let Some(ended) = self.ended.take() {
                return ended;
            }
            turns += u32::from(busy);
            if busy && turns < TURNS_IN_A_ROW_MAX {
                continue;
            }
            if busy || self.gathering {
                tokio::task::yield_now().await;
                if turns < TURNS_IN_A_ROW_MAX && self.turn() {
                    turns += 1;
                    continue;
                }
                if self.gathering {
                    self.gathered();
                }
            }
            turns = 0;
            if busy || self.ended.is_some() {
                continue;
            }
            let deadline = self.machine.next_deadline();
            tokio::select! {
                biased;
                () = &mut shutdown, if !stopping => {
                    stopping = true;
                    self.step(OsdEvent::Stop);
                }
                done = self.parts.disk.next_done() => self.step(OsdEvent::Disk(done)),
                event = self.parts.messenger.next_event() => self.messenger_event(event),
                flushed = self.parts.flushes.next_flushed() => {
                    self.step(OsdEvent::KvFlushed { token: flushed.token, result: flushed.result });
                }
                () = alarm.wait(deadline) => {}
                _ = look.tick() => self.look_at_disk(),
            }
        }
    }

    /// Handles what is ready; false if nothing was.
    fn turn(&mut self) -> bool {
        let mut busy = false;
        self.parts.disk.submit();
        for _ in 0..PACKETS_PER_TURN {
            let Some(event) = self.parts.messenger.try_event() else { break };
            busy = true;
            self.messenger_event(event);
        }
        while let Some(done) = self.parts.disk.take_done() {
            busy = true;
            self.step(OsdEvent::Disk(done));
        }
        while let Some(flushed) = self.parts.flushes.try_flushed() {
            busy = true;
            self.step(OsdEvent::KvFlushed { token: flushed.token, result: flushed.result });
        }
        if self.machine.next_deadline().is_some_and(|deadline| deadline <= self.parts.clock.now()) {
            busy = true;
            self.tick();
        }
        busy
    }

    /// Nothing more is at hand: the disk gets what the steps since the last time led to.
    fn gathered(&mut self) {
        self.gathering = false;
        self.step(OsdEvent::Gathered);
        self.parts.disk.submit();
    }

    fn tick(&mut self) {
        let wall_ms = self.parts.clock.wall_ms();
        self.step(OsdEvent::Tick { wall_ms });
    }

    fn messenger_event(&mut self, event: MessengerEvent) {
        match event {
            MessengerEvent::Received { from, packet } => self.step(OsdEvent::Received { from, packet }),
            MessengerEvent::SessionOpened(_) => {}
            MessengerEvent::SessionClosed { session, .. } => self.step(OsdEvent::SessionClosed(session)),
            MessengerEvent::ConnectFailed {
                address: Address::Osd { id, address }, refused: true, ..
            } => {
                self.step(OsdEvent::PeerRefused { osd: id, address });
            }
            // Whoever waits for an answer sends again.
            MessengerEvent::ConnectFailed { .. } => {}
        }
    }

    fn step(&mut self, event: OsdEvent) {
        if self.ended.is_some() {
            return;
        }
        self.machine.step(self.parts.clock.now(), event, &mut self.effects);
        for effect in self.effects.drain() {
            match effect {
                OsdEffect::Send { to, packet } => self.parts.messenger.send(to, packet),
                OsdEffect::Disk(request) => self.parts.disk.push(request),
                OsdEffect::Gather => self.gathering = true,
                OsdEffect::CloseSession(session) => self.parts.messenger.close_session(session),
                OsdEffect::Log { level, text } => log(level, &text),
                OsdEffect::Stopped { reason, failed } => self.ended = Some(Ended { reason, failed }),
            }
        }
    }

    fn look_at_disk(&mut self) {
        let silence = self.parts.disk.oldest_wait().unwrap_or_default();
        if silence > DISK_SILENCE_MAX {
            let reason = format!(
                "the disk has not answered for {} s: {}",
                silence.as_secs(),
                self.parts.disk.describe()
            );
            self.ended = Some(Ended::failed(reason));
        }
    }
}
