//! `nacre crush`: the map as people edit it, and offline tests of it.

use super::Context;
use crate::output::{self, Format};
use anyhow::Context as _;
use clap::{Args, Subcommand};
use nacre_crush::{CrushMap, Tester};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

#[derive(Subcommand)]
pub enum CrushCommand {
    /// The rules and the hierarchy the cluster places by.
    Show,
    /// Replaces the cluster's map by one in crushtool's text form.
    Import { file: PathBuf },
    /// Writes the cluster's map in crushtool's text form; to stdout without a file.
    Export { file: Option<PathBuf> },
    /// Changes the weight of an OSD in the hierarchy, in TiB.
    Reweight { name: String, weight: f64 },
    /// Moves an OSD or bucket, for example: move host1 rack=r1 root=default. Buckets that are missing are made.
    Move {
        name: String,
        #[arg(required = true, value_parser = place)]
        location: Vec<(String, String)>,
    },
    /// Takes an OSD or an empty bucket out of the hierarchy.
    Rm { name: String },
    /// Makes a rule that spreads copies over buckets of a type below a root.
    CreateRule {
        name: String,
        #[arg(long, default_value = "default")]
        root: String,
        /// Failure domain: host, rack, ...
        #[arg(long = "type", default_value = "host")]
        failure_domain: String,
        /// Only devices of this class.
        #[arg(long)]
        class: Option<String>,
    },
    /// Maps inputs by a rule, offline, and prints what `crushtool --test --show-mappings` prints.
    Test(TestArgs),
}

#[derive(Args)]
pub struct TestArgs {
    /// A map in crushtool's text form.
    #[arg(long, value_name = "FILE")]
    map: PathBuf,
    #[arg(long, value_name = "N")]
    rule: u32,
    #[arg(long, value_name = "N")]
    num_rep: usize,
    #[arg(long, default_value_t = 0, value_name = "A")]
    min_x: u32,
    #[arg(long, default_value_t = 1023, value_name = "B")]
    max_x: u32,
    /// In/out weight of one OSD, 0 to 1; repeat for several.
    #[arg(long, num_args = 2, value_names = ["OSD", "W"], action = clap::ArgAction::Append)]
    weight: Vec<String>,
}

impl CrushCommand {
    pub fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            CrushCommand::Show => show(context),
            CrushCommand::Import { file } => import(context, &file),
            CrushCommand::Export { file } => {
                let text = context.ask(json!({"prefix": "osd crush get"}))?.output;
                match file {
                    Some(file) => std::fs::write(&file, &text)
                        .with_context(|| format!("cannot write {}", file.display()))?,
                    None => std::io::stdout().write_all(&text)?,
                }
                Ok(())
            }
            CrushCommand::Reweight { name, weight } => {
                context.tell(json!({"prefix": "osd crush reweight", "name": name, "weight": weight}))
            }
            CrushCommand::Move { name, location } => {
                let location: Vec<String> =
                    location.into_iter().map(|(kind, name)| format!("{kind}={name}")).collect();
                let location = location.join(" ");
                context.tell(json!({"prefix": "osd crush move", "name": name, "location": location}))
            }
            CrushCommand::Rm { name } => context.tell(json!({"prefix": "osd crush rm", "name": name})),
            CrushCommand::CreateRule { name, root, failure_domain, class } => context.tell(json!({
                "prefix": "osd crush rule create-replicated", "name": name, "root": root, "type": failure_domain,
                "class": class,
            })),
            CrushCommand::Test(args) => test(&args),
        }
    }
}

fn place(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((kind, name)) if !kind.is_empty() && !name.is_empty() => Ok((kind.into(), name.into())),
        _ => Err(format!("'{text}' is no place: write TYPE=NAME, for example rack=r1")),
    }
}

fn show(context: &Context) -> anyhow::Result<()> {
    let text = context.ask(json!({"prefix": "osd crush get"}))?.output;
    let map = CrushMap::parse(std::str::from_utf8(&text)?)?;
    let rules: Vec<_> = map.rules().map(|rule| json!({"rule_id": rule.id, "rule_name": rule.name})).collect();
    let bucket = |bucket: &nacre_crush::Bucket| {
        let item = |item: &nacre_crush::Item| json!({"id": item.id, "name": map.item_name(item.id), "weight": f64::from(item.weight) / 65_536.0});
        json!({
            "id": bucket.id, "name": bucket.name, "type_name": map.type_name(bucket.type_id),
            "alg": bucket.alg.as_str(), "items": bucket.items.iter().map(item).collect::<Vec<_>>(),
        })
    };
    let buckets: Vec<_> = map.buckets().map(bucket).collect();
    if context.format == Format::Json {
        output::print(context.format, &json!({"rules": rules, "buckets": buckets}), |_| String::new());
        return Ok(());
    }
    println!("rules:");
    print!("{}", output::rows(&rules.into(), &[("  ID", "rule_id"), ("NAME", "rule_name")]));
    println!("\nhierarchy:");
    let tree = context.ask(json!({"prefix": "osd tree"}))?;
    for node in tree.json["nodes"].as_array().into_iter().flatten() {
        let depth = node["depth"].as_u64().unwrap_or(0) as usize;
        let (kind, name) = (output::cell(&node["type"]), output::cell(&node["name"]));
        println!("  {}{kind} {name} weight {}", "  ".repeat(depth), output::cell(&node["crush_weight"]));
    }
    Ok(())
}

fn read_map(file: &Path) -> anyhow::Result<(String, CrushMap)> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let map = CrushMap::parse(&text).with_context(|| format!("{} is no usable CRUSH map", file.display()))?;
    Ok((text, map))
}

fn import(context: &Context, file: &Path) -> anyhow::Result<()> {
    // Parsed here too, so that a mistake is reported by line without a cluster.
    let (text, _) = read_map(file)?;
    context.tell_with(json!({"prefix": "osd crush set"}), text.into_bytes().into())
}

fn test(args: &TestArgs) -> anyhow::Result<()> {
    let (_, map) = read_map(&args.map)?;
    let mut weights = BTreeMap::new();
    for pair in args.weight.chunks_exact(2) {
        let osd: u32 =
            pair[0].parse().with_context(|| format!("--weight: '{}' is no OSD number", pair[0]))?;
        let weight: f64 = pair[1].parse().with_context(|| format!("--weight: '{}' is no weight", pair[1]))?;
        anyhow::ensure!(
            (0.0..=1.0).contains(&weight),
            "--weight: {weight} of osd.{osd} is not between 0 and 1"
        );
        weights.insert(osd, (weight * f64::from(nacre_crush::WEIGHT_ONE)) as u32);
    }
    anyhow::ensure!(args.min_x <= args.max_x, "--min-x {} is above --max-x {}", args.min_x, args.max_x);
    anyhow::ensure!(map.rule_exists(args.rule), "{} has no rule {}", args.map.display(), args.rule);
    let tester = Tester {
        rules: args.rule..=args.rule,
        num_rep: Some(args.num_rep..=args.num_rep),
        inputs: args.min_x..=args.max_x,
        weights,
        show_mappings: true,
        ..Tester::default()
    };
    let mut text = String::new();
    tester.run(&map, &mut text)?;
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}
