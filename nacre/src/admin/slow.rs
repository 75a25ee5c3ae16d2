//! `nacre why-slow` and `nacre top`: where the time of operations goes, and who does how many.

use super::Context;
use crate::output::{self, Format};
use clap::Args;
use nacre_client::Cluster;
use nacre_explain::{top, why_slow};
use std::io::{IsTerminal, Write as _};
use std::time::Duration;

#[derive(Args)]
pub struct WhySlowArgs {
    /// POOL, or POOL/IMAGE for one image's data.
    what: String,
    /// Only operations that ended within this many seconds.
    #[arg(long, default_value_t = 600, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
}

#[derive(Args)]
pub struct TopArgs {
    /// Print once and end.
    #[arg(long)]
    once: bool,
    /// Seconds from one look to the next.
    #[arg(long, default_value_t = 2, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
}

impl WhySlowArgs {
    pub fn run(self, context: &Context) -> anyhow::Result<()> {
        let (pool, image) = match self.what.split_once('/') {
            Some((pool, image)) => (pool, Some(image)),
            None => (self.what.as_str(), None),
        };
        let named = !pool.is_empty() && image.is_none_or(|image| !image.is_empty() && !image.contains('@'));
        anyhow::ensure!(named, "write POOL or POOL/IMAGE, not '{}'", self.what);
        let window = Duration::from_secs(self.seconds);
        let slowness = context
            .with_cluster(async |cluster: Cluster| Ok(why_slow(&cluster, pool, image, window).await?))?;
        output::print(context.format, &slowness.to_json(), |_| slowness.to_string());
        Ok(())
    }
}

impl TopArgs {
    pub fn run(self, context: &Context) -> anyhow::Result<()> {
        let pause = Duration::from_secs(self.interval);
        let redraws = !self.once && context.format == Format::Human && std::io::stdout().is_terminal();
        context.with_cluster(async |cluster: Cluster| {
            loop {
                let now = top(&cluster).await?;
                if redraws {
                    // Home, and the screen cleared. Whoever does not see it does not see the rest either.
                    let _ = std::io::stdout().write_all(b"\x1b[H\x1b[2J");
                }
                output::print(context.format, &now.to_json(), |_| now.to_string());
                if self.once {
                    return Ok(());
                }
                cluster.sleep(pause).await;
            }
        })
    }
}
