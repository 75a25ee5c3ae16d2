//! [`Compiled`]: the map as immutable flat arrays, shadow trees built in, every id resolved to an index, ready to
//! map without allocating.

use std::collections::BTreeMap;

use crate::check::CheckError;
use crate::map::{Alg, Bucket, CrushMap, Item, Rule, Step, Tunables};
use crate::straw2::{Draws, padded, scale};

/// Why a map cannot be compiled.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CompileError {
    #[error(transparent)]
    Check(#[from] CheckError),
    #[error("bucket '{bucket}' has no shadow of class '{class}': give it an id with 'id N class {class}'")]
    NoShadow { bucket: String, class: String },
}

/// Where an item is: `DEVICE`, or an index of `Compiled::buckets`.
pub(crate) type Slot = u32;
pub(crate) const DEVICE: Slot = u32::MAX;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct FlatBucket {
    pub id: i32,
    pub type_id: u32,
    pub alg: Alg,
    /// A range of `items` and `slots`.
    pub start: u32,
    pub len: u32,
    /// Straw2: a range of `draw_ids`, `draw_weights` and `draw_scales`. List: where its `list_sums` start (one per
    /// item).
    pub draw_start: u32,
    pub draw_len: u32,
}

impl FlatBucket {
    /// What a draw costs, in items; a hash of a permutation or a list is not vectorised.
    pub(crate) fn price(&self) -> u32 {
        8 + if self.alg == Alg::Straw2 { self.len } else { self.len * 4 }
    }
}

/// A choose step, resolved. Other steps stay as they are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum FlatStep {
    Take { item: i32, slot: Slot },
    Other(Step),
}

/// An immutable map ready for mapping. Build one with [`CrushMap::compile`], per epoch; share it freely.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Compiled {
    pub(crate) tunables: Tunables,
    pub(crate) buckets: Vec<FlatBucket>,
    pub(crate) items: Vec<i32>,
    pub(crate) slots: Vec<Slot>,
    draw_ids: Vec<u32>,
    draw_weights: Vec<u32>,
    draw_scales: Vec<f32>,
    list_weights: Vec<u32>,
    list_sums: Vec<u32>,
    /// Index = rule id.
    pub(crate) rules: Vec<Option<Vec<FlatStep>>>,
    rule_names: BTreeMap<String, u32>,
    /// One above the highest device, in a bucket or not.
    max_devices: u32,
    /// Longest `draw_len`, and longest bucket.
    pub(crate) draws_max: usize,
    pub(crate) items_max: usize,
}

impl Compiled {
    pub fn rule_exists(&self, rule: u32) -> bool {
        self.steps(rule).is_some()
    }

    /// A rule's id by its name.
    pub fn rule_by_name(&self, name: &str) -> Option<u32> {
        self.rule_names.get(name).copied()
    }

    /// Rule ids in ascending order.
    pub fn rules(&self) -> impl Iterator<Item = u32> {
        (0..self.rules.len() as u32).filter(|&rule| self.rule_exists(rule))
    }

    /// One above the highest device, in a bucket or not: the length of a complete weight vector.
    pub fn max_devices(&self) -> u32 {
        self.max_devices
    }

    pub(crate) fn steps(&self, rule: u32) -> Option<&[FlatStep]> {
        self.rules.get(rule as usize)?.as_deref()
    }

    pub(crate) fn draws(&self, bucket: &FlatBucket) -> Draws<'_> {
        let lanes = bucket.draw_start as usize..(bucket.draw_start + bucket.draw_len) as usize;
        Draws {
            ids: &self.draw_ids[lanes.clone()],
            weights: &self.draw_weights[lanes.clone()],
            scales: &self.draw_scales[lanes],
        }
    }

    /// A list bucket's item weights and running sums.
    pub(crate) fn list(&self, bucket: &FlatBucket) -> (&[u32], &[u32]) {
        let range = bucket.draw_start as usize..(bucket.draw_start + bucket.len) as usize;
        (&self.list_weights[range.clone()], &self.list_sums[range])
    }

    fn add_bucket(&mut self, bucket: &Bucket, id: i32, items: &[Item], slots: &BTreeMap<i32, Slot>) {
        let mut flat = FlatBucket {
            id,
            type_id: bucket.type_id,
            alg: bucket.alg,
            start: self.items.len() as u32,
            len: items.len() as u32,
            draw_start: 0,
            draw_len: 0,
        };
        for item in items {
            self.items.push(item.id);
            self.slots.push(slots.get(&item.id).copied().unwrap_or(DEVICE));
        }
        self.items_max = self.items_max.max(items.len());
        match bucket.alg {
            Alg::Straw2 => self.add_draws(items, &mut flat),
            Alg::List => self.add_list(items, &mut flat),
            Alg::Uniform => {}
        }
        self.buckets.push(flat);
    }

    fn add_draws(&mut self, items: &[Item], flat: &mut FlatBucket) {
        flat.draw_start = self.draw_ids.len() as u32;
        // One item, or none of any weight: the first wins, whatever it draws.
        if items.len() == 1 || items.iter().all(|item| item.weight == 0) {
            return;
        }
        let lanes = padded(items.len());
        let padding = std::iter::repeat_n(Item { id: 0, weight: 0 }, lanes - items.len());
        for item in items.iter().copied().chain(padding) {
            self.draw_ids.push(item.id as u32);
            self.draw_weights.push(item.weight);
            self.draw_scales.push(scale(item.weight));
        }
        flat.draw_len = lanes as u32;
        self.draws_max = self.draws_max.max(lanes);
    }

    fn add_list(&mut self, items: &[Item], flat: &mut FlatBucket) {
        flat.draw_start = self.list_sums.len() as u32;
        let mut sum = 0_u32;
        for item in items {
            sum = sum.saturating_add(item.weight);
            self.list_weights.push(item.weight);
            self.list_sums.push(sum);
        }
    }
}

/// The order buckets are laid out in: children before parents, so that a child's slot is known to its parents.
struct Builder<'a> {
    map: &'a CrushMap,
    compiled: Compiled,
    slots: BTreeMap<i32, Slot>,
    /// Weight of each built bucket, shadow or not, as its parent's item.
    weights: BTreeMap<i32, u32>,
}

impl Builder<'_> {
    /// Lays out `bucket` (its shadow of `class`, if one is given) and everything below it; returns its id.
    /// Recursion is bounded by `DEPTH_MAX`.
    fn build(&mut self, bucket: &Bucket, class: Option<&str>) -> Result<i32, CompileError> {
        let id = match class {
            None => bucket.id,
            Some(class) => *bucket
                .shadows
                .get(class)
                .ok_or_else(|| CompileError::NoShadow { bucket: bucket.name.clone(), class: class.into() })?,
        };
        if self.slots.contains_key(&id) {
            return Ok(id);
        }
        let mut items = Vec::with_capacity(bucket.items.len());
        for &item in &bucket.items {
            if item.id >= 0 {
                let device = self.map.devices.get(&(item.id as u32));
                if class.is_none() || device.and_then(|device| device.class.as_deref()) == class {
                    items.push(item);
                }
            } else if let Some(child) = self.map.buckets.get(&item.id) {
                let id = self.build(child, class)?;
                // A shadow weighs what is left in it; a bucket weighs what its parent says it does.
                let weight = if class.is_some() { self.weights[&id] } else { item.weight };
                items.push(Item { id, weight });
            }
        }
        self.compiled.add_bucket(bucket, id, &items, &self.slots);
        self.weights.insert(id, items.iter().fold(0, |sum: u32, item| sum.saturating_add(item.weight)));
        self.slots.insert(id, self.compiled.buckets.len() as u32 - 1);
        Ok(id)
    }

    fn flat_steps(&self, rule: &Rule) -> Vec<FlatStep> {
        let flat = |step: &Step| match step {
            Step::Take { item, class } => {
                let shadow = class.as_ref().and_then(|class| self.map.buckets.get(item)?.shadows.get(class));
                let item = shadow.copied().unwrap_or(*item);
                FlatStep::Take { item, slot: self.slots.get(&item).copied().unwrap_or(DEVICE) }
            }
            other => FlatStep::Other(other.clone()),
        };
        rule.steps.iter().map(flat).collect()
    }
}

impl CrushMap {
    /// Builds the form that maps. Linear in the map and its shadows.
    pub fn compile(&self) -> Result<Compiled, CompileError> {
        self.check()?;
        let mut builder = Builder {
            map: self,
            compiled: Compiled::default(),
            slots: BTreeMap::new(),
            weights: BTreeMap::new(),
        };
        for bucket in self.buckets.values() {
            builder.build(bucket, None)?;
            for class in bucket.shadows.keys() {
                builder.build(bucket, Some(class))?;
            }
        }
        let rules = self.rules.keys().next_back().map_or(0, |&last| last as usize + 1);
        let mut flat = vec![None; rules];
        for rule in self.rules.values() {
            flat[rule.id as usize] = Some(builder.flat_steps(rule));
        }
        let mut compiled = builder.compiled;
        compiled.rules = flat;
        compiled.rule_names = self.rules.values().map(|rule| (rule.name.clone(), rule.id)).collect();
        compiled.tunables = self.tunables.clone();
        compiled.max_devices = self.devices.keys().next_back().map_or(0, |&last| last + 1);
        Ok(compiled)
    }
}
