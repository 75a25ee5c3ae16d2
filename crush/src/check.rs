//! Whole-map validity: what parsing, edits and compiling all rely on. One pass, linear in the map.

use std::collections::{BTreeMap, BTreeSet};

use crate::map::{
    Alg, BUCKET_ID_MIN, BUCKET_ITEMS_MAX, BUCKETS_MAX, Bucket, CLASSES_MAX, CrushMap, DEPTH_MAX,
    DEVICE_ID_MAX, ITEMS_MAX, NAME_BYTES_MAX, NUM_REP_MAX, RULES_MAX, Rule, SHADOWS_MAX, STEPS_MAX, Step,
    TRIES_MAX, TYPES_MAX, WEIGHT_MAX,
};

/// Why a map is not one.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CheckError {
    #[error(
        "'{name}' is not a name: use letters, digits, '-', '_' and '.', at most {NAME_BYTES_MAX} of them"
    )]
    BadName { name: String },
    #[error("the name '{name}' is taken twice: rename one of the two")]
    NameTaken { name: String },
    #[error("{what} {id} is outside {low}..={high}: choose another id")]
    IdOutOfRange { what: &'static str, id: i64, low: i64, high: i64 },
    #[error("id {id} belongs to both '{first}' and '{second}': give one of them another id")]
    IdTaken { id: i32, first: String, second: String },
    #[error("more than {max} {what}: make the map smaller")]
    TooMany { what: &'static str, max: usize },
    #[error("bucket '{bucket}' has the unknown type {type_id}: declare it, or use a type above 0")]
    UnknownType { bucket: String, type_id: u32 },
    #[error("bucket '{bucket}' holds item {item}, which does not exist: add it or take it out")]
    UnknownItem { bucket: String, item: i32 },
    #[error("bucket '{bucket}' holds '{item}' twice: take one out")]
    ItemTwice { bucket: String, item: String },
    #[error("bucket '{bucket}' contains itself: take it out of what it holds")]
    Cycle { bucket: String },
    #[error("more than {DEPTH_MAX} buckets lie between '{bucket}' and its devices: flatten the hierarchy")]
    TooDeep { bucket: String },
    #[error("'{item}' in bucket '{bucket}' is heavier than 32767: weights are meant as TiB, scale them down")]
    TooHeavy { bucket: String, item: String },
    #[error("the items of bucket '{bucket}' weigh more than 65535 together: scale the weights down")]
    SumTooHeavy { bucket: String },
    #[error("the items of uniform bucket '{bucket}' differ in weight: make them equal or use straw2")]
    NotUniform { bucket: String },
    #[error("{what} is {value}, more than {max}: lower it")]
    TooHigh { what: String, value: u64, max: u64 },
    #[error("rule '{rule}' takes item {item}, which does not exist: change the rule or add the item")]
    RuleItem { rule: String, item: i32 },
    #[error("rule '{rule}' takes class '{class}' of '{item}', which is no bucket: take a bucket")]
    RuleClass { rule: String, item: String, class: String },
    #[error("rule '{rule}' chooses the unknown type {type_id}: declare it")]
    RuleType { rule: String, type_id: u32 },
}

pub(crate) fn is_name(name: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.chars().all(good)
}

fn name(name: &str) -> Result<(), CheckError> {
    if is_name(name) { Ok(()) } else { Err(CheckError::BadName { name: name.chars().take(80).collect() }) }
}

fn count(what: &'static str, n: usize, max: usize) -> Result<(), CheckError> {
    if n > max { Err(CheckError::TooMany { what, max }) } else { Ok(()) }
}

fn range(what: &'static str, id: i64, low: i64, high: i64) -> Result<(), CheckError> {
    if (low..=high).contains(&id) { Ok(()) } else { Err(CheckError::IdOutOfRange { what, id, low, high }) }
}

fn at_most(what: impl FnOnce() -> String, value: u64, max: u64) -> Result<(), CheckError> {
    if value > max { Err(CheckError::TooHigh { what: what(), value, max }) } else { Ok(()) }
}

impl CrushMap {
    /// Asks whether the map holds together: see [`CheckError`] for what may be wrong with it.
    pub fn check(&self) -> Result<(), CheckError> {
        self.check_sizes()?;
        self.check_names()?;
        self.check_ids()?;
        for bucket in self.buckets.values() {
            self.check_bucket(bucket)?;
        }
        self.check_depth()?;
        for rule in self.rules.values() {
            self.check_rule(rule)?;
        }
        self.check_tunables()
    }

    fn check_sizes(&self) -> Result<(), CheckError> {
        count("types", self.types.len(), TYPES_MAX)?;
        count("buckets", self.buckets.len(), BUCKETS_MAX)?;
        count("rules", self.rules.len(), RULES_MAX)?;
        count("items", self.buckets.values().map(|bucket| bucket.items.len()).sum(), ITEMS_MAX)?;
        count("shadow buckets", self.buckets.values().map(|bucket| bucket.shadows.len()).sum(), SHADOWS_MAX)?;
        let shadowed = self.buckets.values().flat_map(|bucket| bucket.shadows.keys());
        let of_devices = self.devices.values().filter_map(|device| device.class.as_ref());
        count("device classes", shadowed.chain(of_devices).collect::<BTreeSet<_>>().len(), CLASSES_MAX)
    }

    fn check_names(&self) -> Result<(), CheckError> {
        let mut items = BTreeSet::new();
        let devices = self.devices.values().map(|device| &device.name);
        for item in devices.chain(self.buckets.values().map(|bucket| &bucket.name)) {
            name(item)?;
            if !items.insert(item) {
                return Err(CheckError::NameTaken { name: item.clone() });
            }
        }
        for names in [self.types.values().collect::<Vec<_>>(), self.rules.values().map(|r| &r.name).collect()]
        {
            let mut seen = BTreeSet::new();
            for one in names {
                name(one)?;
                if !seen.insert(one) {
                    return Err(CheckError::NameTaken { name: one.clone() });
                }
            }
        }
        let shadowed = self.buckets.values().flat_map(|bucket| bucket.shadows.keys());
        shadowed
            .chain(self.devices.values().filter_map(|device| device.class.as_ref()))
            .try_for_each(|c| name(c))
    }

    fn check_ids(&self) -> Result<(), CheckError> {
        for &id in self.devices.keys() {
            range("device id", id.into(), 0, DEVICE_ID_MAX.into())?;
        }
        for &id in self.rules.keys() {
            range("rule id", id.into(), 0, RULES_MAX as i64 - 1)?;
        }
        for &id in self.types.keys() {
            range("type id", id.into(), 0, 65_535)?;
        }
        let mut owners: BTreeMap<i32, &Bucket> = BTreeMap::new();
        for bucket in self.buckets.values() {
            for id in std::iter::once(bucket.id).chain(bucket.shadows.values().copied()) {
                range("bucket id", id.into(), BUCKET_ID_MIN.into(), -1)?;
                if let Some(first) = owners.insert(id, bucket) {
                    let (first, second) = (first.name.clone(), bucket.name.clone());
                    return Err(CheckError::IdTaken { id, first, second });
                }
            }
        }
        Ok(())
    }

    fn check_bucket(&self, bucket: &Bucket) -> Result<(), CheckError> {
        let named = || bucket.name.clone();
        if bucket.type_id == 0 || !self.types.contains_key(&bucket.type_id) {
            return Err(CheckError::UnknownType { bucket: named(), type_id: bucket.type_id });
        }
        count("items in one bucket", bucket.items.len(), BUCKET_ITEMS_MAX)?;
        let mut seen = BTreeSet::new();
        for item in &bucket.items {
            let Some(item_name) = self.item_name(item.id) else {
                return Err(CheckError::UnknownItem { bucket: named(), item: item.id });
            };
            if !seen.insert(item.id) {
                return Err(CheckError::ItemTwice { bucket: named(), item: item_name.into() });
            }
            if item.weight > WEIGHT_MAX {
                return Err(CheckError::TooHeavy { bucket: named(), item: item_name.into() });
            }
        }
        if bucket.items.iter().map(|item| u64::from(item.weight)).sum::<u64>() > u64::from(u32::MAX) {
            return Err(CheckError::SumTooHeavy { bucket: named() });
        }
        if bucket.alg == Alg::Uniform && bucket.items.windows(2).any(|pair| pair[0].weight != pair[1].weight)
        {
            return Err(CheckError::NotUniform { bucket: named() });
        }
        Ok(())
    }

    fn check_depth(&self) -> Result<(), CheckError> {
        let mut heights = BTreeMap::new();
        for &id in self.buckets.keys() {
            self.height(id, &mut Vec::new(), &mut heights)?;
        }
        Ok(())
    }

    /// Buckets on the longest way down from `id`; `path` is the way that led here.
    fn height(
        &self,
        id: i32,
        path: &mut Vec<i32>,
        heights: &mut BTreeMap<i32, usize>,
    ) -> Result<usize, CheckError> {
        if let Some(&known) = heights.get(&id) {
            return Ok(known);
        }
        let Some(bucket) = self.buckets.get(&id) else { return Ok(0) };
        if path.contains(&id) {
            return Err(CheckError::Cycle { bucket: bucket.name.clone() });
        }
        // The recursion is bounded by this test: a cycle longer than the limit is reported as too deep.
        if path.len() >= DEPTH_MAX {
            return Err(CheckError::TooDeep { bucket: bucket.name.clone() });
        }
        path.push(id);
        let mut height = 0;
        for item in bucket.items.iter().filter(|item| item.id < 0) {
            height = height.max(self.height(item.id, path, heights)?);
        }
        path.pop();
        let height = height + 1;
        if height > DEPTH_MAX {
            return Err(CheckError::TooDeep { bucket: bucket.name.clone() });
        }
        heights.insert(id, height);
        Ok(height)
    }

    fn check_rule(&self, rule: &Rule) -> Result<(), CheckError> {
        count("steps in one rule", rule.steps.len(), STEPS_MAX)?;
        for step in &rule.steps {
            match step {
                Step::Take { item, class } => {
                    let Some(item_name) = self.item_name(*item) else {
                        return Err(CheckError::RuleItem { rule: rule.name.clone(), item: *item });
                    };
                    if let Some(class) = class {
                        name(class)?;
                        if *item >= 0 {
                            let (rule, item) = (rule.name.clone(), item_name.into());
                            return Err(CheckError::RuleClass { rule, item, class: class.clone() });
                        }
                    }
                }
                Step::Choose { num, type_id, .. } => {
                    let what = || format!("the count of a choose step in rule '{}'", rule.name);
                    at_most(what, num.unsigned_abs().into(), NUM_REP_MAX as u64)?;
                    if !self.types.contains_key(type_id) {
                        return Err(CheckError::RuleType { rule: rule.name.clone(), type_id: *type_id });
                    }
                }
                Step::SetChooseTries(n)
                | Step::SetChooseleafTries(n)
                | Step::SetChooseLocalTries(n)
                | Step::SetChooseLocalFallbackTries(n) => {
                    at_most(|| format!("the tries of rule '{}'", rule.name), (*n).into(), TRIES_MAX.into())?;
                }
                Step::SetChooseleafVaryR(n) => {
                    at_most(|| format!("vary_r of rule '{}'", rule.name), (*n).into(), 32)?;
                }
                Step::SetChooseleafStable(_) | Step::Emit => {}
            }
        }
        Ok(())
    }

    fn check_tunables(&self) -> Result<(), CheckError> {
        let t = &self.tunables;
        let tries = [
            ("choose_local_tries", t.choose_local_tries),
            ("choose_local_fallback_tries", t.choose_local_fallback_tries),
            ("choose_total_tries", t.choose_total_tries),
        ];
        for (what, value) in tries {
            at_most(|| format!("tunable {what}"), value.into(), TRIES_MAX.into())?;
        }
        at_most(|| "tunable chooseleaf_vary_r".into(), t.chooseleaf_vary_r.into(), 32)
    }
}
