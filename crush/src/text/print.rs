//! Writing the text form, laid out as `crushtool -d` lays it out: children before their parents, because both
//! readers want an item defined before it is used.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::weight;
use crate::map::{Alg, Bucket, CrushMap, Mode, Rule, RuleKind, Step};

impl CrushMap {
    /// The text form; [`CrushMap::parse`] reads it back as an equal map, and `crushtool -c` accepts it.
    pub fn to_text(&self) -> String {
        let mut out = String::from("# begin crush map\n");
        // Writing to a string cannot fail.
        let _ = self.print(&mut out);
        out
    }

    fn print(&self, out: &mut String) -> std::fmt::Result {
        let t = &self.tunables;
        for (name, value) in [
            ("choose_local_tries", t.choose_local_tries),
            ("choose_local_fallback_tries", t.choose_local_fallback_tries),
            ("choose_total_tries", t.choose_total_tries),
            ("chooseleaf_descend_once", t.chooseleaf_descend_once),
            ("chooseleaf_vary_r", t.chooseleaf_vary_r),
            ("chooseleaf_stable", t.chooseleaf_stable),
            ("straw_calc_version", t.straw_calc_version),
            ("allowed_bucket_algs", t.allowed_bucket_algs),
        ] {
            writeln!(out, "tunable {name} {value}")?;
        }
        out.push_str("\n# devices\n");
        for (id, device) in &self.devices {
            write!(out, "device {id} {}", device.name)?;
            if let Some(class) = &device.class {
                write!(out, " class {class}")?;
            }
            out.push('\n');
        }
        out.push_str("\n# types\n");
        for (id, name) in &self.types {
            writeln!(out, "type {id} {name}")?;
        }
        out.push_str("\n# buckets\n");
        let mut printed = BTreeSet::new();
        for bucket in self.buckets() {
            self.print_below(bucket, &mut printed, out)?;
        }
        out.push_str("\n# rules\n");
        for rule in self.rules.values() {
            self.print_rule(rule, out)?;
        }
        out.push_str("\n# end crush map\n");
        Ok(())
    }

    /// `bucket` and what it holds, unless printed already. Recursion is bounded by `DEPTH_MAX`.
    fn print_below(
        &self,
        bucket: &Bucket,
        printed: &mut BTreeSet<i32>,
        out: &mut String,
    ) -> std::fmt::Result {
        if !printed.insert(bucket.id) {
            return Ok(());
        }
        for item in &bucket.items {
            if let Some(child) = self.buckets.get(&item.id) {
                self.print_below(child, printed, out)?;
            }
        }
        writeln!(out, "{} {} {{", self.type_name(bucket.type_id).unwrap_or("?"), bucket.name)?;
        writeln!(out, "\tid {}\t\t# do not change unnecessarily", bucket.id)?;
        for (class, id) in &bucket.shadows {
            writeln!(out, "\tid {id} class {class}\t\t# do not change unnecessarily")?;
        }
        writeln!(out, "\t# weight {:.3}", f64::from(bucket.weight()) / 65_536.0)?;
        let remark =
            if bucket.alg == Alg::Uniform { "\t# do not change bucket size unnecessarily" } else { "" };
        writeln!(out, "\talg {}{remark}", bucket.alg.as_str())?;
        out.push_str("\thash 0\t# rjenkins1\n");
        for item in &bucket.items {
            let name = self.item_name(item.id).unwrap_or("?");
            writeln!(out, "\titem {name} weight {}", weight::print(item.weight))?;
        }
        out.push_str("}\n");
        Ok(())
    }

    fn print_rule(&self, rule: &Rule, out: &mut String) -> std::fmt::Result {
        let kind = match rule.kind {
            RuleKind::Replicated => "replicated",
            RuleKind::Erasure => "erasure",
        };
        writeln!(out, "rule {} {{\n\tid {}\n\ttype {kind}", rule.name, rule.id)?;
        writeln!(out, "\tmin_size {}\n\tmax_size {}", rule.min_size, rule.max_size)?;
        for step in &rule.steps {
            out.push_str("\tstep ");
            match step {
                Step::Take { item, class } => {
                    write!(out, "take {}", self.item_name(*item).unwrap_or("?"))?;
                    if let Some(class) = class {
                        write!(out, " class {class}")?;
                    }
                }
                Step::SetChooseTries(n) => write!(out, "set_choose_tries {n}")?,
                Step::SetChooseleafTries(n) => write!(out, "set_chooseleaf_tries {n}")?,
                Step::SetChooseLocalTries(n) => write!(out, "set_choose_local_tries {n}")?,
                Step::SetChooseLocalFallbackTries(n) => write!(out, "set_choose_local_fallback_tries {n}")?,
                Step::SetChooseleafVaryR(n) => write!(out, "set_chooseleaf_vary_r {n}")?,
                Step::SetChooseleafStable(n) => write!(out, "set_chooseleaf_stable {n}")?,
                Step::Choose { mode, leaf, num, type_id } => {
                    let verb = if *leaf { "chooseleaf" } else { "choose" };
                    let mode = match mode {
                        Mode::Firstn => "firstn",
                        Mode::Indep => "indep",
                    };
                    let type_name = self.type_name(*type_id).unwrap_or("?");
                    write!(out, "{verb} {mode} {num} type {type_name}")?;
                }
                Step::Emit => out.push_str("emit"),
            }
            out.push('\n');
        }
        out.push_str("}\n");
        Ok(())
    }
}
