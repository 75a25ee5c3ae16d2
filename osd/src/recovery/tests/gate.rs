//! What slots are asked for, and how often.

use super::*;
use std::time::Duration;

fn set_flags(c: &mut Cluster, held: &[Flag]) {
    let flags = held.iter().fold(Flags::default(), |flags, &flag| flags.with(flag));
    c.change(|_, step| step.flags = Some(flags));
}

fn reserved(c: &Cluster) -> u64 {
    c.delivered.get("Reserve").copied().unwrap_or_default()
}

/// One waits to be filled beside so many members.
fn until_filled_with(c: &mut Cluster, filled: OsdId, members: usize) {
    c.run_until("it is to be filled", |c| {
        let pg = c.osds.get(&c.primary(PG)).and_then(|osd| osd.pg(PG));
        pg.is_some_and(|pg| {
            pg.is_active() && pg.members.acting.len() == members && pg.backfill_targets.contains(&filled)
        })
    });
}

/// Two members catch up by log while a third one waits for its backfill: no slot of its kind is asked for yet.
#[test]
fn slots_are_not_asked_for_over_and_over() {
    let mut c = Cluster::new(6, 6, 1);
    (0..300).for_each(|n| c.write(&object(&format!("o{n}")), 0, bytes(n, 3000)));
    c.settle();
    let replicas: Vec<OsdId> = c.osds.keys().copied().filter(|&osd| osd != c.primary(PG)).collect();
    let (late, wiped) = (&replicas[..2], replicas[2]);
    set_flags(&mut c, &[Flag::NoRecover, Flag::NoBackfill]);
    c.kill(wiped);
    c.disks.remove(&wiped);
    c.start(wiped);
    until_filled_with(&mut c, wiped, 5);
    late.iter().for_each(|&osd| c.kill(osd));
    (0..10).for_each(|n| c.write(&object(&format!("o{n}")), 0, bytes(100 + n, 3 << 20)));
    late.iter().for_each(|&osd| c.start(osd));
    until_filled_with(&mut c, wiped, 5);
    let before = reserved(&c);
    // Longer than slots are renewed after, so that one is.
    c.dropped = Some("PushReply");
    set_flags(&mut c, &[Flag::NoBackfill]);
    let until = c.now + Duration::from_secs(25);
    c.run_until("slots were renewed", |c| c.now >= until);
    assert_eq!(reserved(&c) - before, 2 + 2 * 2, "two slots, each renewed twice");
    c.dropped = None;
    set_flags(&mut c, &[]);
    c.settle();
    assert!(reserved(&c) - before < 20, "{} for three slots", reserved(&c) - before);
    c.assert_copies_agree();
}
