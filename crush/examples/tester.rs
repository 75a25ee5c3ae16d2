//! `crushtool --test` by this crate: `tester MAP.txt RULE NUM_REP MIN_X MAX_X [OSD WEIGHT]...` prints the mappings.

use nacre_crush::{CrushMap, Tester};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [path, rule, num_rep, min_x, max_x, weights @ ..] = args.as_slice() else {
        return Err("usage: tester MAP.txt RULE NUM_REP MIN_X MAX_X [OSD WEIGHT]...".into());
    };
    let map = CrushMap::parse(&std::fs::read_to_string(path)?)?;
    let (rule, num_rep): (u32, usize) = (rule.parse()?, num_rep.parse()?);
    let mut tester = Tester {
        rules: rule..=rule,
        num_rep: Some(num_rep..=num_rep),
        inputs: min_x.parse()?..=max_x.parse()?,
        show_mappings: true,
        ..Tester::default()
    };
    for pair in weights.chunks_exact(2) {
        tester.weights.insert(pair[0].parse()?, (pair[1].parse::<f64>()? * 65_536.0) as u32);
    }
    let mut out = String::new();
    tester.run(&map, &mut out)?;
    print!("{out}");
    Ok(())
}
