//! The central configuration reaches a running OSD.

use crate::testing::Cluster;
use nacre_maps::ConfigMap;
use nacre_types::{Epoch, OsdId};
use std::time::Duration;

fn config(epoch: u64, settings: &[(&str, &str, &str)]) -> ConfigMap {
    let mut config = ConfigMap { epoch: Epoch(epoch), ..ConfigMap::default() };
    for (who, name, value) in settings {
        config.set(who, name, Some((*value).into()));
    }
    config
}

#[test]
fn settings_come_and_go_while_it_runs() {
    let mut c = Cluster::new(3, 3, 1);
    let tunables = |c: &Cluster, osd| c.osds[&OsdId(osd)].config().tunables.clone();
    let before = tunables(&c, 0);
    let set = [
        ("osd", "osd_max_backfills", "7"),
        ("osd.1", "osd_max_backfills", "9"),
        ("global", "osd_scrub_interval", "0"),
        ("osd", "osd_heartbeat_grace_ms", "9000"),
    ];
    c.configure(&config(4, &set));
    assert_eq!((tunables(&c, 0).recovery_pgs_max, tunables(&c, 1).recovery_pgs_max), (7, 9));
    assert_eq!(tunables(&c, 2).scrub_interval, Duration::ZERO);
    assert_eq!(tunables(&c, 2).heartbeat_grace, Duration::from_secs(9));
    assert_eq!(tunables(&c, 2).lease_duration, before.lease_duration, "promises are counted by it");
    c.settle();
    // Late, and nonsense: neither counts.
    c.configure(&config(3, &[]));
    assert_eq!(tunables(&c, 0).recovery_pgs_max, 7);
    c.configure(&config(
        5,
        &[("osd", "osd_max_backfills", "5"), ("osd", "osd_heartbeat_interval_ms", "2500")],
    ));
    assert_eq!(tunables(&c, 0).recovery_pgs_max, 7, "the whole of it is refused");
    assert!(c.log.iter().any(|line| line.contains("heartbeat_interval must be at most half")), "{:?}", c.log);
    c.configure(&config(6, &[("osd", "osd_max_backfills", "5"), ("osd", "osd_scrub_interval", "often")]));
    assert_eq!(tunables(&c, 0).recovery_pgs_max, 7, "and again");
    c.configure(&config(7, &[]));
    assert_eq!(tunables(&c, 0), before);
    c.settle();
}
