//! The target's side of backfill: list, remove, move the mark.

use crate::log::{BackfillMark, decode_version, encode_version, persist};
use crate::pg::{Pg, PgContext};
use crate::recovery::{Waiting, remove_object, usable_version};
use crate::token::PgPurpose;
use bytes::Bytes;
use nacre_store::StoreError;
use nacre_types::OsdId;
use nacre_wire::messages::{BackfillDigest, BackfillProgress, BackfillScan, ObjectVersion};
use nacre_wire::{ObjectName, Transaction};

/// Most objects listed at once, whatever is asked for.
const SCAN_OBJECTS_MAX: usize = 1024;

impl Pg {
    pub(crate) fn on_backfill_scan(&mut self, ctx: &mut PgContext<'_>, from: OsdId, scan: &BackfillScan) {
        let max = (scan.entries_max as usize).clamp(1, SCAN_OBJECTS_MAX);
        match self.digest(ctx, scan, max) {
            Ok(digest) => self.send(ctx, from, digest),
            Err(error) => self.recovery_store_failed(ctx, &error),
        }
    }

    fn digest(
        &self,
        ctx: &PgContext<'_>,
        scan: &BackfillScan,
        max: usize,
    ) -> Result<BackfillDigest, StoreError> {
        let (objects, end) = self.list_families(ctx, &scan.after, b"", max)?;
        let mut records = Vec::with_capacity(objects.len());
        for object in &objects {
            // A copy known to be bad is as good as none: no version is zero.
            let version = match self.missing.contains(object) {
                true => nacre_types::EVersion::ZERO,
                false => usable_version(ctx.store, object)?,
            };
            let object = Some(ObjectName::from(object));
            records.push(ObjectVersion { object, version: encode_version(version) });
        }
        Ok(BackfillDigest { interval: scan.interval, after: scan.after.clone(), end, objects: records })
    }

    pub(crate) fn on_backfill_progress(
        &mut self,
        ctx: &mut PgContext<'_>,
        from: OsdId,
        progress: &BackfillProgress,
    ) {
        let mut t = Transaction::new(self.id);
        for record in &progress.remove {
            let Some(Ok(object)) = record.object.as_ref().map(ObjectName::decode) else { continue };
            // A resent message must not remove what was made since.
            let removed = match usable_version(ctx.store, &object) {
                Ok(version) if version == decode_version(record.version) => {
                    self.missing.remove(&object);
                    persist::remove_missing(&mut t, &object);
                    self.count_removal(ctx, &object).and_then(|()| remove_object(ctx.store, &mut t, &object))
                }
                Ok(_) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = removed {
                return self.recovery_store_failed(ctx, &error);
            }
        }
        let mark = match progress.done {
            true => BackfillMark::Complete,
            false => BackfillMark::At(progress.last_backfill.clone()),
        };
        // A mark never goes back: a resent message may come late.
        let forward = match (&self.info.last_backfill, &mark) {
            (BackfillMark::Complete, _) => false,
            (_, BackfillMark::Complete) => true,
            (BackfillMark::At(was), BackfillMark::At(is)) => was < is,
        };
        if forward {
            self.info.last_backfill = mark;
        }
        self.info.follow(&self.log, &self.missing);
        persist::info(&mut t, &self.info);
        let last_backfill = progress.last_backfill.clone();
        let number = self.recovery.number(Waiting::Mark { to: from, last_backfill, done: progress.done });
        let interval = self.interval();
        ctx.submit(self.id, interval, PgPurpose::Recovery(number), t);
    }

    /// The mark is durable: the primary may rely on it.
    pub(crate) fn backfill_mark_committed(
        &mut self,
        ctx: &mut PgContext<'_>,
        to: OsdId,
        last_backfill: Bytes,
        done: bool,
    ) {
        let interval = self.interval().0;
        self.send(
            ctx,
            to,
            BackfillProgress { interval, last_backfill, done, ack: true, ..BackfillProgress::default() },
        );
    }
}
