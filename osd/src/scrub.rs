//! Scrub: do all copies agree? Deep scrub: can every block still be read?
//!
//! ```text
//!   chunk held: writes to it wait
//!      | every member describes its objects (build)
//!      v
//!   compare ----> errors counted, told; with repair: bad copies become missing ones and recovery replaces them
//!      |
//!      v next chunk, until the PG's end
//! ```
//!
//! A scrub runs while the PG is clean, one PG of an OSD at a time. Only its current chunk's objects wait.

mod build;
mod compare;

use crate::log::{Missing, encode_version, persist};
use crate::pg::{Pg, PgContext};
use bytes::Bytes;
use compare::{Copies, Verdict};
use nacre_maps::Flag;
use nacre_types::buggify;
use nacre_types::{EVersion, Instant, Needs, ObjectId, OsdId};
use nacre_wire::messages::{LogLevel, ScrubMap, ScrubObject, ScrubRequest};
use nacre_wire::{ErrorCode, ObjectName, Transaction};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Objects whose writes wait at once.
const CHUNK_OBJECTS: usize = 32;
/// The same where their data is read.
const DEEP_CHUNK_OBJECTS: usize = 4;
/// How often a PG that is due and may not yet run looks again.
const RETRY: Duration = Duration::from_secs(5);
/// A chunk that takes longer is given up, so that writes go on.
const CHUNK_TIME_MAX: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(crate) struct Scrub {
    run: Option<Run>,
    /// Found by the last scrub and not repaired since.
    errors: u64,
    /// Objects that others than scrub found to contradict themselves, since the last scrub.
    inconsistent: BTreeSet<ObjectId>,
    /// On demand: deep, repair.
    wanted: Option<(bool, bool)>,
    wanted_since: Instant,
    /// A repair is to be looked at once more.
    verify: bool,
    builder: Option<build::Builder>,
    last_id: u64,
    next_try: Instant,
    /// Wall time of the next scheduled run.
    due_ms: Option<u64>,
}

#[derive(Debug)]
struct Run {
    id: u64,
    deep: bool,
    repair: bool,
    mark: Bytes,
    chunk: Option<Chunk>,
    errors: u64,
    repaired: u64,
    objects: u64,
}

/// The keys after the run's mark up to `end` (the PG's end if empty).
#[derive(Debug)]
struct Chunk {
    end: Bytes,
    began: Instant,
    asked: Instant,
    at_version: EVersion,
    waiting: BTreeSet<OsdId>,
    maps: BTreeMap<OsdId, BTreeMap<ObjectId, ScrubObject>>,
}

impl Scrub {
    pub(crate) fn errors(&self) -> u64 {
        self.errors + self.inconsistent.len() as u64
    }

    /// State words for people.
    pub(crate) fn words(&self) -> Vec<&'static str> {
        let mut words = Vec::new();
        if let Some(run) = &self.run {
            words.push("scrubbing");
            words.extend(run.deep.then_some("deep"));
            words.extend(run.repair.then_some("repair"));
        }
        if self.errors() > 0 {
            words.push("inconsistent");
        }
        words
    }
}

impl Pg {
    pub(crate) fn scrub_is_running(&self) -> bool {
        let scrub = &self.recovery.scrub;
        scrub.run.is_some() || scrub.builder.is_some() || scrub.wanted.is_some()
    }

    /// The interval ended. What was found and wanted stays; what ran is wanted again.
    pub(crate) fn scrub_reset(&mut self, ctx: &mut PgContext<'_>) {
        let scrub = &mut self.recovery.scrub;
        if let Some(run) = scrub.run.take() {
            scrub.wanted.get_or_insert((run.deep, run.repair));
        }
        (scrub.builder, scrub.due_ms) = (None, None);
        ctx.requests.kick.extend(ctx.shared.scrub_ended(self.id));
    }

    /// One object contradicts itself or its family: that is told and shown, and stops nothing else.
    pub(crate) fn note_inconsistent(&mut self, ctx: &mut PgContext<'_>, object: &ObjectId, why: &str) {
        if self.recovery.scrub.inconsistent.insert(object.clone()) {
            ctx.log(LogLevel::Error, format!("PG {}: {object} is inconsistent: {why}; skipped", self.id));
            ctx.requests.report.insert(self.id);
        }
    }

    /// Other intervals count from now on.
    pub(crate) fn scrub_reschedule(&mut self) {
        self.recovery.scrub.due_ms = None;
    }

    pub(crate) fn scrub_deadline(&self) -> Option<Instant> {
        let scrub = &self.recovery.scrub;
        Some(scrub.next_try.max(Instant(1)))
    }

    /// What a scrub that runs, is wanted or is due waits for, and since when.
    pub(crate) fn scrub_wait(&self, ctx: &PgContext<'_>) -> Option<(Instant, Needs)> {
        let scrub = &self.recovery.scrub;
        if let Some(Run { chunk: Some(chunk), .. }) = &scrub.run {
            return Some((chunk.began, Needs::ScrubMaps(chunk.waiting.iter().copied().collect())));
        }
        let due = scrub.due_ms.is_some_and(|due| ctx.wall_ms >= due);
        if scrub.wanted.is_none() && ctx.map.flags().contains(Flag::NoScrub) && due {
            return Some((scrub.wanted_since, Needs::Flag(Flag::NoScrub.as_str().into())));
        }
        let holder = ctx.shared.scrub_holder();
        let needs = match holder {
            _ if scrub.wanted.is_none() => return None,
            _ if !self.clean => Needs::Clean,
            holder if holder != Some(self.id) => Needs::ScrubSlot(holder),
            _ => Needs::Turn,
        };
        Some((scrub.wanted_since, needs))
    }

    /// On demand. What runs or waits already and does as much is not begun again.
    pub(crate) fn want_scrub(&mut self, deep: bool, repair: bool) {
        let scrub = &mut self.recovery.scrub;
        let does = |(is_deep, repairs): (bool, bool)| is_deep >= deep && repairs >= repair;
        if scrub.run.as_ref().is_some_and(|run| does((run.deep, run.repair)))
            || scrub.wanted.is_some_and(does)
        {
            return;
        }
        let (also_deep, also_repair) = scrub.wanted.unwrap_or_default();
        scrub.wanted = Some((deep || also_deep, repair || also_repair));
        scrub.next_try = Instant::ZERO;
    }

    /// Starts what is due, sends again what is not answered.
    pub(crate) fn scrub_tick(&mut self, ctx: &mut PgContext<'_>) {
        let interval = ctx.config.tunables.resend_interval * 3;
        let Some(Run { chunk: Some(chunk), .. }) = &mut self.recovery.scrub.run else {
            return self.scrub_advance(ctx);
        };
        if ctx.now.since(chunk.began) > CHUNK_TIME_MAX {
            let whom: Vec<String> = chunk.waiting.iter().map(OsdId::to_string).collect();
            let text = format!("PG {}: scrub given up, no answer from {}", self.id, whom.join(", "));
            ctx.log(LogLevel::Warning, text);
            self.recovery.scrub.run = None;
            self.scrub_reset(ctx);
            self.recovery.scrub.next_try = ctx.now + RETRY;
            return self.kick(ctx);
        }
        if ctx.now.since(chunk.asked) >= interval {
            chunk.asked = ctx.now;
            self.ask_members(ctx);
        }
    }

    /// Begins or goes on, where nothing else is to be done.
    pub(crate) fn scrub_advance(&mut self, ctx: &mut PgContext<'_>) {
        if self.recovery.scrub.run.is_some() {
            return self.next_chunk(ctx);
        }
        if ctx.now < self.recovery.scrub.next_try {
            return;
        }
        self.recovery.scrub.next_try = ctx.now + RETRY;
        if !self.clean {
            return;
        }
        let Some((deep, repair)) = self.due(ctx) else { return };
        if !ctx.shared.may_scrub(self.id) {
            // Its turn may come at any time.
            self.recovery.scrub.next_try = ctx.now;
            return;
        }
        let scrub = &mut self.recovery.scrub;
        if scrub.wanted.take().is_none() {
            scrub.verify = false;
        }
        scrub.last_id += 1;
        let id = scrub.last_id;
        let (mark, chunk) = (Bytes::new(), None);
        scrub.run = Some(Run { id, deep, repair, mark, chunk, errors: 0, repaired: 0, objects: 0 });
        self.recovery_changed(ctx);
        self.next_chunk(ctx);
    }

    fn due(&mut self, ctx: &mut PgContext<'_>) -> Option<(bool, bool)> {
        let scrub = &mut self.recovery.scrub;
        if scrub.wanted.is_some() {
            return scrub.wanted;
        }
        if scrub.verify {
            return Some((true, false));
        }
        let history = &self.info.history;
        let millis = |interval: Duration| interval.as_millis() as u64;
        let tunables = &ctx.config.tunables;
        let (interval, deep_interval) =
            (millis(tunables.scrub_interval), millis(tunables.deep_scrub_interval));
        if interval == 0 {
            return None;
        }
        let spread = ctx.rng.below(interval);
        let due = *scrub.due_ms.get_or_insert_with(|| match history.last_scrub_ms {
            0 => ctx.wall_ms + spread,
            last => last + interval + spread / 2,
        });
        let flags = ctx.map.flags();
        let deep = deep_interval > 0
            && ctx.wall_ms > history.last_deep_scrub_ms + deep_interval
            && !flags.contains(Flag::NoDeepScrub)
            && history.last_scrub_ms > 0;
        (ctx.wall_ms >= due && !flags.contains(Flag::NoScrub)).then_some((deep, false))
    }

    fn next_chunk(&mut self, ctx: &mut PgContext<'_>) {
        let Some(run) = &self.recovery.scrub.run else { return };
        if run.chunk.is_some() {
            return;
        }
        let max = match run.deep {
            _ if buggify("osd: small scrub chunk") => 1,
            true => DEEP_CHUNK_OBJECTS,
            false => CHUNK_OBJECTS,
        };
        let end = match self.list_families(ctx, &run.mark, b"", max) {
            Ok((_, end)) => end,
            Err(error) => return self.recovery_store_failed(ctx, &error),
        };
        let waiting: BTreeSet<OsdId> = self.members.acting.iter().copied().collect();
        let at_version = self.log.head();
        let (began, asked, maps) = (ctx.now, ctx.now, BTreeMap::new());
        if let Some(run) = &mut self.recovery.scrub.run {
            run.chunk = Some(Chunk { end, began, asked, at_version, waiting, maps });
        }
        self.ask_members(ctx);
    }

    fn ask_members(&mut self, ctx: &mut PgContext<'_>) {
        let Some(Run { id, deep, mark, chunk: Some(chunk), .. }) = &self.recovery.scrub.run else { return };
        let request = ScrubRequest {
            interval: self.interval().0,
            after: mark.clone(),
            end: chunk.end.clone(),
            deep: *deep,
            scrub: *id,
            at_version: encode_version(chunk.at_version),
        };
        for osd in chunk.waiting.clone() {
            if osd == self.me {
                self.on_scrub_request(ctx, osd, &request);
            } else {
                self.send(ctx, osd, request.clone());
            }
        }
    }

    /// Whether writes to the object wait for the chunk it is in.
    pub(crate) fn scrub_holds(&self, object: &ObjectId) -> bool {
        let Some(Run { mark, chunk: Some(chunk), .. }) = &self.recovery.scrub.run else { return false };
        let key = object.head().key();
        key.as_slice() > mark.as_ref() && (chunk.end.is_empty() || key.as_slice() <= chunk.end.as_ref())
    }

    pub(crate) fn on_scrub_map(&mut self, ctx: &mut PgContext<'_>, from: OsdId, map: &ScrubMap) {
        let mut objects = BTreeMap::new();
        for record in &map.objects {
            let Some(Ok(object)) = record.object.as_ref().map(ObjectName::decode) else { return };
            objects.insert(object, record.clone());
        }
        let Some(Run { id, chunk: Some(chunk), mark, .. }) = &mut self.recovery.scrub.run else { return };
        // An answer that was sent twice is of an earlier chunk: its objects are not of this one.
        let inside = |object: &ObjectId| {
            let key = object.key();
            key.as_slice() > mark.as_ref() && (chunk.end.is_empty() || key.as_slice() <= chunk.end.as_ref())
        };
        if *id != map.scrub
            || map.end != chunk.end
            || !objects.keys().all(inside)
            || !chunk.waiting.remove(&from)
        {
            return;
        }
        chunk.maps.insert(from, objects);
        if chunk.waiting.is_empty() {
            self.compare_chunk(ctx);
        }
    }

    fn compare_chunk(&mut self, ctx: &mut PgContext<'_>) {
        let Some(run) = &mut self.recovery.scrub.run else { return };
        let (repair, deep) = (run.repair, run.deep);
        let Some(chunk) = run.chunk.take() else { return };
        let names: BTreeSet<&ObjectId> = chunk.maps.values().flat_map(BTreeMap::keys).collect();
        run.objects += names.len() as u64;
        let last = chunk.end.is_empty();
        run.mark = chunk.end.clone();
        let (mut errors, mut repaired) = (0, 0);
        for object in names {
            let missing = |osd: &OsdId| match *osd == self.me {
                true => self.missing.contains(object),
                false => self.peers.get(osd).is_some_and(|peer| peer.missing.contains(object)),
            };
            if chunk.maps.keys().any(missing) {
                // Found bad meanwhile, and being recovered.
                continue;
            }
            let copies: Copies<'_> = chunk.maps.iter().map(|(&osd, map)| (osd, map.get(object))).collect();
            let logged = self.log.entries().rev().find(|entry| !entry.is_error() && entry.object == *object);
            let verdict =
                compare::judge(&copies, logged.map(|entry| (entry.version, entry.is_delete())), self.me);
            if verdict.faults.is_empty() {
                continue;
            }
            errors += verdict.faults.len() as u64;
            for (osd, fault) in &verdict.faults {
                let kind = if deep { "deep-scrub" } else { "scrub" };
                let text = format!("PG {}: {kind}: {object} on {osd}: {fault}", self.id);
                ctx.log(LogLevel::Error, text);
            }
            if !repair {
                continue;
            }
            if verdict.can_be_repaired() {
                repaired += verdict.bad.len() as u64;
                self.repair(ctx, object, &verdict);
            } else {
                let text =
                    format!("PG {}: {object} cannot be repaired: no copy is known to be right", self.id);
                ctx.log(LogLevel::Error, text);
            }
        }
        if let Some(run) = &mut self.recovery.scrub.run {
            run.errors += errors;
            run.repaired += repaired;
        }
        self.kick(ctx);
        if last {
            self.finish_scrub(ctx);
        }
    }

    /// Bad copies become missing ones; recovery replaces them by one whose checksums hold.
    fn repair(&mut self, ctx: &mut PgContext<'_>, object: &ObjectId, verdict: &Verdict) {
        let missing = match verdict.wanted {
            Some(version) => Missing::of(version, EVersion::ZERO),
            None => Missing::removal(self.log.head()),
        };
        for &osd in &verdict.bad {
            self.trust_nothing(osd, object);
            if osd == self.me {
                self.missing.add(object.clone(), missing);
                self.info.follow(&self.log, &self.missing);
                let mut t = Transaction::new(self.id);
                persist::add_missing(&mut t, object, &missing);
                ctx.submit_unwatched(t);
            } else if let Some(peer) = self.peers.get_mut(&osd) {
                peer.missing.add(object.clone(), missing);
            }
        }
    }

    fn finish_scrub(&mut self, ctx: &mut PgContext<'_>) {
        let Some(run) = self.recovery.scrub.run.take() else { return };
        let scrub = &mut self.recovery.scrub;
        scrub.errors = run.errors;
        scrub.verify = run.repaired > 0;
        scrub.due_ms = None;
        scrub.next_try = if scrub.verify { ctx.now } else { ctx.now + RETRY };
        if !std::mem::take(&mut scrub.inconsistent).is_empty() {
            // What is still wrong is found again.
            self.trimming.restart();
        }
        ctx.requests.kick.extend(ctx.shared.scrub_ended(self.id));
        let kind = if run.deep { "deep-scrub" } else { "scrub" };
        let text = match run.errors {
            0 => format!("PG {}: {kind} ok, {} objects", self.id, run.objects),
            errors => format!(
                "PG {}: {kind} found {errors} errors in {} objects, {} copies to be repaired",
                self.id, run.objects, run.repaired
            ),
        };
        ctx.log(if run.errors > 0 { LogLevel::Error } else { LogLevel::Info }, text);
        let history = &mut self.info.history;
        history.last_scrub_ms = ctx.wall_ms;
        if run.deep {
            history.last_deep_scrub_ms = ctx.wall_ms;
        }
        let mut t = Transaction::new(self.id);
        persist::info(&mut t, &self.info);
        ctx.submit_unwatched(t);
        self.share_history(ctx);
        self.recovery_changed(ctx);
    }

    /// `pg scrub|deep-scrub|repair|list_unfound|mark_unfound_lost` and what `pg query` shows of recovery.
    pub(crate) fn recovery_admin(
        &mut self,
        ctx: &mut PgContext<'_>,
        command: &str,
        json: &str,
    ) -> Result<String, (ErrorCode, String)> {
        if !self.is_primary() || !self.is_active() {
            return Err((ErrorCode::TryAgain, format!("PG {} is not active here", self.id)));
        }
        let name = command.trim_start_matches("pg ").replace('-', "_");
        let answer = match name.as_str() {
            "scrub" => {
                self.want_scrub(false, false);
                "scrub"
            }
            "deep_scrub" => {
                self.want_scrub(true, false);
                "deep-scrub"
            }
            "repair" => {
                self.want_scrub(true, true);
                "repair"
            }
            "mark_unfound_lost" => {
                return self.mark_unfound_lost(ctx, json);
            }
            "list_unfound" => return Ok(self.list_unfound(ctx)),
            _ => return Err((ErrorCode::NotSupported, format!("'{command}' is not a command of a PG"))),
        };
        if self.recovery.scrub.run.is_none() {
            self.recovery.scrub.wanted_since = ctx.now;
        }
        self.recovery_advance(ctx);
        Ok(format!("{{\"pgid\":\"{}\",\"scheduled\":\"{answer}\"}}", self.id))
    }
}
