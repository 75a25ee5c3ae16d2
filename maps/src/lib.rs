//! The maps every daemon and client follows: which OSDs, pools and monitors there are, where each PG lies, who may do
//! what.
//!
//! ```text
//!  monitors --Incremental--> OsdMap(e) --apply--> OsdMap(e+1) --pg(..)--> up and acting sets
//! ```
//!
//! **Architecture Invariant:** a map is immutable once published, the same bytes for the same epoch everywhere, and
//! whatever is computed from it (placement above all) is a pure function of it.

mod auth_map;
mod caps;
mod config_map;
mod encode;
mod error;
mod flags;
mod incremental;
mod mon_map;
mod osd_info;
mod osd_map;
mod placement;
mod pool;

pub use auth_map::{AuthEntry, AuthMap};
pub use caps::{Access, Caps, CapsError};
pub use config_map::ConfigMap;
pub use error::MapError;
pub use flags::{Flag, Flags};
pub use incremental::{Incremental, Ratios};
pub use mon_map::{MonInfo, MonMap};
pub use osd_info::{AFFINITY_ONE, OsdInfo, WEIGHT_IN, WEIGHT_OUT};
pub use osd_map::OsdMap;
pub use placement::PgPlacement;
pub use pool::{PG_NUM_MAX, Pool, SnapRange};
