//! The mutation suite: each bug of [`Mutant`] runs under options that give it a chance, seed after seed, until a checker
//! catches it. One that no checker catches stands for a real bug that none would catch either.

mod probes;

use crate::network::Conditions;
use crate::options::{Faults, Options, Work};
use crate::run::run;
use crate::scenario;
use nacre_types::mutant::{self, Mutant};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// How one seed ended.
#[derive(Clone, Debug)]
pub struct Trial {
    /// What failed and who says so; `None` if nobody noticed anything.
    pub caught: Option<Caught>,
    pub operations: u64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caught {
    /// In a word or two: `linearizability`, `scrub`.
    pub checker: &'static str,
    pub failure: String,
}

/// Runs one seed with a bug switched on; `settings` (`KEY=VALUE`) change its options.
pub fn trial(bug: Mutant, seed: u64, settings: &[String], print: bool) -> Trial {
    run_with(Some(bug), bug, seed, settings, print)
}

/// The same seed and options without the bug: what fails here says nothing about the bug.
pub fn control(bug: Mutant, seed: u64, settings: &[String], print: bool) -> Trial {
    run_with(None, bug, seed, settings, print)
}

fn run_with(active: Option<Mutant>, bug: Mutant, seed: u64, settings: &[String], print: bool) -> Trial {
    mutant::set(active);
    let result = quietly(|| match way(bug) {
        Way::Scenario(text) => (scenario::run(text, print).err().map(|why| format!("scenario {why}")), 0),
        Way::Probe(probe) => (probe(print).err(), 0),
        Way::Sweep => {
            let mut options = options(bug, seed);
            for setting in settings {
                if let Err(why) = options.set(setting) {
                    panic!("{why}");
                }
            }
            let outcome = run(options, print);
            (outcome.failure, outcome.operations)
        }
    });
    mutant::set(None);
    let (failure, operations) = match result {
        Ok((failure, operations)) => (failure.map(|failure| (checker_of(&failure), failure)), operations),
        Err(panic) => (Some(("machine invariant", panic)), 0),
    };
    let caught = failure.map(|(checker, failure)| Caught { checker, failure });
    Trial { caught, operations }
}

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs something that may panic; the error is what it said.
fn quietly<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    PANIC.set(Some(String::new()));
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(|info| {
        PANIC.with_borrow_mut(|panic| {
            if let Some(text) = panic {
                *text = info.to_string().replace('\n', " ");
            }
        });
    }));
    let result = catch_unwind(AssertUnwindSafe(work));
    std::panic::set_hook(before);
    let text = PANIC.take().unwrap_or_default();
    result.map_err(|_| text)
}

/// Whether a failure says something about the bug. A bug changes what happens next, too, so whatever fails now and then without
/// any would seem to catch all of them. Known to: the members' counts, which therefore count only for bugs that leave or bring
/// objects behind the log's back, and a cluster that is not as it should be though no PG is at fault.
pub fn is_evidence(bug: Mutant, caught: &Caught) -> bool {
    match caught.checker {
        "space accounting" => matches!(bug, Mutant::DivergentKept | Mutant::MissingNotNoted),
        "liveness: clean" => !caught.failure.contains("PGs: ; "),
        _ => true,
    }
}

/// Who speaks, by how they say it.
fn checker_of(failure: &str) -> &'static str {
    let signs: [(&str, &str); 22] = [
        ("lease safety: ", "lease safety"),
        ("chatter: ", "chatter"),
        ("accounts: ", "space accounting"),
        ("log prefixes: ", "log prefixes"),
        ("scenario ", "scenario"),
        ("locks: ", "locks"),
        ("watches: ", "watches"),
        ("snapshots: ", "snapshots"),
        ("omaps: ", "omaps"),
        ("acknowledges a write of", "one writer"),
        ("inconsistent", "scrub"),
        ("no order of its", "linearizability"),
        ("fsck:", "fsck"),
        ("the last deep scrub found", "scrub"),
        ("does not come back", "restart"),
        ("without an answer", "liveness: answers"),
        ("waited", "liveness: clean"),
        ("osdmap ", "map hash"),
        ("no answer within", "liveness: answers"),
        ("image ", "images"),
        ("snapshot", "snapshots"),
        ("acknowledged as", "one writer"),
    ];
    signs.iter().find(|(sign, _)| failure.contains(sign)).map_or("other", |(_, checker)| checker)
}

/// How a bug is looked for.
enum Way {
    /// By luck: seeds under [`options`].
    Sweep,
    /// It needs a certain sequence.
    Scenario(&'static str),
    /// It needs somebody who looks.
    Probe(fn(bool) -> Result<(), String>),
}

fn way(bug: Mutant) -> Way {
    match bug {
        Mutant::LeaseIgnored => Way::Scenario(include_str!("../../tests/scenarios/f20-stale-read.txt")),
        Mutant::UnseenShown => {
            Way::Scenario(include_str!("../../tests/scenarios/f20-shown-before-it-is-everywhere.txt"))
        }
        Mutant::OldVersionPushed => {
            Way::Scenario(include_str!("../../tests/scenarios/f17-whole-copy-goes-before-resync.txt"))
        }
        Mutant::PriorLeaseIgnored => Way::Scenario(include_str!("mutants/prior-lease.txt")),
        Mutant::LeaseForgottenAtRestart => Way::Scenario(include_str!("mutants/lease-forgotten.txt")),
        Mutant::BlocklistIgnored => Way::Scenario(include_str!("mutants/fenced.txt")),
        Mutant::CommitOfChangeUnwritten => {
            Way::Scenario(include_str!("../../tests/scenarios/f05-power-cut-after-reconfiguration.txt"))
        }
        Mutant::OneReporter => Way::Scenario(include_str!("mutants/one-reporter.txt")),
        Mutant::LockNotChecked => Way::Probe(probes::locks),
        Mutant::NotifyLost => Way::Probe(probes::watches),
        Mutant::SnapsetDropped => Way::Probe(probes::whiteouts),
        Mutant::OmapClearForgotten | Mutant::OmapLostInReplay => Way::Probe(probes::omaps),
        _ => Way::Sweep,
    }
}

/// Whether one run tells everything: others would be the same.
pub fn is_certain(bug: Mutant) -> bool {
    !matches!(way(bug), Way::Sweep)
}

/// A small busy cluster, in which things happen often.
fn busy(seed: u64) -> Options {
    let options = Options::draw(seed);
    Options {
        images: false,
        think: Duration::from_millis(5),
        clients: 2,
        tasks: 3,
        fault_interval: Duration::from_secs(2),
        safety: Duration::from_secs(20),
        ..options
    }
}

fn faults(names: &str) -> Faults {
    Faults::parse(names).expect("faults by their names")
}

/// Where a bug has a chance to show.
fn options(bug: Mutant, seed: u64) -> Options {
    use Mutant::*;
    let busy = busy(seed);
    // Two copies, one of which is enough: whoever comes back alone decides what is true.
    let pair = Options { size: 2, min_size: 1, osds: 2, ..busy.clone() };
    let crashing = Options { faults: faults("crash,power"), ..busy.clone() };
    let short_log = Options { log_entries: 12, ..busy.clone() };
    let refilling = Options { size: 2, min_size: 1, osds: 4, ..short_log.clone() };
    let slow_network = Conditions { latency_mean: Duration::from_millis(5), ..busy.conditions };
    let resets = Conditions { reset_per_100k: 500, ..busy.conditions };
    match bug {
        AckBeforeAll | DivergentKept | RewoundLogKept | ActivatedBeforeDurable | MissingNotNoted => crashing,
        ReadsUncommitted => Options {
            faults: faults("partition"),
            clients: 3,
            tasks: 6,
            objects: 12,
            pg_num: 1,
            conditions: slow_network,
            ..busy
        },
        PrimaryAckBeforeCommit | ReplicaAckBeforeCommit => Options {
            faults: faults("blackout"),
            disk_latency_mean: Duration::from_millis(10),
            fault_interval: Duration::from_secs(5),
            tasks: 8,
            objects: 24,
            ..pair
        },
        DupsDroppedAtTrim | ResentAsNew => {
            Options { faults: faults("crash,partition,pause"), pg_num: 1, ..short_log }
        }
        DupsNotSent => Options {
            faults: faults("partition,reweight"),
            pg_num: 1,
            objects: 4,
            fault_interval: Duration::from_secs(1),
            ..refilling
        },
        GapAccepted | AnsweredTooFar => Options { faults: faults("pause"), conditions: resets, ..busy },
        PieceMissed => Options {
            faults: faults("crash,partition,buggify"),
            conditions: resets,
            pg_num: 1,
            fault_interval: Duration::from_secs(1),
            ..busy
        },
        UpThruSkipped | PastIntervalForgotten | DownIgnored => {
            Options { faults: faults("crash,power"), ..pair }
        }
        MinSizeIgnored => Options { size: 3, min_size: 2, osds: 3, ..crashing },
        IntervalUnchecked => Options {
            faults: faults("crash,power,partition"),
            conditions: slow_network,
            fault_interval: Duration::from_secs(1),
            ..busy
        },
        // To two at once: each answer makes two more.
        SlotsRenewedAtOnce => Options { faults: faults("crash"), size: 3, log_entries: 1000, ..refilling },
        PgTempKept | MapSkipped => Options { faults: faults("crash,reweight"), ..refilling },
        CommonKept => Options {
            faults: faults("crash"),
            size: 3,
            min_size: 1,
            osds: 3,
            pg_num: 1,
            images: true,
            fault_interval: Duration::from_secs(1),
            ..busy
        },
        // What is at the mark matters only while the next window is listed: often among few objects, for long in a slow network.
        BackfillMarkOff => Options {
            faults: faults("crash,reweight,buggify"),
            objects: 24,
            pg_num: 1,
            think: Duration::from_millis(1),
            tasks: 6,
            conditions: slow_network,
            ..refilling
        },
        IncompleteLeads | BelowMarkNotShipped => Options {
            faults: faults("crash,reweight,buggify"),
            objects: 150,
            pg_num: 1,
            think: Duration::from_millis(1),
            tasks: 6,
            ..refilling
        },
        // Two pieces, the second of which a write overtakes that began to read before the first was read.
        ExecutingNotWritten => Options {
            faults: faults("crash,reweight,buggify"),
            pg_num: 1,
            unit: 300_000,
            objects: 24,
            think: Duration::from_millis(1),
            tasks: 3,
            disk_latency_mean: Duration::from_millis(10),
            conditions: Conditions { latency_mean: Duration::from_millis(20), ..busy.conditions },
            fault_interval: Duration::from_secs(1),
            work: Work { registers: false, compound: true, ..Work::REGISTERS },
            ..refilling
        },
        LackingNotNoted | LackingShipped => Options {
            faults: faults("crash"),
            size: 3,
            min_size: 2,
            osds: 3,
            pg_num: 1,
            log_entries: 1000,
            lag_max: 0,
            ..busy
        },
        ScrubTakesBadCopy | ReadUnchecked => {
            Options { faults: faults("rot,crash"), size: 3, min_size: 2, osds: 3, unit: 520, ..busy }
        }
        CloneNotMade | TrimTakesClone | CloneUncounted => {
            Options { faults: faults("crash"), images: true, ..busy }
        }
        CommitBeforeFlush | CheckpointUnflushed | ReplayStopsEarly | ReplayUnchecked => Options {
            faults: faults("power,blackout"),
            unit: 20_480,
            disk_latency_mean: Duration::from_millis(3),
            fault_interval: Duration::from_millis(1500),
            ..busy
        },
        FreedReused | DiscardedInUse => Options {
            faults: faults("crash,blackout,buggify"),
            // Some of each write goes straight to fresh blocks, some through the journal.
            unit: 40_000,
            objects: 6,
            disk_bytes: 16 << 20,
            disk_latency_mean: Duration::from_millis(3),
            ..busy
        },
        CheckpointEarly => Options {
            faults: faults("crash,blackout"),
            unit: 20_480,
            disk_latency_mean: Duration::from_millis(3),
            ..busy
        },
        PatchDropped => Options { faults: faults("crash"), unit: 8, ..busy },
        VoteUnpersisted => Options {
            faults: faults("crash,blackout"),
            mons: 3,
            disk_latency_mean: Duration::from_millis(20),
            fault_interval: Duration::from_millis(500),
            ..busy
        },
        DroppedAtMapChange => Options { images: true, ..crashing },
        _ => busy,
    }
}
