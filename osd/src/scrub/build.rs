//! Describing the objects of a chunk: at every member, the primary included.

use crate::log::decode_version;
use crate::pg::{Pg, PgContext};
use crate::recovery::stored_version;
use crate::token::PgPurpose;
use bytes::Bytes;
use nacre_store::{ObjectStore, StoreError};
use nacre_types::{BLOCK_U64, EVersion, ObjectId, OsdId, checksum, fnv1a64};
use nacre_wire::messages::{ScrubMap, ScrubObject, ScrubRequest};
use nacre_wire::{Data, ObjectName};
use std::collections::VecDeque;

/// Data read at once: whole blocks.
const READ_BYTES: u64 = 512 << 10;
const OMAP_PAGE: usize = 1000;

/// A chunk's description in the making.
#[derive(Debug)]
pub(super) struct Builder {
    to: OsdId,
    request: ScrubRequest,
    at_version: EVersion,
    /// `None` until this copy has applied all that the primary had.
    left: Option<VecDeque<ObjectId>>,
    current: Option<Current>,
    done: Vec<ScrubObject>,
}

/// The object whose data is being read.
#[derive(Debug)]
struct Current {
    object: ObjectId,
    record: ScrubObject,
    offset: u64,
    token: u64,
    digest: u32,
}

impl Pg {
    pub(crate) fn on_scrub_request(&mut self, ctx: &mut PgContext<'_>, from: OsdId, request: &ScrubRequest) {
        let scrub = &mut self.recovery.scrub;
        if scrub.builder.as_ref().is_some_and(|builder| builder.to == from && builder.request == *request) {
            return;
        }
        scrub.builder = Some(Builder {
            to: from,
            request: request.clone(),
            at_version: decode_version(request.at_version),
            left: None,
            current: None,
            done: Vec::new(),
        });
        self.scrub_retry(ctx);
    }

    /// Goes on where a request waits for writes to arrive.
    pub(crate) fn scrub_retry(&mut self, ctx: &mut PgContext<'_>) {
        let Some(builder) = &self.recovery.scrub.builder else { return };
        if builder.left.is_some() || self.log.head() < builder.at_version {
            return;
        }
        let (after, end) = (builder.request.after.clone(), builder.request.end.clone());
        let listed = self.list_families(ctx, &after, &end, usize::MAX >> 1);
        match listed {
            Ok((objects, _)) => {
                if let Some(builder) = &mut self.recovery.scrub.builder {
                    builder.left = Some(objects.into());
                }
                self.build(ctx);
            }
            Err(error) => self.recovery_store_failed(ctx, &error),
        }
    }

    fn build(&mut self, ctx: &mut PgContext<'_>) {
        loop {
            let Some(builder) = &mut self.recovery.scrub.builder else { return };
            if builder.current.is_some() {
                return self.read_on(ctx);
            }
            let Some(object) = builder.left.as_mut().and_then(VecDeque::pop_front) else { break };
            let deep = builder.request.deep;
            let described = describe(ctx.store, &object, deep);
            let builder = self.recovery.scrub.builder.as_mut().expect("looked at above");
            match described {
                Ok(record) if deep && record.size > 0 => {
                    builder.current = Some(Current { object, record, offset: 0, token: 0, digest: 0 });
                }
                Ok(record) => builder.done.push(ScrubObject { data_crc: deep.then_some(0), ..record }),
                Err(StoreError::Corrupt(_) | StoreError::Checksum { .. } | StoreError::NotFound { .. }) => {
                    let object = Some(ObjectName::from(&object));
                    builder.done.push(ScrubObject { object, read_error: true, ..ScrubObject::default() });
                }
                Err(error) => return self.recovery_store_failed(ctx, &error),
            }
        }
        let Some(builder) = self.recovery.scrub.builder.take() else { return };
        let map = ScrubMap {
            interval: builder.request.interval,
            scrub: builder.request.scrub,
            objects: builder.done,
            end: builder.request.end,
        };
        if builder.to == self.me {
            self.on_scrub_map(ctx, builder.to, &map);
        } else {
            self.send(ctx, builder.to, map);
        }
    }

    /// Reads the next piece of the current object, or takes it as done.
    fn read_on(&mut self, ctx: &mut PgContext<'_>) {
        let interval = self.interval();
        let token = self.recovery.next_scrub_token();
        let Some(builder) = &mut self.recovery.scrub.builder else { return };
        let Some(current) = &mut builder.current else { return };
        if current.offset >= current.record.size {
            if let Some(Current { record, digest, .. }) = builder.current.take() {
                builder.done.push(ScrubObject { data_crc: Some(digest), ..record });
            }
            return self.build(ctx);
        }
        let length = READ_BYTES.min(current.record.size - current.offset);
        current.token = token;
        let (object, offset) = (current.object.clone(), current.offset);
        ctx.read(self.id, interval, PgPurpose::Scrub(token), &object, offset, length);
    }

    pub(crate) fn scrub_on_committed(&mut self, _ctx: &mut PgContext<'_>, _token: u64) {}

    pub(crate) fn scrub_on_read(
        &mut self,
        ctx: &mut PgContext<'_>,
        token: u64,
        result: Result<Data, StoreError>,
    ) {
        let Some(current) = self.recovery.scrub.builder.as_mut().and_then(|builder| builder.current.as_mut())
        else {
            return;
        };
        if current.token != token {
            return;
        }
        match result {
            Ok(data) => {
                // The bytes were verified against these, so they stand for the data.
                let crcs = data.crcs.iter().flat_map(|crc| crc.to_le_bytes());
                let chained: Vec<u8> = current.digest.to_le_bytes().into_iter().chain(crcs).collect();
                current.digest = checksum::crc32(&chained);
            }
            Err(error) => {
                let block = match error {
                    StoreError::Checksum { block, .. } => block,
                    _ => current.offset / BLOCK_U64,
                };
                current.record.read_error = true;
                current.record.bad_blocks.push(block);
            }
        }
        current.offset += READ_BYTES;
        self.read_on(ctx);
        self.recovery_advance(ctx);
    }
}

/// All but the data.
fn describe(store: &dyn ObjectStore, object: &ObjectId, deep: bool) -> Result<ScrubObject, StoreError> {
    let size = store.stat(object)?.map_or(0, |stat| stat.size);
    let mut attrs = Vec::new();
    for (key, value) in store.attrs(object)? {
        put(&mut attrs, &key);
        put(&mut attrs, &value);
    }
    Ok(ScrubObject {
        object: Some(ObjectName::from(object)),
        size,
        attrs_digest: fnv1a64(&attrs),
        omap_digest: if deep { Some(omap_digest(store, object)?) } else { None },
        version: crate::log::encode_version(stored_version(store, object)?),
        ..ScrubObject::default()
    })
}

fn omap_digest(store: &dyn ObjectStore, object: &ObjectId) -> Result<u64, StoreError> {
    let (mut digest, mut after): (u64, Option<Bytes>) = (0, None);
    loop {
        let (pairs, more) = store.omap_list(object, after.as_deref(), b"", OMAP_PAGE)?;
        for (key, value) in &pairs {
            let mut bytes = digest.to_le_bytes().to_vec();
            put(&mut bytes, key);
            put(&mut bytes, value);
            digest = fnv1a64(&bytes);
        }
        match pairs.last() {
            Some((key, _)) if more => after = Some(key.clone()),
            _ => return Ok(digest),
        }
    }
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}
