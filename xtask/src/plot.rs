//! `cargo xtask plot`: pictures and a table of what the side-by-side kit measured, for `docs/PERFORMANCE.md`.
//!
//! A picture shows latency against throughput as more requests are in flight: one line a side and quantile, a point
//! for each depth. Points are medians over the rounds.

use anyhow::{Context as _, bail};
use plotters::prelude::*;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const SIZE: (u32, u32) = (720, 460);
/// Fewer depths than this make no curve.
const DEPTHS_MIN: usize = 3;

pub fn main(words: &[&str]) -> anyhow::Result<ExitCode> {
    let (mut out, mut files) = (PathBuf::from("."), Vec::new());
    let mut words = words.iter();
    while let Some(&word) = words.next() {
        match word {
            "--out" => out = words.next().context("--out needs a directory")?.into(),
            _ if word.starts_with('-') => bail!("'{word}' is no option of 'plot'"),
            _ => files.push(word),
        }
    }
    if files.is_empty() {
        bail!("'plot' needs the JSON files that the kit's 'compare --json' wrote");
    }
    std::fs::create_dir_all(&out).with_context(|| format!("{}", out.display()))?;
    for file in files {
        let text = std::fs::read_to_string(file).with_context(|| file.to_string())?;
        let doc: Value = serde_json::from_str(&text).with_context(|| file.to_string())?;
        let cells = read(&doc).with_context(|| file.to_string())?;
        print!("{}", table(&cells));
        for ((pair, kind), curve) in curves(&cells) {
            let path = out.join(format!("{pair}-{kind}.svg"));
            draw(&path, &format!("{}, {pair}", in_words(&kind)), &curve)
                .with_context(|| format!("{}", path.display()))?;
            eprintln!("{}", path.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Medians of one side in one cell.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Point {
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
    cpu_us: f64,
    flushes: f64,
    written: f64,
}

/// What was measured under one load.
struct Cell {
    pair: String,
    kind: String,
    depth: u32,
    peer: Point,
    ours: Point,
    /// Ours over the peer's throughput: least, median, most of the rounds.
    ratio: [f64; 3],
    /// Of what the raw disk does, in percent; the kit knows it if it was given the floor.
    floor: [Option<f64>; 2],
}

fn read(doc: &Value) -> anyhow::Result<Vec<Cell>> {
    let mut cells = Vec::new();
    let pairs = doc["pairs"].as_object().context("there are no 'pairs' in it")?;
    for (pair, measured) in pairs {
        for (name, cell) in measured.as_object().into_iter().flatten() {
            let (kind, depth) = name.rsplit_once("-q").with_context(|| format!("'{name}' names no depth"))?;
            let depth = depth.parse().with_context(|| format!("'{name}' names no depth"))?;
            let runs = &cell["runs"];
            let (Some(peer), Some(ours)) = (median_of(&runs["peer"]), median_of(&runs["ours"])) else {
                eprintln!("{pair} {name}: a side has no round that succeeded; left out");
                continue;
            };
            let ratio = &cell["summary"]["ratio"]["iops"];
            let ratio = ["min", "median", "max"].map(|which| ratio[which].as_f64().unwrap_or(f64::NAN));
            let share = &cell["summary"]["floor_share"];
            let floor = ["peer", "ours"].map(|side| share[side].as_f64().map(|share| share * 100.0));
            cells.push(Cell { pair: pair.clone(), kind: kind.to_string(), depth, peer, ours, ratio, floor });
        }
    }
    cells.sort_by(|a, b| (&a.pair, &a.kind, a.depth).cmp(&(&b.pair, &b.kind, b.depth)));
    Ok(cells)
}

fn median_of(runs: &Value) -> Option<Point> {
    let good: Vec<&Value> = runs.as_array()?.iter().filter(|run| run["iops"].is_number()).collect();
    let median = |path: &str| {
        let mut values: Vec<f64> = good.iter().filter_map(|run| run.pointer(path)?.as_f64()).collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        match values.len() {
            0 => None,
            len if len % 2 == 0 => Some(f64::midpoint(values[middle - 1], values[middle])),
            _ => Some(values[middle]),
        }
    };
    Some(Point {
        per_second: median("/iops")?,
        p50_us: median("/lat_us/p50")?,
        p99_us: median("/lat_us/p99")?,
        cpu_us: median("/per_op/cpu_us").unwrap_or(f64::NAN),
        flushes: median("/per_op/flushes").unwrap_or(f64::NAN),
        written: median("/per_op/written_bytes").unwrap_or(f64::NAN),
    })
}

fn table(cells: &[Cell]) -> String {
    let mut text = String::from(
        "| cell | Ceph | Nacre | ratio | CPU us/op | flushes/op | device KiB/op | % of the raw disk |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    let side = |point: &Point| {
        format!("{:.0}/s, p50 {}, p99 {}", point.per_second, millis(point.p50_us), millis(point.p99_us))
    };
    for Cell { pair, kind, depth, peer, ours, ratio: [least, median, most], floor } in cells {
        let percent = floor.map(|share| share.map_or("?".into(), |share| format!("{share:.0}")));
        text.push_str(&format!(
            "| {pair}, {}, {depth} in flight | {} | {} | **{median:.2}** ({least:.2}-{most:.2}) | {} | {} | {} | {} |\n",
            in_words(kind),
            side(peer),
            side(ours),
            both(peer.cpu_us, ours.cpu_us),
            both(peer.flushes, ours.flushes),
            both(peer.written / 1024.0, ours.written / 1024.0),
            percent.join(", ")
        ));
    }
    text
}

/// The peer's figure and ours.
fn both(peer: f64, ours: f64) -> String {
    let short = |value: f64| match value {
        value if value >= 99.5 => format!("{value:.0}"),
        value if value >= 9.95 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    };
    format!("{}, {}", short(peer), short(ours))
}

fn millis(us: f64) -> String {
    if us < 995.0 { format!("{us:.0} us") } else { format!("{:.3} ms", us / 1000.0) }
}

/// The kit's word for a load, in ours: `w4k` is a random write of 4 KiB.
fn in_words(kind: &str) -> String {
    let (what, size) = kind.split_at(kind.find(|c: char| c.is_ascii_digit()).unwrap_or(kind.len()));
    let what = match what {
        "w" => "random write",
        "r" => "random read",
        "sw" => "sequential write",
        "sr" => "sequential read",
        other => other,
    };
    match size
        .strip_suffix('k')
        .map(|n| format!("{n} KiB"))
        .or(size.strip_suffix('m').map(|n| format!("{n} MiB")))
    {
        Some(size) => format!("{size} {what}"),
        None => what.to_string(),
    }
}

/// Depth, the peer's point and ours.
type Curve = Vec<(u32, Point, Point)>;

/// The loads that were run at enough depths for a curve.
fn curves(cells: &[Cell]) -> BTreeMap<(String, String), Curve> {
    let mut curves: BTreeMap<(String, String), Curve> = BTreeMap::new();
    for cell in cells {
        let curve = curves.entry((cell.pair.clone(), cell.kind.clone())).or_default();
        curve.push((cell.depth, cell.peer, cell.ours));
    }
    curves.retain(|_, curve| curve.len() >= DEPTHS_MIN);
    curves
}

/// A mark of a logarithmic axis: of each decade those at 1, 2 and 5 are named, or they would run into each other.
fn tick(value: &f64) -> String {
    let leading = value / 10_f64.powf(value.log10().floor());
    match leading.round() as u32 {
        1 | 2 | 5 | 10 if *value < 1.0 => format!("{value:.2}"),
        1 | 2 | 5 | 10 => format!("{value:.0}"),
        _ => String::new(),
    }
}

fn draw(path: &Path, title: &str, curve: &Curve) -> anyhow::Result<()> {
    let points = || curve.iter().flat_map(|(_, peer, ours)| [*peer, *ours]);
    let range = |values: &mut dyn Iterator<Item = f64>| {
        let (low, high) = values.fold((f64::MAX, 0.0_f64), |(low, high), v| (low.min(v), high.max(v)));
        (low / 1.3)..(high * 1.5)
    };
    let throughput = range(&mut points().map(|point| point.per_second));
    let latency = range(&mut points().flat_map(|point| [point.p50_us, point.p99_us]).map(|us| us / 1000.0));
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(throughput.log_scale(), latency.log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(BLACK.mix(0.06))
        .x_desc("requests per second")
        .y_desc("latency, ms")
        .x_label_formatter(&tick)
        .y_label_formatter(&tick)
        .draw()?;
    let lines: [(&str, RGBColor, bool); 4] = [
        ("Nacre p50", RGBColor(0, 110, 180), false),
        ("Nacre p99", RGBColor(110, 180, 225), true),
        ("Ceph p50", RGBColor(190, 60, 40), false),
        ("Ceph p99", RGBColor(235, 150, 130), true),
    ];
    for (name, color, tail) in lines {
        let line: Vec<(u32, (f64, f64))> = curve
            .iter()
            .map(|(depth, peer, ours)| {
                let point = if name.starts_with("Nacre") { ours } else { peer };
                (*depth, (point.per_second, if tail { point.p99_us } else { point.p50_us } / 1000.0))
            })
            .collect();
        chart
            .draw_series(LineSeries::new(line.iter().map(|(_, at)| *at), color.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
        chart.draw_series(line.iter().map(|(depth, at)| {
            EmptyElement::at(*at)
                + Circle::new((0, 0), 3, color.filled())
                + Text::new(depth.to_string(), (5, -12), ("sans-serif", 11).into_font().color(&color))
        }))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .label_font(("sans-serif", 13))
        .draw()?;
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run(iops: f64, p50: f64) -> Value {
        json!({"iops": iops, "lat_us": {"p50": p50, "p99": p50 * 3.0}, "per_op": {"cpu_us": 10.0, "flushes": 0.5}})
    }

    fn document() -> Value {
        let cell = |peer: Value, ours: Value| {
            let ratio = json!({"iops": {"min": 4.0, "median": 5.0, "max": 6.0}});
            json!({"runs": {"peer": peer, "ours": ours}, "summary": {"ratio": ratio}})
        };
        let side =
            |depth: f64| json!([run(depth * 90.0, 700.0), {"failed": "no"}, run(depth * 110.0, 500.0)]);
        json!({"pairs": {"native": {
            "w4k-q32": cell(side(32.0), side(64.0)),
            "w4k-q1": cell(side(1.0), side(2.0)),
            "w4k-q8": cell(side(8.0), side(16.0)),
            "r4k-q1": cell(side(1.0), json!([{"failed": "no"}])),
            "sr1m-q16": cell(side(1.0), side(1.0)),
        }}})
    }

    #[test]
    fn medians_are_of_the_rounds_that_succeeded_in_order_of_depth() {
        let cells = read(&document()).unwrap();
        let names: Vec<String> = cells.iter().map(|cell| format!("{} {}", cell.kind, cell.depth)).collect();
        assert_eq!(names, ["sr1m 16", "w4k 1", "w4k 8", "w4k 32"]);
        assert_eq!((cells[1].peer.per_second, cells[1].peer.p50_us), (100.0, 600.0));
        let text = table(&cells);
        let row = "| native, 4 KiB random write, 8 in flight | 800/s, p50 600 us, p99 1.800 ms | 1600/s, ";
        assert!(text.contains(row), "{text}");
        assert!(text.contains("| **5.00** (4.00-6.00) |"), "{text}");
        assert!(read(&json!({})).is_err());
        assert!(read(&json!({"pairs": {"native": {"w4k": {}}}})).is_err());
    }

    #[test]
    fn of_a_decade_three_marks_are_named() {
        let named = |values: &[f64]| values.iter().map(tick).collect::<Vec<_>>().join(" ");
        assert_eq!(
            named(&[1000.0, 2000.0, 3000.0, 4000.0, 5000.0, 9000.0, 10_000.0]),
            "1000 2000   5000  10000"
        );
        assert_eq!(named(&[0.2, 0.5, 0.9, 1.0]), "0.20 0.50  1");
    }

    #[test]
    fn a_picture_is_drawn_where_there_are_enough_depths() {
        let curves = curves(&read(&document()).unwrap());
        let names: Vec<&(String, String)> = curves.keys().collect();
        assert_eq!(names, [&("native".to_string(), "w4k".to_string())]);
        let path = std::env::temp_dir().join(format!("nacre-plot-{}.svg", std::process::id()));
        draw(&path, "title", curves.values().next().unwrap()).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"));
        for word in ["title", "Nacre p99", "Ceph p50", "requests per second", "32"] {
            assert!(text.contains(word), "{word}");
        }
    }
}
