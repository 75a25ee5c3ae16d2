//! Merges against a model that applies every entry to real (if tiny) objects.

use super::*;
use crate::log::DUPS_MAX;
use nacre_types::{ClientId, Epoch, PoolId, RequestId, Rng};
use nacre_wire::messages::LogKind;

fn object(n: u64) -> ObjectId {
    ObjectId::new(PoolId(1), "", &format!("o{n}")).unwrap()
}

fn version(epoch: u64, seq: u64) -> EVersion {
    EVersion::new(Epoch(epoch), seq)
}

type Objects = BTreeMap<ObjectId, EVersion>;

/// A history of changes, and what the objects are after it.
#[derive(Clone, Default)]
struct History {
    entries: Vec<Entry>,
    objects: Objects,
}

impl History {
    fn head(&self) -> EVersion {
        self.entries.last().map_or(EVersion::ZERO, |entry| entry.version)
    }

    fn change(&mut self, rng: &mut Rng, epoch: u64) -> Entry {
        let object = object(rng.below(6));
        let prior = self.objects.get(&object).copied().unwrap_or_default();
        let at = version(epoch, self.head().seq + 1);
        let kind = match rng.below(10) {
            0 => LogKind::Error,
            1 | 2 if prior != EVersion::ZERO => LogKind::Delete,
            4 if prior != EVersion::ZERO => LogKind::Revert,
            3 if prior == EVersion::ZERO => LogKind::Clone,
            _ => LogKind::Modify,
        };
        let mut entry = Entry::new(kind, object.clone(), at, prior);
        entry.request = RequestId { client: ClientId(1), seq: at.seq * 100 + epoch };
        if kind == LogKind::Revert {
            entry.reverts_to = *rng.pick(&self.earlier(&object)).unwrap();
        }
        self.apply(&entry);
        self.entries.push(entry.clone());
        entry
    }

    fn apply(&mut self, entry: &Entry) {
        match entry.kind {
            LogKind::Error => {}
            _ if entry.is_delete() => _ = self.objects.remove(&entry.object),
            _ => _ = self.objects.insert(entry.object.clone(), entry.version),
        }
    }

    /// The object's versions before its present one, since it was made; zero for not being there.
    fn earlier(&self, object: &ObjectId) -> Vec<EVersion> {
        let mut versions = vec![EVersion::ZERO];
        for entry in self.entries.iter().rev().filter(|entry| entry.object == *object && !entry.is_error()) {
            if Some(&entry.version) != self.objects.get(object) {
                versions.push(entry.version);
            }
            if entry.makes_anew() {
                break;
            }
        }
        versions
    }

    /// Entries that later ones have undone.
    fn undone(&self) -> Vec<EVersion> {
        let mut undone = Vec::new();
        for (at, revert) in self.entries.iter().enumerate().filter(|(_, entry)| entry.is_revert()) {
            for entry in self.entries[..at].iter().rev().filter(|entry| entry.object == revert.object) {
                if entry.version <= revert.reverts_to {
                    break;
                }
                undone.push(entry.version);
                if entry.makes_anew() && !entry.is_error() {
                    break;
                }
            }
        }
        undone
    }

    fn log(&self, tail_entries: usize) -> PgLog {
        let mut log = PgLog::new(EVersion::ZERO);
        self.entries.iter().for_each(|entry| log.append(entry.clone()));
        if tail_entries > 0 {
            log.trim(self.entries[tail_entries - 1].version);
        }
        log
    }
}

/// A copy: its own history, what is on its disk, what it knows it misses.
struct Copy {
    history: History,
    disk: Objects,
    missing: MissingSet,
}

impl Copy {
    fn of(history: &History) -> Copy {
        Copy { history: history.clone(), disk: history.objects.clone(), missing: MissingSet::new() }
    }

    /// Goes on by one change, applied or (as after a merge) only logged.
    fn change(&mut self, rng: &mut Rng, epoch: u64, applied: bool) {
        let entry = self.history.change(rng, epoch);
        if entry.is_error() {
            return;
        }
        let only_noted = entry.is_revert() && !entry.is_delete();
        if !applied || only_noted || self.missing.contains(&entry.object) {
            self.missing.add_next_event(&entry, entry.version);
            return;
        }
        match self.history.objects.get(&entry.object) {
            Some(&at) => _ = self.disk.insert(entry.object, at),
            None => _ = self.disk.remove(&entry.object),
        }
    }

    fn recover_one(&mut self, rng: &mut Rng) {
        let objects: Vec<ObjectId> = self.missing.iter().map(|(object, _)| object.clone()).collect();
        let Some(object) = rng.pick(&objects) else { return };
        let missing = self.missing.remove(object).unwrap();
        match missing.is_delete {
            true => _ = self.disk.remove(object),
            false => _ = self.disk.insert(object.clone(), missing.need),
        }
    }
}

/// What is on `disk` plus what `missing` will bring is exactly `wanted`; what it relies on having is really there.
fn assert_leads_to(disk: &Objects, missing: &MissingSet, wanted: &Objects, seed: u64) {
    for object in (0..6).map(object) {
        let want = wanted.get(&object).copied();
        let holds = disk.get(&object).copied();
        match missing.get(&object) {
            None => assert_eq!(holds, want, "seed {seed}: {object} is said not to be missing"),
            Some(missing) => {
                assert_eq!(missing.is_delete, want.is_none(), "seed {seed}: {object}: {missing:?}");
                if let Some(want) = want {
                    assert_eq!(missing.need, want, "seed {seed}: {object}");
                }
                if missing.have != EVersion::ZERO && !missing.is_delete {
                    assert_eq!(holds, Some(missing.have), "seed {seed}: {object} is not what it has");
                }
                assert!(missing.seen <= missing.need, "seed {seed}: {object}: {missing:?}");
            }
        }
    }
}

#[test]
fn merging_leads_to_the_authoritative_objects_whatever_diverged() {
    let (mut divergent, mut no_overlap) = (0, 0);
    for seed in 0..6000 {
        let mut rng = Rng::new(seed);
        let mut shared = History::default();
        for _ in 0..rng.range(0, 12) {
            shared.change(&mut rng, 1);
        }
        // The copy: perhaps behind on some objects already, then divergent in one or two epochs.
        let mut copy = Copy::of(&shared);
        for _ in 0..rng.below(5) {
            let applied = rng.chance(2, 3);
            copy.change(&mut rng, 2, applied);
            shared.entries.push(copy.history.entries.last().unwrap().clone());
        }
        shared = History { objects: copy.history.objects.clone(), entries: copy.history.entries.clone() };
        for epoch in 3..3 + rng.below(3) {
            for _ in 0..rng.below(4) {
                let applied = rng.chance(3, 4);
                copy.change(&mut rng, epoch, applied);
                if rng.chance(1, 3) {
                    copy.recover_one(&mut rng);
                }
            }
        }
        // Those who stayed: rewound to somewhere at or below the copy's shared part, then on with reissued numbers.
        let mut auth = History::default();
        let keep = if rng.chance(1, 2) {
            shared.entries.len()
        } else {
            rng.below(shared.entries.len() as u64 + 1) as usize
        };
        for entry in &shared.entries[..keep] {
            auth.apply(entry);
            auth.entries.push(entry.clone());
        }
        for _ in 0..rng.below(8) {
            auth.change(&mut rng, 9);
        }

        // Nothing is trimmed while a revert may still be discarded.
        let reverting =
            copy.history.entries[keep.min(copy.history.entries.len())..].iter().any(Entry::is_revert);
        let own_trim = if reverting { 0 } else { rng.below(keep as u64 + 1) as usize };
        let auth_trim = rng.below(auth.entries.len() as u64 + 1) as usize;
        let (own_log, auth_log) = (copy.history.log(own_trim), auth.log(auth_trim));
        own_log.check();
        auth_log.check();

        let mark = BackfillMark::Complete;
        let seen_to = rng.pick(&auth.entries).map_or(EVersion::ZERO, |entry| entry.version);
        let (mut log, mut missing) = (own_log.clone(), copy.missing.clone());
        let merged = merge_authoritative(&mut log, &mut missing, &mark, &auth_log, seen_to);
        // What the primary works out of the peer's log (all of it, or its end) is what the peer does when activated by
        // the end of the authoritative one.
        let since = auth_log.tail();
        let (tail, records) = own_log.encode_after(rng.chance(1, 2).then_some(since));
        let peer = PeerLog {
            log: PgLog::decode(tail, &records).unwrap(),
            missing: copy.missing.clone(),
            last_backfill: mark.clone(),
        };
        let state = process_replica_log(&auth_log, peer, seen_to);
        let Ok(merged) = merged else {
            no_overlap += 1;
            assert!(state.is_err(), "seed {seed}");
            continue;
        };
        divergent += usize::from(!merged.divergent.is_empty());
        let state = state.unwrap();
        assert_eq!(state.missing, missing, "seed {seed}: primary and peer disagree");
        assert_eq!(state.common, merged.common, "seed {seed}");
        let (tail, records) = auth_log.encode_after(Some(state.common));
        let (mut again, mut missing_again) = (own_log.clone(), copy.missing.clone());
        let end = PgLog::decode(tail, &records).unwrap();
        let by_end = merge_authoritative(&mut again, &mut missing_again, &mark, &end, seen_to).unwrap();
        assert_eq!(Merged { extended: merged.extended, ..by_end }, merged);
        assert_eq!(missing_again, missing);

        log.check();
        assert_eq!(log.tail(), own_log.tail().min(auth_log.tail()));
        assert_eq!(log.head(), auth_log.head());
        let mut disk = copy.disk.clone();
        merged.remove.iter().for_each(|object| _ = disk.remove(object));
        assert_leads_to(&disk, &missing, &auth.objects, seed);
        // Requests: those of the history are known, discarded ones are not.
        for entry in &merged.divergent {
            assert_eq!(log.find_request(entry.request), None, "seed {seed}");
        }
        let undone = auth.undone();
        for entry in &auth.entries {
            let found = log.find_request(entry.request).map(|found| found.version);
            // What was trimmed before it was undone is remembered: it is not reverted without its client's knowing.
            if entry.version > log.tail() || !undone.contains(&entry.version) {
                let known = (!undone.contains(&entry.version)).then_some(entry.version);
                assert_eq!(found, known, "seed {seed}: {entry:?}");
            }
        }
        // Merging once more changes nothing.
        let before = (log.head(), missing.clone());
        let nothing = merge_authoritative(&mut log, &mut missing, &mark, &auth_log, seen_to).unwrap();
        assert_eq!((nothing.taken, nothing.divergent.len(), nothing.remove.len()), (0, 0, 0));
        assert_eq!((log.head(), missing), before);
    }
    assert!(divergent > 1000 && no_overlap > 100, "{divergent} {no_overlap}");
}

#[test]
fn one_version_number_for_two_objects_keeps_both() {
    let (a, b) = (object(0), object(1));
    let at = version(2, 5);
    let mut missing = MissingSet::new();
    missing.add(a.clone(), Missing { need: at, ..Missing::default() });
    missing.add(b.clone(), Missing { need: at, ..Missing::default() });
    assert!(missing.got(&a, at));
    assert_eq!(missing.by_need().collect::<Vec<_>>(), [(at, &b)]);
}

#[test]
fn beyond_the_backfill_mark_nothing_is_missing() {
    let mut auth = PgLog::new(EVersion::ZERO);
    for seq in 1..=6 {
        auth.append(Entry::new(LogKind::Modify, object(seq - 1), version(1, seq), EVersion::ZERO));
    }
    let mut sorted: Vec<ObjectId> = (0..6).map(object).collect();
    sorted.sort();
    let mark = BackfillMark::At(sorted[2].key().into());
    let (mut log, mut missing) = (PgLog::new(EVersion::ZERO), MissingSet::new());
    merge_authoritative(&mut log, &mut missing, &mark, &auth, auth.head()).unwrap();
    assert_eq!(missing.iter().map(|(object, _)| object.clone()).collect::<Vec<_>>(), sorted[..3]);
    assert!(!BackfillMark::START.covers(&sorted[0]));
}

#[test]
fn requests_outlive_their_entries_up_to_a_bound() {
    let mut log = PgLog::new(EVersion::ZERO);
    let total = DUPS_MAX as u64 + 500;
    let request = |seq| RequestId { client: ClientId(7), seq };
    let entry = |seq| {
        let mut entry = Entry::new(LogKind::Modify, object(0), version(1, seq), version(1, seq - 1));
        (entry.request, entry.answer) = (request(seq), format!("a{seq}").into());
        entry
    };
    (1..=total).for_each(|seq| log.append(entry(seq)));
    assert_eq!(log.trim_target(100, 64, version(1, 50)), None, "not enough is committed everywhere");
    let target = log.trim_target(100, 64, log.head()).unwrap();
    assert_eq!(target, version(1, total - 100));
    let trimmed = log.trim(target);
    log.check();
    assert_eq!((log.len(), log.dup_count()), (100, DUPS_MAX));
    assert_eq!(trimmed.forget, [(version(1, 1), version(1, 400))]);
    assert_eq!(log.find_request(request(400)), None);
    assert_eq!(log.find_request(request(401)).unwrap().answer, "a401");
    assert_eq!(log.find_request(request(total)).unwrap().version, version(1, total));
    let (tail, records) = log.encode_after(None);
    let copy = PgLog::decode(tail, &records).unwrap();
    assert_eq!(copy.encode_after(None), (tail, records));
    // Entries of a longer log are taken back in: their keys are there again, and go again.
    let mut longer = PgLog::new(version(1, 100));
    (101..=total).for_each(|seq| longer.append(entry(seq)));
    log.extend_back(&longer);
    assert_eq!(log.trim(target).forget, [(version(1, 101), version(1, 400))]);
    assert_eq!(copy.find_request(request(401)), log.find_request(request(401)));
}

/// One answer was lost; its client makes thousands of requests before it asks again.
#[test]
fn a_request_is_remembered_while_its_client_goes_on_without_its_answer() {
    let mut log = PgLog::new(EVersion::ZERO);
    let total = 3 * DUPS_MAX as u64;
    let request = |seq| RequestId { client: ClientId(1), seq };
    for seq in 1..=total {
        let mut entry = Entry::new(LogKind::Modify, object(0), version(1, seq), version(1, seq - 1));
        entry.request = request(seq);
        entry.answered_below = seq.min(10);
        entry.unanswered = if seq > 300 && seq % 40 == 0 { vec![10, seq - 1] } else { Vec::new() };
        log.append(entry);
        if seq % 100 == 0 {
            log.trim(version(1, seq - 50));
            log.check();
        }
    }
    assert!(log.dup_count() < 150, "{}", log.dup_count());
    let (tail, records) = log.encode_after(None);
    for log in [&log, &PgLog::decode(tail, &records).unwrap()] {
        assert_eq!(log.find_request(request(10)).map(|found| found.version), Some(version(1, 10)));
        assert!(!log.is_answered(request(10)) && log.is_answered(request(11)));
    }
}

#[test]
fn a_request_is_remembered_until_its_client_has_the_answer() {
    let mut log = PgLog::new(EVersion::ZERO);
    let total = 3 * DUPS_MAX as u64;
    let request = |client, seq| RequestId { client: ClientId(client), seq };
    // One client asks once, and is not heard of again; another has each answer before it asks again, but for two.
    for seq in 1..=total {
        let mut entry = Entry::new(LogKind::Modify, object(0), version(1, seq), version(1, seq - 1));
        entry.request = request(if seq == 10 { 1 } else { 2 }, seq);
        entry.answered_below = if seq == 10 { 10 } else { seq.max(3) - 2 };
        log.append(entry);
        if seq % 100 == 0 {
            log.trim(version(1, seq - 50));
            log.check();
        }
    }
    let last = log.trim(version(1, total - 20));
    assert_eq!(log.dup_count(), 4, "what is trimmed tells which: the one, and the other's last");
    assert_eq!(last.forget, [(version(1, total - 52), version(1, total - 23))]);
    let asked = |log: &PgLog| {
        assert_eq!(log.find_request(request(1, 10)).unwrap().version, version(1, 10));
        assert!(!log.is_answered(request(1, 10)));
        assert_eq!(log.find_request(request(2, 11)), None);
        assert!(log.is_answered(request(2, 11)));
        assert!(
            !log.is_answered(request(2, total - 22)) && log.find_request(request(2, total - 22)).is_some()
        );
    };
    asked(&log);
    let (tail, records) = log.encode_after(None);
    asked(&PgLog::decode(tail, &records).unwrap());
}
