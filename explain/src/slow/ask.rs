//! Asking all OSDs that are up the same.

use crate::gather::{ASKED_MAX, Boxed, join};
use nacre_client::{Cluster, ErrorCode, Result};
use nacre_types::OsdId;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long one OSD has to answer: a slow one's answer is what is looked for.
const ANSWER_WAIT: Duration = Duration::from_secs(3);

/// Who answered.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OsdsAsked {
    pub answered: Vec<OsdId>,
    /// Why not.
    pub others: Vec<(OsdId, String)>,
}

pub(crate) async fn ask_osds(
    cluster: &Cluster,
    command: &str,
    asked: &Value,
) -> Result<(BTreeMap<OsdId, Value>, OsdsAsked)> {
    let map = cluster.osdmap().await?;
    let up: Vec<(OsdId, String)> =
        map.osds().filter(|(_, info)| info.up).map(|(osd, info)| (osd, info.address.clone())).collect();
    let asked = asked.to_string();
    let (mut answers, mut who) = (BTreeMap::new(), OsdsAsked::default());
    for some in up.chunks(ASKED_MAX) {
        let ask = |(osd, address): &(OsdId, String)| {
            Box::pin(ask_osd(cluster, *osd, address.clone(), command, asked.clone())) as Boxed<'_, Answer>
        };
        let answers_of_some = join(some.iter().map(ask).collect()).await;
        for ((osd, _), answer) in some.iter().zip(answers_of_some) {
            match answer {
                Ok(json) => {
                    answers.insert(*osd, json);
                    who.answered.push(*osd);
                }
                Err(reason) => who.others.push((*osd, reason)),
            }
        }
    }
    Ok((answers, who))
}

/// JSON, or why there is none.
type Answer = std::result::Result<Value, String>;

async fn ask_osd(cluster: &Cluster, osd: OsdId, address: String, command: &str, asked: String) -> Answer {
    let reply = cluster.osd_admin_at(osd, &address, command, &asked, ANSWER_WAIT).await;
    let reply = reply.map_err(|error| match error.code {
        ErrorCode::TimedOut => "it does not answer".to_string(),
        _ => error.message,
    })?;
    serde_json::from_str(&reply.json).map_err(|error| format!("its answer does not read: {error}"))
}
