//! Asking whoever may know, a few rounds of it, each bounded in time: an answer comes within seconds, with or without
//! a quorum.

use crate::evidence::{Evidence, MonView, OsdAnswer, OsdView, Want};
use crate::explanation::Explanation;
use crate::question::Question;
use crate::walk::walk;
use nacre_client::{Cluster, ErrorCode};
use nacre_maps::OsdMap;
use nacre_types::{ObjectId, OsdId, PgId};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// How long one monitor or OSD has to answer.
const ANSWER_WAIT: Duration = Duration::from_millis(800);
/// The leader's answer takes a round to a majority.
const LEADER_WAIT: Duration = Duration::from_millis(1200);
/// All of it.
const TOTAL_WAIT: Duration = Duration::from_millis(4000);
const ROUNDS_MAX: usize = 8;
/// OSDs asked in one round.
pub(crate) const ASKED_MAX: usize = 64;

pub(crate) type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Explains what is asked, from what monitors and OSDs answer to this client.
pub async fn explain(cluster: &Cluster, question: &Question) -> Explanation {
    let until = cluster.now() + TOTAL_WAIT;
    let mut evidence = Evidence {
        client: Some(cluster.client_id()),
        // Before its own questions are among them.
        waiting: cluster.waiting(),
        ..Evidence::default()
    };
    let mut about = BTreeSet::new();
    if let Question::Osd(osd) = question {
        about.insert(*osd);
    }
    ask_monitors(cluster, question, &mut evidence, about.clone()).await;
    newest_map(cluster, &mut evidence).await;
    for _ in 0..ROUNDS_MAX {
        evidence.contact = cluster.monitor_contact();
        evidence.wall_ms = cluster.wall_ms();
        let (explanation, wants) = walk(question, &evidence);
        if wants.is_empty() || cluster.now() >= until {
            return explanation;
        }
        let osds: Vec<OsdId> =
            wants.iter().filter_map(|w| if let Want::Osd(osd) = w { Some(*osd) } else { None }).collect();
        let of_monitors =
            wants.iter().filter_map(|w| if let Want::MonOsd(osd) = w { Some(*osd) } else { None });
        let before = about.len();
        about.extend(of_monitors);
        if about.len() > before && (evidence.mon.is_some() || evidence.leader.is_some()) {
            ask_monitors(cluster, question, &mut evidence, about.clone()).await;
        } else {
            evidence.asked = about.iter().copied().collect();
        }
        ask_osds(cluster, question, &mut evidence, osds).await;
    }
    evidence.contact = cluster.monitor_contact();
    walk(question, &evidence).0
}

/// The monitor at hand, and through it the leader.
async fn ask_monitors(
    cluster: &Cluster,
    question: &Question,
    evidence: &mut Evidence,
    about: BTreeSet<OsdId>,
) {
    let osds: Vec<String> = about.iter().map(|osd| osd.0.to_string()).collect();
    let mut asked = json!({"prefix": "explain", "osds": osds});
    if let Some(pg) = pg_of(question, evidence.map.as_deref().or(cluster.current_osdmap().as_deref())) {
        asked["pgid"] = pg.to_string().into();
    }
    if let Question::Operation(op) = question
        && let Some(entity) = &op.entity
    {
        asked["entity"] = entity.to_string().into();
    }
    let mut here = asked.clone();
    here["local"] = true.into();
    let (here, asked) = (here.to_string(), asked.to_string());
    // The first to be asked may be one that has just gone: the next attempt goes to another.
    let attempts = if evidence.mon.is_some() || evidence.leader.is_some() { 1 } else { 3 };
    let wait = if evidence.leader.is_none() && evidence.mon.is_some() { ANSWER_WAIT } else { LEADER_WAIT };
    let mut answers = join(vec![
        Box::pin(ask_monitor(cluster, here, ANSWER_WAIT, attempts)) as Boxed<'_, _>,
        Box::pin(ask_monitor(cluster, asked, wait, attempts.min(2))),
    ])
    .await
    .into_iter();
    let (mon, leader) = (answers.next().flatten(), answers.next().flatten());
    evidence.mon = mon.or(evidence.mon.take());
    evidence.leader = leader.or(evidence.leader.take());
    evidence.asked = about.into_iter().collect();
}

async fn ask_monitor(cluster: &Cluster, command: String, wait: Duration, attempts: usize) -> Option<MonView> {
    for _ in 0..attempts {
        match cluster.ask_monitors(&command, wait).await {
            Ok(reply) => return serde_json::from_str(&reply.json).ok().map(MonView),
            Err(error) if error.code == ErrorCode::TimedOut => {}
            Err(_) => return None,
        }
    }
    None
}

/// The map there is; a newer one if a monitor has one and it comes soon.
async fn newest_map(cluster: &Cluster, evidence: &mut Evidence) {
    let newest =
        [&evidence.mon, &evidence.leader].into_iter().flatten().map(MonView::epoch).max().unwrap_or(0);
    for _ in 0..8 {
        evidence.map = cluster.current_osdmap();
        let have = evidence.map.as_ref().map_or(0, |map| map.epoch().0);
        if have >= newest.max(1) || (newest == 0 && have > 0) || (newest == 0 && evidence.mon.is_none()) {
            break;
        }
        cluster.sleep(Duration::from_millis(100)).await;
    }
    evidence.map = cluster.current_osdmap();
}

fn pg_of(question: &Question, map: Option<&OsdMap>) -> Option<PgId> {
    match question {
        Question::Pg(pg) => Some(*pg),
        Question::Operation(_) => map?.object_pg(&object_of(question, map)?),
        _ => None,
    }
}

fn object_of(question: &Question, map: Option<&OsdMap>) -> Option<ObjectId> {
    let Question::Operation(op) = question else { return None };
    let (pool, _) = map?.pool_by_name(&op.pool)?;
    ObjectId::new(pool, &op.namespace, &op.object).ok()
}

async fn ask_osds(cluster: &Cluster, question: &Question, evidence: &mut Evidence, osds: Vec<OsdId>) {
    let map = evidence.map.clone();
    let mut asked = json!({});
    if let Some(pg) = pg_of(question, map.as_deref()) {
        asked["pgid"] = pg.to_string().into();
    }
    if let Some(object) = object_of(question, map.as_deref()) {
        asked["pool"] = object.pool.0.into();
        asked["namespace"] = object.namespace.clone().into();
        asked["object"] = object.name.clone().into();
    }
    match question {
        Question::Operation(op) => asked["entity"] = op.entity.as_ref().map(ToString::to_string).into(),
        Question::Request(id) => asked["request"] = id.clone().into(),
        _ => {}
    }
    let asked = asked.to_string();
    let ask = |osd: OsdId| {
        let booting = [&evidence.leader, &evidence.mon].into_iter().flatten().find_map(|mon| mon.boot(osd));
        let known = map.as_ref().and_then(|map| map.osd(osd).map(|info| info.address.clone()));
        let address = booting.map(|(_, address, _)| address).or(known).filter(|address| !address.is_empty());
        Box::pin(ask_osd(cluster, osd, address, asked.clone())) as Boxed<'_, OsdAnswer>
    };
    let osds: Vec<OsdId> = osds.into_iter().take(ASKED_MAX).collect();
    let answers = join(osds.iter().map(|&osd| ask(osd)).collect()).await;
    evidence.osds.extend(osds.into_iter().zip(answers));
}

async fn ask_osd(cluster: &Cluster, osd: OsdId, address: Option<String>, asked: String) -> OsdAnswer {
    let Some(address) = address else { return OsdAnswer::Silent };
    match cluster.osd_admin_at(osd, &address, "explain", &asked, ANSWER_WAIT).await {
        Ok(reply) => match serde_json::from_str::<Value>(&reply.json) {
            Ok(json) => OsdAnswer::Told(OsdView(json)),
            Err(error) => OsdAnswer::Refused(format!("its answer does not read: {error}")),
        },
        Err(error) if error.code == ErrorCode::TimedOut => OsdAnswer::Silent,
        Err(error) => OsdAnswer::Refused(error.message),
    }
}

/// All of them at once; answers in the order of the questions.
pub(crate) async fn join<T>(futures: Vec<Boxed<'_, T>>) -> Vec<T> {
    struct Join<'a, T> {
        running: Vec<Option<Boxed<'a, T>>>,
        done: Vec<Option<T>>,
    }
    impl<T> Unpin for Join<'_, T> {}
    impl<T> Future for Join<'_, T> {
        type Output = Vec<T>;
        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Vec<T>> {
            let this = &mut *self;
            for (at, slot) in this.running.iter_mut().enumerate() {
                if let Some(future) = slot
                    && let Poll::Ready(value) = future.as_mut().poll(cx)
                {
                    *slot = None;
                    this.done[at] = Some(value);
                }
            }
            match this.running.iter().all(Option::is_none) {
                true => Poll::Ready(this.done.drain(..).flatten().collect()),
                false => Poll::Pending,
            }
        }
    }
    let done = futures.iter().map(|_| None).collect();
    Join { running: futures.into_iter().map(Some).collect(), done }.await
}
