//! `nacre nbd`: serves images to NBD clients. Every image is an export by its name, `POOL/IMAGE` or `POOL/IMAGE@SNAP`.

use super::Context;
use super::image::ImageSpec;
use anyhow::Context as _;
use bytes::Bytes;
use clap::{Args, Subcommand};
use nacre_client::image::Segment as ImageSegment;
use nacre_client::{Cluster, ErrorCode, Image, OpError, OpenOptions};
use nacre_nbd::{
    Errno, Export, ExportError, ExportFuture, ExportInfo, Exports, Extent, ExtentState, Failure, Segment,
    Server,
};
use nacre_runtime::driver::{block_on, connect};
use std::cell::RefCell;
use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::{Rc, Weak};
use tokio::task::AbortHandle;
use tracing_subscriber::EnvFilter;

#[derive(Subcommand)]
pub enum NbdCommand {
    /// Serves every image of the cluster until stopped.
    Serve(ServeArgs),
}

#[derive(Args)]
#[command(group = clap::ArgGroup::new("where").required(true).multiple(true))]
pub struct ServeArgs {
    /// A UNIX socket to make.
    #[arg(long, value_name = "PATH", group = "where")]
    unix: Vec<PathBuf>,
    /// A TCP address. There is no encryption: use one that only trusted machines reach.
    #[arg(long, value_name = "IP:PORT", group = "where")]
    listen: Vec<SocketAddr>,
    /// The image that a client gets who names none.
    #[arg(long, value_name = "POOL/IMAGE")]
    default: Option<ImageSpec>,
}

impl NbdCommand {
    pub fn run(self, context: &Context) -> anyhow::Result<()> {
        let NbdCommand::Serve(args) = self;
        let filter =
            EnvFilter::try_from_env("NACRE_LOG").unwrap_or_else(|_| EnvFilter::new("info,quinn=warn"));
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .init();
        let credentials = context.credentials()?;
        let timeout = context.timeout;
        block_on(async move {
            let connection = connect(credentials, timeout).await?;
            let cluster = connection.cluster();
            // Answers now or says why not: a gateway that cannot reach its cluster should not look as if it served.
            cluster.osdmap().await.context("cannot serve")?;
            let exports = Images { cluster, default: args.default, open: RefCell::default() };
            let server = Server::new(Rc::new(exports), nacre_nbd::Config::default())?;
            for path in &args.unix {
                server.serve_unix(path).await?;
                tracing::info!("serving on {}", path.display());
            }
            for address in &args.listen {
                let local = server.serve_tcp(*address).await?;
                tracing::info!("serving on {local}");
            }
            let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]);
            crate::daemon::shutdown().await;
            server.stop().await;
            connection.shutdown().await;
            Ok(())
        })?
    }
}

/// The cluster's images. Those in use are open once, for all connections.
struct Images {
    cluster: Cluster,
    default: Option<ImageSpec>,
    open: RefCell<HashMap<String, Weak<ImageExport>>>,
}

impl Images {
    async fn find(&self, name: &str) -> Result<Rc<dyn Export>, ExportError> {
        let spec = match (name, &self.default) {
            ("", Some(default)) => default.clone(),
            ("", None) => {
                return Err(ExportError::NotFound("there is no default export: name one, POOL/IMAGE".into()));
            }
            (name, _) => name.parse::<ImageSpec>().map_err(ExportError::NotFound)?,
        };
        let key = spec.to_string();
        if let Some(open) = self.open.borrow().get(&key).and_then(Weak::upgrade)
            && !open.is_gone()
        {
            return Ok(open);
        }
        let image = self.open_image(&spec).await.map_err(export_error)?;
        let mut table = self.open.borrow_mut();
        table.retain(|_, export| export.strong_count() > 0);
        // Another connection may have opened it meanwhile.
        if let Some(open) = table.get(&key).and_then(Weak::upgrade)
            && !open.is_gone()
        {
            return Ok(open);
        }
        let following = image.clone();
        let follow = tokio::task::spawn_local(async move { following.follow().await }).abort_handle();
        let export = Rc::new(ImageExport { image, name: key.clone(), follow });
        table.insert(key, Rc::downgrade(&export));
        Ok(export)
    }

    async fn open_image(&self, spec: &ImageSpec) -> nacre_client::Result<Image> {
        let pool = self.cluster.pool(&spec.pool).await?;
        let options = match &spec.snapshot {
            Some(snapshot) => OpenOptions::at(snapshot),
            None => OpenOptions::default(),
        };
        // A block device has no use for a time-out: it waits for the cluster to heal, as a disk behind a bad cable would.
        pool.with_timeout(None).open_image(&spec.image, options).await
    }

    async fn all(&self) -> nacre_client::Result<Vec<ExportInfo>> {
        let mut list = Vec::new();
        for (_, pool) in self.cluster.pools().await? {
            for image in self.cluster.pool(&pool).await?.images().await? {
                list.push(ExportInfo { name: format!("{pool}/{image}"), description: String::new() });
            }
        }
        Ok(list)
    }
}

impl Exports for Images {
    fn lookup<'a>(&'a self, name: &'a str) -> ExportFuture<'a, Result<Rc<dyn Export>, ExportError>> {
        Box::pin(async move {
            // The handshake must end by itself, also where the open image will wait for ever.
            let limit = self.cluster.timeout().unwrap_or(std::time::Duration::from_secs(30));
            match tokio::time::timeout(limit, self.find(name)).await {
                Ok(found) => found,
                Err(_) => Err(ExportError::Unavailable(format!("'{name}' did not open within {limit:?}"))),
            }
        })
    }

    fn list(&self) -> ExportFuture<'_, Result<Vec<ExportInfo>, ExportError>> {
        Box::pin(async move { self.all().await.map_err(export_error) })
    }
}

fn export_error(error: OpError) -> ExportError {
    match error.code {
        ErrorCode::NotFound | ErrorCode::InvalidArgument => ExportError::NotFound(error.message),
        ErrorCode::NotPermitted | ErrorCode::Fenced => ExportError::Denied(error.message),
        _ => ExportError::Unavailable(error.message),
    }
}

fn failure(error: OpError) -> Failure {
    let errno = match error.code {
        ErrorCode::NotPermitted | ErrorCode::ReadOnly => Errno::Perm,
        ErrorCode::NoSpace | ErrorCode::QuotaExceeded => Errno::NoSpace,
        ErrorCode::InvalidArgument | ErrorCode::OutOfRange | ErrorCode::TooLarge => Errno::Invalid,
        ErrorCode::Fenced => Errno::Shutdown,
        _ => Errno::Io,
    };
    Failure::new(errno, error.message)
}

struct ImageExport {
    image: Image,
    name: String,
    follow: AbortHandle,
}

impl ImageExport {
    /// The image behind it was removed; one of the same name is another.
    fn is_gone(&self) -> bool {
        self.image.is_gone()
    }
}

impl Drop for ImageExport {
    fn drop(&mut self) {
        self.follow.abort();
    }
}

impl Export for ImageExport {
    fn size(&self) -> u64 {
        self.image.size()
    }

    fn read_only(&self) -> bool {
        self.image.read_only()
    }

    fn description(&self) -> String {
        format!("Nacre image {}", self.name)
    }

    fn read(
        self: Rc<Self>,
        offset: u64,
        length: u32,
    ) -> ExportFuture<'static, Result<Vec<Segment>, Failure>> {
        Box::pin(async move {
            let segments = self.image.read_segments(offset, u64::from(length)).await.map_err(failure)?;
            let segment = |segment| match segment {
                ImageSegment::Data(bytes) => Segment::Data(bytes),
                ImageSegment::Zero(length) => Segment::Zero(length),
            };
            Ok(segments.into_iter().map(segment).collect())
        })
    }

    /// Every write is durable on all copies when it completes, so `fua` asks for nothing more.
    fn write(
        self: Rc<Self>,
        offset: u64,
        data: Bytes,
        _fua: bool,
    ) -> ExportFuture<'static, Result<(), Failure>> {
        Box::pin(async move { self.image.write(offset, data).await.map_err(failure) })
    }

    fn flush(self: Rc<Self>) -> ExportFuture<'static, Result<(), Failure>> {
        Box::pin(async move { self.image.flush().await.map_err(failure) })
    }

    fn trim(
        self: Rc<Self>,
        offset: u64,
        length: u64,
        _fua: bool,
    ) -> ExportFuture<'static, Result<(), Failure>> {
        Box::pin(async move { self.image.discard(offset, length).await.map_err(failure) })
    }

    fn write_zeroes(
        self: Rc<Self>,
        offset: u64,
        length: u64,
        _no_hole: bool,
        _fua: bool,
    ) -> ExportFuture<'static, Result<(), Failure>> {
        Box::pin(async move { self.image.write_zeroes(offset, length).await.map_err(failure) })
    }

    fn block_status(
        self: Rc<Self>,
        offset: u64,
        length: u64,
    ) -> ExportFuture<'static, Result<Vec<Extent>, Failure>> {
        Box::pin(async move {
            let extents = self.image.extents(offset, length).await.map_err(failure)?;
            let extent = |extent: &nacre_client::image::ImageExtent| Extent {
                length: extent.length,
                state: if extent.allocated { ExtentState::Data } else { ExtentState::Hole },
            };
            Ok(extents.iter().map(extent).collect())
        })
    }
}
