//! One fault after the other, each with its end.

use super::node::{CLIENT, Nodes};
use super::{Random, check_interrupted};
use std::time::{Duration, Instant};

/// What is done to the cluster, and undone.
#[derive(Clone, Debug)]
pub enum Fault {
    /// SIGKILL; started again at the end.
    Kill(String),
    /// SIGTERM; started again at the end.
    Restart(String),
    /// SIGSTOP; SIGCONT at the end.
    Pause(String),
    /// The first does not hear the others, who hear it.
    Deaf(String, Vec<String>),
    /// Neither hears the other.
    Cut(String, Vec<String>),
    /// Packets to these nodes get lost.
    Loss(Vec<String>, u64),
    /// A monitor and an OSD at once.
    Both(Box<Fault>, Box<Fault>),
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fault::Kill(daemon) => write!(f, "kill -9 {daemon}"),
            Fault::Restart(daemon) => write!(f, "stop {daemon}"),
            Fault::Pause(daemon) => write!(f, "pause {daemon}"),
            Fault::Deaf(daemon, others) => write!(f, "{daemon} does not hear {}", others.join(" ")),
            Fault::Cut(daemon, others) => write!(f, "cut {daemon} from {}", others.join(" ")),
            Fault::Loss(nodes, permille) => {
                write!(f, "lose {}.{} % of what comes to {}", permille / 10, permille % 10, nodes.join(" "))
            }
            Fault::Both(one, two) => write!(f, "{one}, and {two}"),
        }
    }
}

impl Fault {
    pub fn draw(random: &mut Random, nodes: &Nodes) -> Fault {
        let osd = random.pick(&nodes.osds).clone();
        let mon = random.pick(&nodes.mons).clone();
        match random.below(20) {
            0..=11 => Fault::of(random, nodes, &osd),
            12..=15 => Fault::of(random, nodes, &mon),
            _ => {
                let one = Fault::of(random, nodes, &mon);
                Fault::Both(Box::new(one), Box::new(Fault::of(random, nodes, &osd)))
            }
        }
    }

    /// A fault that hurts this daemon only: the others keep a majority and `min_size` copies.
    fn of(random: &mut Random, nodes: &Nodes, daemon: &str) -> Fault {
        let daemon_name = daemon.to_string();
        let kinds = if nodes.net.can_cut() { 10 } else { 5 };
        let all = || nodes.mons.iter().chain(&nodes.osds).cloned().chain([CLIENT.to_string()]);
        match random.below(kinds) {
            0 | 1 => Fault::Kill(daemon_name),
            2 => Fault::Restart(daemon_name),
            3 | 4 => Fault::Pause(daemon_name),
            kind => {
                let mut others: Vec<String> = all().filter(|other| other != daemon).collect();
                others = match random.below(4) {
                    // From everybody.
                    0 => others,
                    // From its own kind: the others still hear it.
                    1 => {
                        let kind = &daemon[..4];
                        others.into_iter().filter(|other| other.starts_with(kind)).collect()
                    }
                    // From the monitors.
                    2 => others.into_iter().filter(|other| other.starts_with("mon.")).collect(),
                    _ => vec![random.pick(&others).clone()],
                };
                match kind {
                    5 => Fault::Loss(all().collect(), random.range(10, 51)),
                    6 => Fault::Loss(vec![daemon_name], random.range(10, 51)),
                    7 => Fault::Deaf(daemon_name, others),
                    _ => Fault::Cut(daemon_name, others),
                }
            }
        }
    }

    pub fn begin(&self, nodes: &mut Nodes) -> anyhow::Result<()> {
        match self {
            Fault::Kill(daemon) => nodes.kill(daemon),
            Fault::Restart(daemon) => nodes.stop(daemon),
            Fault::Pause(daemon) => nodes.signal(daemon, libc::SIGSTOP),
            Fault::Deaf(daemon, others) => {
                others.iter().try_for_each(|other| nodes.net.deafen(daemon, other))
            }
            Fault::Cut(daemon, others) => others.iter().try_for_each(|other| nodes.net.cut(daemon, other)),
            Fault::Loss(at, permille) => at.iter().try_for_each(|node| nodes.net.lose(node, *permille)),
            Fault::Both(one, two) => {
                one.begin(nodes)?;
                two.begin(nodes)
            }
        }
    }

    pub fn end(&self, nodes: &mut Nodes) -> anyhow::Result<()> {
        match self {
            Fault::Kill(daemon) | Fault::Restart(daemon) => nodes.start(daemon),
            Fault::Pause(daemon) => nodes.signal(daemon, libc::SIGCONT),
            Fault::Deaf(..) | Fault::Cut(..) | Fault::Loss(..) => nodes.net.heal(),
            Fault::Both(one, two) => {
                one.end(nodes)?;
                two.end(nodes)
            }
        }
    }

    /// How long it lasts: often shorter than anybody notices, sometimes long enough to be marked down.
    pub fn duration(random: &mut Random) -> Duration {
        Duration::from_millis(match random.below(3) {
            0 => random.range(100, 3000),
            1 => random.range(3000, 8000),
            _ => random.range(8000, 15_000),
        })
    }
}

/// Lets time pass, noticing an interrupt and a daemon that ends by itself.
pub fn linger(nodes: &Nodes, time: Duration) -> anyhow::Result<()> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        check_interrupted()?;
        nodes.check_alive()?;
        std::thread::sleep(Duration::from_millis(50).min(end.saturating_duration_since(Instant::now())));
    }
    Ok(())
}
