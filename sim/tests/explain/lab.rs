//! A small cluster in which one thing breaks, and someone who asks why.

use bytes::Bytes;
use nacre_client::{ClientEvent, Cluster};
use nacre_explain::{Cause, Explanation, Operation, Question, explain};
use nacre_sim::Options;
use nacre_sim::cluster::SimCluster;
use nacre_sim::network::NodeId;
use nacre_sim::nodes::OsdNode;
use nacre_sim::options::Faults;
use nacre_sim::run::{POOL, start};
use nacre_sim::trace::Trace;
use nacre_types::{Instant, OsdId, PgId, PoolId};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

pub const PG: PgId = PgId::new(PoolId(1), 0);
/// The bound the answer has to keep, in simulated time.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

pub struct Lab {
    pub cluster: SimCluster,
    /// The PG's acting set at the start, primary first.
    pub members: Vec<usize>,
}

/// What a lab starts with.
#[derive(Clone, Copy)]
pub struct Plan {
    pub mons: usize,
    pub osds: usize,
    pub size: u32,
    pub min_size: u32,
    pub log_entries: usize,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan { mons: 3, osds: 3, size: 3, min_size: 2, log_entries: 1000 }
    }
}

impl Lab {
    pub fn new() -> Lab {
        Lab::with(Plan::default())
    }

    pub fn with(plan: Plan) -> Lab {
        let mut options = Options {
            mons: plan.mons,
            osds: plan.osds,
            size: plan.size,
            min_size: plan.min_size,
            log_entries: plan.log_entries,
            clients: 2,
            pg_num: 1,
            unit: 8,
            ..Options::draw(1)
        };
        options.faults = Faults::default();
        options.conditions = options.calm();
        let mut cluster = SimCluster::new(options, Trace::new(false));
        start(&mut cluster).expect("a healthy cluster starts");
        let map = cluster.newest_map().expect("a map");
        let members = map.pg(PG).expect("the PG").acting.iter().map(|osd| osd.0 as usize).collect();
        let mut lab = Lab { cluster, members };
        // Leaders have heard everybody, clients have their maps.
        lab.run(8);
        lab
    }

    pub fn osd(&self, member: usize) -> String {
        format!("osd.{}", self.members[member])
    }

    pub fn id(&self, member: usize) -> OsdId {
        OsdId(self.members[member] as u32)
    }

    /// Lets time pass; unlike a run of the nemesis it restarts nothing.
    pub fn run(&mut self, seconds: u64) {
        self.run_ms(seconds * 1000);
    }

    pub fn run_ms(&mut self, ms: u64) {
        let until = self.cluster.world.now + Duration::from_millis(ms);
        self.cluster.world.run_until(until);
        assert_eq!(self.cluster.world.failure, None);
    }

    /// The process dies, its host answers.
    pub fn kill(&mut self, member: usize) {
        let at = self.members[member];
        self.cluster.crash_osd(at, false);
    }

    /// The host loses power.
    pub fn power_off(&mut self, member: usize) {
        let at = self.members[member];
        self.cluster.crash_osd(at, true);
    }

    /// Its disk is empty at the next start.
    pub fn wipe(&mut self, member: usize) {
        let at = self.members[member];
        self.cluster.wipe_osd(at);
    }

    pub fn start(&mut self, member: usize) {
        let at = self.members[member];
        self.cluster.start_osd(at);
    }

    pub fn with_osd(&mut self, member: usize, act: impl FnOnce(&mut OsdNode)) {
        let node = NodeId::Osd(self.members[member]);
        self.cluster.world.with_node(node, |node, _, _, _| act(node.osd().expect("an OSD")));
    }

    pub fn stop(&mut self, member: usize) {
        let node = NodeId::Osd(self.members[member]);
        self.cluster.world.with_node(node, |node, now, _, out| {
            node.osd().expect("an OSD").stop(now, out);
        });
    }

    pub fn pause(&mut self, member: usize, seconds: u64) {
        let node = NodeId::Osd(self.members[member]);
        self.cluster.world.pause(node, Duration::from_secs(seconds));
    }

    pub fn node(&self, member: usize) -> NodeId {
        NodeId::Osd(self.members[member])
    }

    pub fn cut_one_way(&mut self, from: NodeId, to: NodeId) {
        let now = self.cluster.world.now;
        self.cluster.world.network.cut(now, from, to);
        self.cluster.world.take_network_events();
    }

    pub fn cut(&mut self, a: NodeId, b: NodeId) {
        self.cut_one_way(a, b);
        self.cut_one_way(b, a);
    }

    pub fn cut_from_monitors(&mut self, node: NodeId) {
        for at in 0..self.cluster.world.options.mons {
            self.cut(node, NodeId::Mon(at));
        }
    }

    pub fn isolate(&mut self, node: NodeId) {
        let others: Vec<NodeId> =
            self.cluster.world.nodes.keys().copied().filter(|other| *other != node).collect();
        for other in others {
            self.cut(node, other);
        }
    }

    pub fn tell_client(&mut self, client: usize, event: ClientEvent) {
        self.cluster.world.with_node(NodeId::Client(client), |node, now, _, out| {
            node.client().expect("a client").turn(now, event, out);
        });
    }

    /// A monitor command that must succeed.
    pub fn command(&mut self, command: Value) -> Value {
        let done: Rc<RefCell<Option<Result<String, String>>>> = Rc::default();
        let (result, text) = (done.clone(), command.to_string());
        self.cluster.as_admin(move |handle| async move {
            let answer = handle.command(text, Bytes::new()).await;
            *result.borrow_mut() = Some(answer.map(|reply| reply.json).map_err(|error| error.to_string()));
        });
        self.until(60, || done.borrow().is_some());
        let answer = done.borrow_mut().take().expect("answered");
        let json = answer.unwrap_or_else(|error| panic!("{command}: {error}"));
        serde_json::from_str(&json).unwrap_or(Value::Null)
    }

    /// An order for the PG's primary.
    pub fn pg_command(&mut self, command: &'static str) {
        self.cluster.as_admin(move |handle| async move {
            let _ = handle.pg_admin(PG, command, "{}").await;
        });
        self.run(1);
    }

    fn until(&mut self, seconds: u64, done: impl Fn() -> bool) {
        for _ in 0..seconds * 20 {
            if done() {
                return;
            }
            self.run_ms(50);
        }
        panic!("nothing came of it in {seconds} s: {:?}", self.cluster.waiting());
    }

    /// A client begins to write and waits for as long as it takes.
    pub fn begin_write(&mut self, client: usize, object: &'static str, bytes: usize) {
        self.cluster.as_client(NodeId::Client(client), move |handle| async move {
            if let Ok(pool) = handle.pool(POOL).await {
                let pool = pool.with_timeout(None);
                let _ = pool.object(object).write_full(vec![7; bytes]).await;
            }
        });
    }

    pub fn begin_read(&mut self, client: usize, object: &'static str) {
        self.cluster.as_client(NodeId::Client(client), move |handle| async move {
            if let Ok(pool) = handle.pool(POOL).await {
                let _ = pool.with_timeout(None).object(object).read(0, 100).await;
            }
        });
    }

    /// A client begins to write "x", and waits for so long already.
    pub fn write_stuck(&mut self, seconds: u64) {
        self.begin_write(0, "x", 100);
        self.run(seconds);
    }

    /// Writes that must succeed.
    pub fn write(&mut self, objects: usize, bytes: usize) {
        let done: Rc<RefCell<usize>> = Rc::default();
        for at in 0..objects {
            let done = done.clone();
            self.cluster.as_client(NodeId::Client(0), move |handle| async move {
                let pool = handle.pool(POOL).await.expect("the pool").with_timeout(None);
                pool.object(format!("o{at}")).write_full(vec![1; bytes]).await.expect("written");
                *done.borrow_mut() += 1;
            });
        }
        self.until(120, || *done.borrow() == objects);
    }

    pub fn as_client<F: Future<Output = ()> + 'static>(
        &mut self,
        client: usize,
        work: impl FnOnce(Cluster) -> F,
    ) {
        self.cluster.as_client(NodeId::Client(client), work);
    }

    pub fn client_id(&mut self, client: usize) -> nacre_types::ClientId {
        let node = NodeId::Client(client);
        let slot = self.cluster.world.nodes.get_mut(&node).expect("a client");
        slot.node.client().expect("a client").cluster.client_id()
    }

    /// The administrator asks.
    pub fn ask(&mut self, question: Question) -> Explanation {
        let admin = self.cluster.admin();
        self.ask_as(admin, question)
    }

    /// The administrator asks and is told this: see `expect`.
    #[track_caller]
    pub fn expect(&mut self, question: Question, cause: Cause, leaf: &str, step: &str) -> Explanation {
        let answer = self.ask(question);
        expect(&answer, cause, leaf, step);
        answer
    }

    /// The client that is stuck asks and is told this.
    #[track_caller]
    pub fn expect_from(&mut self, client: usize, question: Question, cause: Cause, leaf: &str, step: &str) {
        expect(&self.ask_from(client, question), cause, leaf, step);
    }

    fn ask_from(&mut self, client: usize, question: Question) -> Explanation {
        self.ask_as(NodeId::Client(client), question)
    }

    fn ask_as(&mut self, node: NodeId, question: Question) -> Explanation {
        let done: Rc<RefCell<Option<(Explanation, Instant)>>> = Rc::default();
        let (result, asked) = (done.clone(), self.cluster.world.now);
        self.cluster.as_client(node, move |handle| async move {
            let answer = explain(&handle, &question).await;
            *result.borrow_mut() = Some((answer, handle.now()));
        });
        self.until(20, || done.borrow().is_some());
        let (answer, at) = done.borrow_mut().take().expect("answered");
        assert!(at.since(asked) <= ANSWER_WITHIN, "the answer took {:?}: {answer}", at.since(asked));
        answer
    }
}

pub fn op(object: &str) -> Question {
    Question::Operation(Operation { pool: POOL.into(), object: object.into(), ..Operation::default() })
}

/// What the answer has to be: the cause, whom its last line is about or what it says, and a word of a next step.
#[track_caller]
fn expect(answer: &Explanation, cause: Cause, leaf: &str, step: &str) {
    let last = answer.leaf().unwrap_or_else(|| panic!("no chain: {answer:?}"));
    let named = last.on.contains(leaf) || last.says.contains(leaf);
    let told = |s: &nacre_explain::Step| {
        s.text.contains(step) || s.command.as_deref().is_some_and(|command| command.contains(step))
    };
    let stepped = step.is_empty() || answer.steps.iter().any(told);
    assert!(
        answer.cause == cause && named && stepped,
        "wanted {} with '{leaf}' and a step with '{step}', got {}:\n{answer}",
        cause.code(),
        answer.cause.code()
    );
    // What may cost data says so; what is offered otherwise is none of that.
    for step in &answer.steps {
        let command = step.command.as_deref().unwrap_or_default();
        let costs = ["osd lost", "mark-unfound-lost", "force-create", "osd rm", "min_size", "blocklist rm"];
        assert!(
            step.loses.is_some() || !costs.iter().any(|word| command.contains(word)),
            "{command} says nothing of data"
        );
    }
}

pub fn set_flag(lab: &mut Lab, flag: &str) {
    lab.command(json!({"prefix": "osd set", "key": flag}));
    lab.run(1);
}
