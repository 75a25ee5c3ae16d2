//! Snapshots of an image: a snapshot of the pool that the header gives a name.
//!
//! A snapshot is taken between writes: those that were acknowledged before are in it, those that begin after are not.
//! Its removal first marks it, then tells the monitors, then forgets it, so that one cut short can be repeated.

use super::header::{Header, SnapshotRecord};
use super::layout::data_name;
use super::{Image, Snapshot, WINDOW, blocks, check_name};
use crate::{ErrorCode, ObjectRequest, OpError, Result, concurrent};
use nacre_types::SnapId;

impl Image {
    /// Snapshots, oldest first.
    pub fn snapshots(&self) -> Vec<Snapshot> {
        self.inner.state.borrow().header.snapshots()
    }

    /// Takes a snapshot of what is written now.
    pub async fn create_snapshot(&self, name: &str) -> Result<Snapshot> {
        check_name("snapshot", name)?;
        self.check_writable()?;
        self.ready().await?;
        let taken = |header: &Header| {
            let text = format!("image {} has a snapshot '{name}' already", header.fields.name);
            match header.snaps.values().any(|record| record.name == name && !record.removing) {
                true => Err(OpError::new(ErrorCode::AlreadyExists, text)),
                false => Ok(()),
            }
        };
        taken(&self.inner.state.borrow().header)?;
        let snap = self.inner.pool.create_snap().await?;
        let created_ms = self.inner.pool.cluster().wall_ms();
        {
            let _alone = self.inner.writes.close().await;
            let update = Header::update(&self.inner.pool, &self.inner.id, |header| {
                taken(header)?;
                let record = SnapshotRecord {
                    name: name.into(),
                    size: header.fields.size,
                    created_ms,
                    removing: false,
                };
                header.snaps.insert(snap.0, record);
                header.fields.snap_seq = header.fields.snap_seq.max(snap.0);
                Ok(())
            });
            match update.await {
                Ok(header) => self.set_header(header),
                Err(error) => {
                    // Nobody will ever name it: let it be trimmed, as far as that works now.
                    let _ = self.inner.pool.remove_snap(snap).await;
                    return Err(error);
                }
            }
        }
        self.tell_others().await?;
        self.snapshots().into_iter().find(|s| s.id == snap.0).ok_or_else(|| {
            OpError::new(ErrorCode::NotFound, format!("snapshot '{name}' was removed by another client"))
        })
    }

    pub async fn remove_snapshot(&self, name: &str) -> Result<()> {
        self.check_writable()?;
        self.ready().await?;
        // One whose removal was cut short is found too.
        let mut id = None;
        let (pool, image) = (&self.inner.pool, &self.inner.id);
        let marked = Header::update(pool, image, |header| {
            let found = header.snaps.iter_mut().filter(|(_, record)| record.name == name);
            let Some((&found, record)) = found.min_by_key(|(_, record)| record.removing) else {
                let text = format!("image {} has no snapshot '{name}'", header.fields.name);
                return Err(OpError::new(ErrorCode::NotFound, text));
            };
            record.removing = true;
            id = Some(found);
            Ok(())
        });
        self.set_header(marked.await?);
        let id = id.expect("the change has run");
        match pool.remove_snap(SnapId(id)).await {
            Err(error) if error.code == ErrorCode::NotFound => {}
            result => result?,
        }
        let header = Header::update(pool, image, |header| {
            header.snaps.remove(&id);
            Ok(())
        });
        self.set_header(header.await?);
        self.tell_others().await
    }

    /// Makes the image what it was at a snapshot, which stays. Others must not write meanwhile.
    pub async fn rollback(&self, name: &str) -> Result<()> {
        self.check_writable()?;
        self.ready().await?;
        let snapshot = self.inner.state.borrow().header.snapshot(name)?;
        if self.size() != snapshot.size {
            self.resize(snapshot.size).await?;
        }
        let _alone = self.inner.writes.close().await;
        let objects = self.inner.layout.objects(snapshot.size);
        let roll = |number: u64| self.roll_back_object(number, &snapshot);
        concurrent::all(0..objects, WINDOW, roll).await.map(drop)
    }

    async fn roll_back_object(&self, number: u64, snapshot: &Snapshot) -> Result<()> {
        let pool = self.data_pool();
        let name = data_name(&self.inner.id, number);
        let head = pool.object(&name);
        match head.list_snaps().await {
            // Not written since: nothing to do.
            Ok(list) if snapshot.id > list.seq => return Ok(()),
            Ok(_) => {}
            Err(error) if error.code == ErrorCode::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        let old = pool.at_snap(SnapId(snapshot.id)).object(&name);
        let bytes = self.object_bytes();
        let extents = match old.extents(0, bytes).await {
            Ok(extents) => extents,
            Err(error) if error.code == ErrorCode::NotFound => return blocks::remove_if_there(&head).await,
            Err(error) => return Err(error),
        };
        let size = old.stat().await?.size;
        // One request: nobody ever sees half of it.
        let mut request = ObjectRequest::new().write_full("");
        if extents.len() > 64 {
            request = ObjectRequest::new().write_full(old.read(0, bytes).await?);
        } else {
            for (offset, length) in extents {
                request = request.write(offset, old.read(offset, length).await?);
            }
        }
        head.run(request.truncate(size)).await.map(drop)
    }
}
