//! The processes of a simulated cluster: the same machines as in production, with simulated disks under them.

mod client;
mod mon;
mod osd;

pub use client::ClientNode;
pub use mon::{MonDisk, MonNode};
pub use osd::{OsdDisk, OsdNode, Refusal};

use crate::world::{Input, Node, Output};
use nacre_types::{Epoch, Instant, PgId};

/// Any of them.
pub enum SimNode {
    Mon(Box<MonNode>),
    Osd(Box<OsdNode>),
    Client(Box<ClientNode>),
}

impl SimNode {
    pub fn client(&mut self) -> Option<&mut ClientNode> {
        match self {
            SimNode::Client(client) => Some(client),
            _ => None,
        }
    }

    pub fn mon(&mut self) -> Option<&mut MonNode> {
        match self {
            SimNode::Mon(mon) => Some(mon),
            _ => None,
        }
    }

    pub fn osd(&mut self) -> Option<&mut OsdNode> {
        match self {
            SimNode::Osd(osd) => Some(osd),
            _ => None,
        }
    }

    fn inner(&self) -> &dyn Node {
        match self {
            SimNode::Mon(node) => node.as_ref(),
            SimNode::Osd(node) => node.as_ref(),
            SimNode::Client(node) => node.as_ref(),
        }
    }

    fn inner_mut(&mut self) -> &mut dyn Node {
        match self {
            SimNode::Mon(node) => node.as_mut(),
            SimNode::Osd(node) => node.as_mut(),
            SimNode::Client(node) => node.as_mut(),
        }
    }
}

impl Node for SimNode {
    fn handle(&mut self, now: Instant, wall_ms: u64, input: Input, out: &mut Vec<Output>) {
        self.inner_mut().handle(now, wall_ms, input, out);
    }

    fn wake(&mut self, now: Instant, wall_ms: u64, out: &mut Vec<Output>) {
        self.inner_mut().wake(now, wall_ms, out);
    }

    fn wake_at(&self) -> Option<Instant> {
        self.inner().wake_at()
    }

    fn map(&self) -> Option<(Epoch, u64)> {
        self.inner().map()
    }

    fn check(&self) {
        self.inner().check();
    }

    fn serves_reads(&self, pg: PgId, now: Instant) -> bool {
        self.inner().serves_reads(pg, now)
    }
}
