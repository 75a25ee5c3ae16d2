//! `nacre auth`: entities, their caps, their credential files.

use super::Context;
use crate::output::{self};
use anyhow::Context as _;
use clap::Subcommand;
use nacre_runtime::tls::{Credentials, Identity};
use nacre_types::EntityName;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

#[derive(Subcommand)]
pub enum AuthCommand {
    /// Makes an entity (or keeps the one there is) and writes a credential file for it.
    Get {
        /// For example client.k8s
        entity: EntityName,
        /// What it may do, as SERVICE=CAP: osd='allow rw pool=rbd'. Repeat for several services.
        #[arg(long = "cap", value_name = "SERVICE=CAP", value_parser = cap)]
        caps: Vec<(String, String)>,
        /// Where to write the credential file.
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Lists entities with their caps.
    Ls,
    /// Changes what an entity may do, at once.
    Caps {
        entity: EntityName,
        #[arg(long = "cap", value_name = "SERVICE=CAP", value_parser = cap, required = true)]
        caps: Vec<(String, String)>,
    },
    /// Removes an entity: its credential file opens nothing any more.
    Rm { entity: EntityName },
}

fn cap(text: &str) -> Result<(String, String), String> {
    let (service, cap) =
        text.split_once('=').ok_or("write SERVICE=CAP, for example osd='allow rw pool=rbd'")?;
    cap.parse::<nacre_maps::Caps>().map_err(|e| e.to_string())?;
    Ok((service.into(), cap.into()))
}

impl AuthCommand {
    pub fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            AuthCommand::Get { entity, caps, output } => {
                let credentials = issue(context, &entity, caps.into_iter().collect())?;
                credentials.save(&output).with_context(|| format!("cannot write {}", output.display()))?;
                eprintln!("wrote the credentials of {entity} to {}", output.display());
                Ok(())
            }
            AuthCommand::Ls => {
                let reply = context.ask(json!({"prefix": "auth ls"}))?;
                output::print(context.format, &reply.json, |list| {
                    let mut text = String::new();
                    for entry in list["auth_dump"].as_array().into_iter().flatten() {
                        text.push_str(&format!("{}\n", output::cell(&entry["entity"])));
                        for (service, cap) in entry["caps"].as_object().into_iter().flatten() {
                            text.push_str(&format!("    {service}: {}\n", output::cell(cap)));
                        }
                    }
                    text
                });
                Ok(())
            }
            AuthCommand::Caps { entity, caps } => {
                let caps: BTreeMap<String, String> = caps.into_iter().collect();
                context.tell(json!({"prefix": "auth caps", "entity": entity.to_string(), "caps": caps}))
            }
            AuthCommand::Rm { entity } => {
                context.tell(json!({"prefix": "auth rm", "entity": entity.to_string()}))
            }
        }
    }
}

/// Makes a key here and has the monitors sign its certificate: the key never leaves this machine.
pub fn issue(
    context: &Context,
    entity: &EntityName,
    caps: BTreeMap<String, String>,
) -> anyhow::Result<Credentials> {
    let own = context.credentials()?;
    let identity = Identity::generate()?;
    let csr = identity.signing_request(entity)?;
    let mut command = json!({"prefix": "auth get-or-create", "entity": entity.to_string(), "csr": csr});
    if !caps.is_empty() {
        // Without them an entity that is there keeps what it has.
        command["caps"] = json!(caps);
    }
    let reply = context.ask(command)?;
    let certificate = reply.json.get("cert").and_then(Value::as_str);
    let cert_pem = certificate.context("the monitors answered without a certificate")?.to_string();
    Ok(Credentials { entity: entity.clone(), cert_pem, key_pem: identity.key_pem(), ..own })
}
