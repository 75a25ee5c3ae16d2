//! Which copies of an object are right: a pure judgement from what the members say of them.
//!
//! Never by majority and never by primacy: a copy is right if its checksums hold and it is at the newest version that
//! any copy or the log knows. Where copies that are all of that differ, none is known to be right.

use crate::log::decode_version;
use nacre_types::{EVersion, OsdId, mutant};
use nacre_wire::messages::ScrubObject;
use std::collections::BTreeMap;
use std::fmt;

pub(super) type Copies<'a> = BTreeMap<OsdId, Option<&'a ScrubObject>>;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    Absent,
    /// It was deleted.
    Unexpected,
    ReadError {
        blocks: Vec<u64>,
    },
    Stale {
        found: EVersion,
        wanted: EVersion,
    },
    Differs {
        what: &'static str,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Absent => f.write_str("it is absent"),
            Fault::Unexpected => f.write_str("it exists although it was deleted"),
            Fault::ReadError { blocks } if blocks.is_empty() => f.write_str("it cannot be read"),
            Fault::ReadError { blocks } => write!(f, "the checksum of its data fails at block {}", blocks[0]),
            Fault::Stale { found, wanted } => write!(f, "it is at version {found}, not {wanted}"),
            Fault::Differs { what } => write!(f, "its {what} is not that of the other copies"),
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Verdict {
    pub faults: Vec<(OsdId, Fault)>,
    /// Copies to be replaced.
    pub bad: Vec<OsdId>,
    /// The version the object should be at; `None` if it should not exist.
    pub wanted: Option<EVersion>,
    /// A copy that is right.
    pub authority: Option<OsdId>,
}

impl Verdict {
    pub fn can_be_repaired(&self) -> bool {
        self.authority.is_some() || self.wanted.is_none()
    }
}

/// `logged` is the object's newest log entry: its version, and whether it deleted the object.
pub(super) fn judge(copies: &Copies<'_>, logged: Option<(EVersion, bool)>, prefer: OsdId) -> Verdict {
    let present = || copies.iter().filter_map(|(&osd, copy)| copy.map(|copy| (osd, copy)));
    if let Some((_, true)) = logged {
        let bad: Vec<OsdId> = present().map(|(osd, _)| osd).collect();
        let faults = bad.iter().map(|&osd| (osd, Fault::Unexpected)).collect();
        return Verdict { faults, bad, wanted: None, authority: None };
    }
    let newest = present().map(|(_, copy)| decode_version(copy.version)).max().unwrap_or_default();
    let wanted = logged.map_or(newest, |(version, _)| version.max(newest));
    let mut verdict = Verdict { faults: Vec::new(), bad: Vec::new(), wanted: Some(wanted), authority: None };
    let mut sound: Vec<(OsdId, &ScrubObject)> = Vec::new();
    for (&osd, copy) in copies {
        let fault = match copy {
            None => Fault::Absent,
            Some(copy) if (copy.read_error || !copy.bad_blocks.is_empty()) && !mutant!(ScrubTakesBadCopy) => {
                Fault::ReadError { blocks: copy.bad_blocks.clone() }
            }
            Some(copy) if decode_version(copy.version) != wanted => {
                Fault::Stale { found: decode_version(copy.version), wanted }
            }
            Some(copy) => {
                sound.push((osd, copy));
                continue;
            }
        };
        verdict.faults.push((osd, fault));
        verdict.bad.push(osd);
    }
    let Some(&(first, reference)) = sound.first() else { return verdict };
    let odd = sound.iter().find_map(|(_, copy)| difference(reference, copy));
    match odd {
        None => {
            let preferred = sound.iter().map(|&(osd, _)| osd).find(|&osd| osd == prefer);
            verdict.authority = Some(preferred.unwrap_or(first));
        }
        Some(what) => {
            verdict.faults.extend(sound.iter().map(|&(osd, _)| (osd, Fault::Differs { what })));
        }
    }
    verdict
}

fn difference(a: &ScrubObject, b: &ScrubObject) -> Option<&'static str> {
    if a.size != b.size {
        Some("size")
    } else if a.attrs_digest != b.attrs_digest {
        Some("xattr digest")
    } else if a.data_crc != b.data_crc && !mutant!(ScrubTakesBadCopy) {
        Some("data digest")
    } else if a.omap_digest != b.omap_digest {
        Some("omap digest")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::encode_version;
    use nacre_types::Epoch;

    fn version(seq: u64) -> EVersion {
        EVersion::new(Epoch(1), seq)
    }

    fn copy(seq: u64, data: u32) -> ScrubObject {
        ScrubObject {
            version: encode_version(version(seq)),
            size: 10,
            data_crc: Some(data),
            ..Default::default()
        }
    }

    fn damaged(seq: u64) -> ScrubObject {
        ScrubObject { read_error: true, bad_blocks: vec![3], data_crc: None, ..copy(seq, 0) }
    }

    fn verdict(copies: &[Option<ScrubObject>], logged: Option<(u64, bool)>) -> Verdict {
        let copies: Copies<'_> =
            copies.iter().enumerate().map(|(osd, copy)| (OsdId(osd as u32), copy.as_ref())).collect();
        judge(&copies, logged.map(|(seq, delete)| (version(seq), delete)), OsdId(0))
    }

    #[test]
    fn a_minority_whose_checksums_hold_beats_a_damaged_majority_with_the_primary() {
        let found = verdict(&[Some(damaged(5)), Some(damaged(5)), Some(copy(5, 7))], None);
        assert_eq!((found.authority, found.bad.len()), (Some(OsdId(2)), 2));
        assert!(found.can_be_repaired());
    }

    #[test]
    fn an_old_sound_copy_never_replaces_a_newer_damaged_one() {
        let found = verdict(&[Some(damaged(6)), Some(copy(5, 7)), Some(copy(5, 7))], None);
        assert_eq!(found.authority, None);
        assert!(!found.can_be_repaired());
        let found = verdict(&[Some(copy(5, 7)), Some(copy(5, 7))], Some((6, false)));
        assert!(!found.can_be_repaired() && found.faults.len() == 2);
    }

    #[test]
    fn sound_copies_that_differ_are_reported_and_left_alone() {
        let found = verdict(&[Some(copy(5, 1)), Some(copy(5, 2)), Some(copy(5, 2))], None);
        assert_eq!((found.faults.len(), found.authority, found.bad.len()), (3, None, 0));
    }

    #[test]
    fn presence_is_decided_by_the_log_and_else_in_favour_of_the_data() {
        let found = verdict(&[None, Some(copy(5, 1))], None);
        assert_eq!((found.authority, found.bad), (Some(OsdId(1)), vec![OsdId(0)]));
        let found = verdict(&[None, Some(copy(5, 1))], Some((6, true)));
        assert_eq!((found.wanted, found.bad.clone()), (None, vec![OsdId(1)]));
        assert!(found.can_be_repaired());
        assert!(verdict(&[Some(copy(5, 1)), Some(copy(5, 1))], Some((5, false))).faults.is_empty());
    }
}
