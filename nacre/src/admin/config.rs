//! `nacre config`: settings kept by the monitors and followed by every daemon at once.

use super::Context;
use crate::output::{self};
use clap::Subcommand;
use serde_json::json;

#[derive(Subcommand)]
pub enum ConfigCommand {
    /// Sets NAME for WHO: global, mon, osd, client, or one entity such as osd.3.
    Set { who: String, name: String, value: String },
    /// Shows what WHO runs with.
    Get { who: String, name: Option<String> },
    /// Goes back to the default.
    Rm { who: String, name: String },
    /// Shows everything that was set.
    Dump,
    /// Lists the settings there are.
    Ls,
}

impl ConfigCommand {
    pub fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            ConfigCommand::Set { who, name, value } => {
                context.tell(json!({"prefix": "config set", "who": who, "name": name, "value": value}))
            }
            ConfigCommand::Rm { who, name } => {
                context.tell(json!({"prefix": "config rm", "who": who, "name": name}))
            }
            ConfigCommand::Get { who, name } => {
                let reply = context.ask(json!({"prefix": "config get", "who": who, "name": name}))?;
                output::print(context.format, &reply.json, settings_text);
                Ok(())
            }
            ConfigCommand::Ls => {
                let reply = context.ask(json!({"prefix": "config ls"}))?;
                output::print(context.format, &reply.json, |options| {
                    output::rows(
                        options,
                        &[("NAME", "name"), ("DEFAULT", "default"), ("MEANING", "description")],
                    )
                });
                Ok(())
            }
            ConfigCommand::Dump => {
                let reply = context.ask(json!({"prefix": "config dump"}))?;
                output::print(context.format, &reply.json, settings_text);
                Ok(())
            }
        }
    }
}

fn settings_text(settings: &serde_json::Value) -> String {
    if settings.is_object() {
        // One was asked for.
        return output::cell(&settings["value"]);
    }
    output::rows(settings, &[("WHO", "section"), ("NAME", "name"), ("VALUE", "value")])
}
