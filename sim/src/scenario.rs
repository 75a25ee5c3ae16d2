//! Text scenarios: a cluster, what happens to it step by step, and what must hold.
//!
//! ```text
//! cluster osds=3 size=3 min_size=2 [mons=1 clients=2 log=100 pgs=1 unit=8]   PG 1.0; A, B, C are its acting set, primary first
//! each n 1..9                      the second line: all of it once for each number, which `$n` stands for
//! crash|power|start|wipe NODE      NODE: A, osd.3, mon.a, client.0
//! order osd down|osd out|osd in NODE   what an operator orders
//! fence CLIENT                     it is blocklisted
//! slow NODE NODE SECONDS           what the first sends to the second takes so much longer
//! NODE stayed up                   since the beginning
//! cut NODE... | NODE...            both ways, the left from the right; `*` for all others
//! heal
//! wait SECONDS
//! CLIENT write OBJECT NUMBER       answered within a minute
//! CLIENT writes OBJECT NUMBER      nobody waits for the answer
//! CLIENT read OBJECT is NUMBER     likewise
//! CLIENT read OBJECT is not NUMBER within SECONDS   no answer will do
//! halted for SECONDS               the PG is not active at any time
//! active within SECONDS
//! clean within SECONDS
//! ```
//!
//! More in [`words`].

mod words;

use crate::checkers::history::{Action, Answer};
use crate::cluster::SimCluster;
use crate::network::NodeId;
use crate::options::{Faults, Options};
use crate::run::{POOL, command, start};
use crate::trace::Trace;
use crate::workload::Units;
use nacre_types::{Epoch, OsdId, PgId, PoolId};
use serde_json::json;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

/// How long an operation that must succeed may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a scenario; the error names the line.
pub fn run(text: &str, print: bool) -> Result<(), String> {
    let Some((first, each)) = text.lines().enumerate().find(|(_, line)| line.starts_with("each ")) else {
        return run_once(text, print);
    };
    let bad = || format!("line {}: {each}: not `each NAME FROM..TO`", first + 1);
    let ["each", name, range] = each.split_whitespace().collect::<Vec<_>>()[..] else { return Err(bad()) };
    let (from, to) = range.split_once("..").ok_or_else(bad)?;
    let numbers = from.parse::<u32>().map_err(|_| bad())?..to.parse().map_err(|_| bad())?;
    if numbers.is_empty() {
        return Err(bad());
    }
    for number in numbers {
        let text = text.replace(each, "").replace(&format!("${name}"), &number.to_string());
        run_once(&text, print).map_err(|why| format!("{name} = {number}: {why}"))?;
    }
    Ok(())
}

fn run_once(text: &str, print: bool) -> Result<(), String> {
    let lines = text.lines().map(str::trim).enumerate();
    let mut lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let (_, first) = lines.next().ok_or("an empty scenario")?;
    let mut cluster = SimCluster::new(options(first)?, Trace::new(print));
    start(&mut cluster)?;
    let pg = PgId::new(PoolId(1), 0);
    let map = cluster.newest_map().ok_or("no map")?;
    let members = map.pg(pg).map(|place| place.acting.clone()).unwrap_or_default();
    let members = members.iter().map(|osd| osd.0 as usize).collect();
    let mut scenario = Scenario {
        cluster,
        pg,
        members,
        began: map.epoch(),
        memory: Default::default(),
        reached: Vec::new(),
    };
    nacre_types::arm(1, false);
    for (number, line) in lines {
        scenario.line(line).map_err(|why| format!("line {}: {line}: {why}", number + 1))?;
        if let Some(failure) = scenario.cluster.world.failure.take() {
            return Err(format!("line {}: {line}: {failure}", number + 1));
        }
    }
    let mut sites = nacre_types::disarm();
    sites.append(&mut scenario.cluster.world.marks);
    match scenario.reached.iter().find(|site| !sites.contains_key(site.as_str())) {
        Some(site) => Err(format!("'{site}' was never reached; what was: {sites:?}")),
        None => Ok(()),
    }
}

fn options(line: &str) -> Result<Options, String> {
    let mut options = Options { mons: 1, clients: 2, pg_num: 1, unit: 8, ..Options::draw(1) };
    options.faults = Faults::default();
    options.conditions = options.calm();
    let mut words = line.split_whitespace();
    if words.next() != Some("cluster") {
        return Err("a scenario starts with a line `cluster ...`".into());
    }
    for word in words {
        let bad = || format!("'{word}' is not key=number");
        let (key, value) = word.split_once('=').ok_or_else(bad)?;
        let value: u32 = value.parse().map_err(|_| bad())?;
        match key {
            "mons" => options.mons = value as usize,
            "osds" => options.osds = value as usize,
            "clients" => options.clients = value as usize,
            "size" => options.size = value,
            "min_size" => options.min_size = value,
            "log" => options.log_entries = value as usize,
            "pgs" => options.pg_num = value,
            "unit" => options.unit = value as usize,
            _ => return Err(bad()),
        }
    }
    Ok(options)
}

struct Scenario {
    cluster: SimCluster,
    pg: PgId,
    members: Vec<usize>,
    /// The epoch it began in.
    began: Epoch,
    memory: words::Memory,
    /// Places in the code that must have been passed in the end.
    reached: Vec<String>,
}

impl Scenario {
    fn line(&mut self, line: &str) -> Result<(), String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let seconds = |word: &str| {
            word.parse()
                .map(Duration::from_secs_f64)
                .map_err(|_| format!("'{word}' is not a number of seconds"))
        };
        if self.more(line, &words)? {
            return Ok(());
        }
        match words[..] {
            ["wait", time] => self.cluster.run_for(seconds(time)?),
            ["heal"] => self.cluster.world.heal_network(),
            ["halted", "for", time] => {
                if self.cluster.run_while(seconds(time)?, |cluster| !active(cluster, PgId::new(PoolId(1), 0)))
                {
                    return Err("the PG is active".into());
                }
            }
            ["active", "within", time] => {
                let pg = self.pg;
                if !self.cluster.run_while(seconds(time)?, move |cluster| !active(cluster, pg)) {
                    return Err(format!("it is not: {}", self.cluster.why_pgs().join("; ")));
                }
            }
            ["clean", "within", time] => {
                if !self.cluster.run_while(seconds(time)?, |cluster| !cluster.is_clean()) {
                    return Err(format!("it is not: {}", self.cluster.why_pgs().join("; ")));
                }
            }
            ["cut", ..] => self.cut(&words[1..])?,
            ["order", a, b, node] => {
                let NodeId::Osd(at) = self.node(node)? else { return Err("not an OSD".into()) };
                command(&mut self.cluster, json!({"prefix": format!("{a} {b}"), "ids": [at]}))?;
            }
            ["fence", client] => {
                let node = self.node(client)?;
                let slot = self.cluster.world.nodes.get_mut(&node);
                let id = slot.and_then(|slot| slot.node.client()).map(|client| client.cluster.client_id());
                let Some(id) = id else { return Err("not a client".into()) };
                let order = json!({"prefix": "osd blocklist add", "client": id.to_string()});
                command(&mut self.cluster, order)?;
            }
            ["slow", from, to, time] => {
                let (from, to, by) = (self.node(from)?, self.node(to)?, seconds(time)?);
                self.cluster.world.network.slow(from, to, by);
            }
            [node, "stayed", "up"] => {
                let NodeId::Osd(at) = self.node(node)? else { return Err("not an OSD".into()) };
                let map = self.cluster.newest_map().ok_or("no map")?;
                let info = map.osd(OsdId(at as u32)).ok_or("no such OSD")?;
                if info.up_from() > self.began || !info.up {
                    return Err("it was marked down".into());
                }
            }
            [client, "writes", object, number] => {
                let id = number.parse().map_err(|_| "not a number")?;
                self.begin(client, object, Action::WriteFull(id), PATIENCE)?;
            }
            [client, "write", object, number] => {
                let id = number.parse().map_err(|_| "not a number")?;
                let answer = self.perform(client, object, Action::WriteFull(id), PATIENCE)?;
                if answer != Answer::Done {
                    return Err(format!("answered {answer:?}"));
                }
            }
            [client, "read", object, "is", number] => {
                let answer = self.perform(client, object, Action::Read, PATIENCE)?;
                let id = number.parse().map_err(|_| "not a number")?;
                if answer != Answer::Content(Some(vec![id])) {
                    return Err(format!("it is {answer:?}"));
                }
            }
            [client, "read", object, "is", "not", number, "within", time] => {
                let answer = self.perform(client, object, Action::Read, seconds(time)?)?;
                let id = number.parse().map_err(|_| "not a number")?;
                if answer == Answer::Content(Some(vec![id])) {
                    return Err(format!("it is {answer:?}"));
                }
            }
            [verb, node] => self.happen(verb, node)?,
            _ => return Err("not a step".into()),
        }
        Ok(())
    }

    fn node(&self, word: &str) -> Result<NodeId, String> {
        let bad = || format!("'{word}' is not a node");
        if let [letter @ b'A'..=b'Z'] = word.as_bytes() {
            return self.members.get(usize::from(letter - b'A')).copied().map(NodeId::Osd).ok_or_else(bad);
        }
        match word.split_once('.') {
            Some(("osd", number)) => number.parse().map(NodeId::Osd).map_err(|_| bad()),
            Some(("client", number)) => number.parse().map(NodeId::Client).map_err(|_| bad()),
            Some(("mon", name)) => match name.as_bytes() {
                [letter @ b'a'..=b'z'] => Ok(NodeId::Mon(usize::from(letter - b'a'))),
                _ => Err(bad()),
            },
            _ => Err(bad()),
        }
    }

    fn happen(&mut self, verb: &str, node: &str) -> Result<(), String> {
        match (verb, self.node(node)?) {
            ("crash", NodeId::Osd(at)) => self.cluster.crash_osd(at, false),
            ("power", NodeId::Osd(at)) => self.cluster.crash_osd(at, true),
            ("start", NodeId::Osd(at)) => self.cluster.start_osd(at),
            ("wipe", NodeId::Osd(at)) => self.cluster.wipe_osd(at),
            ("crash" | "power", NodeId::Mon(at)) => self.cluster.crash_mon(at),
            ("start", NodeId::Mon(at)) => self.cluster.start_mon(at),
            _ => return Err("not a step".into()),
        }
        Ok(())
    }

    fn cut(&mut self, words: &[&str]) -> Result<(), String> {
        let bar =
            words.iter().position(|word| *word == "|").ok_or("which side is which? separate them by |")?;
        let named = |words: &[&str]| words.iter().map(|word| self.node(word)).collect::<Result<Vec<_>, _>>();
        let left = named(&words[..bar])?;
        let right = match words[bar + 1..] {
            ["*"] => self.cluster.world.nodes.keys().copied().filter(|node| !left.contains(node)).collect(),
            _ => named(&words[bar + 1..])?,
        };
        let now = self.cluster.world.now;
        for &a in &left {
            for &b in &right {
                self.cluster.world.network.cut(now, a, b);
                self.cluster.world.network.cut(now, b, a);
            }
        }
        self.cluster.world.take_network_events();
        Ok(())
    }

    /// Without an answer in time it is `Unknown`.
    fn perform(
        &mut self,
        client: &str,
        object: &str,
        action: Action,
        limit: Duration,
    ) -> Result<Answer, String> {
        let done = self.begin(client, object, action, limit)?;
        let waiting = done.clone();
        self.cluster.run_while(limit * 2, move |_| waiting.borrow().is_none());
        let answer = done.borrow_mut().take();
        Ok(answer.unwrap_or(Answer::Unknown))
    }

    fn begin(
        &mut self,
        client: &str,
        object: &str,
        action: Action,
        limit: Duration,
    ) -> Result<Rc<RefCell<Option<Answer>>>, String> {
        let node = self.node(client)?;
        let done: Rc<RefCell<Option<Answer>>> = Rc::default();
        let (result, object, context) = (done.clone(), object.to_string(), self.snap_context());
        let unit = self.cluster.world.options.unit;
        self.cluster.as_client(node, move |handle| async move {
            let answer = match handle.pool(POOL).await {
                Ok(pool) => {
                    let pool = pool.with_timeout(Some(limit));
                    let pool = context.map_or(pool.clone(), |context| pool.with_snap_context(context));
                    Units(unit).perform(&pool, &object, &action).await
                }
                Err(_) => Answer::Unknown,
            };
            *result.borrow_mut() = Some(answer);
        });
        Ok(done)
    }
}

fn active(cluster: &mut SimCluster, pg: PgId) -> bool {
    cluster.osds.clone().into_iter().any(|at| {
        let slot = cluster.world.nodes.get_mut(&NodeId::Osd(at));
        let osd = slot.and_then(|slot| slot.node.osd());
        osd.is_some_and(|osd| osd.osd().pg(pg).is_some_and(|pg| pg.is_primary() && pg.is_active()))
    })
}
