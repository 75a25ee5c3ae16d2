//! Operations against a simple model: a table of cases, and random requests with failures among them.

mod random;
mod table;

use super::testing::ModelStore;
use super::*;
use nacre_types::{Epoch, PoolId};
use nacre_wire::op::{ObjectOpKind, OsdOpReply};

/// One PG with a store, a version counter, and a way to run requests.
pub(crate) struct Bench {
    pub(crate) store: ModelStore,
    pub(crate) pool: Pool,
    pub(crate) pg: PgId,
    pub(crate) seq: u64,
    pub(crate) wall_ms: u64,
    pub(crate) client: u64,
}

impl Bench {
    pub(crate) fn new() -> Bench {
        let mut pool = Pool::new("rbd", 3, 2, 1, 0, Epoch(1));
        for _ in 0..1000 {
            pool.create_snap();
        }
        let pg = PgId::new(PoolId(1), 0);
        Bench { store: ModelStore::default(), pool, pg, seq: 0, wall_ms: 1000, client: 1 }
    }

    pub(crate) fn run(
        &mut self,
        object: &ObjectId,
        snaps: (u64, &[u64]),
        ops: &[ObjectOpKind],
        data: &Data,
    ) -> Executed {
        let ops: Vec<ObjectOp> = ops.iter().cloned().map(ObjectOp::from).collect();
        self.wall_ms += 1;
        let request = Request {
            pg: self.pg,
            object,
            ops: &ops,
            data,
            snap_context: SnapContext { seq: snaps.0, snaps: snaps.1 },
            client: ClientId(self.client),
            entity: &EntityName::Client("admin".into()),
            request: RequestId { client: ClientId(self.client), seq: self.seq },
            version: EVersion::new(Epoch(7), self.seq + 1),
            wall_ms: self.wall_ms,
            pool: &self.pool,
        };
        let mut reads = ReadCache::new();
        let executed = loop {
            match execute(&self.store, &request, &reads).unwrap() {
                Execution::Done(executed) => break executed,
                Execution::NeedData(wanted) => {
                    assert!(!wanted.is_empty());
                    for wanted in wanted {
                        let data = &self.store.objects[&wanted.object].data;
                        let range = wanted.offset as usize..(wanted.offset + wanted.length) as usize;
                        let bytes = Bytes::copy_from_slice(&data[range]);
                        let data = Data::checksummed(wanted.offset, bytes);
                        reads.insert(wanted, data);
                    }
                }
            }
        };
        self.commit(executed.mutation.as_ref());
        let mut cut = executed.data.cutter();
        for result in &executed.results {
            let piece = cut.next(result.offset, result.length as usize).unwrap();
            piece.verify(result.offset).unwrap();
        }
        assert!(cut.is_done());
        executed
    }

    pub(crate) fn commit(&mut self, mutation: Option<&Mutation>) {
        let Some(mutation) = mutation else { return };
        for entry in &mutation.entries {
            self.seq += 1;
            let version = entry.version.unwrap();
            assert_eq!((version.epoch, version.seq), (7, self.seq), "versions count up");
        }
        // What a replica would get.
        let body = mutation.transaction.encode_body();
        let same = Transaction::decode(&body, mutation.transaction.payload()).unwrap();
        assert_eq!(same, mutation.transaction);
        self.store.apply(&same);
    }
}

pub(crate) fn object(name: &str) -> ObjectId {
    ObjectId::new(PoolId(1), "", name).unwrap()
}

pub(crate) fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

#[test]
fn logged_answers_decode() {
    use prost::Message as _;
    let mut bench = Bench::new();
    let ops = [
        ObjectOpKind::Create(nacre_wire::op::Create { exclusive: true }),
        ObjectOpKind::Stat(nacre_wire::op::Empty {}),
    ];
    let executed = bench.run(&object("a"), (0, &[]), &ops, &Data::default());
    let mutation = executed.mutation.unwrap();
    let reply = OsdOpReply::decode(mutation.entries[0].answer.clone()).unwrap();
    assert_eq!(reply.results[1].answer, executed.results[1].answer);
}
