//! Random maps and random questions to them, shared by the tests: everything here comes from the seed.

#![allow(dead_code, reason = "every test file uses its part")]

use std::fmt::Write;

use nacre_crush::{CrushMap, Tester};
use nacre_types::Rng;

/// One question to a map: the options of `crushtool --test`.
pub struct Question {
    pub rule: u32,
    pub num_rep: usize,
    pub first: u32,
    pub last: u32,
    /// `--weight`, in thousandths.
    pub reweights: Vec<(u32, u32)>,
    pub pool: Option<u32>,
}

impl Question {
    pub fn args(&self) -> Vec<String> {
        let mut args = format!(
            "--test --show-mappings --rule {} --num-rep {} --min-x {} --max-x {}",
            self.rule, self.num_rep, self.first, self.last
        );
        for (osd, weight) in &self.reweights {
            write!(args, " --weight {osd} {}", f64::from(*weight) / 1_000.0).unwrap();
        }
        if let Some(pool) = self.pool {
            write!(args, " --pool-id {pool}").unwrap();
        }
        args.split(' ').map(String::from).collect()
    }

    pub fn from_args(args: &str) -> Question {
        let words: Vec<&str> = args.split_whitespace().collect();
        let after = |name: &str| {
            words.iter().position(|word| *word == name).map(|at| words[at + 1].parse::<u32>().unwrap())
        };
        let reweights = words.windows(3).filter(|w| w[0] == "--weight");
        Question {
            rule: after("--rule").unwrap(),
            num_rep: after("--num-rep").unwrap() as usize,
            first: after("--min-x").unwrap(),
            last: after("--max-x").unwrap(),
            reweights: reweights
                .map(|w| (w[1].parse().unwrap(), (w[2].parse::<f64>().unwrap() * 1_000.0).round() as u32))
                .collect(),
            pool: after("--pool-id"),
        }
    }

    pub fn answer(&self, map: &CrushMap) -> String {
        let weight = |thousandths: u32| (f64::from(thousandths) as f32 / 1_000.0 * 65_536.0) as u32;
        let tester = Tester {
            rules: self.rule..=self.rule,
            num_rep: Some(self.num_rep..=self.num_rep),
            inputs: self.first..=self.last,
            weights: self.reweights.iter().map(|&(osd, w)| (osd, weight(w))).collect(),
            pool: self.pool,
            show_mappings: true,
            ..Tester::default()
        };
        let mut out = String::new();
        tester.run(map, &mut out).unwrap();
        out
    }
}

pub fn question(rng: &mut Rng, osds: u32, rules: u32, inputs: u32) -> Question {
    let first = if rng.chance(1, 2) { 0 } else { rng.below(1 << 30) as u32 };
    let mut reweights = Vec::new();
    if rng.chance(2, 3) {
        for osd in 0..osds {
            if rng.chance(1, 4) {
                reweights.push((osd, if rng.chance(1, 3) { 0 } else { rng.below(1_001) as u32 }));
            }
        }
    }
    Question {
        rule: rng.below(u64::from(rules)) as u32,
        num_rep: rng.range(1, 7) as usize,
        first,
        last: first + inputs - 1,
        reweights,
        pool: rng.chance(1, 4).then(|| rng.below(100) as u32),
    }
}

/// A map's text, its number of OSDs and of rules.
pub fn random_map(rng: &mut Rng) -> (String, u32, u32) {
    let mut text = String::new();
    tunables(rng, &mut text);
    let (racks, hosts, width) = (rng.range(1, 6), rng.range(1, 6), rng.range(1, 9));
    let osds = racks * hosts * width;
    let classes: &[&str] = if osds >= 3 && rng.chance(1, 2) { &["hdd", "ssd", "nvme"] } else { &[] };
    for osd in 0..osds {
        write!(text, "device {osd} osd.{osd}").unwrap();
        // Each class on one device at least, because crushtool refuses to take a class it has not seen.
        let class = if osd < 3 { classes.get(osd as usize) } else { rng.pick(classes) };
        if let Some(class) = class.filter(|_| osd < 3 || rng.chance(9, 10)) {
            write!(text, " class {class}").unwrap();
        }
        text.push('\n');
    }
    text.push_str("type 0 osd\ntype 1 host\ntype 3 rack\ntype 11 root\n");
    let weights = rng.below(5);
    let mixed = rng.chance(1, 3);
    let alg = |rng: &mut Rng| match rng.below(6) {
        // crushtool 16.2 cannot make shadows of uniform buckets.
        0 if mixed && classes.is_empty() => "uniform",
        1 if mixed => "list",
        _ => "straw2",
    };
    let mut osd = 0;
    for rack in 0..racks {
        for host in 0..hosts {
            let alg = alg(rng);
            writeln!(text, "host host{rack}-{host} {{\n\talg {alg}\n\thash 0").unwrap();
            for _ in 0..if rng.chance(1, 12) { rng.below(width) } else { width } {
                let weight = if alg == "uniform" { 1.5 } else { weight(rng, weights) };
                writeln!(text, "\titem osd.{osd} weight {weight:.5}").unwrap();
                osd += 1;
            }
            text.push_str("}\n");
        }
        let alg = alg(rng).replace("uniform", "straw2");
        writeln!(text, "rack rack{rack} {{\n\talg {alg}\n\thash 0").unwrap();
        for host in 0..hosts {
            match rng.chance(1, 4) {
                // Heavy enough for different logarithms to tie; crushtool refuses more than 10000 in all.
                true => {
                    let weight = if rng.chance(1, 3) { 900.0 } else { weight(rng, weights) };
                    writeln!(text, "\titem host{rack}-{host} weight {weight:.5}").unwrap();
                }
                false => writeln!(text, "\titem host{rack}-{host}").unwrap(),
            }
        }
        text.push_str("}\n");
    }
    text.push_str("root default {\n\talg straw2\n\thash 0\n");
    (0..racks).for_each(|rack| writeln!(text, "\titem rack{rack}").unwrap());
    text.push_str("}\n");
    let rules = rng.range(1, 5) as u32;
    for rule in 0..rules {
        random_rule(rng, rule, classes, &mut text);
    }
    (text, osds as u32, rules)
}

fn weight(rng: &mut Rng, kind: u64) -> f64 {
    match kind {
        0 => 1.0,
        1 => [0.0, 1.0, 2.0, 4.0][rng.below(4) as usize],
        2 => rng.below(2_000) as f64 / 1_000.0,
        3 => rng.below(1 << 20) as f64 / 65_536.0,
        _ => [1.0, 40.0, 100.0][rng.below(3) as usize],
    }
}

fn tunables(rng: &mut Rng, text: &mut String) {
    let names = [
        "choose_local_tries",
        "choose_local_fallback_tries",
        "choose_total_tries",
        "chooseleaf_descend_once",
        "chooseleaf_vary_r",
        "chooseleaf_stable",
    ];
    let values: [u64; 6] = match rng.below(5) {
        0 => [2, 5, 19, 0, 0, 0],
        1 => [0, 0, 50, 1, 0, 0],
        2 => [rng.below(4), rng.below(4), rng.range(1, 60), rng.below(2), rng.below(5), rng.below(2)],
        _ => [0, 0, 50, 1, 1, 1],
    };
    for (name, value) in names.iter().zip(values) {
        writeln!(text, "tunable {name} {value}").unwrap();
    }
}

fn random_rule(rng: &mut Rng, id: u32, classes: &[&str], text: &mut String) {
    let kind = if rng.chance(1, 2) { "replicated" } else { "erasure" };
    writeln!(text, "rule rule{id} {{\n\tid {id}\n\ttype {kind}\n\tmin_size 1\n\tmax_size 10").unwrap();
    for (step, high) in [
        ("set_choose_tries", 100),
        ("set_chooseleaf_tries", 10),
        ("set_choose_local_tries", 4),
        ("set_choose_local_fallback_tries", 4),
        ("set_chooseleaf_vary_r", 4),
        ("set_chooseleaf_stable", 2),
    ] {
        if rng.chance(1, 6) {
            writeln!(text, "\tstep {step} {}", rng.below(high)).unwrap();
        }
    }
    for _ in 0..if rng.chance(1, 8) { 2 } else { 1 } {
        let class = rng.pick(classes).filter(|_| rng.chance(1, 2));
        let class = class.map_or(String::new(), |class| format!(" class {class}"));
        writeln!(text, "\tstep take default{class}").unwrap();
        let mode = if rng.chance(1, 2) { "firstn" } else { "indep" };
        let num = |rng: &mut Rng| [0, 0, 0, 1, 2, 3, -1][rng.below(7) as usize];
        match rng.below(6) {
            0 | 1 => writeln!(text, "\tstep chooseleaf {mode} {} type host", num(rng)).unwrap(),
            2 => writeln!(text, "\tstep chooseleaf {mode} {} type rack", num(rng)).unwrap(),
            3 => {
                let verb = if rng.chance(1, 2) { "choose" } else { "chooseleaf" };
                writeln!(text, "\tstep {verb} {mode} {} type osd", num(rng)).unwrap();
            }
            4 => {
                writeln!(text, "\tstep choose {mode} {} type rack", num(rng)).unwrap();
                writeln!(text, "\tstep chooseleaf {mode} {} type host", num(rng)).unwrap();
            }
            _ => {
                writeln!(text, "\tstep choose {mode} {} type rack", num(rng)).unwrap();
                writeln!(text, "\tstep choose {mode} {} type host", num(rng)).unwrap();
                writeln!(text, "\tstep choose {mode} {} type osd", num(rng)).unwrap();
            }
        }
        text.push_str("\tstep emit\n");
    }
    text.push_str("}\n");
}
