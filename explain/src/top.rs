//! `nacre top`: which clients do how much, to which images, and how long they wait for it.
//!
//! Rates are estimates: each measured operation stands for those of its client since the one measured before.

use crate::slow::{OsdsAsked, ask_osds, time};
use nacre_client::{Cluster, Result};
use nacre_types::{OsdId, PoolId};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

#[derive(Clone, PartialEq, Debug)]
pub struct Top {
    /// Most operations first.
    pub rows: Vec<TopRow>,
    pub asked: OsdsAsked,
}

/// One client's work on one image, or on all objects of a pool that are no image's.
#[derive(Clone, PartialEq, Debug)]
pub struct TopRow {
    pub client: String,
    pub entity: String,
    pub pool: PoolId,
    pub pool_name: String,
    /// Its id; empty for none.
    pub image: String,
    pub image_name: Option<String>,
    /// Operations and bytes a second.
    pub reads: f64,
    pub writes: f64,
    pub read_bytes: f64,
    pub written_bytes: f64,
    /// As the client saw it; where it has not told, as the OSD did.
    pub latency_ns: f64,
}

/// Who does what now, over about ten seconds.
pub async fn top(cluster: &Cluster) -> Result<Top> {
    let (answers, asked) = ask_osds(cluster, "top", &json!({})).await?;
    let mut top = Top::add_up(&answers, asked);
    let pools: BTreeMap<PoolId, String> = cluster.pools().await?.into_iter().collect();
    let mut images: BTreeMap<PoolId, BTreeMap<String, String>> = BTreeMap::new();
    for row in &mut top.rows {
        row.pool_name = pools.get(&row.pool).cloned().unwrap_or_else(|| row.pool.to_string());
        if row.image.is_empty() {
            continue;
        }
        if let Entry::Vacant(unknown) = images.entry(row.pool) {
            // Who may not read the directory sees ids.
            let names = match cluster.pool(&row.pool_name).await {
                Ok(pool) => pool.image_names().await.unwrap_or_default(),
                Err(_) => BTreeMap::new(),
            };
            unknown.insert(names);
        }
        row.image_name = images[&row.pool].get(&row.image).cloned();
    }
    Ok(top)
}

impl Top {
    /// What OSDs answered to `top`, added up.
    pub fn add_up(answers: &BTreeMap<OsdId, Value>, asked: OsdsAsked) -> Top {
        let mut rows: BTreeMap<(String, u32, String), TopRow> = BTreeMap::new();
        for answer in answers.values() {
            let seconds = answer["window_ms"].as_u64().unwrap_or(0).max(1) as f64 / 1000.0;
            for row in answer["rows"].as_array().into_iter().flatten() {
                let text = |name: &str| row[name].as_str().unwrap_or_default().to_string();
                let rate = |name: &str| row[name].as_u64().unwrap_or(0) as f64 / seconds;
                let pool = row["pool"].as_u64().and_then(|pool| u32::try_from(pool).ok()).unwrap_or(0);
                let (client, image) = (text("client"), text("image"));
                let key = (client.clone(), pool, image.clone());
                let sum = rows.entry(key).or_insert_with(|| TopRow {
                    client,
                    entity: text("entity"),
                    pool: PoolId(pool),
                    pool_name: String::new(),
                    image,
                    image_name: None,
                    reads: 0.0,
                    writes: 0.0,
                    read_bytes: 0.0,
                    written_bytes: 0.0,
                    latency_ns: 0.0,
                });
                let latency = row["client_ns"].as_u64().or(row["osd_ns"].as_u64()).unwrap_or(0) as f64;
                let (reads, writes) = (rate("reads"), rate("writes"));
                let (before, here) = (sum.reads + sum.writes, reads + writes);
                if here > 0.0 {
                    sum.latency_ns = (sum.latency_ns * before + latency * here) / (before + here);
                }
                sum.reads += reads;
                sum.writes += writes;
                sum.read_bytes += rate("read_bytes");
                sum.written_bytes += rate("written_bytes");
            }
        }
        let mut rows: Vec<TopRow> = rows.into_values().collect();
        rows.sort_by(|a, b| (b.reads + b.writes).total_cmp(&(a.reads + a.writes)));
        Top { rows, asked }
    }

    pub fn to_json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            json!({
                "client": row.client,
                "entity": row.entity,
                "pool": row.pool_name,
                "image_id": row.image,
                "image": row.image_name,
                "reads_per_sec": row.reads,
                "writes_per_sec": row.writes,
                "read_bytes_sec": row.read_bytes,
                "write_bytes_sec": row.written_bytes,
                "latency_ns": row.latency_ns.round() as u64,
            })
        });
        json!({"rows": rows.collect::<Vec<_>>(), "not_answered": self.asked.to_json()})
    }
}

fn rate(bytes: f64) -> String {
    let units = [(1e9, "GB/s"), (1e6, "MB/s"), (1e3, "kB/s")];
    match units.into_iter().find(|(size, _)| bytes >= *size) {
        Some((size, unit)) => format!("{:.1} {unit}", bytes / size),
        None => format!("{bytes:.0} B/s"),
    }
}

impl fmt::Display for Top {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = |row: &TopRow| match (&row.image_name, row.image.as_str()) {
            (_, "") => row.pool_name.clone(),
            (Some(name), _) => format!("{}/{name}", row.pool_name),
            (None, id) => format!("{}/{id}", row.pool_name),
        };
        let wide = |cells: &mut dyn Iterator<Item = usize>| cells.max().unwrap_or(0) + 2;
        let entity = wide(&mut self.rows.iter().map(|row| row.entity.len()).chain([6]));
        let client = wide(&mut self.rows.iter().map(|row| row.client.len()).chain([6]));
        let on = wide(&mut self.rows.iter().map(|row| what(row).len()).chain([10]));
        writeln!(
            f,
            "{:<entity$}{:<client$}{:<on$}{:>9}{:>9}{:>12}{:>12}{:>10}",
            "ENTITY", "CLIENT", "POOL/IMAGE", "READS/S", "WRITES/S", "READ", "WRITTEN", "LATENCY"
        )?;
        for row in &self.rows {
            writeln!(
                f,
                "{:<entity$}{:<client$}{:<on$}{:>9.1}{:>9.1}{:>12}{:>12}{:>10}",
                row.entity,
                row.client,
                what(row),
                row.reads,
                row.writes,
                rate(row.read_bytes),
                rate(row.written_bytes),
                time(row.latency_ns)
            )?;
        }
        if self.rows.is_empty() {
            writeln!(f, "No client did anything in the last ten seconds.")?;
        }
        self.asked.write_others(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_osds_tell_of_a_client_is_one_row() {
        let row = |reads: u64, client_ns: Value| {
            json!({
                "client": "5", "entity": "client.vm", "pool": 1, "image": "a1", "reads": reads, "writes": 0,
                "read_bytes": reads * 4096, "written_bytes": 0, "osd_ns": 100, "client_ns": client_ns,
            })
        };
        let answers = BTreeMap::from([
            (OsdId(0), json!({"window_ms": 10_000, "rows": [row(100, json!(1000))]})),
            (
                OsdId(1),
                json!({"window_ms": 1000, "rows": [row(30, json!(null)), {"client": "6", "writes": 1}]}),
            ),
            (OsdId(2), json!("nonsense")),
        ]);
        let others = vec![(OsdId(3), "it does not answer".to_string())];
        let mut top = Top::add_up(&answers, OsdsAsked { answered: Vec::new(), others });
        assert_eq!(top.rows.len(), 2);
        let first = &top.rows[0];
        assert_eq!((first.client.as_str(), first.reads, first.read_bytes), ("5", 40.0, 40.0 * 4096.0));
        assert_eq!(first.latency_ns, 325.0, "10 a second at 1000 ns, 30 at 100");
        top.rows[0].pool_name = "rbd".into();
        let text = top.to_string();
        assert!(text.contains("rbd/a1") && text.contains("163.8 kB/s"), "{text}");
        assert!(text.ends_with("Without osd.3: it does not answer.\n"), "{text}");
        top.rows[0].image_name = Some("disk0".into());
        assert_eq!(top.to_json()["rows"][0]["image"], "disk0");
        assert!(top.to_string().contains("rbd/disk0"));
    }
}
