//! Newtypes for the ids that name things in a cluster, with the text forms people see (`1.2f`, `osd.3`).

use std::fmt;
use std::str::FromStr;

/// An OSD's number. Small and dense: maps index arrays by it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OsdId(pub u32);

/// A pool's number, never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PoolId(pub u32);

/// A placement group: a pool and a slice of its hash space. Text form `pool.seed-in-hex`, as in Ceph.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PgId {
    pub pool: PoolId,
    pub seed: u32,
}

/// A self-managed snapshot of a pool. `HEAD` is the live object and sorts after every clone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SnapId(pub u64);

/// One run of one client or daemon. A restarted client is another instance: its request ids start over.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ClientId(pub u64);

/// Names one client request for ever; duplicate detection is by this.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct RequestId {
    pub client: ClientId,
    pub seq: u64,
}

/// Why a piece of text is not an id.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("'{text}' is not {expected}")]
pub struct IdParseError {
    pub text: String,
    pub expected: &'static str,
}

impl SnapId {
    pub const HEAD: SnapId = SnapId(u64::MAX);

    pub fn is_head(self) -> bool {
        self == SnapId::HEAD
    }
}

impl PgId {
    pub const fn new(pool: PoolId, seed: u32) -> PgId {
        PgId { pool, seed }
    }

    /// The pool in the high half, the seed in the low half: the key of maps and wire fields.
    pub const fn as_u64(self) -> u64 {
        (self.pool.0 as u64) << 32 | self.seed as u64
    }

    pub const fn from_u64(raw: u64) -> PgId {
        PgId { pool: PoolId((raw >> 32) as u32), seed: raw as u32 }
    }
}

impl fmt::Display for OsdId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "osd.{}", self.0)
    }
}

impl fmt::Display for PoolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for PgId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:x}", self.pool.0, self.seed)
    }
}

impl fmt::Display for SnapId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_head() { f.write_str("head") } else { write!(f, "{}", self.0) }
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.client, self.seq)
    }
}

impl FromStr for OsdId {
    type Err = IdParseError;

    /// Accepts `osd.3` and `3`.
    fn from_str(text: &str) -> Result<OsdId, IdParseError> {
        let digits = text.strip_prefix("osd.").unwrap_or(text);
        let error = || IdParseError { text: text.into(), expected: "an OSD id like osd.3" };
        digits.parse().map(OsdId).map_err(|_| error())
    }
}

impl FromStr for PgId {
    type Err = IdParseError;

    fn from_str(text: &str) -> Result<PgId, IdParseError> {
        let error = || IdParseError { text: text.into(), expected: "a PG id like 1.2f" };
        let (pool, seed) = text.split_once('.').ok_or_else(error)?;
        let pool = pool.parse().map_err(|_| error())?;
        let seed = u32::from_str_radix(seed, 16).map_err(|_| error())?;
        Ok(PgId::new(PoolId(pool), seed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pg_text_form_round_trips() {
        let pg: PgId = "12.2f".parse().unwrap();
        assert_eq!(pg, PgId::new(PoolId(12), 0x2f));
        assert_eq!(pg.to_string(), "12.2f");
        assert_eq!(PgId::from_u64(pg.as_u64()), pg);
        for bad in ["", "1", "1.", ".1", "1.zz", "-1.0", "1.2.3"] {
            assert!(bad.parse::<PgId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn osd_text_form() {
        assert_eq!("osd.7".parse::<OsdId>().unwrap(), OsdId(7));
        assert_eq!("7".parse::<OsdId>().unwrap(), OsdId(7));
        assert!("osd.x".parse::<OsdId>().is_err());
    }
}
