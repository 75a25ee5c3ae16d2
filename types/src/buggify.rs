//! Places where a machine may do something unusual but allowed, so that a simulated run meets what a busy day would:
//! `if buggify("osd: small push") { ... }`. And marks that say how often a run came by: `reached("osd: ...")`.
//!
//! Both are nothing at all without the feature `testing`, which only the simulator turns on. With it, nothing happens
//! before [`arm`]: each site is armed in a quarter of the runs and then acts in a quarter of its passes, as FoundationDB
//! does it.

/// Whether to act unusually here, this time.
#[cfg(not(feature = "testing"))]
#[inline(always)]
pub const fn buggify(_site: &'static str) -> bool {
    false
}

/// Notes that this place was reached.
#[cfg(not(feature = "testing"))]
#[inline(always)]
pub const fn reached(_site: &'static str) {}

#[cfg(feature = "testing")]
pub use armed::{arm, buggify, disarm, reached};

#[cfg(feature = "testing")]
mod armed {
    use crate::{Rng, fnv1a64};
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    /// Of four runs, those in which a site is armed; of four passes, those in which it then acts.
    const IN_FOUR: u64 = 1;

    struct Run {
        seed: u64,
        /// Whether sites act, or are only counted.
        acts: bool,
        rng: Rng,
        /// By site: whether it is armed in this run, and how often it acted.
        sites: BTreeMap<&'static str, (bool, u64)>,
    }

    thread_local! {
        /// The simulator runs one cluster at a time on a thread.
        static RUN: RefCell<Option<Run>> = const { RefCell::new(None) };
    }

    /// Begins a run: which sites act, and when, follows from the seed. Without `acts`, sites are only counted.
    pub fn arm(seed: u64, acts: bool) {
        let run = Run { seed, acts, rng: Rng::new(seed ^ 0x6275_6767_6966_7921), sites: BTreeMap::new() };
        RUN.with_borrow_mut(|slot| *slot = Some(run));
    }

    /// Ends a run, and says how often each site acted or was reached.
    pub fn disarm() -> BTreeMap<&'static str, u64> {
        let run = RUN.take();
        let sites = run.map(|run| run.sites).unwrap_or_default();
        sites.into_iter().map(|(site, (_, count))| (site, count)).filter(|(_, count)| *count > 0).collect()
    }

    pub fn buggify(site: &'static str) -> bool {
        RUN.with_borrow_mut(|run| {
            let Some(run) = run.as_mut().filter(|run| run.acts) else { return false };
            let seed = run.seed;
            let armed = || Rng::new(seed ^ fnv1a64(site.as_bytes())).chance(IN_FOUR, 4);
            let (armed, count) = run.sites.entry(site).or_insert_with(|| (armed(), 0));
            let acts = *armed && run.rng.chance(IN_FOUR, 4);
            *count += u64::from(acts);
            acts
        })
    }

    pub fn reached(site: &'static str) {
        RUN.with_borrow_mut(|run| {
            if let Some(run) = run {
                run.sites.entry(site).or_insert((true, 0)).1 += 1;
            }
        });
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn sites_act_as_the_seed_says() {
            assert!(!buggify("a"), "nothing before a run begins");
            let run = |seed| {
                arm(seed, true);
                let acted: Vec<bool> = (0..200).map(|at| buggify(["a", "b", "c", "d"][at % 4])).collect();
                (acted, disarm())
            };
            assert_eq!(run(7), run(7));
            let armed = (0..100).filter(|&seed| run(seed).1.contains_key("a")).count();
            assert!((10..45).contains(&armed), "armed in about a quarter of the runs, not in {armed} of 100");
            arm(1, false);
            reached("x");
            assert!((0..100).all(|_| !buggify("a")));
            assert_eq!(disarm(), [("x", 1)].into());
        }
    }
}
