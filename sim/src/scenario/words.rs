//! More words of the scenarios: faults of daemons, disks and clocks, operators' orders, snapshots, images, and what must
//! be seen.
//!
//! ```text
//! pause NODE SECONDS | stop NODE               not scheduled for a while | ends in order
//! everything crashes|powers|starts             all daemons in one tick
//! power NODE after N writes                    at that write boundary of its disk
//! hold NODE                                    its disk answers nothing any more, until it is started again
//! cut NODE... -> NODE...                       one way
//! flip NODE [all] | eio NODE | lost NODE | misdirect NODE     a bit of a block (of all), a block that cannot be read, the
//!                                              next write to the data area goes nowhere or beside its place
//! failing writes|flushes NODE                  from now on
//! passing reads|writes|flushes NODE COUNT      of a thousand fail from now on and succeed later; 0 for none
//! lying NODE | forgets NODE                    its flushes make nothing durable | it loses power, and all since then
//! sluggish NODE TIMES                          its disk takes so many times as long
//! skew NODE SECONDS                            its wall clock
//! command [fails] {...}                        an operator's, as JSON; $A is the number of A
//! pg [asks] ORDER [{...}]                      to the PG's primary; with `asks` nobody waits for the answer
//! mon rm|add NAME                              the first leaves the daemon as it is, the second starts one with an empty store
//! CLIENT append|remove OBJECT [NUMBER]
//! CLIENT fill PREFIX COUNT NUMBER | CLIENT finds PREFIX COUNT NUMBER     that many objects
//! CLIENT cannot write OBJECT NUMBER within SECONDS
//! CLIENT tries ACTION OBJECT [NUMBER] for SECONDS   any answer will do
//! CLIENT read OBJECT is N or M | is absent | is not absent within SECONDS | is N N N
//! CLIENT read OBJECT fails within SECONDS      never with bytes
//! CLIENT omap OBJECT KEYS NUMBER | CLIENT omap OBJECT has KEYS NUMBER | CLIENT omap OBJECT clear
//! snap NAME | unsnap NAME | CLIENT read OBJECT at NAME is NUMBER     writes after `snap` preserve it
//! CLIENT image make NAME | open NAME | take NAME | write NAME BLOCK NUMBER | flush NAME | read NAME BLOCK is NUMBER
//! CLIENT image write NAME BLOCK NUMBER is refused
//! scrub|deep-scrub|repair | errors | no errors      after a deep scrub, found by it
//! state WORD within SECONDS | health CODE within SECONDS | no health CODE within SECONDS
//! fsck                                         ends the daemons; no store has an error
//! reached SITE                                 at the end: a place in the code was passed
//! ```

use super::{PATIENCE, Scenario};
use crate::checkers::history::{Action, Answer};
use crate::nemesis::operators::monmap_of;
use crate::network::NodeId;
use crate::run::{POOL, admin, command};
use crate::workload::Units;
use bytes::Bytes;
use nacre_client::image::CreateOptions;
use nacre_client::{Image, OpenOptions, Pool, SnapContext};
use nacre_store::testing::{Flaky, Loss};
use nacre_types::{Instant, PgId, SnapId};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

const BLOCK: u64 = 4096;

/// Open images by client and name.
type Images = BTreeMap<(String, String), Rc<Image>>;

/// What the words of this file remember.
#[derive(Default)]
pub(super) struct Memory {
    snaps: BTreeMap<String, SnapId>,
    images: Rc<RefCell<Images>>,
}

fn seconds(word: &str) -> Result<Duration, String> {
    word.parse().map(Duration::from_secs_f64).map_err(|_| format!("'{word}' is not a number of seconds"))
}

fn number<T: std::str::FromStr>(word: &str) -> Result<T, String> {
    word.parse().map_err(|_| format!("'{word}' is not a number"))
}

fn action(verb: &str, rest: &[&str]) -> Result<Action, String> {
    match (verb, rest) {
        ("write", [id]) => Ok(Action::WriteFull(number(id)?)),
        ("append", [id]) => Ok(Action::Append(number(id)?)),
        ("remove", []) => Ok(Action::Remove),
        _ => Err("neither write, append nor remove".into()),
    }
}

impl Scenario {
    /// True if the words were of this file.
    pub(super) fn more(&mut self, line: &str, words: &[&str]) -> Result<bool, String> {
        match *words {
            ["pause", node, time] => {
                let node = self.node(node)?;
                self.cluster.world.pause(node, seconds(time)?);
            }
            ["stop", node] => {
                let node = self.node(node)?;
                self.cluster
                    .world
                    .with_node(node, |node, now, _, out| node.osd().map(|osd| osd.stop(now, out)));
                self.cluster.world.ended.clear();
                self.cluster.run_for(Duration::from_millis(500));
            }
            ["everything", verb] => self.everything(verb)?,
            ["power", node, "after", count, "writes"] => self.power_after(node, number(count)?)?,
            ["hold", node] => {
                let osd = self.osd(node)?;
                osd.set_disk_latency(Duration::from_secs(1 << 20));
            }
            ["flip", node] => self.flip(node)?,
            ["flip", node, "all"] => self.osd(node)?.rot_everything(),
            ["eio", node] => {
                let mut rng = self.cluster.world.rng.fork();
                if !self.osd(node)?.break_block(&mut rng) {
                    return Err("nothing is written there yet".into());
                }
            }
            ["lost", node] => self.osd(node)?.spoil_write(false),
            ["misdirect", node] => self.osd(node)?.spoil_write(true),
            ["failing", "writes", node] => self.osd(node)?.disk_mut().fail_writes(true),
            ["failing", "flushes", node] => self.osd(node)?.disk_mut().fail_flushes(true),
            ["passing", what, node, count] => self.passing(what, node, number(count)?)?,
            ["lying" | "forgets", node] => {
                let NodeId::Osd(at) = self.node(node)? else { return Err("not an OSD".into()) };
                match words[0] {
                    "lying" => self.cluster.with_disk(at, |disk, kv| {
                        disk.lie(true);
                        kv.lie(true);
                    }),
                    _ => self.cluster.lose_osd(at, Loss::All),
                }
            }
            ["sluggish", node, times] => self.osd(node)?.slow(number(times)?),
            ["skew", node, time] => {
                let node = self.node(node)?;
                let by: f64 = number(time)?;
                self.cluster.world.skew(node, (by * 1000.0) as i64);
            }
            ["command", ..] => self.ordered(line)?,
            ["pg", "asks", order, ..] => {
                let json = line.find('{').map_or("{}", |from| &line[from..]).to_string();
                let (pg, order) = (self.pg, order.to_string());
                self.cluster.as_admin(|handle| async move {
                    let _ = handle.pg_admin(pg, &order, &json).await;
                });
            }
            ["pg", order, ..] => {
                let json = line.find('{').map_or("{}", |from| &line[from..]).to_string();
                let (pg, order) = (self.pg, order.to_string());
                admin(&mut self.cluster, PATIENCE, "pg", move |handle| async move {
                    let reply =
                        handle.pg_admin(pg, &order, &json).await.map_err(|error| error.to_string())?;
                    if reply.code == 0 { Ok(()) } else { Err(reply.message) }
                })?;
            }
            ["mon", "rm", name] => {
                command(&mut self.cluster, json!({"prefix": "mon rm", "name": name}))?;
            }
            ["mon", "add", name] => {
                let NodeId::Mon(at) = self.node(&format!("mon.{name}"))? else { return Err("which?".into()) };
                let address = format!("10.0.0.{}:6789", 10 + at);
                let order = json!({"prefix": "mon add", "name": name, "address": address});
                let answer = command(&mut self.cluster, order)?;
                let monmap =
                    monmap_of(&answer).ok_or_else(|| format!("the answer has no monmap: {answer}"))?;
                self.cluster.add_mon(at, &monmap);
            }
            ["cut", ..] if words.contains(&"->") => self.cut_one_way(&words[1..])?,
            ["snap", name] => {
                let work = |pool: Pool| async move { pool.create_snap().await.map_err(|e| e.to_string()) };
                let id = self.with_pool(work)?;
                self.memory.snaps.insert(name.into(), id);
            }
            ["unsnap", name] => {
                let id = self.memory.snaps.remove(name).ok_or("there is no such snapshot")?;
                self.with_pool(
                    move |pool| async move { pool.remove_snap(id).await.map_err(|e| e.to_string()) },
                )?;
            }
            ["scrub" | "deep-scrub" | "repair"] => self.scrub(words[0])?,
            ["errors"] => self.scrub_errors(true)?,
            ["no", "errors"] => self.scrub_errors(false)?,
            ["state", word, "within", time] => {
                let seen =
                    |pgs: &Value| pgs.as_array().into_iter().flatten().any(|pg| says(&pg["state"], word));
                self.until(seconds(time)?, json!({"prefix": "pg ls"}), |json| seen(&json["pg_stats"]))?;
            }
            ["health", code, "within", time] => self.health(code, true, seconds(time)?)?,
            ["no", "health", code, "within", time] => self.health(code, false, seconds(time)?)?,
            ["fsck"] => {
                let problems = self.cluster.fsck_all();
                if !problems.is_empty() {
                    return Err(problems.join("; "));
                }
            }
            ["reached", ..] => self.reached.push(line["reached".len()..].trim().into()),
            [client, "image", ref rest @ ..] => self.image(client, rest)?,
            [client, "omap", object, ref rest @ ..] => self.omap(client, object, rest)?,
            [client, "fill", prefix, count, id] => {
                for at in 0..number::<u32>(count)? {
                    self.must(client, &format!("{prefix}{at}"), Action::WriteFull(number(id)?))?;
                }
            }
            [client, "finds", prefix, count, id] => {
                let wanted = Answer::Content(Some(vec![number(id)?]));
                for at in 0..number::<u32>(count)? {
                    let answer = self.perform(client, &format!("{prefix}{at}"), Action::Read, PATIENCE)?;
                    if answer != wanted {
                        return Err(format!("{prefix}{at} is {answer:?}"));
                    }
                }
            }
            [client, "append", object, id] => self.must(client, object, Action::Append(number(id)?))?,
            [client, "remove", object] => self.must(client, object, Action::Remove)?,
            [client, "cannot", "write", object, id, "within", time] => {
                let answer = self.perform(client, object, Action::WriteFull(number(id)?), seconds(time)?)?;
                if answer != Answer::Unknown {
                    return Err(format!("answered {answer:?}"));
                }
            }
            [client, "tries", verb, object, ref rest @ .., "for", time] => {
                let _ = self.perform(client, object, action(verb, rest)?, seconds(time)?)?;
            }
            [client, "read", object, "fails", "within", time] => {
                let answer = self.perform(client, object, Action::Read, seconds(time)?)?;
                if answer != Answer::Unknown {
                    return Err(format!("it is {answer:?}"));
                }
            }
            [client, "read", object, "at", snap, "is", id] => {
                let snap = *self.memory.snaps.get(snap).ok_or("there is no such snapshot")?;
                let (object, unit) = (object.to_string(), self.cluster.world.options.unit);
                let answer = self.as_client(client, move |pool| async move {
                    Ok(Units(unit).perform(&pool.at_snap(snap), &object, &Action::Read).await)
                })?;
                let wanted = if id == "absent" { None } else { Some(vec![number(id)?]) };
                if answer != Answer::Content(wanted) {
                    return Err(format!("it is {answer:?}"));
                }
            }
            [client, "read", object, "is", "not", "absent", "within", time] => {
                let answer = self.perform(client, object, Action::Read, seconds(time)?)?;
                if answer == Answer::Content(None) {
                    return Err("it is absent".into());
                }
            }
            [client, "read", object, "is", "absent"] => self.reads(client, object, &[None])?,
            [client, "read", object, "is", a, "or", b] => {
                let content = |word: &str| {
                    if word == "absent" { Ok(None) } else { number(word).map(|id| Some(vec![id])) }
                };
                self.reads(client, object, &[content(a)?, content(b)?])?;
            }
            [client, "read", object, "is", ref ids @ ..] if ids.len() > 1 && ids[0] != "not" => {
                let ids = ids.iter().map(|id| number(id)).collect::<Result<Vec<u64>, _>>()?;
                self.reads(client, object, &[Some(ids)])?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn osd(&mut self, node: &str) -> Result<&mut crate::nodes::OsdNode, String> {
        let node = self.node(node)?;
        let slot = self.cluster.world.nodes.get_mut(&node);
        slot.and_then(|slot| slot.node.osd()).ok_or_else(|| "it is no OSD that runs".into())
    }

    fn passing(&mut self, what: &str, node: &str, permille: u64) -> Result<(), String> {
        let NodeId::Osd(at) = self.node(node)? else { return Err("not an OSD".into()) };
        let flaky = match what {
            "reads" => Flaky { reads: permille, ..Flaky::default() },
            "writes" => Flaky { writes: permille, ..Flaky::default() },
            "flushes" => Flaky { flushes: permille, ..Flaky::default() },
            _ => return Err("reads, writes or flushes".into()),
        };
        self.cluster.with_disk(at, |disk, _| disk.set_flaky(flaky));
        Ok(())
    }

    fn everything(&mut self, verb: &str) -> Result<(), String> {
        if verb == "starts" {
            self.cluster.start_everything();
            return Ok(());
        }
        if !matches!(verb, "crashes" | "powers") {
            return Err("it crashes, powers or starts".into());
        }
        for at in self.cluster.osds.clone() {
            self.cluster.crash_osd(at, verb == "powers");
        }
        for at in 0..self.cluster.world.options.mons {
            self.cluster.crash_mon(at);
        }
        Ok(())
    }

    fn power_after(&mut self, node: &str, count: u64) -> Result<(), String> {
        let NodeId::Osd(at) = self.node(node)? else { return Err("not an OSD".into()) };
        let until = self.osd(node)?.disk_mut().writes + count;
        for _ in 0..600_000 {
            let next = self.cluster.world.now + Duration::from_micros(100);
            self.cluster.world.run_until(next);
            if self.osd(node)?.disk_mut().writes >= until {
                self.cluster.crash_osd(at, true);
                return Ok(());
            }
        }
        Err("it does not write so much within a minute".into())
    }

    fn flip(&mut self, node: &str) -> Result<(), String> {
        let mut rng = self.cluster.world.rng.fork();
        if !self.osd(node)?.rot(&mut rng) {
            return Err("nothing is written there yet".into());
        }
        Ok(())
    }

    fn ordered(&mut self, line: &str) -> Result<(), String> {
        let from = line.find('{').ok_or("a command is JSON")?;
        let fails = line[..from].contains(" fails ");
        let mut text = line[from..].to_string();
        for (at, osd) in self.members.iter().enumerate() {
            text = text.replace(&format!("${}", char::from(b'A' + at as u8)), &osd.to_string());
        }
        let order: Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
        let begun_anew = (order["prefix"] == "osd force-create-pg").then(|| order["pgid"].clone());
        let answer = command(&mut self.cluster, order);
        if let (Ok(_), Some(pg)) = (&answer, begun_anew) {
            let pg = pg.as_str().and_then(|pg| pg.parse().ok()).ok_or("it is no PG")?;
            self.cluster.world.one_writer.given_up(pg);
        }
        match answer {
            Ok(answer) if fails => Err(format!("it succeeds: {answer}")),
            Err(why) if !fails => Err(why),
            _ => Ok(()),
        }
    }

    fn cut_one_way(&mut self, words: &[&str]) -> Result<(), String> {
        let at = words.iter().position(|word| *word == "->").ok_or("which way?")?;
        let named = |words: &[&str]| words.iter().map(|word| self.node(word)).collect::<Result<Vec<_>, _>>();
        let from = named(&words[..at])?;
        let to = match words[at + 1..] {
            ["*"] => self.cluster.world.nodes.keys().copied().filter(|node| !from.contains(node)).collect(),
            _ => named(&words[at + 1..])?,
        };
        let now = self.cluster.world.now;
        for &a in &from {
            to.iter().for_each(|&b| self.cluster.world.network.cut(now, a, b));
        }
        self.cluster.world.take_network_events();
        Ok(())
    }

    fn must(&mut self, client: &str, object: &str, action: Action) -> Result<(), String> {
        match self.perform(client, object, action, PATIENCE)? {
            Answer::Done => Ok(()),
            answer => Err(format!("{object} answers {answer:?}")),
        }
    }

    fn reads(&mut self, client: &str, object: &str, any_of: &[Option<Vec<u64>>]) -> Result<(), String> {
        let answer = self.perform(client, object, Action::Read, PATIENCE)?;
        match &answer {
            Answer::Content(content) if any_of.contains(content) => Ok(()),
            _ => Err(format!("it is {answer:?}")),
        }
    }

    /// What writers preserve from now on.
    pub(super) fn snap_context(&self) -> Option<SnapContext> {
        let mut snaps: Vec<u64> = self.memory.snaps.values().map(|snap| snap.0).collect();
        snaps.sort_unstable_by(|a, b| b.cmp(a));
        Some(SnapContext { seq: *snaps.first()?, snaps })
    }

    fn with_pool<T: 'static, F>(&mut self, work: impl FnOnce(Pool) -> F + 'static) -> Result<T, String>
    where
        F: Future<Output = Result<T, String>> + 'static,
    {
        admin(&mut self.cluster, PATIENCE, "the administrator", |handle| async move {
            work(handle.pool(POOL).await.map_err(|e| e.to_string())?).await
        })
    }

    fn as_client<T: 'static, F>(
        &mut self,
        client: &str,
        work: impl FnOnce(Pool) -> F + 'static,
    ) -> Result<T, String>
    where
        F: Future<Output = Result<T, String>> + 'static,
    {
        let node = self.node(client)?;
        let done: Rc<RefCell<Option<Result<T, String>>>> = Rc::default();
        let result = done.clone();
        let context = self.snap_context();
        self.cluster.as_client(node, move |handle| async move {
            let value = match handle.pool(POOL).await {
                Ok(pool) => {
                    let pool = pool.with_timeout(Some(PATIENCE));
                    let pool = context.map_or(pool.clone(), |context| pool.with_snap_context(context));
                    work(pool).await
                }
                Err(error) => Err(error.to_string()),
            };
            *result.borrow_mut() = Some(value);
        });
        let waiting = done.clone();
        self.cluster.run_while(PATIENCE * 2, move |_| waiting.borrow().is_none());
        let value = done.borrow_mut().take();
        value.unwrap_or_else(|| Err("no answer".into()))
    }

    fn omap(&mut self, client: &str, object: &str, rest: &[&str]) -> Result<(), String> {
        let name = object.to_string();
        let pairs = |count: u32, id: &str| -> Vec<(String, Bytes)> {
            (0..count).map(|at| (format!("key{at:06}"), Bytes::from(id.to_string()))).collect()
        };
        match *rest {
            ["clear"] => self.as_client(client, move |pool| async move {
                pool.object(name).omap_clear().await.map_err(|e| e.to_string())
            }),
            ["has", count, id] => {
                let wanted = pairs(number(count)?, id);
                let found = self.as_client(client, move |pool| async move {
                    pool.object(name).omap("").await.map_err(|e| e.to_string())
                })?;
                let same = found.len() == wanted.len()
                    && found.iter().zip(&wanted).all(|(a, b)| a.0 == b.0.as_bytes() && a.1 == b.1);
                if same { Ok(()) } else { Err(format!("it has {} keys, or other values", found.len())) }
            }
            [count, id] => {
                let pairs = pairs(number(count)?, id);
                self.as_client(client, move |pool| async move {
                    pool.object(name).omap_set(pairs).await.map_err(|e| e.to_string())
                })
            }
            _ => Err("omap OBJECT KEYS NUMBER, has KEYS NUMBER, or clear".into()),
        }
    }

    fn image(&mut self, client: &str, rest: &[&str]) -> Result<(), String> {
        let images = self.memory.images.clone();
        let opened = |name: &str| {
            let image = images.borrow().get(&(client.to_string(), name.to_string())).cloned();
            image.ok_or_else(|| String::from("that client has not opened it"))
        };
        let text = |error: nacre_client::OpError| error.to_string();
        match *rest {
            ["make", name] => {
                let name = name.to_string();
                self.as_client(client, move |pool| async move {
                    pool.create_image(&name, CreateOptions::new(1 << 20)).await.map(drop).map_err(text)
                })
            }
            ["open" | "take", name] => {
                let key = (client.to_string(), name.to_string());
                let options = OpenOptions { take_over: rest[0] == "take", ..OpenOptions::exclusive() };
                self.as_client(client, move |pool| async move {
                    let image = pool.open_image(&key.1, options).await.map_err(text)?;
                    images.borrow_mut().insert(key, Rc::new(image));
                    Ok(())
                })
            }
            ["write", name, block, id, ref refused @ ..] => {
                let image = opened(name)?;
                let (at, id): (u64, u8) = (number(block)?, number(id)?);
                let answer = self.as_client(client, move |_| async move {
                    image.write(at * BLOCK, vec![id; BLOCK as usize]).await.map_err(text)
                });
                match (answer, refused) {
                    (answer, []) => answer,
                    (Err(_), ["is", "refused"]) => Ok(()),
                    (Ok(()), ["is", "refused"]) => Err("it is not".into()),
                    _ => Err("not a step".into()),
                }
            }
            ["flush", name] => {
                let image = opened(name)?;
                self.as_client(client, move |_| async move { image.flush().await.map_err(text) })
            }
            ["read", name, block, "is", id] => {
                let image = opened(name)?;
                let (at, id): (u64, u8) = (number(block)?, number(id)?);
                let bytes = self.as_client(client, move |_| async move {
                    image.read(at * BLOCK, BLOCK).await.map_err(text)
                })?;
                if bytes.iter().all(|byte| *byte == id) { Ok(()) } else { Err(format!("it is {}", bytes[0])) }
            }
            _ => Err("not a step".into()),
        }
    }

    fn scrub(&mut self, order: &str) -> Result<(), String> {
        let began = self.cluster.world.wall_ms();
        let pgs = command(&mut self.cluster, json!({"prefix": "pg ls"}))?["pg_stats"].take();
        for pg in pgs.as_array().into_iter().flatten() {
            let pg: PgId =
                pg["pgid"].as_str().unwrap_or_default().parse().map_err(|_| "a PG without a name")?;
            let what = order.to_string();
            admin(&mut self.cluster, PATIENCE, order, move |handle| async move {
                let reply = handle.pg_admin(pg, &what, "{}").await.map_err(|error| error.to_string())?;
                if reply.code == 0 { Ok(()) } else { Err(reply.message) }
            })?;
        }
        let stamp = if order == "scrub" { "last_scrub_ms" } else { "last_deep_scrub_ms" };
        self.until(PATIENCE * 2, json!({"prefix": "pg ls"}), |json| {
            let done = |pg: &Value| pg[stamp].as_u64() >= Some(began) && !says(&pg["state"], "scrubbing");
            json["pg_stats"].as_array().into_iter().flatten().all(done)
        })
    }

    fn scrub_errors(&mut self, wanted: bool) -> Result<(), String> {
        let pgs = command(&mut self.cluster, json!({"prefix": "pg ls"}))?["pg_stats"].take();
        let errors = |pg: &Value| pg["stat_sum"]["num_scrub_errors"].as_u64().unwrap_or(0);
        let count: u64 = pgs.as_array().into_iter().flatten().map(errors).sum();
        if (count > 0) == wanted { Ok(()) } else { Err(format!("there are {count}")) }
    }

    fn health(&mut self, code: &str, wanted: bool, limit: Duration) -> Result<(), String> {
        self.until(limit, json!({"prefix": "status"}), |json| {
            json["health"]["checks"].to_string().contains(code) == wanted
        })
    }

    /// Asks the monitors again and again.
    fn until(&mut self, limit: Duration, order: Value, seen: impl Fn(&Value) -> bool) -> Result<(), String> {
        let until: Instant = self.cluster.world.now + limit;
        loop {
            let answer = command(&mut self.cluster, order.clone())?;
            if seen(&answer) {
                return Ok(());
            }
            if self.cluster.world.now >= until || self.cluster.world.failure.is_some() {
                let checks = if answer["health"].is_object() { &answer["health"]["checks"] } else { &answer };
                let text: String = checks.to_string().chars().take(600).collect();
                return Err(format!("not seen; last: {text}"));
            }
            self.cluster.run_for(Duration::from_millis(500));
        }
    }
}

fn says(state: &Value, word: &str) -> bool {
    state.as_str().is_some_and(|state| state.split('+').any(|part| part == word))
}
