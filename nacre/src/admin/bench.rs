//! The measuring loop of `nacre image bench` and `nacre object bench`: a fixed number of requests in flight, every
//! latency in a histogram.

use super::Context;
use crate::output;
use crate::units::parse_size;
use bytes::Bytes;
use clap::{Args, ValueEnum};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hdrhistogram::Histogram;
use nacre_client::OpError;
use nacre_types::Rng;
use serde_json::json;
use std::future::Future;
use std::time::{Duration, Instant};

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Rw {
    Read,
    Write,
    Randread,
    Randwrite,
}

impl Rw {
    pub fn reads(self) -> bool {
        matches!(self, Rw::Read | Rw::Randread)
    }

    fn random(self) -> bool {
        matches!(self, Rw::Randread | Rw::Randwrite)
    }
}

#[derive(Args, Clone)]
pub struct BenchArgs {
    #[arg(long, value_enum, default_value = "randwrite")]
    pub rw: Rw,
    /// Bytes of each request.
    #[arg(long, default_value = "4k", value_parser = block_size)]
    pub bs: u64,
    /// Requests in flight.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub qd: u32,
    #[arg(long, default_value_t = 10.0)]
    pub seconds: f64,
}

fn block_size(text: &str) -> Result<u64, String> {
    match parse_size(text)? {
        bytes @ 512..=0x100_0000 if bytes % 512 == 0 => Ok(bytes),
        bytes => Err(format!("{bytes} bytes a request: it must be a multiple of 512 up to 16 MiB")),
    }
}

/// What is measured over what.
pub struct Workload {
    /// Requests lie in `0..span`.
    pub span: u64,
    /// A request does not cross a multiple of it.
    pub boundary: u64,
    pub args: BenchArgs,
}

pub struct Report {
    latency_us: Histogram<u64>,
    seconds: f64,
    bytes: u64,
}

/// Issues requests until the time is over; `request(write, offset, length, data)` is one of them.
pub async fn run<F>(
    workload: Workload,
    request: impl Fn(bool, u64, u64, Bytes) -> F,
) -> anyhow::Result<Report>
where
    F: Future<Output = Result<(), OpError>>,
{
    let Workload { span, boundary, args } = workload;
    let step = args.bs.min(boundary);
    let slots = span / step;
    anyhow::ensure!(slots > 0, "a request of {} bytes does not fit into {span} bytes", args.bs);
    let mut rng = Rng::new(span ^ u64::from(args.qd));
    // Incompressible, and cut from one buffer at a random place: no two requests write the same bytes.
    let mut noise = vec![0; (2 * step + (1 << 16)) as usize];
    rng.fill(&mut noise);
    let noise = Bytes::from(noise);
    let write = !args.rw.reads();
    let mut next_slot = 0;
    let mut issue = || {
        let slot = if args.rw.random() { rng.below(slots) } else { next_slot % slots };
        next_slot += 1;
        let at = rng.below(1 << 16) as usize;
        let data = if write { noise.slice(at..at + step as usize) } else { Bytes::new() };
        let work = request(write, slot * step, step, data);
        async move {
            let began = Instant::now();
            work.await.map(|()| began.elapsed())
        }
    };
    let began = Instant::now();
    let duration = Duration::from_secs_f64(args.seconds);
    let mut running: FuturesUnordered<_> = (0..args.qd).map(|_| issue()).collect();
    let mut latency_us = Histogram::new_with_bounds(1, 600_000_000, 3)?;
    let mut bytes = 0;
    while let Some(done) = running.next().await {
        latency_us.saturating_record(done?.as_micros() as u64);
        bytes += step;
        if began.elapsed() < duration {
            running.push(issue());
        }
    }
    Ok(Report { latency_us, seconds: began.elapsed().as_secs_f64(), bytes })
}

impl Report {
    pub fn print(&self, context: &Context) {
        let h = &self.latency_us;
        let json = json!({
            "iops": h.len() as f64 / self.seconds,
            "bytes_per_s": self.bytes as f64 / self.seconds,
            "ops": h.len(),
            "seconds": self.seconds,
            "lat_us": {
                "mean": h.mean(),
                "p50": h.value_at_quantile(0.5),
                "p99": h.value_at_quantile(0.99),
                "p999": h.value_at_quantile(0.999),
                "max": h.max(),
            },
        });
        output::print(context.format, &json, |_| {
            format!(
                "{:.0} requests/s, {}/s\nlatency: mean {:.0} us, p50 {} us, p99 {} us, p99.9 {} us, max {} us",
                h.len() as f64 / self.seconds,
                crate::units::human_bytes((self.bytes as f64 / self.seconds) as u64),
                h.mean(),
                h.value_at_quantile(0.5),
                h.value_at_quantile(0.99),
                h.value_at_quantile(0.999),
                h.max()
            )
        });
    }
}
