//! Clients that append numbered records to shared objects, and readers that check what they see: an object's content must
//! be exactly the records acknowledged, in order, then perhaps those under way.

use nacre_maps::OsdMap;
use nacre_types::{ClientId, Instant, ObjectId, OsdId, PgId, PoolId, RequestId, Rng};
use nacre_wire::op::{Extent, ObjectOpKind, OsdOp, OsdOpReply};
use nacre_wire::{Data, ErrorCode, ObjectName, Packet};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

const RECORD: usize = 8;
const RESEND: Duration = Duration::from_millis(400);

/// What is known of each object: all writers of an object take turns through it.
#[derive(Default, Debug)]
pub struct Truth {
    /// Records that were acknowledged, and the one under way, if any.
    pub objects: BTreeMap<String, (u64, Option<u64>)>,
    pub writes: u64,
    pub reads: u64,
    pub slowest: Duration,
}

pub type Shared = Rc<RefCell<Truth>>;

struct Pending {
    request: RequestId,
    object: ObjectId,
    name: String,
    write: Option<u64>,
    /// Acknowledged records when a read began.
    at_least: u64,
    began: Instant,
    sent: Option<Instant>,
}

pub struct Client {
    id: ClientId,
    seq: u64,
    truth: Shared,
    pool: PoolId,
    objects: u64,
    pending: Option<Pending>,
    pub stop: bool,
    pub think_ms: u64,
    /// Routes by the map it has until told to try again, as real clients do; else always by the newest.
    pub lags: bool,
    /// Never writes, and sticks to its old map however long that takes.
    pub only_reads: bool,
    pub only_object: Option<u64>,
    map: Option<Arc<OsdMap>>,
    tries: u32,
    next: Instant,
}

impl Client {
    pub fn new(id: u64, pool: u32, objects: u64, truth: Shared) -> Client {
        Client {
            id: ClientId(id),
            seq: 0,
            truth,
            pool: PoolId(pool),
            objects,
            pending: None,
            stop: false,
            think_ms: 10,
            lags: false,
            only_reads: false,
            only_object: None,
            map: None,
            tries: 0,
            next: Instant::ZERO,
        }
    }

    pub fn is_idle(&self) -> bool {
        self.pending.is_none()
    }

    pub fn waiting_for(&self) -> Option<String> {
        self.pending
            .as_ref()
            .map(|p| format!("{} {} write {:?} since {}", p.request, p.name, p.write, p.began))
    }

    pub fn turn(
        &mut self,
        now: Instant,
        newest: &Arc<OsdMap>,
        rng: &mut Rng,
    ) -> (Vec<(OsdId, Packet)>, Option<Instant>) {
        if self.pending.is_none() {
            if self.stop {
                return (Vec::new(), None);
            }
            if now < self.next {
                return (Vec::new(), Some(self.next));
            }
            self.begin(now, rng);
        }
        let Some(pending) = self.pending.as_mut() else { return (Vec::new(), Some(now + RESEND)) };
        if pending.sent.is_some_and(|sent| now < sent + RESEND) {
            return (Vec::new(), Some(now + RESEND));
        }
        pending.sent = Some(now);
        self.tries += 1;
        if !self.lags || self.map.is_none() || (self.tries > 3 && !self.only_reads) {
            self.map = Some(newest.clone());
        }
        let map = self.map.clone().expect("just set");
        let pg = map.object_pg(&pending.object);
        let target = pg.and_then(|pg| map.pg(pg)).and_then(|place| place.primary());
        let Some((pg, to)) = pg.zip(target) else { return (Vec::new(), Some(now + RESEND)) };
        let packet = self.packet(&map, pg);
        (vec![(to, packet)], Some(now + RESEND))
    }

    fn begin(&mut self, now: Instant, rng: &mut Rng) {
        let drawn = rng.below(self.objects);
        let name = format!("object-{}", self.only_object.unwrap_or(drawn));
        let mut truth = self.truth.borrow_mut();
        let (acked, busy) = truth.objects.entry(name.clone()).or_default();
        let at_least = *acked;
        let write = if busy.is_none() && !self.only_reads && rng.chance(2, 3) {
            *busy = Some(*acked);
            Some(*acked)
        } else {
            None
        };
        self.seq += 1;
        self.pending = Some(Pending {
            request: RequestId { client: self.id, seq: self.seq },
            object: ObjectId::new(self.pool, "", &name).expect("a name"),
            name,
            write,
            at_least,
            began: now,
            sent: None,
        });
    }

    fn packet(&self, map: &OsdMap, pg: PgId) -> Packet {
        let pending = self.pending.as_ref().expect("there is one");
        let (op, data) = match pending.write {
            Some(record) => {
                let data = Data::checksummed(0, record.to_be_bytes().to_vec().into());
                (ObjectOpKind::Append(Extent { offset: 0, length: RECORD as u64 }), data)
            }
            None => (ObjectOpKind::Read(Extent { offset: 0, length: 1 << 20 }), Data::default()),
        };
        let message = OsdOp {
            object: Some(ObjectName::from(&pending.object)),
            ops: vec![op.into()],
            ..OsdOp::default()
        };
        Packet::new(map.epoch(), message).on(pg).request(pending.request).with(data)
    }

    pub fn on_reply(
        &mut self,
        now: Instant,
        _map: &OsdMap,
        request: RequestId,
        reply: &OsdOpReply,
        data: &Data,
    ) {
        let Some(pending) = self.pending.as_mut().filter(|pending| pending.request == request) else {
            return;
        };
        let code = ErrorCode::from_raw(reply.code);
        if code == ErrorCode::TryAgain {
            self.map = None;
            // Soon again, by a newer map.
            pending.sent = Some(Instant(now.0.saturating_sub(RESEND.as_nanos() as u64 * 3 / 4)));
            return;
        }
        let mut truth = self.truth.borrow_mut();
        truth.slowest = truth.slowest.max(now.since(pending.began));
        let (acked, busy) = truth.objects.get_mut(&pending.name).expect("known");
        match pending.write {
            Some(record) => {
                assert_eq!(code, ErrorCode::Ok, "append to {}: {}", pending.name, reply.message);
                assert_eq!((*acked, *busy), (record, Some(record)));
                (*acked, *busy) = (record + 1, None);
                truth.writes += 1;
            }
            None => {
                let records: Vec<u64> = if code == ErrorCode::NotFound {
                    Vec::new()
                } else {
                    assert_eq!(code, ErrorCode::Ok, "read of {}: {}", pending.name, reply.message);
                    let record = |raw: &[u8]| u64::from_be_bytes(raw.try_into().expect("whole records"));
                    data.bytes.chunks(RECORD).map(record).collect()
                };
                let most = *acked + u64::from(busy.is_some());
                let count = records.len() as u64;
                assert!(records.iter().copied().eq(0..count), "{} holds {records:?}", pending.name);
                assert!(
                    (pending.at_least..=most).contains(&count),
                    "{} ({}): read {count} records, {} were acknowledged before, at most {most} exist",
                    pending.name,
                    request,
                    pending.at_least
                );
                truth.reads += 1;
            }
        }
        drop(truth);
        self.tries = 0;
        self.pending = None;
        self.next = now + Duration::from_millis(self.think_ms);
    }
}
