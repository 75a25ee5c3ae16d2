//! What `crushtool --test` does: maps a range of inputs and writes the same lines, for people, scripts and for
//! comparing the two.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::ops::RangeInclusive;

use crate::compile::{CompileError, Compiled};
use crate::hash::hash2;
use crate::map::{CrushMap, NONE, WEIGHT_ONE};
use crate::mapper::Scratch;

/// What to map and what to print; the options of `crushtool --test`.
#[derive(Clone, Debug)]
pub struct Tester {
    /// `--rule`, `--min-rule`, `--max-rule`; all rules by default.
    pub rules: RangeInclusive<u32>,
    /// `--num-rep`, `--min-rep`, `--max-rep`; each rule's `min_size` to `max_size` by default.
    pub num_rep: Option<RangeInclusive<usize>>,
    /// `--x`, `--min-x`, `--max-x`.
    pub inputs: RangeInclusive<u32>,
    /// `--weight OSD W`, in 16.16; others weigh one if some bucket holds them, zero if none does.
    pub weights: BTreeMap<u32, u32>,
    /// `--pool-id`: hashes the pool into every input.
    pub pool: Option<u32>,
    pub show_mappings: bool,
    pub show_bad_mappings: bool,
    pub show_statistics: bool,
    pub show_utilization: bool,
}

impl Default for Tester {
    fn default() -> Tester {
        Tester {
            rules: 0..=u32::MAX,
            num_rep: None,
            inputs: 0..=1023,
            weights: BTreeMap::new(),
            pool: None,
            show_mappings: false,
            show_bad_mappings: false,
            show_statistics: false,
            show_utilization: false,
        }
    }
}

/// Why a test could not run or be written.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TestError {
    #[error(transparent)]
    Compile(#[from] CompileError),
    #[error("the output cannot be written")]
    Write(#[from] fmt::Error),
}

impl Tester {
    /// Runs the test over `map` and writes `crushtool`'s lines.
    pub fn run(&self, map: &CrushMap, out: &mut impl Write) -> Result<(), TestError> {
        let compiled = map.compile()?;
        let weights = self.weights(map, &compiled);
        let mut round = Round {
            tester: self,
            compiled: &compiled,
            weights: &weights,
            scratch: Scratch::new(),
            chosen: Vec::new(),
            stored: vec![0; weights.len()],
        };
        for rule in map.rules().filter(|rule| self.rules.contains(&rule.id)) {
            let num_rep = self
                .num_rep
                .clone()
                .unwrap_or_else(|| rule.min_size as usize..=rule.max_size.min(256) as usize);
            if self.show_statistics {
                let (x, n) = (&self.inputs, &num_rep);
                let (x, y, n, m) = (x.start(), x.end(), n.start(), n.end());
                writeln!(out, "rule {} ({}), x = {x}..{y}, numrep = {n}..{m}", rule.id, rule.name)?;
            }
            // Where every OSD is out there is nothing to see.
            if weights.iter().all(|&weight| weight == 0) {
                continue;
            }
            for num_rep in num_rep {
                round.run(rule.id, &rule.name, num_rep, out)?;
            }
        }
        Ok(())
    }

    fn weights(&self, map: &CrushMap, compiled: &Compiled) -> Vec<u32> {
        let mut weights = vec![0; compiled.max_devices() as usize];
        for item in map.buckets().flat_map(|bucket| &bucket.items) {
            if let Some(weight) = usize::try_from(item.id).ok().and_then(|osd| weights.get_mut(osd)) {
                *weight = WEIGHT_ONE;
            }
        }
        for (&osd, &given) in &self.weights {
            if let Some(weight) = weights.get_mut(osd as usize) {
                *weight = given;
            }
        }
        weights
    }
}

/// One rule with one count of replicas, over all inputs.
struct Round<'a> {
    tester: &'a Tester,
    compiled: &'a Compiled,
    weights: &'a [u32],
    scratch: Scratch,
    chosen: Vec<i32>,
    /// Times each OSD was chosen.
    stored: Vec<u64>,
}

impl Round<'_> {
    fn run(&mut self, rule: u32, name: &str, num_rep: usize, out: &mut impl Write) -> Result<(), fmt::Error> {
        let tester = self.tester;
        let mut sizes: BTreeMap<usize, u64> = BTreeMap::new();
        self.stored.fill(0);
        for x in tester.inputs.clone() {
            let input = tester.pool.map_or(x, |pool| hash2(x, pool));
            self.compiled.map(rule, input, num_rep, self.weights, &mut self.scratch, &mut self.chosen);
            if tester.show_mappings {
                write!(out, "CRUSH rule {rule} x {x} ")?;
                write_list(out, &self.chosen)?;
            }
            *sizes.entry(self.chosen.len()).or_default() += 1;
            for &osd in &self.chosen {
                if let Some(stored) = usize::try_from(osd).ok().and_then(|osd| self.stored.get_mut(osd)) {
                    *stored += 1;
                }
            }
            if tester.show_bad_mappings && (self.chosen.len() != num_rep || self.chosen.contains(&NONE)) {
                write!(out, "bad mapping rule {rule} x {x} num_rep {num_rep} result ")?;
                write_list(out, &self.chosen)?;
            }
        }
        if tester.show_utilization && !tester.show_statistics {
            for (osd, stored) in self.stored.iter().enumerate() {
                writeln!(out, "  device {osd}:\t{stored}")?;
            }
        }
        if tester.show_statistics {
            let inputs = u64::from(tester.inputs.end().saturating_sub(*tester.inputs.start())) + 1;
            for (size, count) in sizes {
                writeln!(
                    out,
                    "rule {rule} ({name}) num_rep {num_rep} result size == {size}:\t{count}/{inputs}"
                )?;
            }
        }
        Ok(())
    }
}

fn write_list(out: &mut impl Write, chosen: &[i32]) -> fmt::Result {
    out.write_char('[')?;
    for (at, id) in chosen.iter().enumerate() {
        let comma = if at > 0 { "," } else { "" };
        write!(out, "{comma}{id}")?;
    }
    out.write_str("]\n")
}
