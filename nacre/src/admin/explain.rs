//! `nacre explain`: why something is stuck, and what to do about it.

use super::Context;
use crate::{dev, output};
use anyhow::Context as _;
use clap::{Args, Subcommand};
use nacre_client::Cluster;
use nacre_explain::{Operation, Question, explain};
use nacre_types::{ClientId, EntityName, OsdId, PgId};

#[derive(Subcommand)]
pub enum ExplainCommand {
    /// Why a placement group is not active, or not clean.
    Pg { pg: PgId },
    /// Why an OSD is down, silent, slow or idle.
    Osd { osd: OsdId },
    /// Why an operation is not answered, or is refused.
    Op(OpArgs),
    /// Why commands to the monitors are not answered.
    Mon,
}

#[derive(Args)]
pub struct OpArgs {
    /// POOL/OBJECT, or a request's id like 4f1c:12; without it, whatever has waited longest.
    what: Option<String>,
    /// The object's namespace.
    #[arg(long, default_value = "")]
    namespace: String,
    /// By whose rights, for example client.k8s.
    #[arg(long = "as", value_name = "ENTITY")]
    entity: Option<EntityName>,
    /// The client's number, by which it may have been shut out (see `nacre osd blocklist ls`).
    #[arg(long, value_parser = client_id)]
    client: Option<ClientId>,
}

fn client_id(text: &str) -> Result<ClientId, String> {
    u64::from_str_radix(text, 16).map(ClientId).map_err(|_| "a client's number is hexadecimal".into())
}

impl ExplainCommand {
    pub fn run(self, context: &Context) -> anyhow::Result<()> {
        let question = match self {
            ExplainCommand::Pg { pg } => Question::Pg(pg),
            ExplainCommand::Osd { osd } => Question::Osd(osd),
            ExplainCommand::Mon => Question::Monitors,
            ExplainCommand::Op(args) => args.question()?,
        };
        let mut answer =
            context.with_cluster(async |cluster: Cluster| Ok(explain(&cluster, &question).await))?;
        for step in &mut answer.steps {
            if let (Some(daemon), Some(credentials)) = (&step.starts, &context.cluster)
                && let Some(command) = dev::start_command(credentials, daemon)
            {
                (step.text, step.command) = (format!("start {daemon}"), Some(command));
            }
        }
        output::print(context.format, &answer.to_json(), |_| answer.to_string());
        Ok(())
    }
}

impl OpArgs {
    fn question(self) -> anyhow::Result<Question> {
        let Some(what) = self.what else { return Ok(Question::AnyOperation) };
        let Some((pool, object)) = what.split_once('/') else {
            what.split_once(':').with_context(|| {
                format!("'{what}' is neither POOL/OBJECT nor a request's id like 4f1c:12")
            })?;
            return Ok(Question::Request(what));
        };
        anyhow::ensure!(!pool.is_empty() && !object.is_empty(), "write POOL/OBJECT, not '{what}'");
        Ok(Question::Operation(Operation {
            pool: pool.into(),
            namespace: self.namespace,
            object: object.into(),
            entity: self.entity,
            client: self.client,
        }))
    }
}
