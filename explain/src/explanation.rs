//! The answer: a chain of causes, one line each, its leaf, and what to do.

use serde_json::{Value, json};
use std::fmt;

macro_rules! causes {
    ($($(#[$doc:meta])* $name:ident $code:literal;)*) => {
        /// What a chain ends in. Codes are for programs and never change.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Cause { $($(#[$doc])* $name),* }

        impl Cause {
            pub fn code(self) -> &'static str {
                match self { $(Cause::$name => $code),* }
            }
        }
    };
}

causes! {
    /// Nothing is wrong.
    Nothing "nothing";
    /// It is being worked on and needs only time.
    InProgress "in_progress";
    /// No monitor answers.
    NoMonitor "no_monitor";
    /// Certificates are not accepted: expired, of another cluster, or a clock is wrong.
    Certificate "certificate";
    NoQuorum "no_quorum";
    /// The leading monitor is named and does not answer.
    LeaderSilent "leader_silent";
    /// An OSD was stopped in order.
    OsdStopped "osd_stopped";
    /// Its host answers, its process does not run.
    OsdProcessGone "osd_process_gone";
    /// Nothing comes back from it: host, network, or a process that hangs.
    OsdUnreachable "osd_unreachable";
    OsdEnded "osd_ended";
    DiskFailed "disk_failed";
    DiskSlow "disk_slow";
    DiskDamaged "disk_damaged";
    OsdMarkedDown "osd_marked_down";
    /// It runs, and the monitors refuse to mark it up.
    OsdRefused "osd_refused";
    OsdNeverUp "osd_never_up";
    OsdUnknown "osd_unknown";
    OsdDown "osd_down";
    OsdOut "osd_out";
    /// Two daemons cannot reach each other.
    LinkCut "link_cut";
    /// An OSD does not reach the monitors.
    MonitorLink "monitor_link";
    Flag "flag";
    Full "full";
    PoolQuota "pool_quota";
    BackfillFull "backfill_full";
    TooFewOsds "too_few_osds";
    PoolGone "pool_gone";
    PgGone "pg_gone";
    Blocklisted "blocklisted";
    NoCaps "no_caps";
    EntityUnknown "entity_unknown";
    Unfound "unfound";
    /// The same, where going back a version loses nothing.
    UnfoundUnseen "unfound_unseen";
    ObjectDamaged "object_damaged";
    Incomplete "incomplete";
    /// A lease that runs out by itself.
    Lease "lease";
    RecoverySlots "recovery_slots";
    Throttle "throttle";
    ScrubTurn "scrub_turn";
    Watchers "watchers";
    /// The client itself has too much under way.
    ClientRoom "client_room";
    ClientLease "client_lease";
    RequestGone "request_gone";
    Unknown "unknown";
}

/// One line of the chain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// What the line is about: `PG 1.3`, `osd.2`, `the monitors`.
    pub on: String,
    pub says: String,
}

/// Something to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    pub text: String,
    /// To be copied.
    pub command: Option<String>,
    /// The data it may cost, if it may cost any.
    pub loses: Option<String>,
    /// The daemon that the command starts, if it starts one: how depends on how it was set up.
    pub starts: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explanation {
    pub question: String,
    /// From what was asked to the leaf.
    pub chain: Vec<Link>,
    pub cause: Cause,
    pub steps: Vec<Step>,
    /// Who did not answer, and what else makes this less than sure.
    pub unseen: Vec<String>,
}

impl Explanation {
    pub fn leaf(&self) -> Option<&Link> {
        self.chain.last()
    }

    pub fn to_json(&self) -> Value {
        let chain: Vec<Value> = self.chain.iter().map(|l| json!({"on": l.on, "says": l.says})).collect();
        let step =
            |s: &Step| json!({"text": s.text, "command": s.command, "loses": s.loses, "starts": s.starts});
        json!({
            "question": self.question,
            "cause": self.cause.code(),
            "leaf": self.leaf().map(|l| json!({"on": l.on, "says": l.says})),
            "chain": chain,
            "steps": self.steps.iter().map(step).collect::<Vec<_>>(),
            "unseen": self.unseen,
        })
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.chain.len().saturating_sub(1);
        for (at, link) in self.chain.iter().enumerate() {
            let indent = "  ".repeat(at);
            let mark = if at == last && self.cause != Cause::Nothing { "  <-- the cause" } else { "" };
            let arrow = if at == 0 { "" } else { "because " };
            writeln!(f, "{indent}{arrow}{}{mark}", link.says)?;
        }
        if !self.unseen.is_empty() {
            writeln!(f, "\nnot seen: {}", self.unseen.join("; "))?;
        }
        if !self.steps.is_empty() {
            writeln!(f, "\nwhat to do:")?;
        }
        for step in &self.steps {
            let loses = step.loses.as_ref().map_or(String::new(), |loses| format!(". DATA LOSS: {loses}"));
            writeln!(f, "  - {}{loses}", step.text)?;
            if let Some(command) = &step.command {
                writeln!(f, "      {command}")?;
            }
        }
        Ok(())
    }
}
