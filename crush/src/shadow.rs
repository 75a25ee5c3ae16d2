//! Shadow ids: for every device class each bucket has a shadow, the same bucket with only that class's devices.
//! A rule that takes `default class ssd` starts at the shadow. Only ids are kept in the map; the trees themselves
//! are built when it is compiled.
//!
//! New shadows are numbered as Ceph numbers them (children first, lowest free id), because ids enter the hash.

use std::collections::BTreeSet;

use crate::check::CheckError;
use crate::map::{BUCKET_ID_MIN, CrushMap, SHADOWS_MAX};

impl CrushMap {
    /// Forgets shadows of classes nobody uses and gives every bucket those it lacks, classes in the order given.
    /// The map must have passed `check`.
    pub(crate) fn assign_shadows(&mut self, classes: &[String]) -> Result<(), CheckError> {
        if classes.len() * self.buckets.len() > SHADOWS_MAX {
            return Err(CheckError::TooMany { what: "shadow buckets", max: SHADOWS_MAX });
        }
        for bucket in self.buckets.values_mut() {
            bucket.shadows.retain(|class, _| classes.contains(class));
        }
        let mut used = self.used_bucket_ids();
        let mut next = -1;
        let mut visited = BTreeSet::new();
        for root in self.roots() {
            for class in classes {
                self.assign_below(root, class, &mut visited, &mut used, &mut next);
            }
        }
        Ok(())
    }

    /// Ids of buckets and shadows.
    pub(crate) fn used_bucket_ids(&self) -> BTreeSet<i32> {
        let shadows = self.buckets.values().flat_map(|bucket| bucket.shadows.values().copied());
        self.buckets.keys().copied().chain(shadows).collect()
    }

    /// Buckets that are in no other bucket, the lowest id first.
    pub(crate) fn roots(&self) -> Vec<i32> {
        let held: BTreeSet<i32> =
            self.buckets.values().flat_map(|bucket| &bucket.items).map(|item| item.id).collect();
        self.buckets.keys().copied().filter(|id| !held.contains(id)).collect()
    }

    /// Children first; a text that names only some shadows is completed in the same order. Depth is bounded by
    /// `check`; `visited` keeps buckets with several parents from being walked once per way down to them.
    fn assign_below<'a>(
        &mut self,
        id: i32,
        class: &'a str,
        visited: &mut BTreeSet<(i32, &'a str)>,
        used: &mut BTreeSet<i32>,
        next: &mut i32,
    ) {
        if !visited.insert((id, class)) {
            return;
        }
        let Some(bucket) = self.buckets.get(&id) else { return };
        let children: Vec<i32> = bucket.items.iter().map(|item| item.id).filter(|&item| item < 0).collect();
        for child in children {
            self.assign_below(child, class, visited, used, next);
        }
        let Some(bucket) = self.buckets.get_mut(&id) else { return };
        if bucket.shadows.contains_key(class) {
            return;
        }
        while used.contains(next) && *next > BUCKET_ID_MIN {
            *next -= 1;
        }
        used.insert(*next);
        bucket.shadows.insert(class.into(), *next);
    }
}
