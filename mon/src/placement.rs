//! OSDs in the CRUSH map: where a booting one goes, and what lies above one.

use crate::draft::Draft;
use nacre_crush::{CrushMap, EditError, Location};
use nacre_types::OsdId;
use nacre_wire::messages::OsdBoot;

/// Bytes a weight of 1.0 stands for.
const WEIGHT_UNIT_BYTES: f64 = (1_u64 << 40) as f64;
/// No OSD weighs nothing: it would never get data.
const WEIGHT_MIN: f64 = 0.0001;

/// Changes the draft's CRUSH map, as it will be.
pub(crate) fn edit<T>(
    draft: &mut Draft<'_>,
    change: impl FnOnce(&mut CrushMap) -> Result<T, EditError>,
) -> Result<T, EditError> {
    let mut crush = draft.crush().clone();
    let result = change(&mut crush)?;
    if crush != *draft.crush() {
        draft.step.crush = Some(crush);
    }
    Ok(result)
}

/// Puts a booting OSD where it says it is. One that is in the map and on its host stays where it is.
pub(crate) fn boot(draft: &mut Draft<'_>, boot: &OsdBoot) -> Result<(), EditError> {
    let mut location: Location = boot.location.clone();
    if location.is_empty() {
        location.insert("host".into(), boot.host.clone());
        location.insert("root".into(), "default".into());
    }
    let weight = (boot.capacity_bytes as f64 / WEIGHT_UNIT_BYTES).max(WEIGHT_MIN);
    let class = Some(boot.device_class.as_str()).filter(|class| !class.is_empty());
    edit(draft, |crush| crush.add_osd(boot.osd, weight, class, &location)).map(|_| ())
}

/// The bucket that holds an item.
pub(crate) fn parent(crush: &CrushMap, id: i32) -> Option<&nacre_crush::Bucket> {
    crush.buckets().find(|bucket| bucket.items.iter().any(|item| item.id == id))
}

/// All OSDs below a bucket.
pub(crate) fn osds_below(crush: &CrushMap, id: i32) -> Vec<OsdId> {
    let mut found = Vec::new();
    let mut todo = vec![id];
    while let Some(id) = todo.pop() {
        match u32::try_from(id) {
            Ok(osd) => found.push(OsdId(osd)),
            Err(_) => {
                todo.extend(crush.bucket(id).into_iter().flat_map(|b| b.items.iter().map(|item| item.id)))
            }
        }
    }
    found
}

/// Whether everything in the smallest subtree of `limit` type or larger around an OSD is down: then the cause is not
/// one OSD, and copying it all elsewhere would not help.
pub(crate) fn subtree_is_down(draft: &Draft<'_>, osd: OsdId, limit: &str) -> bool {
    let crush = draft.crush();
    let Some(limit) = crush.type_id(limit) else { return false };
    let mut at = osd.0 as i32;
    while let Some(bucket) = parent(crush, at) {
        if bucket.type_id >= limit {
            let below = osds_below(crush, bucket.id);
            return !below.iter().any(|&id| draft.osd(id).is_some_and(|info| info.up));
        }
        at = bucket.id;
    }
    false
}

/// Names of the buckets above an OSD by type, as `osd find` shows them.
pub(crate) fn location(crush: &CrushMap, osd: OsdId) -> Location {
    let mut location = Location::new();
    let mut at = osd.0 as i32;
    while let Some(bucket) = parent(crush, at) {
        if let Some(type_name) = crush.type_name(bucket.type_id) {
            location.insert(type_name.into(), bucket.name.clone());
        }
        at = bucket.id;
    }
    location
}

/// An OSD's CRUSH weight, in TiB.
pub(crate) fn weight(crush: &CrushMap, osd: OsdId) -> f64 {
    let id = osd.0 as i32;
    let item = parent(crush, id).and_then(|bucket| bucket.items.iter().find(|item| item.id == id));
    item.map_or(0.0, |item| f64::from(item.weight) / 65_536.0)
}
