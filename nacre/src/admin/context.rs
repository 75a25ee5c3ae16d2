//! What every administrative command has: which cluster, how to print, how long to wait; and the asking itself.

use crate::output::{self, Format};
use anyhow::Context as _;
use bytes::Bytes;
use nacre_client::Cluster;
use nacre_runtime::driver::{block_on, connect};
use nacre_runtime::tls::Credentials;
use nacre_types::OsdId;
use serde_json::Value;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

pub struct Context {
    pub cluster: Option<PathBuf>,
    pub format: Format,
    pub timeout: Duration,
}

/// A monitor's answer.
pub struct Reply {
    pub json: Value,
    pub message: String,
    pub output: Bytes,
}

impl Context {
    pub fn credentials(&self) -> anyhow::Result<Credentials> {
        let path = self.cluster.as_ref().context(
            "which cluster? give its credential file with --cluster FILE or in $NACRE_CLUSTER \
             ('nacre dev up' prints the line to copy)",
        )?;
        Ok(Credentials::load(path)?)
    }

    /// Connects, runs `work`, and disconnects in order.
    pub fn with_cluster<T, F>(&self, work: impl FnOnce(Cluster) -> F) -> anyhow::Result<T>
    where
        F: Future<Output = anyhow::Result<T>>,
    {
        let credentials = self.credentials()?;
        block_on(async {
            let connection = connect(credentials, self.timeout).await?;
            let result = work(connection.cluster()).await;
            connection.shutdown().await;
            result
        })?
    }

    /// Asks the monitors.
    pub fn ask(&self, command: Value) -> anyhow::Result<Reply> {
        self.ask_with(command, Bytes::new())
    }

    pub fn ask_with(&self, command: Value, input: Bytes) -> anyhow::Result<Reply> {
        self.with_cluster(async |cluster: Cluster| ask(&cluster, command, input).await)
    }

    /// Has the monitors do something and prints what they say of it.
    pub fn tell(&self, command: Value) -> anyhow::Result<()> {
        self.tell_with(command, Bytes::new())
    }

    pub fn tell_with(&self, command: Value, input: Bytes) -> anyhow::Result<()> {
        let reply = self.ask_with(command, input)?;
        output::print(self.format, &reply.json, |_| reply.message.clone());
        Ok(())
    }

    /// Asks the monitors and prints the answer: `part` of its JSON, or their own rendering for people.
    pub fn show(&self, command: Value, part: impl FnOnce(Value) -> Value) -> anyhow::Result<()> {
        let reply = self.ask(command)?;
        let text = if reply.output.is_empty() {
            reply.message
        } else {
            String::from_utf8_lossy(&reply.output).into_owned()
        };
        output::print(self.format, &part(reply.json), |_| text);
        Ok(())
    }

    /// Asks one OSD; answers with its message and JSON.
    pub fn ask_osd(&self, osd: OsdId, command: &str, args: Value) -> anyhow::Result<(String, Value)> {
        self.with_cluster(async |cluster: Cluster| {
            let reply = cluster.osd_admin(osd, command, &args.to_string()).await?;
            Ok((reply.message, parse(&reply.json)?))
        })
    }
}

/// Asks the monitors over a connection there is.
pub async fn ask(cluster: &Cluster, command: Value, input: Bytes) -> anyhow::Result<Reply> {
    let reply = cluster.command(&command.to_string(), input).await?;
    Ok(Reply { json: parse(&reply.json)?, message: reply.message, output: reply.output })
}

fn parse(json: &str) -> anyhow::Result<Value> {
    if json.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(json).context("the answer is not JSON")
}
