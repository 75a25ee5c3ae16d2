//! Edits the monitors make: OSDs come, move and go, buckets move, rules are made.
//!
//! Every edit works on a copy that replaces the map only if it passes [`CrushMap::check`]: an error leaves the map as
//! it was. Weights of buckets follow from what they hold, all the way up; shadows of device classes are kept
//! complete, and those that stay keep their ids, so that no edit moves data it does not have to.

use std::collections::{BTreeMap, BTreeSet};

use crate::check::{CheckError, is_name};
use crate::map::{
    Alg, BUCKET_ID_MIN, Bucket, CrushMap, DEPTH_MAX, Device, Item, Mode, RULES_MAX, Rule, RuleKind, Step,
    WEIGHT_MAX,
};

#[cfg(test)]
mod tests;

/// Where an item belongs: type name -> bucket name, for example `host -> node3, rack -> r1, root -> default`.
pub type Location = BTreeMap<String, String>;

/// The types of a new map, from type 0 up: those of Ceph.
const TYPES: [&str; 12] =
    ["osd", "host", "chassis", "rack", "row", "pdu", "pod", "room", "datacenter", "zone", "region", "root"];
const ROOT_TYPE: u32 = 11;

/// Why an edit was refused. The map is unchanged.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EditError {
    #[error("there is no item '{name}': look it up in 'osd tree'")]
    NoItem { name: String },
    #[error("there is no device osd.{osd}: add it first")]
    NoDevice { osd: u32 },
    #[error("there is no rule '{name}': look it up in 'osd crush rule ls'")]
    NoRule { name: String },
    #[error("there is no type '{name}': use one of {known}")]
    NoType { name: String, known: String },
    #[error("no device under '{root}' has class '{class}': set the class of some first, or leave it out")]
    NoClass { root: String, class: String },
    #[error("'{name}' exists already: choose another name or remove it first")]
    Exists { name: String },
    #[error("'{name}' is no bucket: name one")]
    NotBucket { name: String },
    #[error("'{name}' is a bucket and weighs what it holds: reweight its devices")]
    NotDevice { name: String },
    #[error("bucket '{name}' still holds {items} items: move or remove them first")]
    NotEmpty { name: String, items: usize },
    #[error("rule '{rule}' takes '{name}': remove the rule first")]
    InUse { name: String, rule: String },
    #[error("the location of '{name}' names no bucket above it: give at least one, such as root=default")]
    NoLocation { name: String },
    #[error("the location says {type_name} '{bucket}', but that is a {found}: correct the location")]
    WrongType { type_name: String, bucket: String, found: String },
    #[error("'{bucket}' lies inside '{name}': move it out first")]
    Inside { name: String, bucket: String },
    #[error("weight {weight} of '{name}' is not between 0 and 32767: weights are meant as TiB")]
    BadWeight { name: String, weight: String },
    #[error("no {what} id is free: remove some first")]
    NoIdFree { what: &'static str },
    #[error(transparent)]
    Check(#[from] CheckError),
}

type Outcome<T> = Result<T, EditError>;

impl CrushMap {
    /// The map of a new cluster: Ceph's types, an empty root `default`, rule 0 `replicated_rule` that puts replicas
    /// on different hosts, jewel tunables.
    pub fn initial() -> CrushMap {
        let mut map = CrushMap::default();
        map.types = (0..).zip(TYPES).map(|(id, name)| (id, name.into())).collect();
        map.buckets.insert(-1, new_bucket(-1, "default", ROOT_TYPE));
        map.rules.insert(0, replicated_rule(0, "replicated_rule", -1, 1, None));
        assert_eq!(map.check(), Ok(()), "the initial map is sound");
        map
    }

    /// Makes sure that the OSD is in the map and at `location`; missing buckets are made. What is so already stays:
    /// an OSD that is elsewhere moves with the weight it has, and `weight` (TiB) counts only if it is in no bucket
    /// yet, `class` only if it has none. Returns whether anything changed.
    ///
    /// The lowest bucket of the location decides: if it exists, the levels above it are not compared.
    pub fn add_osd(
        &mut self,
        osd: u32,
        weight: f64,
        class: Option<&str>,
        location: &Location,
    ) -> Outcome<bool> {
        let before = self.clone();
        self.edit(|map| {
            let id = i32::try_from(osd).map_err(|_| EditError::NoDevice { osd })?;
            let name = format!("osd.{osd}");
            let given = fixed(&name, weight)?;
            if !map.devices.contains_key(&osd) {
                map.name_is_free(&name)?;
            }
            let device = map.devices.entry(osd).or_insert(Device { name, class: None });
            if device.class.is_none() {
                device.class = class.map(String::from);
            }
            map.place(id, given, location)
        })?;
        Ok(*self != before)
    }

    /// Makes an empty bucket; without a location it is a root of its own.
    pub fn add_bucket(&mut self, name: &str, type_name: &str, location: &Location) -> Outcome<()> {
        self.edit(|map| {
            let type_id = map.known_type(type_name)?;
            map.name_is_free(name)?;
            let id = map.free_bucket_id()?;
            map.buckets.insert(id, new_bucket(id, name, type_id));
            if location.is_empty() { Ok(()) } else { map.place(id, 0, location) }
        })
    }

    /// Takes a device or an empty bucket out of the map.
    pub fn remove_item(&mut self, name: &str) -> Outcome<()> {
        self.edit(|map| {
            let id = map.known_item(name)?;
            if let Some(bucket) = map.buckets.get(&id).filter(|bucket| !bucket.items.is_empty()) {
                return Err(EditError::NotEmpty { name: name.into(), items: bucket.items.len() });
            }
            let takes = |step: &Step| matches!(step, Step::Take { item, .. } if *item == id);
            if let Some(rule) = map.rules.values().find(|rule| rule.steps.iter().any(takes)) {
                return Err(EditError::InUse { name: name.into(), rule: rule.name.clone() });
            }
            map.unlink(id);
            match u32::try_from(id) {
                Ok(osd) => drop(map.devices.remove(&osd)),
                Err(_) => drop(map.buckets.remove(&id)),
            }
            Ok(())
        })
    }

    /// Gives a device its weight (TiB) wherever it is, and the buckets above it theirs.
    pub fn reweight_item(&mut self, name: &str, weight: f64) -> Outcome<()> {
        self.edit(|map| {
            let id = map.known_item(name)?;
            if id < 0 {
                return Err(EditError::NotDevice { name: name.into() });
            }
            let weight = fixed(name, weight)?;
            let mut changed = BTreeSet::new();
            for bucket in map.buckets.values_mut() {
                for item in bucket.items.iter_mut().filter(|item| item.id == id && item.weight != weight) {
                    item.weight = weight;
                    changed.insert(bucket.id);
                }
            }
            map.weigh_above(changed);
            Ok(())
        })
    }

    /// Moves a bucket with all it holds; missing buckets of the location are made.
    pub fn move_bucket(&mut self, name: &str, location: &Location) -> Outcome<()> {
        self.edit(|map| {
            let id = map.known_item(name)?;
            if id >= 0 {
                return Err(EditError::NotBucket { name: name.into() });
            }
            map.place(id, 0, location)
        })
    }

    /// Makes a rule that puts replicas under `root` into different buckets of the type (different OSDs for type
    /// `osd`), on devices of `class` if one is given. Returns its id.
    pub fn create_replicated_rule(
        &mut self,
        name: &str,
        root: &str,
        failure_domain_type: &str,
        class: Option<&str>,
    ) -> Outcome<u32> {
        self.edit(|map| {
            if map.rule_by_name(name).is_some() {
                return Err(EditError::Exists { name: name.into() });
            }
            let item = map.known_item(root)?;
            if item >= 0 {
                return Err(EditError::NotBucket { name: root.into() });
            }
            let type_id = map.known_type(failure_domain_type)?;
            if let Some(class) = class
                && !map.holds_class(item, class, &mut BTreeSet::new())
            {
                return Err(EditError::NoClass { root: root.into(), class: class.into() });
            }
            let id = (0..RULES_MAX as u32).find(|id| !map.rules.contains_key(id));
            let id = id.ok_or(EditError::NoIdFree { what: "rule" })?;
            map.rules.insert(id, replicated_rule(id, name, item, type_id, class));
            Ok(id)
        })
    }

    /// Removes a rule. Whether a pool uses it is for the caller to know.
    pub fn remove_rule(&mut self, name: &str) -> Outcome<()> {
        self.edit(|map| {
            let id = map.rule_by_name(name).map(|rule| rule.id);
            let id = id.ok_or_else(|| EditError::NoRule { name: name.into() })?;
            map.rules.remove(&id);
            Ok(())
        })
    }

    /// Gives a device a class, another class, or none.
    pub fn set_device_class(&mut self, osd: u32, class: Option<&str>) -> Outcome<()> {
        self.edit(|map| {
            let device = map.devices.get_mut(&osd).ok_or(EditError::NoDevice { osd })?;
            device.class = class.map(String::from);
            Ok(())
        })
    }

    /// Runs `change` on a copy, completes its shadows, and takes it over if it is sound.
    fn edit<T>(&mut self, change: impl FnOnce(&mut CrushMap) -> Outcome<T>) -> Outcome<T> {
        let mut copy = self.clone();
        let result = change(&mut copy)?;
        // Shadows are made of a sound map, and are part of one.
        copy.check()?;
        let classes = copy.classes();
        copy.assign_shadows(&classes)?;
        copy.check()?;
        *self = copy;
        Ok(result)
    }

    fn known_item(&self, name: &str) -> Outcome<i32> {
        self.item_id(name).ok_or_else(|| EditError::NoItem { name: name.into() })
    }

    fn known_type(&self, name: &str) -> Outcome<u32> {
        self.type_id(name).ok_or_else(|| {
            let known: Vec<&str> = self.types().map(|(_, known)| known).collect();
            EditError::NoType { name: name.into(), known: known.join(", ") }
        })
    }

    fn name_is_free(&self, name: &str) -> Outcome<()> {
        if !is_name(name) {
            return Err(CheckError::BadName { name: name.chars().take(80).collect() }.into());
        }
        if self.item_id(name).is_some() { Err(EditError::Exists { name: name.into() }) } else { Ok(()) }
    }

    fn free_bucket_id(&self) -> Outcome<i32> {
        let used = self.used_bucket_ids();
        let free = (BUCKET_ID_MIN..=-1).rev().find(|id| !used.contains(id));
        free.ok_or(EditError::NoIdFree { what: "bucket" })
    }

    /// Puts an item where `location` says and takes it out of where else it is. A device keeps the weight it has
    /// somewhere, or gets `new_weight`; a bucket weighs what it holds.
    fn place(&mut self, id: i32, new_weight: u32, location: &Location) -> Outcome<()> {
        let name = self.item_name(id).unwrap_or_default().to_string();
        let levels = self.levels(id, location)?;
        let Some((_, lowest)) = levels.first() else { return Err(EditError::NoLocation { name }) };
        let parents: Vec<&Bucket> = self.parents(id).collect();
        if let [parent] = parents[..]
            && parent.name == *lowest
        {
            return Ok(());
        }
        let held = parents.first().and_then(|parent| parent.items.iter().find(|item| item.id == id));
        let mut weight = match self.buckets.get(&id) {
            Some(bucket) => bucket.weight(),
            None => held.map_or(new_weight, |item| item.weight),
        };
        self.unlink(id);
        let mut child = id;
        for (type_id, bucket) in levels {
            if let Some(parent) = self.item_id(&bucket) {
                if self.is_inside(parent, id) {
                    return Err(EditError::Inside { name, bucket });
                }
                self.link(parent, child, weight);
                return Ok(());
            }
            self.name_is_free(&bucket)?;
            let parent = self.free_bucket_id()?;
            self.buckets.insert(parent, new_bucket(parent, &bucket, type_id));
            self.link(parent, child, weight);
            weight = self.buckets[&parent].weight();
            child = parent;
        }
        // All of them are new: the highest is a root.
        Ok(())
    }

    /// The buckets of a location above item `id`, lowest first, each either unknown or of its type.
    fn levels(&self, id: i32, location: &Location) -> Outcome<Vec<(u32, String)>> {
        let own = self.item_type(id).unwrap_or(0);
        let mut levels = Vec::new();
        for (type_name, bucket) in location {
            let type_id = self.known_type(type_name)?;
            let found = self.item_id(bucket).and_then(|found| self.item_type(found));
            if let Some(found) = found.filter(|&found| found != type_id || found == 0) {
                let found = self.type_name(found).unwrap_or("device").into();
                return Err(EditError::WrongType {
                    type_name: type_name.clone(),
                    bucket: bucket.clone(),
                    found,
                });
            }
            // What lies at or below the item's own level says nothing about where it is.
            if type_id > own {
                levels.push((type_id, bucket.clone()));
            }
        }
        levels.sort();
        Ok(levels)
    }

    fn parents(&self, id: i32) -> impl Iterator<Item = &Bucket> {
        self.buckets.values().filter(move |bucket| bucket.items.iter().any(|item| item.id == id))
    }

    /// Whether `id` is `outer` or somewhere below it.
    fn is_inside(&self, id: i32, outer: i32) -> bool {
        let mut above = BTreeSet::from([id]);
        let mut fresh = vec![id];
        while let Some(next) = fresh.pop() {
            if next == outer {
                return true;
            }
            fresh.extend(self.parents(next).map(|parent| parent.id).filter(|&parent| above.insert(parent)));
        }
        false
    }

    fn holds_class(&self, id: i32, class: &str, seen: &mut BTreeSet<i32>) -> bool {
        if let Ok(osd) = u32::try_from(id) {
            return self.devices.get(&osd).is_some_and(|device| device.class.as_deref() == Some(class));
        }
        let Some(bucket) = self.buckets.get(&id).filter(|_| seen.insert(id)) else { return false };
        bucket.items.iter().any(|item| self.holds_class(item.id, class, seen))
    }

    fn link(&mut self, parent: i32, id: i32, weight: u32) {
        if let Some(bucket) = self.buckets.get_mut(&parent) {
            bucket.items.push(Item { id, weight });
            self.weigh_above(BTreeSet::from([parent]));
        }
    }

    /// Takes an item out of every bucket that holds it.
    fn unlink(&mut self, id: i32) {
        let mut changed = BTreeSet::new();
        for bucket in self.buckets.values_mut() {
            let len = bucket.items.len();
            bucket.items.retain(|item| item.id != id);
            if bucket.items.len() != len {
                changed.insert(bucket.id);
            }
        }
        self.weigh_above(changed);
    }

    /// Gives the buckets whose items changed their new weight in the buckets above them, level by level.
    fn weigh_above(&mut self, mut changed: BTreeSet<i32>) {
        // No way up is longer; what a cycle would do here ends, and `check` names it.
        for _ in 0..=DEPTH_MAX {
            if changed.is_empty() {
                break;
            }
            let weights: BTreeMap<i32, u32> = changed
                .iter()
                .filter_map(|id| self.buckets.get(id))
                .map(|bucket| (bucket.id, bucket.weight()))
                .collect();
            changed.clear();
            for bucket in self.buckets.values_mut() {
                for item in bucket.items.iter_mut().filter(|item| item.id < 0) {
                    if let Some(&weight) = weights.get(&item.id).filter(|&&weight| weight != item.weight) {
                        item.weight = weight;
                        changed.insert(bucket.id);
                    }
                }
            }
        }
    }
}

fn new_bucket(id: i32, name: &str, type_id: u32) -> Bucket {
    Bucket { id, name: name.into(), type_id, alg: Alg::Straw2, items: Vec::new(), shadows: BTreeMap::new() }
}

fn replicated_rule(id: u32, name: &str, root: i32, type_id: u32, class: Option<&str>) -> Rule {
    let take = Step::Take { item: root, class: class.map(String::from) };
    let choose = Step::Choose { mode: Mode::Firstn, leaf: type_id > 0, num: 0, type_id };
    let (kind, steps) = (RuleKind::Replicated, vec![take, choose, Step::Emit]);
    Rule { id, name: name.into(), kind, min_size: 1, max_size: 10, steps }
}

/// A weight in TiB as 16.16 fixed point, cut off as Ceph cuts it off.
fn fixed(name: &str, weight: f64) -> Outcome<u32> {
    let scaled = weight * 65_536.0;
    if !(0.0..=f64::from(WEIGHT_MAX)).contains(&scaled) {
        return Err(EditError::BadWeight { name: name.into(), weight: weight.to_string() });
    }
    Ok(scaled as u32)
}
