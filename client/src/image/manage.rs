//! Making, listing, renaming, resizing and removing images.
//!
//! The order of steps is such that one that is cut short leaves nothing in the way: a header is made before its name
//! and removed before its name, so that what is left over is either an unnamed header of a few hundred bytes or a name
//! that leads nowhere, which `directory` repairs. An image whose removal has begun says so and can be removed again.

use super::blocks::remove_if_there;
use super::header::{Fields, Header};
use super::layout::{Layout, ORDER_DEFAULT, data_name, data_prefix, header_name};
use super::{IMAGE_BYTES_MAX, Image, ImageInfo, check_name, directory, owner};
use crate::{ErrorCode, ListCursor, OpError, OpenOptions, Pool, Result, concurrent};
use std::collections::BTreeMap;
use std::time::Duration;

/// With more possible objects than this, removal looks for those that exist instead of trying them all.
const TRY_OBJECTS_MAX: u64 = 65_536;
const REMOVE_WINDOW: usize = 64;
const LIST_PAGE_ENTRIES: u32 = 1000;

/// How to make an image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CreateOptions {
    pub size: u64,
    /// Objects have 2 to the power of this bytes.
    pub order: u32,
}

impl CreateOptions {
    pub fn new(size: u64) -> CreateOptions {
        CreateOptions { size, order: ORDER_DEFAULT }
    }
}

fn check_size(size: u64) -> Result<()> {
    if size <= IMAGE_BYTES_MAX {
        return Ok(());
    }
    let text = format!("an image has at most {IMAGE_BYTES_MAX} bytes, not {size}");
    Err(OpError::new(ErrorCode::TooLarge, text))
}

impl Pool {
    /// Makes an image: `AlreadyExists` if there is one of that name.
    pub async fn create_image(&self, name: &str, options: CreateOptions) -> Result<ImageInfo> {
        check_name("image", name)?;
        check_size(options.size)?;
        Layout::new(options.order)?;
        let id = format!("{:016x}", self.cluster().random() ^ self.cluster().client_id().0.rotate_left(32));
        let header = Header::new(Fields {
            name: name.into(),
            size: options.size,
            order: options.order,
            created_ms: self.cluster().wall_ms(),
            ..Fields::default()
        });
        header.create(self, &id).await?;
        if let Err(error) = directory::insert(self, name, &id).await {
            // Best effort: a header without a name is in nobody's way.
            let _ = self.object(header_name(&id)).remove().await;
            return Err(error);
        }
        Ok(header.info(&id))
    }

    /// Names of all images, sorted.
    pub async fn images(&self) -> Result<Vec<String>> {
        Ok(directory::list(self).await?.into_iter().map(|(name, _)| name).collect())
    }

    /// Names of all images, by id.
    pub async fn image_names(&self) -> Result<BTreeMap<String, String>> {
        Ok(directory::list(self).await?.into_iter().map(|(name, id)| (id, name)).collect())
    }

    /// What an image is, without opening it.
    pub async fn image_info(&self, name: &str) -> Result<ImageInfo> {
        check_name("image", name)?;
        let (id, header) = directory::find(self, name).await?;
        Ok(header.info(&id))
    }

    pub async fn rename_image(&self, from: &str, to: &str) -> Result<()> {
        check_name("image", from)?;
        check_name("image", to)?;
        let (id, _) = directory::find(self, from).await?;
        directory::rename(self, from, to, &id).await?;
        Header::update(self, &id, |header| {
            header.fields.name = to.into();
            Ok(())
        })
        .await
        .map(drop)
    }

    /// Removes an image and all its data. `Busy` while it has snapshots or an owner.
    pub async fn remove_image(&self, name: &str) -> Result<()> {
        check_name("image", name)?;
        let (id, header) = directory::find(self, name).await?;
        let object = self.object(header_name(&id));
        let lease = owner::acquire(&object, name, Duration::from_secs(30), &OpenOptions::default()).await?;
        let marked = Header::update(self, &id, |header| {
            let snapshots = header.snaps.len();
            if snapshots > 0 {
                let text = format!("image '{name}' has {snapshots} snapshots: remove them first");
                return Err(OpError::new(ErrorCode::NotEmpty, text));
            }
            header.fields.removing = true;
            Ok(())
        });
        if let Err(error) = marked.await {
            lease.unlock().await?;
            return Err(error);
        }
        let pool = self.under_lease(&lease).with_snap_context(header.snap_context());
        remove_objects(&pool, &id, 0, header.layout()?.objects(header.fields.size)).await?;
        match object.remove().await {
            Err(error) if error.code != ErrorCode::NotFound => return Err(error),
            _ => {}
        }
        directory::remove(self, name, &id).await
    }
}

/// Removes data objects `first..end`.
async fn remove_objects(pool: &Pool, id: &str, first: u64, end: u64) -> Result<()> {
    if end.saturating_sub(first) <= TRY_OBJECTS_MAX {
        let remove = |number: u64| {
            let object = pool.object(data_name(id, number));
            async move { remove_if_there(&object).await }
        };
        return concurrent::all(first..end, REMOVE_WINDOW, remove).await.map(drop);
    }
    let prefix = data_prefix(id);
    let mut cursor = Some(ListCursor::default());
    while let Some(at) = cursor {
        let (page, next) = pool.list_page(at, LIST_PAGE_ENTRIES, false).await?;
        let number = |name: &str| u64::from_str_radix(name.strip_prefix(&prefix)?, 16).ok();
        let ours = page.into_iter().map(|object| object.name);
        let ours = ours.filter(|name| number(name).is_some_and(|number| (first..end).contains(&number)));
        let remove = |name: String| {
            let object = pool.object(name);
            async move { remove_if_there(&object).await }
        };
        concurrent::all(ours, REMOVE_WINDOW, remove).await?;
        cursor = next;
    }
    Ok(())
}

impl Image {
    /// Changes the size. What is cut off is gone, except from snapshots; what is added reads as zeroes.
    pub async fn resize(&self, size: u64) -> Result<()> {
        self.check_writable()?;
        check_size(size)?;
        self.ready().await?;
        {
            let _alone = self.inner.writes.close().await;
            let before = self.size();
            if size < before {
                // Data first: an image that was cut short only in its header would show old data when it grows.
                let layout = self.inner.layout;
                let whole = layout.objects(size);
                let edge = (whole * layout.object_bytes()).min(before);
                self.clear(size, edge - size).await?;
                let pool = self.data_pool();
                remove_objects(&pool, &self.inner.id, whole, layout.objects(before)).await?;
            }
            let header = Header::update(&self.inner.pool, &self.inner.id, |header| {
                header.fields.size = size;
                Ok(())
            });
            self.set_header(header.await?);
        }
        self.tell_others().await
    }
}
