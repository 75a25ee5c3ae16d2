//! Drives a monitor: packets, ends of synced writes and time go in; packets, writes and certificates come out.

use super::reactor::{Alarm, Ended, TURNS_IN_A_ROW_MAX, log};
use crate::clock::Clock;
use crate::kv::{MonStore, Persisted};
use crate::messenger::{Messenger, MessengerEvent};
use crate::tls::{ClusterCa, Validity};
use nacre_mon::{MonEffect, MonEvent};
use nacre_types::{Machine, Outbox};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;

const PACKETS_PER_TURN: usize = 32;

/// What a monitor's driver works with, besides the machine.
pub struct MonParts<'a> {
    pub clock: Clock,
    pub messenger: &'a Messenger,
    pub store: &'a mut MonStore,
}

/// Runs the machine until `shutdown` resolves or its store fails. A monitor needs no farewell: what it has promised is on
/// disk.
pub async fn run_mon<M>(machine: &mut M, parts: MonParts<'_>, shutdown: impl Future<Output = ()>) -> Ended
where
    M: Machine<Event = MonEvent, Effect = MonEffect>,
{
    let mut alarm = Alarm::new(parts.clock);
    let mut driver = Driver { machine, parts, effects: Outbox::new(), signed: VecDeque::new(), ended: None };
    let mut shutdown = pin!(shutdown);
    driver.tick();
    let mut turns = 0;
    loop {
        let busy = driver.turn();
        if let Some(ended) = driver.ended.take() {
            return ended;
        }
        if busy {
            turns += 1;
            if turns == TURNS_IN_A_ROW_MAX {
                turns = 0;
                tokio::task::yield_now().await;
            }
            continue;
        }
        turns = 0;
        let deadline = driver.machine.next_deadline();
        tokio::select! {
            biased;
            () = &mut shutdown => return Ended { reason: "stopped in order".into(), failed: false },
            persisted = driver.parts.store.next_done() => driver.persisted(persisted),
            event = driver.parts.messenger.next_event() => driver.messenger_event(event),
            () = alarm.wait(deadline) => {}
        }
    }
}

struct Driver<'a, M> {
    machine: &'a mut M,
    parts: MonParts<'a>,
    effects: Outbox<MonEffect>,
    /// Certificates made during a step, which the machine hears of in the next.
    signed: VecDeque<MonEvent>,
    ended: Option<Ended>,
}

impl<M: Machine<Event = MonEvent, Effect = MonEffect>> Driver<'_, M> {
    /// Handles what is ready; false if nothing was.
    fn turn(&mut self) -> bool {
        let mut busy = false;
        while let Some(persisted) = self.parts.store.try_done() {
            busy = true;
            self.persisted(persisted);
        }
        for _ in 0..PACKETS_PER_TURN {
            let Some(event) = self.parts.messenger.try_event() else { break };
            busy = true;
            self.messenger_event(event);
        }
        while let Some(event) = self.signed.pop_front() {
            busy = true;
            self.step(event);
        }
        if self.machine.next_deadline().is_some_and(|deadline| deadline <= self.parts.clock.now()) {
            busy = true;
            self.tick();
        }
        busy
    }

    fn tick(&mut self) {
        let wall_ms = self.parts.clock.wall_ms();
        self.step(MonEvent::Tick { wall_ms });
    }

    fn persisted(&mut self, persisted: Persisted) {
        match persisted.result {
            Ok(()) => self.step(MonEvent::Persisted { token: persisted.token }),
            Err(error) => self.ended = Some(Ended::failed(format!("the monitor's store failed: {error}"))),
        }
    }

    fn messenger_event(&mut self, event: MessengerEvent) {
        match event {
            MessengerEvent::Received { from, packet } => self.step(MonEvent::Received { from, packet }),
            MessengerEvent::SessionClosed { session, .. } => self.step(MonEvent::SessionClosed(session)),
            // Whoever waits for an answer sends again.
            MessengerEvent::SessionOpened(_) | MessengerEvent::ConnectFailed { .. } => {}
        }
    }

    fn step(&mut self, event: MonEvent) {
        if self.ended.is_some() {
            return;
        }
        self.machine.step(self.parts.clock.now(), event, &mut self.effects);
        for effect in self.effects.drain() {
            match effect {
                MonEffect::Send { to, packet } => self.parts.messenger.send(to, packet),
                MonEffect::Persist { token, writes } => {
                    let writes = writes.into_iter().map(|write| (write.key, write.value)).collect();
                    self.parts.store.submit(token, writes);
                }
                MonEffect::CloseSession(session) => self.parts.messenger.close_session(session),
                MonEffect::Sign { token, entity, csr_pem, ca_key_pem, ca_cert_pem } => {
                    let signed = ClusterCa::from_pem(&ca_cert_pem, &ca_key_pem)
                        .and_then(|ca| ca.sign(&csr_pem, &entity, Validity::default()));
                    let result = signed.map_err(|error| error.to_string());
                    self.signed.push_back(MonEvent::Signed { token, result });
                }
                MonEffect::Log { level, text } => log(level, &text),
            }
        }
    }
}
