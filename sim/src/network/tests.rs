//! The simulated network keeps the order of a lane and ends sessions as the messenger does.

use super::*;
use nacre_types::{ClientId, Epoch, RequestId};
use nacre_wire::messages::Ping;

const A: NodeId = NodeId::Osd(0);
const B: NodeId = NodeId::Osd(1);

fn conditions() -> Conditions {
    let micros = Duration::from_micros;
    Conditions { latency_min: micros(100), latency_mean: micros(3000), loss_permille: 100, reset_per_100k: 0 }
}

struct Bench {
    network: Network,
    now: Instant,
    queue: Vec<(Instant, NetworkEvent)>,
    /// (receiver, number) of packets, in order of arrival.
    arrived: Vec<(NodeId, u64)>,
    closed: Vec<(Instant, NodeId)>,
    refused: Vec<Instant>,
}

impl Bench {
    fn new(seed: u64) -> Bench {
        let mut network = Network::new(Rng::new(seed), conditions());
        network.node_started(A, 1);
        network.node_started(B, 2);
        let now = Instant::from_millis(1);
        Bench {
            network,
            now,
            queue: Vec::new(),
            arrived: Vec::new(),
            closed: Vec::new(),
            refused: Vec::new(),
        }
    }

    fn send(&mut self, number: u64) {
        self.network.send(self.now, A, B, 2, packet(number, true));
    }

    fn run(&mut self, duration: Duration) {
        let until = self.now + duration;
        loop {
            self.queue.append(&mut self.network.take_events());
            self.queue.sort_by_key(|(at, _)| *at);
            if self.queue.first().is_none_or(|(at, _)| *at > until) {
                self.now = until;
                return;
            }
            let (at, event) = self.queue.remove(0);
            self.now = at;
            let arrivals = match event {
                NetworkEvent::Arrive { session, to, packet } => {
                    vec![self.network.arrive(session, to, *packet)]
                }
                NetworkEvent::Release { session, to } => self.network.release(session, to),
                NetworkEvent::Closed { node, .. } => {
                    self.closed.push((at, node));
                    Vec::new()
                }
                NetworkEvent::Refused { .. } | NetworkEvent::Silent { .. } => {
                    self.refused.push(at);
                    Vec::new()
                }
                NetworkEvent::IdleCheck { session } => {
                    self.network.idle_check(at, session);
                    Vec::new()
                }
            };
            for arrival in arrivals {
                if let Arrival::Deliver { node, packet, .. } = arrival {
                    self.arrived.push((node, packet.request.seq));
                }
            }
        }
    }

    fn numbers(&self, at: NodeId) -> Vec<u64> {
        self.arrived.iter().filter(|(node, _)| *node == at).map(|(_, number)| *number).collect()
    }
}

fn packet(number: u64, control: bool) -> Packet {
    let request = RequestId { client: ClientId(1), seq: number };
    let packet = match control {
        true => Packet::new(Epoch(1), Ping::default()),
        false => Packet::new(Epoch(1), nacre_wire::op::OsdOp::default()),
    };
    packet.request(request)
}

#[test]
fn a_lane_keeps_its_order_and_lanes_overtake_each_other() {
    let mut overtaken = false;
    for seed in 0..20 {
        let mut bench = Bench::new(seed);
        for number in 0..50 {
            bench.network.send(bench.now, A, B, 2, packet(number, number % 2 == 0));
        }
        bench.run(Duration::from_secs(60));
        let all = bench.numbers(B);
        for parity in 0..2 {
            let lane: Vec<u64> = all.iter().copied().filter(|number| number % 2 == parity).collect();
            assert!(lane.is_sorted() && lane.len() == 25, "seed {seed}: {lane:?}");
        }
        overtaken |= !all.is_sorted();
    }
    assert!(overtaken);
}

#[test]
fn a_cut_holds_packets_and_heals_in_order() {
    let mut bench = Bench::new(1);
    bench.send(0);
    bench.run(Duration::from_secs(5));
    bench.network.cut(bench.now, A, B);
    for number in 1..10 {
        bench.send(number);
    }
    bench.run(Duration::from_secs(5));
    assert_eq!(bench.numbers(B), [0]);
    bench.network.heal(bench.now);
    for number in 10..20 {
        bench.send(number);
    }
    bench.run(Duration::from_secs(60));
    assert_eq!(bench.numbers(B), (0..20).collect::<Vec<_>>());
    assert!(bench.closed.is_empty());
}

#[test]
fn a_long_cut_ends_the_session_at_both_ends_and_one_direction_is_enough() {
    let mut bench = Bench::new(2);
    bench.send(0);
    bench.run(Duration::from_secs(5));
    let cut_at = bench.now;
    bench.network.cut(cut_at, B, A);
    bench.send(1);
    bench.run(IDLE_TIMEOUT - Duration::from_secs(1));
    assert_eq!(bench.numbers(B), [0, 1], "the other direction works");
    assert!(bench.closed.is_empty());
    bench.run(Duration::from_secs(20));
    let nodes: BTreeSet<NodeId> = bench.closed.iter().map(|(_, node)| *node).collect();
    assert_eq!(nodes, BTreeSet::from([A, B]));
    assert!(bench.closed.iter().all(|(at, _)| *at >= cut_at + IDLE_TIMEOUT));
}

#[test]
fn a_crash_is_noticed_at_once_where_the_host_answers_and_late_where_it_does_not() {
    for host_answers in [true, false] {
        let mut bench = Bench::new(3);
        bench.send(0);
        bench.run(Duration::from_secs(5));
        let died = bench.now;
        bench.network.node_stopped(died, B, host_answers);
        bench.send(1);
        bench.run(Duration::from_secs(30));
        assert_eq!(bench.numbers(B), [0]);
        let [(at, A)] = bench.closed[..] else { panic!("one end is left: {:?}", bench.closed) };
        assert_eq!(at < died + Duration::from_secs(5), host_answers);
        assert_eq!(bench.refused.len(), 1);
        // Its next run has another address: what was meant for the old one does not reach it.
        bench.network.node_started(B, 3);
        bench.send(2);
        bench.network.send(bench.now, A, B, 3, packet(3, true));
        bench.run(Duration::from_secs(5));
        assert_eq!(bench.numbers(B), [0, 3]);
    }
}
