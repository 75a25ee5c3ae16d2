//! Bugs on purpose: each is one line at the place where it would be made, `if mutant!(AckBeforeAll) { ... }`, and does
//! nothing unless the simulator asks for it. `cargo xtask sim --mutants` runs them one by one and says which checker
//! caught each.
//!
//! **Architecture Invariant:** without the feature `mutants`, which only the simulator's mutation suite turns on,
//! [`active`] is a constant `false`: nothing of a mutant is left in a production binary.

macro_rules! mutants {
    ($($variant:ident $name:literal $breaks:literal,)*) => {
        /// A bug that can be switched on.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Mutant {
            $(#[doc = $breaks] $variant,)*
        }

        impl Mutant {
            pub const ALL: &[Mutant] = &[$(Mutant::$variant,)*];

            /// As on the command line.
            pub fn name(self) -> &'static str {
                match self {
                    $(Mutant::$variant => $name,)*
                }
            }

            /// What it does wrong.
            pub fn breaks(self) -> &'static str {
                match self {
                    $(Mutant::$variant => $breaks,)*
                }
            }

            pub fn parse(name: &str) -> Option<Mutant> {
                Mutant::ALL.iter().copied().find(|mutant| mutant.name() == name)
            }
        }
    };
}

mutants! {
    // Replication.
    AckBeforeAll "ack-before-all" "a write is acknowledged when one replica has it, not all",
    PrimaryAckBeforeCommit "primary-ack-before-commit" "the primary counts its own copy before it is durable",
    ReplicaAckBeforeCommit "replica-ack-before-commit" "a replica acknowledges before its journal has the write",
    DupsDroppedAtTrim "dups-dropped-at-trim" "requests are forgotten when the log is trimmed",
    DupsNotSent "dups-not-sent" "a member that is filled anew does not get the dup table",
    GapAccepted "gap-accepted" "a replica takes a write although the one before it is missing",
    PieceMissed "piece-missed" "a log is put together although a piece of it was lost",
    MinSizeIgnored "min-size-ignored" "writes are accepted by fewer members than min_size",
    ReadsUncommitted "reads-uncommitted" "a read does not wait for the write before it to commit",
    LeaseIgnored "lease-ignored" "a primary reads without a lease of its members",
    PriorLeaseIgnored "prior-lease-ignored" "a new primary does not wait out the old one's lease",
    LeaseForgottenAtRestart "lease-forgotten-at-restart" "an OSD forgets at a restart that it had granted leases",
    // Peering.
    UpThruSkipped "up-thru-skipped" "a primary activates without up_thru in the map",
    PastIntervalForgotten "past-interval-forgotten" "an interval that took writes is not remembered",
    DownIgnored "down-ignored" "a primary does not wait for the only OSD that knows what was written",
    IncompleteLeads "incomplete-leads" "a copy in the middle of its backfill may lead",
    IntervalUnchecked "interval-unchecked" "messages of former intervals are taken for this one's",
    ActivatedBeforeDurable "activated-before-durable" "a member reports the activation before it is durable",
    DivergentKept "divergent-kept" "objects of discarded log entries keep what those entries wrote",
    RewoundLogKept "rewound-log-kept" "discarded entries come back from disk at the next start",
    MissingNotNoted "missing-not-noted" "entries taken over by a merge are not noted as missing",
    PgTempKept "pg-temp-kept" "a recovered PG never gives the temporary acting set back",
    UnseenShown "unseen-shown" "what was never acknowledged is read while one member alone has it",
    MapSkipped "map-skipped" "a PG does not look at every epoch",
    // Recovery, backfill, scrub.
    LackingNotNoted "lacking-not-noted" "a copy does not note that it lacks what a write it got no data of did",
    LackingShipped "lacking-shipped" "a write goes in full to a copy that misses what it changes",
    OldVersionPushed "old-version-pushed" "a copy that misses an object itself serves it to others",
    ExecutingNotWritten "executing-not-written" "a write that reads first does not count as under way, and its object is pushed",
    BackfillMarkOff "backfill-mark-off" "writes to the object at the backfill mark are not shipped",
    BelowMarkNotShipped "below-mark-not-shipped" "writes below the backfill mark are not shipped",
    CommonKept "common-kept" "a write does not note that the head differs from its newest clone now",
    SlotsRenewedAtOnce "slots-renewed-at-once" "slots for recovery are renewed as soon as they are granted",
    ScrubTakesBadCopy "scrub-takes-bad-copy" "a scrub does not see that a copy cannot be read",
    // Snapshots, locks, fencing.
    CloneNotMade "clone-not-made" "a write with a newer snapshot context does not clone the head",
    TrimTakesClone "trim-takes-clone" "trimming one snapshot removes a clone that serves another",
    SnapsetDropped "snapset-dropped" "a head that is removed takes its snapshot set along",
    BlocklistIgnored "blocklist-ignored" "operations of a blocklisted client run",
    LockNotChecked "lock-not-checked" "a write that asserts a lost lock is not refused",
    NotifyLost "notify-lost" "a notification is not sent, and nobody is said to have missed it",
    // Store.
    CommitBeforeFlush "commit-before-flush" "a transaction commits when its record is written, before the flush",
    CheckpointEarly "checkpoint-early" "a checkpoint covers records whose data is not written back",
    CheckpointUnflushed "checkpoint-unflushed" "the journal's tail moves before the data is flushed",
    FreedReused "freed-reused" "freed blocks are reused before a checkpoint",
    DiscardedInUse "discarded-in-use" "blocks are given out while their discard is under way",
    ReplayStopsEarly "replay-stops-early" "replay leaves the last record out",
    ReplayUnchecked "replay-unchecked" "replay takes a last record whose data is not all there",
    ReadUnchecked "read-unchecked" "blocks read from disk are not compared with their checksums",
    PatchDropped "patch-dropped" "merging a partly written block loses the oldest of its patches",
    CloneUncounted "clone-uncounted" "blocks that a clone shares are not counted as shared",
    OmapClearForgotten "omap-clear-forgotten" "a cleared omap comes back",
    OmapLostInReplay "omap-lost-in-replay" "replay forgets removed omap keys",
    // Monitors.
    VoteUnpersisted "vote-unpersisted" "a monitor sends promises before they are on its disk",
    CommitOfChangeUnwritten "commit-of-change-unwritten" "a monitor forgets at a restart that its members have changed",
    OneReporter "one-reporter" "one OSD's word is enough to mark another down",
    // Clients.
    ResentAsNew "resent-as-new" "a request sent again has a new id",
    AnsweredTooFar "answered-too-far" "a client says that it has answers it still waits for",
    DroppedAtMapChange "dropped-at-map-change" "an operation under way is forgotten when its PG moves",
}

/// Whether this is the bug that runs.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub const fn active(_: Mutant) -> bool {
    false
}

#[cfg(feature = "mutants")]
mod switch {
    use super::Mutant;
    use std::cell::Cell;

    thread_local! {
        static ACTIVE: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Whether this is the bug that runs.
    #[inline]
    pub fn active(mutant: Mutant) -> bool {
        ACTIVE.get() == Some(mutant)
    }

    /// Switches one on, or all off, in this thread.
    pub fn set(mutant: Option<Mutant>) {
        ACTIVE.set(mutant);
    }
}

#[cfg(feature = "mutants")]
pub use switch::{active, set};

/// Whether the bug of this name runs; `false` in everything but the mutation suite.
#[macro_export]
macro_rules! mutant {
    ($name:ident) => {
        $crate::mutant::active($crate::mutant::Mutant::$name)
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_nothing_is_on() {
        for &mutant in Mutant::ALL {
            assert_eq!(Mutant::parse(mutant.name()), Some(mutant));
            assert!(!active(mutant));
        }
    }
}
