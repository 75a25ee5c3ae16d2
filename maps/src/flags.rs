//! Cluster-wide switches of the osdmap, by Ceph's names.

use std::fmt;
use std::str::FromStr;

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident $text:literal $bit:literal;)*) => {
        /// One switch. Bits are the wire's and never change.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Flag { $($(#[$doc])* $name),* }

        impl Flag {
            pub const ALL: &[Flag] = &[$(Flag::$name),*];

            pub fn as_str(self) -> &'static str {
                match self { $(Flag::$name => $text),* }
            }

            fn bit(self) -> u64 {
                match self { $(Flag::$name => 1 << $bit),* }
            }
        }
    };
}

flags! {
    /// Clients neither read nor write.
    Pause "pause" 0;
    /// OSDs that boot are not marked up.
    NoUp "noup" 1;
    /// Failed OSDs are not marked down.
    NoDown "nodown" 2;
    /// Down OSDs are not marked out.
    NoOut "noout" 3;
    /// New OSDs are not marked in.
    NoIn "noin" 4;
    NoRecover "norecover" 5;
    NoBackfill "nobackfill" 6;
    NoRebalance "norebalance" 7;
    NoScrub "noscrub" 8;
    NoDeepScrub "nodeep-scrub" 9;
    /// Set by the monitors: writes that need space are refused.
    Full "full" 10;
}

/// A set of [`Flag`]s.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flags(pub(crate) u64);

impl Flags {
    pub fn contains(self, flag: Flag) -> bool {
        self.0 & flag.bit() != 0
    }

    #[must_use]
    pub fn with(self, flag: Flag) -> Flags {
        Flags(self.0 | flag.bit())
    }

    #[must_use]
    pub fn without(self, flag: Flag) -> Flags {
        Flags(self.0 & !flag.bit())
    }

    pub fn iter(self) -> impl Iterator<Item = Flag> {
        Flag::ALL.iter().copied().filter(move |&flag| self.contains(flag))
    }

    pub fn bits(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.iter().map(Flag::as_str).collect();
        f.write_str(&names.join(","))
    }
}

impl FromStr for Flag {
    type Err = String;

    fn from_str(text: &str) -> Result<Flag, String> {
        Flag::ALL.iter().copied().find(|flag| flag.as_str() == text).ok_or_else(|| {
            let known: Vec<&str> = Flag::ALL.iter().map(|flag| flag.as_str()).collect();
            format!("'{text}' is not a cluster flag; there are {}", known.join(", "))
        })
    }
}
