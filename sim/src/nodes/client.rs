//! A simulated client: the client library's machine and the workload's tasks on top.

use crate::executor::{Clock, Executor};
use crate::world::{Input, Node, Output};
use nacre_client::{ClientConfig, ClientEffect, ClientEvent, Cluster};
use nacre_types::{Epoch, Instant};
use std::future::Future;

pub struct ClientNode {
    pub cluster: Cluster,
    pub clock: Clock,
    executor: Executor,
}

impl ClientNode {
    pub fn new(config: ClientConfig) -> ClientNode {
        let clock = Clock::default();
        ClientNode { cluster: Cluster::new(config), executor: Executor::new(clock.clone()), clock }
    }

    pub fn spawn(&mut self, task: impl Future<Output = ()> + 'static) {
        self.executor.spawn(task);
    }

    /// Whether every task has ended.
    pub fn is_idle(&self) -> bool {
        self.executor.is_idle()
    }

    pub fn tasks(&self) -> usize {
        self.executor.tasks()
    }

    /// Lets tasks run and the machine act on what they asked, until neither has anything to do now.
    pub fn turn(&mut self, now: Instant, event: ClientEvent, out: &mut Vec<Output>) {
        self.cluster.step(now, event);
        loop {
            self.executor.run(now);
            self.cluster.step(now, ClientEvent::Wake);
            let effects = self.cluster.take_effects();
            if effects.is_empty() && !self.executor.has_woken() {
                return;
            }
            for effect in effects {
                match effect {
                    ClientEffect::Send { to, packet } => out.push(Output::Send { to, packet }),
                    ClientEffect::CloseSession(session) => out.push(Output::CloseSession(session)),
                    ClientEffect::Log { text, .. } => out.push(Output::Log(text)),
                }
            }
        }
    }
}

impl Node for ClientNode {
    fn handle(&mut self, now: Instant, wall_ms: u64, input: Input, out: &mut Vec<Output>) {
        let event = match input {
            Input::Packet { from, packet } => ClientEvent::Received { from, packet },
            Input::SessionClosed(session) => ClientEvent::SessionClosed(session),
            Input::Refused(..) => ClientEvent::Tick { wall_ms },
        };
        self.turn(now, event, out);
    }

    fn wake(&mut self, now: Instant, wall_ms: u64, out: &mut Vec<Output>) {
        self.turn(now, ClientEvent::Tick { wall_ms }, out);
    }

    fn wake_at(&self) -> Option<Instant> {
        [self.cluster.next_deadline(), self.executor.next_timer()].into_iter().flatten().min()
    }

    fn check(&self) {
        self.cluster.check();
    }

    fn map(&self) -> Option<(Epoch, u64)> {
        self.cluster.current_osdmap().map(|map| (map.epoch(), map.hash()))
    }
}
