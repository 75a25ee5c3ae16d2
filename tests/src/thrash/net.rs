//! Network namespaces on one bridge, and what gets lost between them.

use crate::tool::run;
use anyhow::Context as _;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

/// What one node does not hear.
#[derive(Clone, Debug, Default)]
struct Deaf {
    /// To these addresses' packets.
    to: Vec<String>,
    /// To so many permille of all packets.
    loss_permille: u64,
}

/// The namespaces, removed when this is dropped. Without namespaces every node is on loopback and nothing can be cut.
pub struct Net {
    /// In front of every namespace's name; `None` without namespaces.
    prefix: Option<String>,
    nodes: Vec<String>,
    deaf: BTreeMap<String, Deaf>,
}

impl Net {
    pub fn new(namespaces: bool, nodes: &[String]) -> anyhow::Result<Net> {
        let prefix = namespaces.then(|| format!("nacre{}", std::process::id()));
        let mut net = Net { prefix, nodes: Vec::new(), deaf: BTreeMap::new() };
        let Some(hub) = net.name("hub") else {
            net.nodes = nodes.to_vec();
            return Ok(net);
        };
        ip(&["netns", "add", &hub]).context("network namespaces need root and the package iproute2")?;
        // From here on dropping it removes the namespaces, however far we got.
        net.nodes.push("hub".into());
        ip(&["-n", &hub, "link", "add", "name", "br0", "type", "bridge"])?;
        ip(&["-n", &hub, "link", "set", "br0", "up"])?;
        for (at, node) in nodes.iter().enumerate() {
            let name = net.name(node).context("namespaces are on")?;
            ip(&["netns", "add", &name])?;
            net.nodes.push(node.clone());
            let port = format!("p{at}");
            ip(&["-n", &hub, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &name])?;
            ip(&["-n", &hub, "link", "set", &port, "master", "br0", "up"])?;
            let address = format!("{}/24", net.address(node));
            ip(&["-n", &name, "addr", "add", &address, "dev", "eth0"])?;
            ip(&["-n", &name, "link", "set", "eth0", "up"])?;
            ip(&["-n", &name, "link", "set", "lo", "up"])?;
        }
        Ok(net)
    }

    fn name(&self, node: &str) -> Option<String> {
        self.prefix.as_ref().map(|prefix| format!("{prefix}-{node}"))
    }

    pub fn can_cut(&self) -> bool {
        self.prefix.is_some()
    }

    pub fn address(&self, node: &str) -> String {
        match &self.prefix {
            None => "127.0.0.1".into(),
            Some(_) => {
                let number = match node.split_once('.') {
                    Some(("osd", id)) => 100 + id.parse::<u64>().unwrap_or(0),
                    Some((_, letter)) => {
                        10 + u64::from(letter.as_bytes().first().copied().unwrap_or(b'a') - b'a')
                    }
                    None => 200,
                };
                format!("10.77.0.{number}")
            }
        }
    }

    /// A command that runs at a node.
    pub fn command(&self, node: &str, program: &std::path::Path) -> Command {
        match self.name(node) {
            None => Command::new(program),
            Some(name) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", &name]).arg(program);
                command
            }
        }
    }

    /// From now on `node` does not hear `other`.
    pub fn deafen(&mut self, node: &str, other: &str) -> anyhow::Result<()> {
        let address = self.address(other);
        let deaf = self.deaf.entry(node.to_string()).or_default();
        if !deaf.to.contains(&address) {
            deaf.to.push(address);
        }
        self.apply(node)
    }

    pub fn cut(&mut self, node: &str, other: &str) -> anyhow::Result<()> {
        self.deafen(node, other)?;
        self.deafen(other, node)
    }

    pub fn lose(&mut self, node: &str, permille: u64) -> anyhow::Result<()> {
        self.deaf.entry(node.to_string()).or_default().loss_permille = permille;
        self.apply(node)
    }

    pub fn heal(&mut self) -> anyhow::Result<()> {
        for node in std::mem::take(&mut self.deaf).into_keys() {
            self.apply(&node)?;
        }
        Ok(())
    }

    /// Makes the node's rules what is wanted, in one step.
    fn apply(&self, node: &str) -> anyhow::Result<()> {
        let Some(name) = self.name(node) else { return Ok(()) };
        let mut rules = String::from("table inet thrash\ndelete table inet thrash\n");
        if let Some(deaf) = self.deaf.get(node) {
            rules.push_str(
                "table inet thrash { chain heard { type filter hook input priority 0; policy accept;\n",
            );
            rules.push_str("iif \"lo\" accept\n");
            for address in &deaf.to {
                rules.push_str(&format!("ip saddr {address} drop\n"));
            }
            if deaf.loss_permille > 0 {
                rules.push_str(&format!("numgen random mod 1000 < {} drop\n", deaf.loss_permille));
            }
            rules.push_str("}\n}\n");
        }
        let mut nft = Command::new("ip")
            .args(["netns", "exec", &name, "nft", "-f", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .context("partitions need the package nftables")?;
        nft.stdin.take().context("a pipe to nft")?.write_all(rules.as_bytes())?;
        anyhow::ensure!(nft.wait()?.success(), "nft refused:\n{rules}");
        Ok(())
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for node in &self.nodes {
            if let Some(name) = self.name(node) {
                let _ = ip(&["netns", "del", &name]);
            }
        }
    }
}

fn ip(words: &[&str]) -> anyhow::Result<()> {
    run(Command::new("ip").args(words)).map(drop)
}
