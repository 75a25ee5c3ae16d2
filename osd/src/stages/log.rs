//! The measured operations that ended last, and what their clients saw of them.

use super::{JournalClock, MemberTimes, Part, Stopwatch};
use crate::pg::ClientOp;
use nacre_types::{ClientId, EntityName, Instant, ObjectId, RequestId};
use nacre_wire::stages::ClientTimes;
use std::collections::{BTreeMap, VecDeque};

/// About 0.4 KB each. At one operation of 64 it holds the last 131,072 of a busy OSD.
pub const RECORDS_MAX: usize = 2048;

/// One measured operation.
#[derive(Debug)]
pub(super) struct Record {
    /// When it was answered.
    pub at: Instant,
    pub request: RequestId,
    pub entity: EntityName,
    pub object: ObjectId,
    pub write: bool,
    pub bytes: u64,
    /// How many operations of its client it stands for.
    pub weight: u32,
    /// From its arrival to its answer: the sum of `spent_ns`.
    pub osd_ns: u64,
    pub spent_ns: [u64; Part::ALL.len()],
    pub members: Vec<MemberTimes>,
    /// Known once the client sent something else.
    pub client: Option<ClientTimes>,
}

/// All PGs' of one OSD.
#[derive(Debug, Default)]
pub(crate) struct StageLog {
    pub journal: JournalClock,
    /// By when they were answered.
    pub(super) records: VecDeque<Record>,
    /// The number of the oldest.
    first: u64,
    /// Numbers of those whose clients have not said yet what they saw.
    untold: BTreeMap<RequestId, u64>,
}

impl StageLog {
    /// A measured operation is answered now: how long it was here, in nanoseconds.
    pub fn answered(&mut self, now: Instant, op: &ClientOp, stopwatch: &Stopwatch, bytes_read: u64) -> u64 {
        let mut stopwatch = stopwatch.clone();
        stopwatch.turn(now, Part::Commit);
        let osd_ns = stopwatch.spent_ns.iter().sum();
        if self.records.len() >= RECORDS_MAX
            && let Some(oldest) = self.records.pop_front()
        {
            self.first += 1;
            self.untold.remove(&oldest.request);
        }
        self.untold.insert(op.request, self.first + self.records.len() as u64);
        self.records.push_back(Record {
            at: now,
            request: op.request,
            entity: op.from.entity.clone(),
            object: op.object.clone(),
            write: op.write,
            bytes: if op.write { op.data.bytes.len() as u64 } else { bytes_read },
            weight: stopwatch.weight,
            osd_ns,
            spent_ns: stopwatch.spent_ns,
            members: stopwatch.members,
            client: None,
        });
        osd_ns
    }

    /// A client says what it saw of an operation that was measured.
    pub fn told(&mut self, client: ClientId, times: &ClientTimes) {
        let Some(number) = self.untold.remove(&RequestId { client, seq: times.request }) else { return };
        let record = &mut self.records[(number - self.first) as usize];
        // It cannot have been away for less than it was here; its own share is no more than the rest.
        let total_ns = times.total_ns.max(record.osd_ns);
        let queue_ns = times.queue_ns.min(total_ns - record.osd_ns);
        let retries_ns = times.retries_ns.min(total_ns - record.osd_ns - queue_ns);
        record.client = Some(ClientTimes { total_ns, queue_ns, retries_ns, ..*times });
    }

    pub fn check(&self) {
        assert!(self.records.len() <= RECORDS_MAX && self.untold.len() <= self.records.len());
    }
}

impl Record {
    /// What the client saw and the OSD did not: both ways of the network, and queues on the way.
    pub fn network_ns(&self) -> Option<u64> {
        let client = self.client.as_ref()?;
        Some(client.total_ns - self.osd_ns - client.queue_ns - client.retries_ns)
    }

    /// The image whose data it was on, if any: data objects are named `data.ID.NUMBER`.
    pub fn image(&self) -> &str {
        let rest = self.object.name.strip_prefix("data.");
        rest.and_then(|rest| rest.split_once('.')).map_or("", |(id, _)| id)
    }
}
