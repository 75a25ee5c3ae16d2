//! What administrators get of it: the records as they are, and who does how much.

use super::log::{RECORDS_MAX, Record};
use super::{Part, StageLog};
use nacre_types::{ClientId, Instant, OsdId, PoolId};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Rates are over so long, or as far back as the records reach.
const TOP_WINDOW: Duration = Duration::from_secs(10);
/// Clients and images told of, those with most operations.
const TOP_ROWS_MAX: usize = 256;

/// What is asked for.
#[derive(Default)]
struct Asked {
    pool: Option<PoolId>,
    prefix: String,
    max_age: Option<Duration>,
}

impl Asked {
    fn read(json: &str) -> Result<Asked, String> {
        let value: Value = serde_json::from_str(json).map_err(|error| error.to_string())?;
        let number = |name: &str| match value.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(number) => {
                number.as_u64().map(Some).ok_or(format!("{name} is a whole number, not {number}"))
            }
        };
        let pool = number("pool")?.map(|pool| u32::try_from(pool).map(PoolId));
        Ok(Asked {
            pool: pool.transpose().map_err(|_| "there is no such pool")?,
            prefix: value.get("prefix").and_then(Value::as_str).unwrap_or_default().into(),
            max_age: number("max_age_ms")?.map(Duration::from_millis),
        })
    }

    fn wants(&self, now: Instant, record: &Record) -> bool {
        self.pool.is_none_or(|pool| record.object.pool == pool)
            && record.object.name.starts_with(&self.prefix)
            && self.max_age.is_none_or(|age| now.since(record.at) <= age)
    }
}

impl StageLog {
    /// The records of a pool whose objects' names begin with `prefix`, not older than `max_age_ms`.
    pub fn stages_json(&self, osd: OsdId, now: Instant, asked: &str) -> Result<String, String> {
        let asked = Asked::read(asked)?;
        let wanted = self.records.iter().filter(|record| asked.wants(now, record));
        let records: Vec<Value> = wanted.map(|record| record.json(now)).collect();
        Ok(json!({"osd": osd.0, "records": records}).to_string())
    }

    /// Who does how much, by client, pool and image.
    pub fn top_json(&self, osd: OsdId, now: Instant) -> String {
        let window = self.window(now);
        let mut rows: BTreeMap<(ClientId, PoolId, &str), Row> = BTreeMap::new();
        for record in self.records.iter().filter(|record| now.since(record.at) <= window) {
            let key = (record.request.client, record.object.pool, record.image());
            rows.entry(key).or_default().add(record);
        }
        let mut rows: Vec<_> = rows.into_iter().collect();
        rows.sort_by_key(|(_, row)| std::cmp::Reverse(row.reads + row.writes));
        rows.truncate(TOP_ROWS_MAX);
        let rows: Vec<Value> =
            rows.into_iter().map(|((client, pool, image), row)| row.json(client, pool, image)).collect();
        json!({"osd": osd.0, "window_ms": window.as_millis() as u64, "rows": rows}).to_string()
    }

    fn window(&self, now: Instant) -> Duration {
        match self.records.front() {
            Some(oldest) if self.records.len() >= RECORDS_MAX => now.since(oldest.at).min(TOP_WINDOW),
            _ => TOP_WINDOW,
        }
    }
}

impl Record {
    fn json(&self, now: Instant) -> Value {
        let spent = Part::ALL.into_iter().zip(self.spent_ns).filter(|(_, ns)| *ns > 0);
        let mut stages: Map<String, Value> =
            spent.map(|(part, ns)| (part.name().to_string(), ns.into())).collect();
        let mut json = json!({
            "age_ms": now.since(self.at).as_millis() as u64,
            "request": self.request.to_string(),
            "entity": self.entity.to_string(),
            "object": self.object.name,
            "write": self.write,
            "bytes": self.bytes,
            "weight": self.weight,
            "osd_ns": self.osd_ns,
        });
        if let (Some(client), Some(network_ns)) = (&self.client, self.network_ns()) {
            let told =
                [("client_queue", client.queue_ns), ("retries", client.retries_ns), ("network", network_ns)];
            stages.extend(told.map(|(name, ns)| (name.to_string(), ns.into())));
            json["total_ns"] = client.total_ns.into();
        }
        json["stages"] = stages.into();
        if !self.members.is_empty() {
            let members = self.members.iter().map(|member| {
                json!({
                    "osd": member.osd.0,
                    "total_ns": member.total_ns,
                    "queue_ns": member.own.queue_ns,
                    "write_ns": member.own.write_ns,
                    "flush_ns": member.own.flush_ns,
                })
            });
            json["members"] = members.collect();
        }
        json
    }
}

#[derive(Default)]
struct Row {
    entity: String,
    reads: u64,
    writes: u64,
    read_bytes: u64,
    written_bytes: u64,
    /// Sums over the operations it stands for; the client's over those of which it is known.
    osd_ns: u128,
    client_ns: u128,
    told: u64,
}

impl Row {
    fn add(&mut self, record: &Record) {
        let weight = u64::from(record.weight);
        if self.entity.is_empty() {
            self.entity = record.entity.to_string();
        }
        let (ops, bytes) = match record.write {
            true => (&mut self.writes, &mut self.written_bytes),
            false => (&mut self.reads, &mut self.read_bytes),
        };
        *ops += weight;
        *bytes = bytes.saturating_add(record.bytes.saturating_mul(weight));
        self.osd_ns += u128::from(record.osd_ns) * u128::from(weight);
        if let Some(client) = &record.client {
            self.client_ns += u128::from(client.total_ns) * u128::from(weight);
            self.told += weight;
        }
    }

    fn json(&self, client: ClientId, pool: PoolId, image: &str) -> Value {
        let mean = |sum: u128, count: u64| sum.checked_div(count.into()).map(|ns| ns as u64);
        json!({
            "client": client.to_string(),
            "entity": self.entity,
            "pool": pool.0,
            "image": image,
            "reads": self.reads,
            "writes": self.writes,
            "read_bytes": self.read_bytes,
            "written_bytes": self.written_bytes,
            "osd_ns": mean(self.osd_ns, self.reads + self.writes),
            "client_ns": mean(self.client_ns, self.told),
        })
    }
}
