//! Nobody talks without end: what one node sends of one kind within a second is bounded. Two that answer each other's
//! answers, or one whose timer is always due, would otherwise only make a run slow, or last for ever.

use crate::network::NodeId;
use nacre_types::Instant;
use std::collections::BTreeMap;

/// Ten times what the busiest of 180 seeds needed.
const PACKETS_MAX: u32 = 20_000;

#[derive(Default)]
pub struct Chatter {
    second: u64,
    sent: BTreeMap<(NodeId, &'static str), u32>,
}

impl Chatter {
    /// A node sends a message of this name.
    pub fn sends(&mut self, now: Instant, from: NodeId, name: &'static str) -> Result<(), String> {
        let second = now.as_millis() / 1000;
        if second != self.second {
            self.second = second;
            self.sent.clear();
        }
        let sent = self.sent.entry((from, name)).or_default();
        *sent += 1;
        match *sent > PACKETS_MAX {
            true => Err(format!("chatter: {from} sends more than {PACKETS_MAX} {name} within a second")),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_caught_and_a_busy_second_is_not() {
        let mut chatter = Chatter::default();
        let mut sends = |ms, node, name| chatter.sends(Instant::from_millis(ms), NodeId::Osd(node), name);
        for _ in 0..PACKETS_MAX {
            sends(1001, 0, "RepOp").unwrap();
            sends(1500, 1, "RepOp").unwrap();
            sends(1999, 0, "RepOpReply").unwrap();
        }
        sends(2000, 0, "RepOp").unwrap();
        (0..PACKETS_MAX).for_each(|_| sends(2001, 1, "RepOp").unwrap());
        assert!(sends(2999, 1, "RepOp").is_err());
    }
}
