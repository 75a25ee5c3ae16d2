//! The editable CRUSH map: devices, types, buckets, rules, tunables, by name and id. What the text form, the
//! monitors' edits and the compiler share.
//!
//! **Invariant:** every `CrushMap` a caller can hold has passed [`CrushMap::check`]: names and ids resolve, the
//! buckets form no cycle, every bound holds. Parsing and edits work on a copy and hand it out only if it passes.

use std::collections::BTreeMap;

use crate::straw2::POSITIONS_MAX;

/// The id an `indep` rule leaves where it found nothing (Ceph's `CRUSH_ITEM_NONE`).
pub const NONE: i32 = 0x7fff_ffff;
/// 16.16 fixed point: a weight of 1.0.
pub const WEIGHT_ONE: u32 = 0x1_0000;
/// Heaviest item: Ceph's draw takes the weight as a signed word and goes wrong from 32768.0 on.
pub const WEIGHT_MAX: u32 = 0x7fff_ffff;
/// Highest device id: maps index arrays by it, so a hostile id must not cost memory.
pub const DEVICE_ID_MAX: u32 = 999_999;
/// Lowest bucket id, for the same reason.
pub const BUCKET_ID_MIN: i32 = -1_000_000;
/// Buckets, shadows not counted.
pub const BUCKETS_MAX: usize = 100_000;
/// Items in one bucket.
pub const BUCKET_ITEMS_MAX: usize = POSITIONS_MAX;
/// Items in all buckets together.
pub const ITEMS_MAX: usize = 1_000_000;
/// Buckets from a root to a device; Ceph's default types make 11.
pub const DEPTH_MAX: usize = 32;
/// Device classes; each costs a shadow of every bucket.
pub const CLASSES_MAX: usize = 64;
/// Shadow buckets of all classes together.
pub const SHADOWS_MAX: usize = 500_000;
pub const TYPES_MAX: usize = 256;
/// Ceph numbers rules with a byte.
pub const RULES_MAX: usize = 256;
pub const STEPS_MAX: usize = 100;
/// Highest count of tries a tunable or a step may ask for: bounds the time of one mapping.
pub const TRIES_MAX: u32 = 10_000;
/// What one mapping may cost, about one per item hashed: some 30 ms. Maps that place what they are asked to stay
/// below a thousandth of it; one that cannot (all OSDs out, thousands of tries) gives up here. Part of the placement.
pub const WORK_MAX: u32 = 1 << 23;
/// Most items one mapping may return, or one step may choose.
pub const NUM_REP_MAX: usize = 256;
/// Longest name, in bytes.
pub const NAME_BYTES_MAX: usize = 255;

/// The retry rules. [`Tunables::default`] is Ceph's "jewel" profile, the one every current cluster uses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tunables {
    pub choose_local_tries: u32,
    pub choose_local_fallback_tries: u32,
    pub choose_total_tries: u32,
    pub chooseleaf_descend_once: u32,
    pub chooseleaf_vary_r: u32,
    pub chooseleaf_stable: u32,
    /// Concerns `straw` buckets only; kept for the text form.
    pub straw_calc_version: u32,
    /// Bit set of the algorithms Ceph's monitors let people use; kept for the text form.
    pub allowed_bucket_algs: u32,
}

impl Default for Tunables {
    fn default() -> Tunables {
        Tunables {
            choose_local_tries: 0,
            choose_local_fallback_tries: 0,
            choose_total_tries: 50,
            chooseleaf_descend_once: 1,
            chooseleaf_vary_r: 1,
            chooseleaf_stable: 1,
            straw_calc_version: 1,
            allowed_bucket_algs: 54,
        }
    }
}

impl Tunables {
    /// What a text without a `tunable` line means: the behaviour before there were tunables ("argonaut").
    pub fn legacy() -> Tunables {
        Tunables {
            choose_local_tries: 2,
            choose_local_fallback_tries: 5,
            choose_total_tries: 19,
            chooseleaf_descend_once: 0,
            chooseleaf_vary_r: 0,
            chooseleaf_stable: 0,
            straw_calc_version: 0,
            allowed_bucket_algs: 22,
        }
    }
}

/// A leaf: an OSD.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Device {
    pub name: String,
    pub class: Option<String>,
}

/// How a bucket chooses among its items.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Alg {
    Uniform,
    List,
    Straw2,
}

impl Alg {
    pub fn as_str(self) -> &'static str {
        match self {
            Alg::Uniform => "uniform",
            Alg::List => "list",
            Alg::Straw2 => "straw2",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Item {
    /// A device (>= 0) or a bucket (< 0).
    pub id: i32,
    /// 16.16 fixed point.
    pub weight: u32,
}

/// An inner node of the hierarchy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bucket {
    pub id: i32,
    pub name: String,
    pub type_id: u32,
    pub alg: Alg,
    pub items: Vec<Item>,
    /// The id of this bucket's shadow (itself with only one class's devices) by class. Placement hashes ids, so
    /// they must not change while a rule uses them.
    pub shadows: BTreeMap<String, i32>,
}

impl Bucket {
    /// The sum of the items' weights: what the bucket weighs as an item of its parent.
    pub fn weight(&self) -> u32 {
        // `check` keeps the sum within the word.
        self.items.iter().fold(0, |sum: u32, item| sum.saturating_add(item.weight))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RuleKind {
    Replicated,
    Erasure,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Closes ranks where something was rejected: replicas.
    Firstn,
    /// Keeps positions and leaves holes: shards.
    Indep,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    Take {
        item: i32,
        class: Option<String>,
    },
    SetChooseTries(u32),
    SetChooseleafTries(u32),
    SetChooseLocalTries(u32),
    SetChooseLocalFallbackTries(u32),
    SetChooseleafVaryR(u32),
    SetChooseleafStable(u32),
    /// `num` as in the text form: zero is "as many as asked for", negative is "that many fewer".
    Choose {
        mode: Mode,
        leaf: bool,
        num: i32,
        type_id: u32,
    },
    Emit,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    pub id: u32,
    pub name: String,
    pub kind: RuleKind,
    /// Recorded for the text form; nothing selects rules by size any more.
    pub min_size: u32,
    pub max_size: u32,
    pub steps: Vec<Step>,
}

/// An editable CRUSH map. See the crate's documentation for what it can do.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CrushMap {
    pub(crate) tunables: Tunables,
    pub(crate) devices: BTreeMap<u32, Device>,
    pub(crate) types: BTreeMap<u32, String>,
    pub(crate) buckets: BTreeMap<i32, Bucket>,
    pub(crate) rules: BTreeMap<u32, Rule>,
}

impl CrushMap {
    pub fn tunables(&self) -> &Tunables {
        &self.tunables
    }

    /// Devices in ascending order of their ids.
    pub fn devices(&self) -> impl Iterator<Item = (u32, &Device)> {
        self.devices.iter().map(|(&id, device)| (id, device))
    }

    pub fn device(&self, osd: u32) -> Option<&Device> {
        self.devices.get(&osd)
    }

    /// Types in ascending order of their ids; devices are type 0.
    pub fn types(&self) -> impl Iterator<Item = (u32, &str)> {
        self.types.iter().map(|(&id, name)| (id, name.as_str()))
    }

    pub fn type_id(&self, name: &str) -> Option<u32> {
        self.types.iter().find(|(_, known)| *known == name).map(|(&id, _)| id)
    }

    pub fn type_name(&self, id: u32) -> Option<&str> {
        self.types.get(&id).map(String::as_str)
    }

    /// Buckets from id -1 downwards, without shadows.
    pub fn buckets(&self) -> impl Iterator<Item = &Bucket> {
        self.buckets.values().rev()
    }

    pub fn bucket(&self, id: i32) -> Option<&Bucket> {
        self.buckets.get(&id)
    }

    pub fn bucket_by_name(&self, name: &str) -> Option<&Bucket> {
        self.buckets.values().find(|bucket| bucket.name == name)
    }

    /// Rules in ascending order of their ids.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.values()
    }

    pub fn rule(&self, id: u32) -> Option<&Rule> {
        self.rules.get(&id)
    }

    pub fn rule_exists(&self, id: u32) -> bool {
        self.rules.contains_key(&id)
    }

    pub fn rule_by_name(&self, name: &str) -> Option<&Rule> {
        self.rules.values().find(|rule| rule.name == name)
    }

    /// A device's or bucket's id by its name.
    pub fn item_id(&self, name: &str) -> Option<i32> {
        let device = self.devices.iter().find(|(_, device)| device.name == name).map(|(&id, _)| id as i32);
        device.or_else(|| self.bucket_by_name(name).map(|bucket| bucket.id))
    }

    /// A device's or bucket's name by its id.
    pub fn item_name(&self, id: i32) -> Option<&str> {
        match u32::try_from(id) {
            Ok(osd) => self.devices.get(&osd).map(|device| device.name.as_str()),
            Err(_) => self.buckets.get(&id).map(|bucket| bucket.name.as_str()),
        }
    }

    /// A device's (0) or bucket's type by its id.
    pub fn item_type(&self, id: i32) -> Option<u32> {
        if id >= 0 {
            return self.devices.contains_key(&(id as u32)).then_some(0);
        }
        self.buckets.get(&id).map(|bucket| bucket.type_id)
    }

    /// Every class a device has or a rule takes, each once, in the order of the devices.
    pub fn classes(&self) -> Vec<String> {
        let of_devices = self.devices.values().filter_map(|device| device.class.as_ref());
        let of_rules = self.rules.values().flat_map(|rule| &rule.steps).filter_map(|step| match step {
            Step::Take { class, .. } => class.as_ref(),
            _ => None,
        });
        let mut seen = std::collections::BTreeSet::new();
        of_devices.chain(of_rules).filter(|class| seen.insert(*class)).cloned().collect()
    }
}
