//! Block images: a header object, and data objects of 4 MiB (by default) named by the image's id.
//!
//! ```text
//!  image_directory   omap  name.NAME -> id
//!  header.ID         omap  header -> ImageHeader, snap.NUMBER -> SnapshotRecord; watched by all who have it open
//!  data.ID.NUMBER    16 hex digits; made by the first write to it
//! ```
//!
//! An [`Image`] is open: it reads and writes, follows changes that others make to the header, and where asked holds a
//! lease on it that fences every other owner. Everything is durable when its future completes.

mod blocks;
mod directory;
mod gate;
mod header;
mod io;
mod layout;
mod manage;
mod open;
mod owner;
mod snapshots;

pub use header::Snapshot;
pub use io::{ImageExtent, Segment};
pub use manage::CreateOptions;
pub use open::OpenOptions;

use crate::{ErrorCode, Lease, Notice, OpError, Pool, Result, WatchStream};
use gate::Gate;
use header::Header;
use layout::Layout;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// Largest image: what a signed 64-bit offset reaches, as every block client uses.
pub const IMAGE_BYTES_MAX: u64 = i64::MAX as u64;
/// Longest image or snapshot name.
pub const IMAGE_NAME_BYTES_MAX: usize = 255;
/// Data objects of one call that are worked on at once.
const WINDOW: usize = 16;

/// An open image. Cheap to clone; all clones are the same opening.
#[derive(Clone)]
pub struct Image {
    inner: Rc<Inner>,
}

struct Inner {
    /// Without snapshots; under the lease, if there is one.
    pool: Pool,
    id: String,
    layout: Layout,
    state: RefCell<State>,
    read_only: bool,
    /// The snapshot this is opened at.
    snapshot: Option<Snapshot>,
    /// Writes go through it; what must not run beside them closes it.
    writes: Gate,
    /// Closed while the header is read again.
    refreshes: Gate,
    /// Until closed.
    watch: RefCell<Option<Rc<WatchStream>>>,
    lease: RefCell<Option<Lease>>,
    /// What others have said about the header and this has not dealt with.
    news: RefCell<Vec<Notice>>,
    gone: Cell<bool>,
    closed: Cell<bool>,
}

struct State {
    header: Header,
    /// Where data is read and written: with the snapshot context, or at the snapshot.
    data: Pool,
    size: u64,
}

/// What there is to know about an image.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ImageInfo {
    pub name: String,
    pub id: String,
    pub size: u64,
    pub order: u32,
    pub object_bytes: u64,
    pub objects: u64,
    pub created_ms: u64,
    pub snapshots: Vec<Snapshot>,
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Image").field("id", &self.inner.id).finish_non_exhaustive()
    }
}

impl Image {
    pub fn id(&self) -> &str {
        &self.inner.id
    }

    pub fn name(&self) -> String {
        self.inner.state.borrow().header.fields.name.clone()
    }

    /// Bytes; of the snapshot, where opened at one.
    pub fn size(&self) -> u64 {
        self.inner.state.borrow().size
    }

    pub fn object_bytes(&self) -> u64 {
        self.inner.layout.object_bytes()
    }

    pub fn read_only(&self) -> bool {
        self.inner.read_only
    }

    /// Whether somebody has removed the image: every operation fails from then on.
    pub fn is_gone(&self) -> bool {
        self.inner.gone.get()
    }

    pub fn pool(&self) -> &Pool {
        &self.inner.pool
    }

    pub fn info(&self) -> ImageInfo {
        let state = self.inner.state.borrow();
        ImageInfo { size: state.size, ..state.header.info(&self.inner.id) }
    }

    fn data_pool(&self) -> Pool {
        self.inner.state.borrow().data.clone()
    }

    fn check_writable(&self) -> Result<()> {
        match (&self.inner.snapshot, self.inner.read_only) {
            (Some(snapshot), _) => {
                let text =
                    format!("image {}@{} is a snapshot: it cannot be changed", self.name(), snapshot.name);
                Err(OpError::new(ErrorCode::ReadOnly, text))
            }
            (None, true) => {
                let text = format!("image {} was opened read-only", self.name());
                Err(OpError::new(ErrorCode::ReadOnly, text))
            }
            (None, false) => Ok(()),
        }
    }

    fn check_range(&self, offset: u64, length: u64) -> Result<()> {
        let size = self.size();
        if offset.checked_add(length).is_some_and(|end| end <= size) {
            return Ok(());
        }
        let text =
            format!("{length} bytes at {offset} reach beyond the end of image {}, {size} bytes", self.name());
        Err(OpError::new(ErrorCode::OutOfRange, text))
    }
}

/// Refuses names that would be ambiguous in `pool/image@snapshot`.
fn check_name(what: &str, name: &str) -> Result<()> {
    let problem = match name {
        "" => "must not be empty".into(),
        name if name.len() > IMAGE_NAME_BYTES_MAX => {
            format!("has {} bytes, at most {IMAGE_NAME_BYTES_MAX} are allowed", name.len())
        }
        name if name.contains(['/', '@']) || name.chars().any(char::is_control) => {
            "must not contain '/', '@' or control characters".into()
        }
        _ => return Ok(()),
    };
    Err(OpError::new(ErrorCode::InvalidArgument, format!("{what} name '{}' {problem}", shortened(name))))
}

fn shortened(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(40).collect()
}

#[cfg(test)]
mod tests;
