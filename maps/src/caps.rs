//! Capabilities: what an entity may do, in Ceph's words.
//!
//! A cap is a comma-separated list of grants: `allow rw pool=rbd namespace=tenant-a, allow r`. Letters are `r` read,
//! `w` write, `x` call server-side methods (locks, watches), `*` everything. Without `pool=` a grant holds for all
//! pools, without `namespace=` for all namespaces.

use std::fmt;
use std::str::FromStr;

/// What one operation needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Access {
    pub read: bool,
    pub write: bool,
    pub execute: bool,
}

impl Access {
    pub const READ: Access = Access { read: true, write: false, execute: false };
    pub const WRITE: Access = Access { read: false, write: true, execute: false };
    pub const ALL: Access = Access { read: true, write: true, execute: true };

    fn includes(self, needed: Access) -> bool {
        (self.read || !needed.read) && (self.write || !needed.write) && (self.execute || !needed.execute)
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Grant {
    access: Access,
    pool: Option<String>,
    namespace: Option<String>,
}

/// A parsed cap. The default grants nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Caps {
    grants: Vec<Grant>,
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("'{text}' is not a cap: {reason}; write for example 'allow rw pool=rbd'")]
pub struct CapsError {
    text: String,
    reason: String,
}

impl Caps {
    /// May do everything.
    pub fn all() -> Caps {
        Caps { grants: vec![Grant { access: Access::ALL, pool: None, namespace: None }] }
    }

    /// Whether `needed` is granted on objects of a pool and namespace, by one grant alone.
    pub fn allow(&self, needed: Access, pool: &str, namespace: &str) -> bool {
        self.grants.iter().any(|grant| {
            grant.access.includes(needed)
                && grant.pool.as_deref().is_none_or(|only| only == pool)
                && grant.namespace.as_deref().is_none_or(|only| only == namespace)
        })
    }

    /// Whether `needed` is granted without regard to a pool: for monitor commands.
    pub fn allow_anywhere(&self, needed: Access) -> bool {
        self.grants
            .iter()
            .any(|grant| grant.pool.is_none() && grant.namespace.is_none() && grant.access.includes(needed))
    }
}

impl FromStr for Caps {
    type Err = CapsError;

    fn from_str(text: &str) -> Result<Caps, CapsError> {
        let error = |reason: String| CapsError { text: text.chars().take(200).collect(), reason };
        let mut grants = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let mut words = part.split_whitespace();
            if words.next() != Some("allow") {
                return Err(error(format!("'{part}' does not begin with 'allow'")));
            }
            let letters = words.next().ok_or_else(|| error(format!("'{part}' allows nothing")))?;
            let mut access = Access::default();
            for letter in letters.chars() {
                match letter {
                    'r' => access.read = true,
                    'w' => access.write = true,
                    'x' => access.execute = true,
                    '*' => access = Access::ALL,
                    other => return Err(error(format!("'{other}' is none of r, w, x, *"))),
                }
            }
            let mut grant = Grant { access, pool: None, namespace: None };
            for word in words {
                match word.split_once('=') {
                    Some(("pool", name)) if !name.is_empty() => grant.pool = Some(name.into()),
                    Some(("namespace", name)) => grant.namespace = Some(name.into()),
                    _ => return Err(error(format!("'{word}' is neither pool=NAME nor namespace=NAME"))),
                }
            }
            grants.push(grant);
        }
        Ok(Caps { grants })
    }
}

impl fmt::Display for Caps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, grant) in self.grants.iter().enumerate() {
            f.write_str(if at == 0 { "allow " } else { ", allow " })?;
            let letters = [(grant.access.read, "r"), (grant.access.write, "w"), (grant.access.execute, "x")];
            if grant.access == Access::ALL {
                f.write_str("*")?;
            } else {
                letters.iter().filter(|(has, _)| *has).try_for_each(|(_, letter)| f.write_str(letter))?;
            }
            if let Some(pool) = &grant.pool {
                write!(f, " pool={pool}")?;
            }
            if let Some(namespace) = &grant.namespace {
                write!(f, " namespace={namespace}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_hold_where_they_say() {
        let caps: Caps = "allow rw pool=a namespace=n, allow r pool=b".parse().unwrap();
        let rw = Access { read: true, write: true, execute: false };
        assert!(caps.allow(rw, "a", "n"));
        assert!(!caps.allow(rw, "a", ""));
        assert!(!caps.allow(rw, "b", "n"));
        assert!(caps.allow(Access::READ, "b", "anything"));
        assert!(!caps.allow(Access::READ, "c", ""));
        assert!(!caps.allow_anywhere(Access::READ));
        assert!(Caps::all().allow(Access::ALL, "x", "y"));
        assert!(!Caps::default().allow(Access::READ, "x", ""));
    }

    #[test]
    fn text_form_round_trips_and_bad_text_says_why() {
        for text in ["allow rw pool=a namespace=n, allow r", "allow *", "allow x", ""] {
            assert_eq!(text.parse::<Caps>().unwrap().to_string(), text);
        }
        for bad in ["deny r", "allow", "allow q", "allow r pool", "allow r pool=", "allow r color=red"] {
            assert!(bad.parse::<Caps>().is_err(), "{bad}");
        }
    }
}
