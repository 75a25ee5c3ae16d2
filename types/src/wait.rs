//! What something waits for, as a value: nothing in a machine blocks anonymously.
//!
//! Every wait names what it is on, since when, and what would end it. `explain` walks from one wait to the next until it
//! meets a disk, a host, a link, a setting or a person. [`WaitRecord`] is a [`Needs`] on its way to somebody else: flat,
//! so that an older or newer reader still understands the parts it knows.

use crate::{EVersion, Epoch, Instant, OsdId, PgId};
use std::fmt;

/// What something waits for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WaitReason {
    /// What waits: the state of a PG, `osd_op 4:12 ...`, `scrub`, ...
    pub on: String,
    pub since: Instant,
    /// What would end the wait.
    pub needs: Needs,
}

/// What would end a wait. `Display` is for people; a caller that decides looks at the value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Needs {
    // A PG that is peering.
    /// The PG's own OSD to be marked up.
    MarkedUp,
    /// These to say what they have of the PG.
    InfoOf(Vec<OsdId>),
    /// One of these, which are down, to come back: only they may know what was written in that interval.
    PastMember {
        any_of: Vec<OsdId>,
        first: Epoch,
        last: Epoch,
    },
    LogOf(Vec<OsdId>),
    /// The monitors to make these the acting set.
    ActingSet(Vec<OsdId>),
    /// A complete copy of what was served up to that epoch to be reachable.
    CompleteCopy {
        started: Epoch,
    },
    /// Any copy at all: every OSD that could have one says that it has none.
    AnyCopy,
    /// A log that meets the one here; that one's does not.
    MatchingLog(OsdId),
    /// The monitors to record that the PG's primary is alive.
    UpThru,
    /// These to record the start of the interval.
    Activation(Vec<OsdId>),
    /// A stray: the primary to need it or to let it go.
    Primary(Option<OsdId>),
    /// The PG's objects to be removed.
    Removal,

    // An active PG, and operations on it.
    /// The PG to become active.
    ActivePg {
        pg: PgId,
        state: String,
    },
    /// More acting members, before anything is served.
    Members {
        have: u32,
        min_size: u32,
    },
    /// Read leases of an earlier interval to run out.
    EarlierLease {
        left_ms: u64,
    },
    /// These to renew the read lease.
    Lease(Vec<OsdId>),
    /// A cluster flag to be cleared.
    Flag(String),
    /// A first look at it.
    Turn,
    /// Operations on the same object that came before.
    EarlierOperations,
    /// Writes to the same object that came before to commit.
    EarlierWrites,
    /// The object to be recovered, backfilled, scrubbed.
    ObjectRecovery,
    ObjectBackfill,
    ObjectScrub,
    /// A good copy of objects none of whose copies is reachable.
    Unfound {
        objects: u64,
        /// So many of them can go back to the version before, and no client has seen what came after.
        unseen: u64,
    },
    DiskReads {
        outstanding: u64,
    },
    /// These to commit a write.
    CommitsOf(Vec<OsdId>),
    /// An earlier sending of the same request to commit.
    Version(EVersion),
    /// Watchers to answer a notification.
    Watchers {
        clients: u64,
    },

    // Work in the background.
    /// A recovery slot of that OSD.
    RecoverySlot(OsdId),
    /// Space on these.
    Space(Vec<OsdId>),
    /// Less load by clients.
    Throttle,
    /// Objects on their way to or from these.
    Transfers(Vec<OsdId>),
    /// More OSDs to keep copies on.
    Places {
        have: u32,
        size: u32,
    },
    /// The PG to be clean first.
    Clean,
    /// The scrub of another PG of the OSD to end.
    ScrubSlot(Option<PgId>),
    /// These to describe their objects.
    ScrubMaps(Vec<OsdId>),
    /// Snapshots whose clones are being trimmed: the next turn.
    TrimTurn,

    // A whole OSD.
    /// An osdmap of that epoch.
    Map(Epoch),
    /// The authmap, without which nobody is let in.
    AuthMap,
    /// The monitors to mark the OSD up.
    Boot,
    /// The monitors to mark the OSD down, in an orderly stop.
    StopConfirmed,

    // Clients.
    /// Any monitor to answer; why none does.
    AnyMonitor(String),
    /// The monitors to agree on something.
    Quorum(String),
    /// An OSD that is down to come back, for that PG if for one.
    OsdUp {
        osd: OsdId,
        pg: Option<PgId>,
    },
    /// Any OSD of a PG to come up; those that are down.
    AnyOsdUp {
        pg: PgId,
        down: Vec<OsdId>,
    },
    /// An OSD to answer, for that PG if for one.
    Answer {
        osd: OsdId,
        pg: Option<PgId>,
    },
    /// Whoever refused to do otherwise; what it said.
    Refusal(String),
    /// Room among what this client has on the wire.
    Room,
    /// An earlier operation of this client on the same object.
    EarlierCall,
    /// A lease this client holds to be renewed.
    ClientLease(String),
    /// A connection that broke.
    Connection,
    /// Nothing but time.
    Time,
}

/// A [`Needs`] in flat parts.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WaitRecord {
    /// Stable: scripts may look at it.
    pub code: &'static str,
    pub osds: Vec<OsdId>,
    pub pg: Option<PgId>,
    pub word: String,
    pub numbers: [u64; 2],
}

impl WaitRecord {
    fn new(code: &'static str) -> WaitRecord {
        WaitRecord { code, ..WaitRecord::default() }
    }

    fn osds(self, osds: &[OsdId]) -> WaitRecord {
        WaitRecord { osds: osds.to_vec(), ..self }
    }

    fn pg(self, pg: Option<PgId>) -> WaitRecord {
        WaitRecord { pg, ..self }
    }

    fn word(self, word: &str) -> WaitRecord {
        WaitRecord { word: word.into(), ..self }
    }

    fn numbers(self, a: u64, b: u64) -> WaitRecord {
        WaitRecord { numbers: [a, b], ..self }
    }
}

impl Needs {
    pub fn record(&self) -> WaitRecord {
        use Needs::*;
        let new = WaitRecord::new;
        match self {
            MarkedUp => new("marked_up"),
            InfoOf(osds) => new("info_of").osds(osds),
            PastMember { any_of, first, last } => new("past_member").osds(any_of).numbers(first.0, last.0),
            LogOf(osds) => new("log_of").osds(osds),
            ActingSet(osds) => new("acting_set").osds(osds),
            CompleteCopy { started } => new("complete_copy").numbers(started.0, 0),
            AnyCopy => new("any_copy"),
            MatchingLog(osd) => new("matching_log").osds(&[*osd]),
            UpThru => new("up_thru"),
            Activation(osds) => new("activation").osds(osds),
            Primary(osd) => new("primary").osds(osd.as_slice()),
            Removal => new("removal"),
            ActivePg { pg, state } => new("active_pg").pg(Some(*pg)).word(state),
            Members { have, min_size } => new("members").numbers(u64::from(*have), u64::from(*min_size)),
            EarlierLease { left_ms } => new("earlier_lease").numbers(*left_ms, 0),
            Lease(osds) => new("lease").osds(osds),
            Flag(flag) => new("flag").word(flag),
            Turn => new("turn"),
            EarlierOperations => new("earlier_operations"),
            EarlierWrites => new("earlier_writes"),
            ObjectRecovery => new("object_recovery"),
            ObjectBackfill => new("object_backfill"),
            ObjectScrub => new("object_scrub"),
            Unfound { objects, unseen } => new("unfound").numbers(*objects, *unseen),
            DiskReads { outstanding } => new("disk_reads").numbers(*outstanding, 0),
            CommitsOf(osds) => new("commits_of").osds(osds),
            Version(version) => new("version").numbers(version.epoch.0, version.seq),
            Watchers { clients } => new("watchers").numbers(*clients, 0),
            RecoverySlot(osd) => new("recovery_slot").osds(&[*osd]),
            Space(osds) => new("space").osds(osds),
            Throttle => new("throttle"),
            Transfers(osds) => new("transfers").osds(osds),
            Places { have, size } => new("places").numbers(u64::from(*have), u64::from(*size)),
            Clean => new("clean"),
            ScrubSlot(pg) => new("scrub_slot").pg(*pg),
            ScrubMaps(osds) => new("scrub_maps").osds(osds),
            TrimTurn => new("trim_turn"),
            Map(epoch) => new("map").numbers(epoch.0, 0),
            AuthMap => new("authmap"),
            Boot => new("boot"),
            StopConfirmed => new("stop_confirmed"),
            AnyMonitor(why) => new("any_monitor").word(why),
            Quorum(why) => new("quorum").word(why),
            OsdUp { osd, pg } => new("osd_up").osds(&[*osd]).pg(*pg),
            AnyOsdUp { pg, down } => new("any_osd_up").osds(down).pg(Some(*pg)),
            Answer { osd, pg } => new("answer").osds(&[*osd]).pg(*pg),
            Refusal(text) => new("refusal").word(text),
            Room => new("room"),
            EarlierCall => new("earlier_call"),
            ClientLease(text) => new("client_lease").word(text),
            Connection => new("connection"),
            Time => new("time"),
        }
    }

    /// What a record says; `None` if its code is of another version, or a part it must have is not there.
    pub fn from_record(
        code: &str,
        osds: &[OsdId],
        pg: Option<PgId>,
        word: &str,
        numbers: [u64; 2],
    ) -> Option<Needs> {
        use Needs::*;
        let (osds, word, [a, b]) = (osds.to_vec(), word.to_string(), numbers);
        let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        Some(match code {
            "marked_up" => MarkedUp,
            "info_of" => InfoOf(osds),
            "past_member" => PastMember { any_of: osds, first: Epoch(a), last: Epoch(b) },
            "log_of" => LogOf(osds),
            "acting_set" => ActingSet(osds),
            "complete_copy" => CompleteCopy { started: Epoch(a) },
            "any_copy" => AnyCopy,
            "matching_log" => MatchingLog(*osds.first()?),
            "up_thru" => UpThru,
            "activation" => Activation(osds),
            "primary" => Primary(osds.first().copied()),
            "removal" => Removal,
            "active_pg" => ActivePg { pg: pg?, state: word },
            "members" => Members { have: small(a), min_size: small(b) },
            "earlier_lease" => EarlierLease { left_ms: a },
            "lease" => Lease(osds),
            "flag" => Flag(word),
            "turn" => Turn,
            "earlier_operations" => EarlierOperations,
            "earlier_writes" => EarlierWrites,
            "object_recovery" => ObjectRecovery,
            "object_backfill" => ObjectBackfill,
            "object_scrub" => ObjectScrub,
            "unfound" => Unfound { objects: a, unseen: b },
            "disk_reads" => DiskReads { outstanding: a },
            "commits_of" => CommitsOf(osds),
            "version" => Version(EVersion::new(Epoch(a), b)),
            "watchers" => Watchers { clients: a },
            "recovery_slot" => RecoverySlot(*osds.first()?),
            "space" => Space(osds),
            "throttle" => Throttle,
            "transfers" => Transfers(osds),
            "places" => Places { have: small(a), size: small(b) },
            "clean" => Clean,
            "scrub_slot" => ScrubSlot(pg),
            "scrub_maps" => ScrubMaps(osds),
            "trim_turn" => TrimTurn,
            "map" => Map(Epoch(a)),
            "authmap" => AuthMap,
            "boot" => Boot,
            "stop_confirmed" => StopConfirmed,
            "any_monitor" => AnyMonitor(word),
            "quorum" => Quorum(word),
            "osd_up" => OsdUp { osd: *osds.first()?, pg },
            "any_osd_up" => AnyOsdUp { pg: pg?, down: osds },
            "answer" => Answer { osd: *osds.first()?, pg },
            "refusal" => Refusal(word),
            "room" => Room,
            "earlier_call" => EarlierCall,
            "client_lease" => ClientLease(word),
            "connection" => Connection,
            "time" => Time,
            _ => return None,
        })
    }
}

/// Most OSDs named in one sentence.
const NAMED_MAX: usize = 6;

/// `osd.1, osd.2`, shortened where there are many.
fn list(osds: &[OsdId]) -> String {
    let named: Vec<String> = osds.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    match osds.len() {
        0 => "nobody".into(),
        n if n > NAMED_MAX => format!("{} and {} more", named.join(", "), n - NAMED_MAX),
        _ => named.join(", "),
    }
}

impl fmt::Display for Needs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use Needs::*;
        match self {
            MarkedUp => f.write_str("its OSD to be marked up"),
            InfoOf(osds) => write!(f, "what {} have of it", list(osds)),
            PastMember { any_of, first, last } => {
                write!(f, "{}: only they may know what was written in epochs {first} to {last}", list(any_of))
            }
            LogOf(osds) => write!(f, "the log of {}", list(osds)),
            ActingSet(osds) => write!(f, "the monitors to make {} its acting set", list(osds)),
            CompleteCopy { started } => {
                write!(f, "a complete copy of what was served up to epoch {started}: none is reachable")
            }
            AnyCopy => f.write_str("a copy of it: every OSD that could have one has none"),
            MatchingLog(osd) => write!(f, "a log that meets the one here: that of {osd} does not"),
            UpThru => f.write_str("the monitors to record that its primary is alive"),
            Activation(osds) => write!(f, "{} to record the start", list(osds)),
            Primary(Some(osd)) => write!(f, "its primary {osd} to need it or to let it go"),
            Primary(None) => f.write_str("a primary to need it or to let it go"),
            Removal => f.write_str("its objects to be removed"),
            ActivePg { pg, state } => write!(f, "PG {pg} to be active: it is {state}"),
            Members { have, min_size } => {
                write!(f, "more members: {have} are acting, min_size is {min_size}")
            }
            EarlierLease { left_ms } => {
                write!(f, "a read lease of an earlier interval to end: it runs for {left_ms} ms more")
            }
            Lease(osds) => write!(f, "the read lease, which has run out: no answer from {}", list(osds)),
            Flag(flag) => write!(f, "the cluster flag {flag} to be cleared (nacre osd unset {flag})"),
            Turn => f.write_str("its turn"),
            EarlierOperations => f.write_str("operations on the object before it"),
            EarlierWrites => f.write_str("writes to the object before it to commit"),
            ObjectRecovery => f.write_str("its object to be recovered"),
            ObjectBackfill => f.write_str("its object to be backfilled"),
            ObjectScrub => f.write_str("its object to be scrubbed"),
            Unfound { objects: 1, unseen: 1 } => f.write_str(
                "an unfound object: no good copy is reachable, but nobody has seen its last version: revert it",
            ),
            Unfound { objects: 1, .. } => f.write_str(
                "an unfound object: no good copy is reachable; an OSD that has one must come back",
            ),
            Unfound { objects, .. } => write!(
                f,
                "{objects} unfound objects: no good copy is reachable; an OSD that has one must come back"
            ),
            DiskReads { outstanding } => write!(f, "{outstanding} reads of the disk"),
            CommitsOf(osds) => write!(f, "commits of {}", list(osds)),
            Version(version) => write!(f, "version {version} to be committed"),
            Watchers { clients } => write!(f, "answers of {clients} watchers"),
            RecoverySlot(osd) => write!(f, "a recovery slot of {osd}"),
            Space(osds) => write!(
                f,
                "space on {}: too full to be filled; add OSDs or raise the backfillfull ratio",
                list(osds)
            ),
            Throttle => f.write_str("less load by clients: recovery keeps out of their way"),
            Transfers(osds) => write!(f, "objects on their way between its primary and {}", list(osds)),
            Places { have, size } => {
                write!(f, "more OSDs to keep copies on: it has {have} of {size}")
            }
            Clean => f.write_str("the PG to be clean"),
            ScrubSlot(Some(pg)) => write!(f, "the scrub of PG {pg} on the same OSD to end"),
            ScrubSlot(None) => f.write_str("its turn among the scrubs of its OSD"),
            ScrubMaps(osds) => write!(f, "{} to describe their objects", list(osds)),
            TrimTurn => f.write_str("its next turn: trimming goes a few clones at a time"),
            Map(epoch) => write!(f, "osdmap {epoch}"),
            AuthMap => f.write_str("the authmap from the monitors"),
            Boot => f.write_str("the monitors to mark it up"),
            StopConfirmed => f.write_str("the monitors to mark it down"),
            AnyMonitor(why) => f.write_str(why),
            Quorum(why) => f.write_str(why),
            OsdUp { osd, pg: Some(pg) } => write!(f, "PG {pg} waits for {osd}, which is down"),
            OsdUp { osd, pg: None } => write!(f, "{osd} is down"),
            AnyOsdUp { pg, down } if down.is_empty() => {
                write!(f, "PG {pg} is mapped to no OSD: is there any in the tree its rule takes?")
            }
            AnyOsdUp { pg, down } => {
                write!(f, "PG {pg} is down: none of its OSDs is up (down: {})", list(down))
            }
            Answer { osd, pg: Some(pg) } => write!(f, "{osd}, primary of PG {pg}, does not answer"),
            Answer { osd, pg: None } => write!(f, "{osd} does not answer"),
            Refusal(text) => f.write_str(text),
            Room => f.write_str("too many operations are in flight"),
            EarlierCall => f.write_str("an earlier operation on the same object has not ended"),
            ClientLease(text) => f.write_str(text),
            Connection => f.write_str("the connection broke and will be tried again"),
            Time => f.write_str("only its time to come"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PoolId;

    #[test]
    fn every_need_survives_its_record_and_says_something() {
        let (pg, osds) = (PgId::new(PoolId(1), 3), vec![OsdId(1), OsdId(2)]);
        let text = || "text".to_string();
        use Needs::*;
        let all = [
            MarkedUp,
            InfoOf(osds.clone()),
            PastMember { any_of: osds.clone(), first: Epoch(3), last: Epoch(9) },
            LogOf(osds.clone()),
            ActingSet(osds.clone()),
            CompleteCopy { started: Epoch(4) },
            AnyCopy,
            MatchingLog(OsdId(4)),
            UpThru,
            Activation(osds.clone()),
            Primary(Some(OsdId(3))),
            Primary(None),
            Removal,
            ActivePg { pg, state: "Down".into() },
            Members { have: 1, min_size: 2 },
            EarlierLease { left_ms: 100 },
            Lease(osds.clone()),
            Flag("pause".into()),
            Turn,
            EarlierOperations,
            EarlierWrites,
            ObjectRecovery,
            ObjectBackfill,
            ObjectScrub,
            Unfound { objects: 3, unseen: 1 },
            DiskReads { outstanding: 2 },
            CommitsOf(osds.clone()),
            Version(EVersion::new(Epoch(3), 4)),
            Watchers { clients: 2 },
            RecoverySlot(OsdId(3)),
            Space(osds.clone()),
            Throttle,
            Transfers(osds.clone()),
            Places { have: 2, size: 3 },
            Clean,
            ScrubSlot(Some(pg)),
            ScrubMaps(osds.clone()),
            TrimTurn,
            Map(Epoch(7)),
            AuthMap,
            Boot,
            StopConfirmed,
            AnyMonitor(text()),
            Quorum(text()),
            OsdUp { osd: OsdId(2), pg: Some(pg) },
            AnyOsdUp { pg, down: osds.clone() },
            Answer { osd: OsdId(2), pg: None },
            Refusal(text()),
            Room,
            EarlierCall,
            ClientLease(text()),
            Connection,
            Time,
        ];
        let mut codes = std::collections::BTreeSet::new();
        for needs in all {
            assert!(!needs.to_string().is_empty());
            let WaitRecord { code, osds, pg, word, numbers } = needs.record();
            codes.insert(code);
            assert_eq!(Needs::from_record(code, &osds, pg, &word, numbers), Some(needs));
        }
        assert_eq!(codes.len(), 52, "a code of its own for each");
        assert_eq!(Needs::from_record("of_tomorrow", &[], None, "", [0, 0]), None);
    }
}
