//! The monitors' table of settings and what OSDs know of it are in different crates: they must say the same.

use nacre_mon::options::OPTIONS;
use nacre_osd::Tunables;

#[test]
fn every_setting_of_osds_does_something_and_has_the_default_it_tells() {
    let of_osds = || OPTIONS.iter().filter(|option| option.services.contains(&"osd"));
    let mut told: Vec<&str> = of_osds().map(|option| option.name).collect();
    let mut known = Tunables::NAMES;
    told.sort_unstable();
    known.sort_unstable();
    assert_eq!(told, known);
    for option in of_osds() {
        let mut tunables = Tunables::default();
        tunables.set(option.name, option.default).expect("its own default");
        assert_eq!(tunables, Tunables::default(), "{}", option.name);
        tunables.set(option.name, "777").expect("a number");
        assert_ne!(tunables, Tunables::default(), "{}", option.name);
    }
}
