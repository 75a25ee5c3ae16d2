//! Mapping: runs a rule over a [`Compiled`] map. The algorithm is CRUSH (Weil et al., SC'06) with the retry rules
//! Ceph's tunables name; for every input the answer is the one `crushtool --test` prints.
//!
//! Nothing here allocates once [`Scratch`] has grown to the map. Time is bounded by [`WORK_MAX`]: whatever the map
//! and the tries it asks for, a mapping that has spent it finds nothing more.

mod ahead;
mod choose;
mod firstn;
mod indep;

use crate::compile::{Compiled, DEVICE, FlatStep, Slot};
use crate::hash::hash2;
use crate::map::{Mode, NUM_REP_MAX, Step, WEIGHT_ONE, WORK_MAX};
use crate::straw2::Vectors;

/// Working memory of one mapping at a time. Keep one per thread and pass it to every call, with any map.
#[derive(Clone, Default, Debug)]
pub struct Scratch {
    vectors: Vectors,
    /// One key per lane of the widest bucket.
    keys: Vec<f32>,
    /// A permutation of the largest bucket's positions.
    permutation: Vec<u32>,
    /// The working set of a rule, and what the current step chooses: the items, and the leaves under them.
    working: Vec<Chosen>,
    chosen: Vec<Chosen>,
    leaves: Vec<Chosen>,
    /// What is left of `WORK_MAX`.
    work: u32,
    asked: Vec<i32>,
}

impl Scratch {
    pub fn new() -> Scratch {
        Scratch::default()
    }

    /// The OSDs whose in/out weight the last mapping looked at, some perhaps twice. Changing that of any other cannot change
    /// the outcome.
    pub fn asked(&self) -> &[i32] {
        &self.asked
    }

    fn fit(&mut self, map: &Compiled, num_rep: usize) {
        if self.keys.len() < map.draws_max {
            self.keys.resize(map.draws_max, 0.0);
        }
        if self.permutation.len() < map.items_max {
            self.permutation.resize(map.items_max, 0);
        }
        for outputs in [&mut self.working, &mut self.chosen, &mut self.leaves] {
            // A take needs one place even where nothing is asked for.
            if outputs.len() < num_rep.max(1) {
                outputs.resize(num_rep.max(1), Chosen::NONE);
            }
        }
        self.work = WORK_MAX;
        self.asked.clear();
    }
}

/// An item and where it is, so that descending needs no look-up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Chosen {
    id: i32,
    slot: Slot,
}

impl Chosen {
    /// A hole in an indep result.
    const NONE: Chosen = Chosen { id: crate::map::NONE, slot: DEVICE };
    /// An indep position still looking.
    const UNDEFINED: Chosen = Chosen { id: crate::map::NONE - 1, slot: DEVICE };
}

/// What a choose step keeps constant.
struct Context<'a> {
    map: &'a Compiled,
    weights: &'a [u32],
    x: u32,
    type_id: u32,
    leaf: bool,
    tries: u32,
    leaf_tries: u32,
    local_retries: u32,
    local_fallback_retries: u32,
    vary_r: u32,
    stable: bool,
}

/// Working memory of choosing.
struct Draft<'a> {
    vectors: Vectors,
    keys: &'a mut [f32],
    permutation: &'a mut [u32],
    work: &'a mut u32,
    asked: &'a mut Vec<i32>,
}

impl Draft<'_> {
    /// Pays for draws; false if the mapping has spent all it may.
    #[inline]
    fn pay(&mut self, price: u32) -> bool {
        *self.work = self.work.saturating_sub(price);
        *self.work > 0
    }

    /// Whether reweighting turns `x` away from this OSD. One without a weight is out.
    #[inline]
    fn is_out(&mut self, context: &Context<'_>, osd: i32) -> bool {
        self.asked.push(osd);
        match context.weights.get(osd as usize).copied().unwrap_or(0) {
            0 => true,
            weight if weight >= WEIGHT_ONE => false,
            weight => hash2(context.x, osd as u32) & 0xffff >= weight,
        }
    }
}

/// Settings a rule's `set_*` steps change on the way.
struct Settings {
    tries: u32,
    leaf_tries: u32,
    local_retries: u32,
    local_fallback_retries: u32,
    vary_r: u32,
    stable: bool,
}

impl Compiled {
    /// Appends to `out` (which it clears first) the items `rule` chooses for input `x`: at most `num_rep`, holes of
    /// indep rules as [`NONE`](crate::NONE). `osd_weights` is the in/out weight by OSD id in 16.16 fixed point, one
    /// that is missing counts as zero, that is, out. An unknown rule chooses nothing. `num_rep` is cut to
    /// [`NUM_REP_MAX`].
    pub fn map(
        &self,
        rule: u32,
        x: u32,
        num_rep: usize,
        osd_weights: &[u32],
        scratch: &mut Scratch,
        out: &mut Vec<i32>,
    ) {
        out.clear();
        let Some(steps) = self.steps(rule) else { return };
        let num_rep = num_rep.min(NUM_REP_MAX);
        scratch.fit(self, num_rep);
        let t = &self.tunables;
        let mut settings = Settings {
            // The tunable counts retries after the first try.
            tries: t.choose_total_tries + 1,
            leaf_tries: 0,
            local_retries: t.choose_local_tries,
            local_fallback_retries: t.choose_local_fallback_tries,
            vary_r: t.chooseleaf_vary_r,
            stable: t.chooseleaf_stable != 0,
        };
        let mut working = 0;
        for step in steps {
            match step {
                FlatStep::Take { item, slot } => {
                    scratch.working[0] = Chosen { id: *item, slot: *slot };
                    working = 1;
                }
                FlatStep::Other(Step::Choose { mode, leaf, num, type_id }) if working > 0 => {
                    let context = self.context(&settings, x, osd_weights, *mode, *leaf, *type_id);
                    working = choose_step(&context, *mode, *num, num_rep, working, scratch);
                }
                FlatStep::Other(Step::Emit) => {
                    let room = num_rep - out.len();
                    out.extend(scratch.working[..working.min(room)].iter().map(|chosen| chosen.id));
                    working = 0;
                }
                FlatStep::Other(step) => settings.apply(step),
            }
        }
    }

    fn context<'a>(
        &'a self,
        settings: &Settings,
        x: u32,
        weights: &'a [u32],
        mode: Mode,
        leaf: bool,
        type_id: u32,
    ) -> Context<'a> {
        let leaf_tries = match (settings.leaf_tries, mode) {
            (0, Mode::Firstn) if self.tunables.chooseleaf_descend_once == 0 => settings.tries,
            (0, _) => 1,
            (tries, _) => tries,
        };
        Context {
            map: self,
            weights,
            x,
            type_id,
            leaf,
            tries: settings.tries,
            leaf_tries,
            local_retries: settings.local_retries,
            local_fallback_retries: settings.local_fallback_retries,
            vary_r: settings.vary_r,
            stable: settings.stable,
        }
    }
}

impl Settings {
    fn apply(&mut self, step: &Step) {
        match *step {
            Step::SetChooseTries(n) if n > 0 => self.tries = n,
            Step::SetChooseleafTries(n) if n > 0 => self.leaf_tries = n,
            Step::SetChooseLocalTries(n) => self.local_retries = n,
            Step::SetChooseLocalFallbackTries(n) => self.local_fallback_retries = n,
            Step::SetChooseleafVaryR(n) => self.vary_r = n,
            Step::SetChooseleafStable(n) => self.stable = n != 0,
            _ => {}
        }
    }
}

/// Runs one choose step over the working set and replaces it; returns its new length.
fn choose_step(
    context: &Context<'_>,
    mode: Mode,
    num: i32,
    num_rep: usize,
    working: usize,
    scratch: &mut Scratch,
) -> usize {
    let wanted = if num > 0 { num as usize } else { num_rep.saturating_sub(num.unsigned_abs() as usize) };
    let Scratch { vectors, keys, permutation, working: from, chosen, leaves, work, asked } = scratch;
    let mut draft = Draft { vectors: *vectors, keys, permutation, work, asked };
    let mut len = 0;
    if wanted > 0 {
        for start in &from[..working] {
            // Holes and devices have nothing below them to choose from.
            if start.slot == DEVICE {
                continue;
            }
            let (chosen, leaves) = (&mut chosen[len..num_rep], &mut leaves[len..num_rep]);
            len += match mode {
                Mode::Firstn => firstn::choose(context, start.slot, wanted, chosen, leaves, &mut draft),
                Mode::Indep => indep::choose(context, start.slot, wanted, chosen, leaves, &mut draft),
            };
        }
    }
    let source = if context.leaf { leaves } else { chosen };
    from[..len].copy_from_slice(&source[..len]);
    len
}
