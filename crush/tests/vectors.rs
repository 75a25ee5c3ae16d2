//! Recorded answers of `crushtool` (Ceph 16.2) to maps of ours: hold on every machine. A file is a map's text, then
//! `---- ` and the tool's options, then what it printed. `tests/crushtool.rs` records them.

mod support;

use nacre_crush::CrushMap;
use support::Question;

#[test]
fn recorded_answers_hold() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 16, "vectors are missing");
    for file in files {
        let content = std::fs::read_to_string(&file).unwrap();
        let mut parts = content.split("---- ");
        let text = parts.next().unwrap();
        let map = CrushMap::parse(text).unwrap();
        assert_eq!(map.to_text(), text, "{}", file.display());
        for part in parts {
            let (args, expected) = part.split_once('\n').unwrap();
            assert_eq!(Question::from_args(args).answer(&map), expected, "{} {args}", file.display());
        }
    }
}
