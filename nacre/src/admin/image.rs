//! `nacre image`: block images, named POOL/IMAGE, or POOL/IMAGE@SNAP for a snapshot.

use super::Context;
use super::bench::{self, BenchArgs, Workload};
use crate::output::{self, progress};
use crate::units::{human_bytes, parse_size};
use anyhow::Context as _;
use clap::{Args, Subcommand};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use nacre_client::image::{CreateOptions, Segment};
use nacre_client::{Cluster, ErrorCode, Image, OpenOptions, Pool};
use serde_json::{Value, json};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Data moved per request of an import or export, and how many at once.
const PIECE_BYTES: u64 = 4 << 20;
const PIECES_AT_ONCE: usize = 8;

#[derive(Clone, Debug)]
pub struct ImageSpec {
    pub pool: String,
    pub image: String,
    pub snapshot: Option<String>,
}

impl FromStr for ImageSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<ImageSpec, String> {
        let bad = || format!("'{text}' names no image: write POOL/IMAGE or POOL/IMAGE@SNAP");
        let (pool, rest) = text.split_once('/').ok_or_else(bad)?;
        let (image, snapshot) = match rest.split_once('@') {
            Some((image, snapshot)) => (image, Some(snapshot.to_string())),
            None => (rest, None),
        };
        if image.contains('/') {
            return Err(format!("'{image}' cannot be an image's name: it contains '/'"));
        }
        if pool.is_empty() || image.is_empty() || snapshot.as_deref() == Some("") {
            return Err(bad());
        }
        Ok(ImageSpec { pool: pool.into(), image: image.into(), snapshot })
    }
}

impl std::fmt::Display for ImageSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.pool, self.image)?;
        self.snapshot.iter().try_for_each(|snapshot| write!(f, "@{snapshot}"))
    }
}

impl ImageSpec {
    /// The pool, and that no snapshot is meant.
    async fn pool(&self, cluster: &Cluster) -> anyhow::Result<Pool> {
        anyhow::ensure!(self.snapshot.is_none(), "{self} is a snapshot; this command is for images");
        Ok(cluster.pool(&self.pool).await?)
    }

    pub async fn open(&self, cluster: &Cluster, read_only: bool) -> anyhow::Result<Image> {
        let pool = cluster.pool(&self.pool).await?;
        let options = match &self.snapshot {
            Some(snapshot) => OpenOptions::at(snapshot),
            None if read_only => OpenOptions::read_only(),
            None => OpenOptions::default(),
        };
        Ok(pool.open_image(&self.image, options).await?)
    }

    fn snapshot(&self) -> anyhow::Result<&str> {
        self.snapshot.as_deref().with_context(|| format!("{self} names no snapshot: write POOL/IMAGE@SNAP"))
    }
}

#[derive(Subcommand)]
pub enum ImageCommand {
    /// Makes an image.
    Create {
        image: ImageSpec,
        #[arg(long, value_parser = parse_size)]
        size: u64,
    },
    /// Lists a pool's images.
    Ls { pool: String },
    /// Size, objects and snapshots of an image.
    Info { image: ImageSpec },
    /// Removes an image with its data. Its snapshots must be gone.
    Rm { image: ImageSpec },
    /// Grows or shrinks an image.
    Resize {
        image: ImageSpec,
        #[arg(long, value_parser = parse_size)]
        size: u64,
        /// Really cut off what lies beyond a smaller size.
        #[arg(long)]
        allow_shrink: bool,
    },
    /// Gives an image another name.
    Rename { image: ImageSpec, to: ImageSpec },
    /// Snapshots.
    #[command(subcommand)]
    Snap(SnapCommand),
    /// Makes an image from a file, or from - for stdin.
    Import { file: PathBuf, image: ImageSpec },
    /// Copies an image or snapshot to a file, or to - for stdout.
    Export { image: ImageSpec, file: PathBuf },
    /// Measures reading or writing (writing destroys the image's content).
    Bench(ImageBenchArgs),
}

#[derive(Args)]
pub struct ImageBenchArgs {
    image: ImageSpec,
    #[command(flatten)]
    bench: BenchArgs,
}

#[derive(Subcommand)]
pub enum SnapCommand {
    /// Keeps the image's present state under a name.
    Create { snapshot: ImageSpec },
    /// Lists an image's snapshots.
    Ls { image: ImageSpec },
    /// Removes a snapshot.
    Rm { snapshot: ImageSpec },
    /// Puts the image back into the state of a snapshot.
    Rollback { snapshot: ImageSpec },
}

impl ImageCommand {
    pub fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            ImageCommand::Create { image, size } => {
                anyhow::ensure!(size > 0, "an image of 0 bytes holds nothing: give a --size such as 10G");
                context.with_cluster(async |cluster: Cluster| {
                    let pool = image.pool(&cluster).await?;
                    Ok(pool.create_image(&image.image, CreateOptions::new(size)).await?)
                })?;
                Ok(())
            }
            ImageCommand::Ls { pool } => {
                let images = context.with_cluster(async |cluster: Cluster| {
                    let pool = cluster.pool(&pool).await?;
                    let mut images = Vec::new();
                    for name in pool.images().await? {
                        // Somebody may remove it in between.
                        match pool.image_info(&name).await {
                            Ok(info) => images.push(json!({"image": name, "size": info.size})),
                            Err(error) if error.code == ErrorCode::NotFound => {}
                            Err(error) => return Err(error.into()),
                        }
                    }
                    Ok(images)
                })?;
                output::print(context.format, &images.into(), |images| {
                    let line = |image: &Value| {
                        let size = human_bytes(image["size"].as_u64().unwrap_or(0));
                        json!({"image": image["image"], "size": size})
                    };
                    let lines: Vec<Value> = images.as_array().into_iter().flatten().map(line).collect();
                    output::rows(&lines.into(), &[("IMAGE", "image"), ("SIZE", "size")])
                });
                Ok(())
            }
            ImageCommand::Info { image } => info(context, &image),
            ImageCommand::Rm { image } => context.with_cluster(async |cluster: Cluster| {
                Ok(image.pool(&cluster).await?.remove_image(&image.image).await?)
            }),
            ImageCommand::Resize { image, size, allow_shrink } => {
                anyhow::ensure!(size > 0, "an image of 0 bytes holds nothing: to be rid of it, remove it");
                context.with_cluster(async |cluster: Cluster| {
                    let open = image.open(&cluster, false).await?;
                    anyhow::ensure!(
                        size >= open.size() || allow_shrink,
                        "{image} has {} bytes; shrinking it to {size} cuts off data: repeat with --allow-shrink",
                        open.size()
                    );
                    open.resize(size).await?;
                    Ok(open.close().await?)
                })
            }
            ImageCommand::Rename { image, to } => context.with_cluster(async |cluster: Cluster| {
                anyhow::ensure!(to.snapshot.is_none(), "{to} is a snapshot's name");
                anyhow::ensure!(
                    image.pool == to.pool,
                    "an image cannot be renamed into another pool: export and import it"
                );
                Ok(image.pool(&cluster).await?.rename_image(&image.image, &to.image).await?)
            }),
            ImageCommand::Snap(command) => command.run(context),
            ImageCommand::Import { file, image } => {
                context.with_cluster(async |cluster: Cluster| import(&cluster, &file, &image).await)
            }
            ImageCommand::Export { image, file } => {
                context.with_cluster(async |cluster: Cluster| export(&cluster, &image, &file).await)
            }
            ImageCommand::Bench(args) => {
                let report =
                    context.with_cluster(async |cluster: Cluster| bench_image(&cluster, &args).await)?;
                report.print(context);
                Ok(())
            }
        }
    }
}

impl SnapCommand {
    fn run(self, context: &Context) -> anyhow::Result<()> {
        let image_of = |spec: &ImageSpec| ImageSpec { snapshot: None, ..spec.clone() };
        match self {
            SnapCommand::Create { snapshot } => context.with_cluster(async |cluster: Cluster| {
                let image = image_of(&snapshot).open(&cluster, false).await?;
                image.create_snapshot(snapshot.snapshot()?).await?;
                Ok(image.close().await?)
            }),
            SnapCommand::Rm { snapshot } => context.with_cluster(async |cluster: Cluster| {
                let image = image_of(&snapshot).open(&cluster, false).await?;
                image.remove_snapshot(snapshot.snapshot()?).await?;
                Ok(image.close().await?)
            }),
            SnapCommand::Rollback { snapshot } => context.with_cluster(async |cluster: Cluster| {
                let image = image_of(&snapshot).open(&cluster, false).await?;
                image.rollback(snapshot.snapshot()?).await?;
                Ok(image.close().await?)
            }),
            SnapCommand::Ls { image } => {
                let info = context.with_cluster(async |cluster: Cluster| {
                    Ok(image.pool(&cluster).await?.image_info(&image.image).await?)
                })?;
                let snapshot = |snapshot: &nacre_client::image::Snapshot| json!({"id": snapshot.id, "name": snapshot.name, "size": snapshot.size});
                let list: Vec<Value> = info.snapshots.iter().map(snapshot).collect();
                output::print(context.format, &list.into(), |list| {
                    output::rows(list, &[("ID", "id"), ("NAME", "name"), ("BYTES", "size")])
                });
                Ok(())
            }
        }
    }
}

fn info(context: &Context, spec: &ImageSpec) -> anyhow::Result<()> {
    let info = context.with_cluster(async |cluster: Cluster| {
        Ok(cluster.pool(&spec.pool).await?.image_info(&spec.image).await?)
    })?;
    let names: Vec<&str> = info.snapshots.iter().map(|snapshot| snapshot.name.as_str()).collect();
    let json = json!({
        "name": info.name, "id": info.id, "size": info.size, "objects": info.objects, "order": info.order,
        "object_size": info.object_bytes, "snapshot_count": info.snapshots.len(), "snapshots": names,
        "block_name_prefix": format!("data.{}", info.id),
    });
    output::print(context.format, &json, |_| {
        format!(
            "image {spec}\n    size: {} in {} objects of {}\n    id: {}\n    snapshots: {}",
            human_bytes(info.size),
            info.objects,
            human_bytes(info.object_bytes),
            info.id,
            if names.is_empty() { "none".into() } else { names.join(", ") }
        )
    });
    Ok(())
}

/// Reads until the piece is full or the input ends.
fn read_piece(input: &mut dyn Read) -> std::io::Result<Vec<u8>> {
    let mut piece = Vec::new();
    input.take(PIECE_BYTES).read_to_end(&mut piece)?;
    Ok(piece)
}

async fn import(cluster: &Cluster, file: &Path, spec: &ImageSpec) -> anyhow::Result<()> {
    let pool = spec.pool(cluster).await?;
    let stdin = file == Path::new("-");
    let (mut input, size): (Box<dyn Read>, u64) = if stdin {
        (Box::new(std::io::stdin().lock()), 0)
    } else {
        let input = File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
        let size = input.metadata()?.len();
        anyhow::ensure!(size > 0, "{} is empty", file.display());
        (Box::new(input), size)
    };
    // The size of a pipe is known at its end: the image grows ahead of it.
    pool.create_image(&spec.image, CreateOptions::new(size.max(PIECE_BYTES))).await?;
    let copied = async {
        let image = spec.open(cluster, false).await?;
        let bar = progress(size, "import");
        let mut offset = 0;
        let mut writes = stream::FuturesUnordered::new();
        loop {
            let piece = read_piece(&mut input)?;
            let length = piece.len() as u64;
            if length == 0 {
                break;
            }
            if offset + length > image.size() {
                writes.by_ref().try_collect::<Vec<()>>().await?;
                image.resize((offset + length).max(image.size() * 2)).await?;
            }
            if piece.iter().any(|&byte| byte != 0) {
                let (image, at) = (image.clone(), offset);
                writes.push(async move { image.write(at, piece).await });
            }
            if writes.len() >= PIECES_AT_ONCE {
                writes.try_next().await?;
            }
            offset += length;
            bar.set_position(offset);
        }
        writes.try_collect::<Vec<()>>().await?;
        anyhow::ensure!(offset > 0, "nothing came on stdin");
        if image.size() != offset {
            image.resize(offset).await?;
        }
        image.close().await?;
        bar.finish_and_clear();
        Ok(())
    };
    let result = copied.await;
    if result.is_err() {
        // Half an image under that name would be taken for a whole one.
        let _ = pool.remove_image(&spec.image).await;
    }
    result
}

async fn export(cluster: &Cluster, spec: &ImageSpec, file: &Path) -> anyhow::Result<()> {
    let image = spec.open(cluster, true).await?;
    let size = image.size();
    let bar = progress(size, "export");
    let pieces = stream::iter((0..size).step_by(PIECE_BYTES as usize)).map(|offset| {
        let image = image.clone();
        async move {
            let length = PIECE_BYTES.min(size - offset);
            image.read_segments(offset, length).await.map(|segments| (offset, segments))
        }
    });
    let mut pieces = pieces.buffered(PIECES_AT_ONCE);
    if file == Path::new("-") {
        use std::io::Write as _;
        let mut out = std::io::stdout().lock();
        while let Some((offset, segments)) = pieces.try_next().await? {
            for segment in segments {
                match segment {
                    Segment::Data(bytes) => out.write_all(&bytes)?,
                    Segment::Zero(length) => {
                        std::io::copy(&mut std::io::repeat(0).take(length), &mut out)?;
                    }
                }
            }
            bar.set_position(offset + PIECE_BYTES);
        }
        out.flush()?;
    } else {
        let out = File::create(file).with_context(|| format!("cannot write {}", file.display()))?;
        // Holes of the image become holes of the file.
        out.set_len(size)?;
        while let Some((offset, segments)) = pieces.try_next().await? {
            let mut at = offset;
            for segment in segments {
                match segment {
                    Segment::Data(bytes) => {
                        out.write_all_at(&bytes, at)?;
                        at += bytes.len() as u64;
                    }
                    Segment::Zero(length) => at += length,
                }
            }
            bar.set_position(at);
        }
        out.sync_all()?;
    }
    bar.finish_and_clear();
    Ok(image.close().await?)
}

async fn bench_image(cluster: &Cluster, args: &ImageBenchArgs) -> anyhow::Result<bench::Report> {
    let image = args.image.open(cluster, args.bench.rw.reads()).await?;
    let workload = Workload { span: image.size(), boundary: u64::MAX, args: args.bench.clone() };
    let report = bench::run(workload, |write, offset, length, data| {
        let image = image.clone();
        async move {
            match write {
                true => image.write(offset, data).await,
                false => image.read_segments(offset, length).await.map(drop),
            }
        }
    })
    .await?;
    image.close().await?;
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_name_pool_image_and_snapshot() {
        let spec: ImageSpec = "rbd/vm@monday".parse().unwrap();
        assert_eq!(
            (spec.pool.as_str(), spec.image.as_str(), spec.snapshot.as_deref()),
            ("rbd", "vm", Some("monday"))
        );
        assert_eq!("rbd/vm".parse::<ImageSpec>().unwrap().to_string(), "rbd/vm");
        for bad in ["", "vm", "/vm", "rbd/", "rbd/vm@", "rbd/a/b"] {
            assert!(bad.parse::<ImageSpec>().is_err(), "{bad}");
        }
    }
}
