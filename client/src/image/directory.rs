//! The pool's directory of images: which name is which id.
//!
//! An entry may name an id without a header: a creation or removal that did not get to its end. Such an entry does
//! not block its name, and whoever meets it removes it.

use super::header::Header;
use crate::{ErrorCode, ObjectRequest, OpError, Pool, Result};
use bytes::Bytes;

const DIRECTORY: &str = "image_directory";
const NAME_PREFIX: &str = "name.";
const UPDATE_ATTEMPTS: usize = 100;

fn key(name: &str) -> String {
    format!("{NAME_PREFIX}{name}")
}

/// The id behind a name, as the directory has it.
pub(super) async fn lookup(pool: &Pool, name: &str) -> Result<Option<String>> {
    match pool.object(DIRECTORY).omap_get([key(name)]).await {
        Ok(pairs) => Ok(pairs.into_iter().next().map(|(_, id)| text(&id))),
        Err(error) if error.code == ErrorCode::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// All names and ids, by name.
pub(super) async fn list(pool: &Pool) -> Result<Vec<(String, String)>> {
    let pairs = match pool.object(DIRECTORY).omap(NAME_PREFIX).await {
        Ok(pairs) => pairs,
        Err(error) if error.code == ErrorCode::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let name = |key: &Bytes| text(&key[NAME_PREFIX.len().min(key.len())..]);
    Ok(pairs.into_iter().map(|(key, id)| (name(&key), text(&id))).collect())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// An image's id and header by its name. Removes an entry that leads nowhere.
pub(super) async fn find(pool: &Pool, name: &str) -> Result<(String, Header)> {
    let missing = || {
        let text = format!("there is no image '{name}' in pool '{}'", pool.name());
        OpError::new(ErrorCode::NotFound, text)
    };
    let id = lookup(pool, name).await?.ok_or_else(missing)?;
    match Header::read(pool, &id).await {
        Err(error) if error.code == ErrorCode::NotFound => {
            remove(pool, name, &id).await?;
            Err(missing())
        }
        result => result.map(|header| (id, header)),
    }
}

/// Enters a name: `AlreadyExists` if another image has it.
pub(super) async fn insert(pool: &Pool, name: &str, id: &str) -> Result<()> {
    change(pool, name, async |found| match found {
        Some(other) if other == id => Ok(None),
        Some(other) => match Header::read(pool, &other).await {
            Err(error) if error.code == ErrorCode::NotFound => Ok(Some(set(name, id))),
            Err(error) => Err(error),
            Ok(_) => {
                let text = format!("there is an image '{name}' in pool '{}' already", pool.name());
                Err(OpError::new(ErrorCode::AlreadyExists, text))
            }
        },
        None => Ok(Some(set(name, id))),
    })
    .await
}

/// Takes a name out, if it still stands for that id.
pub(super) async fn remove(pool: &Pool, name: &str, id: &str) -> Result<()> {
    change(pool, name, async |found| match found {
        Some(found) if found == id => Ok(Some(ObjectRequest::new().omap_remove([key(name)]))),
        _ => Ok(None),
    })
    .await
}

/// Gives an image another name.
pub(super) async fn rename(pool: &Pool, from: &str, to: &str, id: &str) -> Result<()> {
    insert(pool, to, id).await?;
    remove(pool, from, id).await
}

fn set(name: &str, id: &str) -> ObjectRequest {
    ObjectRequest::new().omap_set([(key(name), Bytes::copy_from_slice(id.as_bytes()))])
}

/// Changes one entry under the directory's version, as `decide` says of what it finds.
async fn change(
    pool: &Pool,
    name: &str,
    decide: impl AsyncFn(Option<String>) -> Result<Option<ObjectRequest>>,
) -> Result<()> {
    let object = pool.object(DIRECTORY);
    for _ in 0..UPDATE_ATTEMPTS {
        let (found, guard) = match object.run(ObjectRequest::new().omap_get([key(name)])).await {
            Ok(response) => {
                let found = response.pairs(0)?.0.into_iter().next().map(|(_, id)| text(&id));
                (found, ObjectRequest::new().assert_version(response.version()))
            }
            Err(error) if error.code == ErrorCode::NotFound => (None, ObjectRequest::new().create(true)),
            Err(error) => return Err(error),
        };
        let Some(request) = decide(found).await? else { return Ok(()) };
        let mut guarded = guard;
        guarded.ops.extend(request.ops);
        match object.run(guarded).await {
            Err(error) if matches!(error.code, ErrorCode::Canceled | ErrorCode::AlreadyExists) => continue,
            result => return result.map(drop),
        }
    }
    let text = format!("the image directory of pool '{}' changes too fast, gave up", pool.name());
    Err(OpError::new(ErrorCode::Busy, text))
}
