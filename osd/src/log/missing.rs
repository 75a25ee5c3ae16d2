//! The objects a copy of a PG lacks although its log names them: what recovery has to bring.

use super::entry::{Entry, RecordError, decode_version, encode_version};
use nacre_types::{EVersion, ObjectId};
use nacre_wire::ObjectName;
use nacre_wire::messages::MissingObject;
use std::collections::{BTreeMap, BTreeSet};

/// What is missing of one object.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Missing {
    /// The version it must come to.
    pub need: EVersion,
    /// The version the disk holds exactly: the changes since then suffice. Zero if it holds nothing usable.
    pub have: EVersion,
    /// At `need` the object does not exist: recovery removes it.
    pub is_delete: bool,
    /// The newest version that a client may have seen: been told is done, or read. Zero if then the object did not exist.
    /// Where that is an earlier one than `need`, nobody misses what came after it.
    pub seen: EVersion,
    /// What is needed is what this version was, under another number: the object was reverted. Zero if it was not.
    pub reverts_to: EVersion,
    /// The disk holds just `need`, but gave an error when it was read: it may give it another time.
    pub unread: bool,
}

impl Missing {
    /// A version that clients may have seen.
    pub fn of(need: EVersion, have: EVersion) -> Missing {
        Missing { need, have, is_delete: false, seen: need, reverts_to: EVersion::ZERO, unread: false }
    }

    /// A removal that is to come.
    pub fn removal(need: EVersion) -> Missing {
        Missing { is_delete: true, seen: EVersion::ZERO, ..Missing::of(need, EVersion::ZERO) }
    }

    /// The same, with nothing usable on the disk.
    pub fn without_base(self) -> Missing {
        Missing { have: EVersion::ZERO, ..self }
    }

    /// Whether the disk holds that version.
    pub fn holds(&self, version: EVersion) -> bool {
        version != EVersion::ZERO && self.have == version
    }

    /// Whether asking the disk again may bring that version.
    pub fn may_be_read(&self, version: EVersion) -> bool {
        self.unread && self.need == version
    }

    /// Whether no client knows what is needed.
    pub fn is_unseen(&self) -> bool {
        !self.is_delete && self.seen < self.need
    }
}

/// Missing objects by name and by the version they need. Two objects may need the same version number (a divergent
/// and a reissued one), so the second index is by both.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MissingSet {
    objects: BTreeMap<ObjectId, Missing>,
    by_need: BTreeSet<(EVersion, ObjectId)>,
}

impl MissingSet {
    pub fn new() -> MissingSet {
        MissingSet::default()
    }

    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    pub fn len(&self) -> usize {
        self.objects.len()
    }

    pub fn contains(&self, object: &ObjectId) -> bool {
        self.objects.contains_key(object)
    }

    pub fn get(&self, object: &ObjectId) -> Option<Missing> {
        self.objects.get(object).copied()
    }

    /// In object order.
    pub fn iter(&self) -> impl Iterator<Item = (&ObjectId, &Missing)> {
        self.objects.iter()
    }

    /// Those of one range of names: an object with its clones.
    pub fn family(&self, names: std::ops::RangeInclusive<ObjectId>) -> impl Iterator<Item = &ObjectId> {
        self.objects.range(names).map(|(object, _)| object)
    }

    /// Those whose need no client has seen.
    pub fn unseen(&self) -> impl Iterator<Item = (&ObjectId, &Missing)> {
        self.objects.iter().filter(|(_, missing)| missing.is_unseen())
    }

    /// Another copy knows that clients have seen nothing of the object after `seen`, if what is needed here is `need`.
    pub fn note_seen(&mut self, object: &ObjectId, need: EVersion, seen: EVersion) {
        if let Some(missing) = self.objects.get_mut(object).filter(|missing| missing.need == need) {
            missing.seen = missing.seen.min(seen);
        }
    }

    /// From now on clients may see all of it.
    pub fn all_seen(&mut self) {
        let shown = self.objects.values_mut().filter(|missing| missing.is_unseen());
        shown.for_each(|missing| missing.seen = missing.need);
    }

    /// Oldest need first: the order to recover in, so that `last_complete` moves.
    pub fn by_need(&self) -> impl Iterator<Item = (EVersion, &ObjectId)> {
        self.by_need.iter().map(|(version, object)| (*version, object))
    }

    /// The lowest version needed: everything before it is complete.
    pub fn oldest_need(&self) -> Option<EVersion> {
        self.by_need.first().map(|(version, _)| *version)
    }

    /// Sets what is missing of an object, replacing what was known.
    pub fn add(&mut self, object: ObjectId, missing: Missing) {
        if let Some(old) = self.objects.insert(object.clone(), missing) {
            self.by_need.remove(&(old.need, object.clone()));
        }
        self.by_need.insert((missing.need, object));
    }

    pub fn remove(&mut self, object: &ObjectId) -> Option<Missing> {
        let old = self.objects.remove(object)?;
        let was = self.by_need.remove(&(old.need, object.clone()));
        assert!(was, "the indices of a missing set go together");
        Some(old)
    }

    /// The object arrived at `version`. True if that is all it needed (or more).
    pub fn got(&mut self, object: &ObjectId, version: EVersion) -> bool {
        let done = self.objects.get(object).is_some_and(|missing| version >= missing.need);
        if done {
            self.remove(object);
        }
        done
    }

    /// The log goes on by `entry`, which this copy has not applied. No client has seen entries after `seen_to`.
    pub fn add_next_event(&mut self, entry: &Entry, seen_to: EVersion) {
        if entry.is_error() {
            return;
        }
        let old = self.objects.get(&entry.object);
        let seen = match old {
            // What was before a removal does not come back.
            _ if entry.is_delete() => EVersion::ZERO,
            _ if entry.version <= seen_to => entry.version,
            Some(old) => old.seen,
            None => entry.prior_version,
        };
        let have = match old {
            // Whatever the disk holds of it is from before it was made anew; only a removal needs to know.
            Some(old) if entry.makes_anew() && !entry.is_delete() => {
                debug_assert!(old.need <= entry.version);
                EVersion::ZERO
            }
            Some(old) => old.have,
            None if entry.makes_anew() => EVersion::ZERO,
            None => entry.prior_version,
        };
        let missing = Missing {
            need: entry.version,
            have,
            is_delete: entry.is_delete(),
            seen,
            reverts_to: entry.reverts_to,
            unread: false,
        };
        self.add(entry.object.clone(), missing);
    }

    pub fn clear(&mut self) {
        *self = MissingSet::default();
    }

    pub fn encode(&self) -> Vec<MissingObject> {
        self.objects.iter().map(|(object, missing)| encode_missing(object, missing)).collect()
    }

    pub fn decode(wire: &[MissingObject]) -> Result<MissingSet, RecordError> {
        let mut set = MissingSet::new();
        for record in wire {
            let (object, missing) = decode_missing(record)?;
            set.add(object, missing);
        }
        Ok(set)
    }
}

pub(crate) fn encode_missing(object: &ObjectId, missing: &Missing) -> MissingObject {
    MissingObject {
        object: Some(ObjectName::from(object)),
        need: encode_version(missing.need),
        have: encode_version(missing.have),
        is_delete: missing.is_delete,
        seen: encode_version(missing.seen).filter(|_| missing.is_unseen()),
        reverts_to: encode_version(missing.reverts_to).filter(|v| v.seq > 0),
        unread: missing.unread,
    }
}

pub(crate) fn decode_missing(record: &MissingObject) -> Result<(ObjectId, Missing), RecordError> {
    const RECORD: &str = "missing object";
    let object = record.object.as_ref().ok_or(RecordError::Absent { record: RECORD, field: "object" })?;
    let object = object.decode().map_err(|reason| RecordError::BadObject { record: RECORD, reason })?;
    let need = record.need.ok_or(RecordError::Absent { record: RECORD, field: "needed version" })?;
    let missing = Missing {
        need: decode_version(Some(need)),
        have: decode_version(record.have),
        is_delete: record.is_delete,
        seen: decode_version(record.seen.or((!record.is_delete).then_some(need))),
        reverts_to: decode_version(record.reverts_to),
        unread: record.unread,
    };
    Ok((object, missing))
}
