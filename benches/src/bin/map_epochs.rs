//! Orders changes of the osdmap from a running cluster and says how fast they come about, and how long a new epoch takes to
//! reach subscribers, each with a session of its own from this process.
//!
//! ```text
//! map_epochs CREDENTIALS SUBSCRIBERS AT_ONCE SECONDS     prints JSON
//! ```

use nacre_client::Cluster;
use nacre_runtime::driver::{Connection, block_on, connect};
use nacre_runtime::tls::Credentials;
use nacre_types::Epoch;
use serde_json::json;
use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const TIMEOUT: Duration = Duration::from_secs(60);
const POOL: &str = "map-epochs";

fn main() -> Outcome<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [credentials, subscribers, at_once, seconds] = words.as_slice() else {
        return Err("usage: map_epochs CREDENTIALS SUBSCRIBERS AT_ONCE SECONDS".into());
    };
    let credentials = Credentials::load(Path::new(credentials))?;
    let span = Duration::from_secs_f64(seconds.parse()?);
    block_on(measure(credentials, subscribers.parse()?, at_once.parse()?, span))?
}

struct Seen {
    answers_us: RefCell<Vec<u64>>,
    all_us: RefCell<Vec<u64>>,
    next_value: Cell<u64>,
}

async fn measure(
    credentials: Credentials,
    subscribers: usize,
    at_once: usize,
    span: Duration,
) -> Outcome<()> {
    let admin = connect(credentials.clone(), TIMEOUT).await?;
    let cluster = admin.cluster();
    cluster.command(json!({"prefix": "osd pool create", "pool": POOL, "pg_num": 1}).to_string(), "").await?;
    let mut listeners = Vec::new();
    for _ in 0..subscribers {
        let listener = connect(credentials.clone(), TIMEOUT).await?;
        listener.cluster().osdmap().await?;
        listeners.push(listener);
    }
    let first = cluster.osdmap().await?.epoch();
    let seen = Rc::new(Seen {
        answers_us: RefCell::default(),
        all_us: RefCell::default(),
        next_value: Cell::new(1_000_000 + first.0),
    });
    let listeners = Rc::new(listeners);
    let began = Instant::now();
    let tasks: Vec<_> = (0..at_once)
        .map(|_| {
            tokio::task::spawn_local(orders(cluster.clone(), listeners.clone(), seen.clone(), began + span))
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    let elapsed = began.elapsed().as_secs_f64();
    let epochs = cluster.osdmap().await?.epoch().0 - first.0;
    let changes = seen.answers_us.borrow().len() as f64;
    let (answer_p50, answer_p99) = quantiles(&mut seen.answers_us.borrow_mut());
    let (all_p50, all_p99) = quantiles(&mut seen.all_us.borrow_mut());
    let told = json!({
        "seconds": elapsed,
        "epochs": epochs,
        "epochs_per_second": epochs as f64 / elapsed,
        "changes_per_second": changes / elapsed,
        "answer_p50_us": answer_p50,
        "answer_p99_us": answer_p99,
        "all_p50_us": all_p50,
        "all_p99_us": all_p99,
    });
    println!("{told}");
    Ok(())
}

/// One change after the other; each makes the map another one.
async fn orders(
    cluster: Cluster,
    listeners: Rc<Vec<Connection>>,
    seen: Rc<Seen>,
    until: Instant,
) -> Result<(), String> {
    while Instant::now() < until {
        let value = seen.next_value.get();
        seen.next_value.set(value + 1);
        let order = json!({"prefix": "osd pool set", "pool": POOL, "var": "scrub_min_interval", "val": value.to_string()});
        let began = Instant::now();
        let reply = cluster.command(order.to_string(), "").await.map_err(|error| error.to_string())?;
        seen.answers_us.borrow_mut().push(began.elapsed().as_micros() as u64);
        for listener in listeners.iter() {
            let heard = listener.cluster().wait_for_map(Epoch(reply.epoch)).await;
            heard.map_err(|error| error.to_string())?;
        }
        if !listeners.is_empty() {
            seen.all_us.borrow_mut().push(began.elapsed().as_micros() as u64);
        }
    }
    Ok(())
}

/// The median and the 99th percentile.
fn quantiles(samples: &mut [u64]) -> (u64, u64) {
    samples.sort_unstable();
    let at = |share: f64| {
        samples.get((samples.len().saturating_sub(1) as f64 * share) as usize).copied().unwrap_or_default()
    };
    (at(0.5), at(0.99))
}
