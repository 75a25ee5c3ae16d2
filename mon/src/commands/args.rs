//! Arguments of a command, and what it gives back. Numbers and lists may come as JSON numbers and arrays or as text,
//! as they come from a command line.

use bytes::Bytes;
use nacre_types::{EntityName, OsdId, PgId};
use nacre_wire::ErrorCode;
use nacre_wire::messages::Command;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::str::FromStr;

const JSON_BYTES_MAX: usize = 1 << 20;

/// Why a command was not done.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Failure {
    pub code: ErrorCode,
    pub message: String,
}

impl Failure {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Failure {
        Failure { code, message: message.into() }
    }

    pub fn invalid(message: impl Into<String>) -> Failure {
        Failure::new(ErrorCode::InvalidArgument, message)
    }

    pub fn not_found(message: impl Into<String>) -> Failure {
        Failure::new(ErrorCode::NotFound, message)
    }
}

/// What a command gives back.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Reply {
    pub message: String,
    pub json: Option<Value>,
    pub output: String,
}

impl Reply {
    pub fn done(message: impl Into<String>) -> Reply {
        Reply { message: message.into(), ..Reply::default() }
    }

    pub fn json(json: Value) -> Reply {
        Reply { json: Some(json), ..Reply::default() }
    }

    pub fn with_json(self, json: Value) -> Reply {
        Reply { json: Some(json), ..self }
    }

    pub fn with_output(self, output: String) -> Reply {
        Reply { output, ..self }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Args {
    object: Map<String, Value>,
    pub input: Bytes,
}

impl Args {
    pub fn parse(command: &Command) -> Result<Args, Failure> {
        if command.json.len() > JSON_BYTES_MAX {
            return Err(Failure::new(ErrorCode::TooLarge, "the command is longer than 1 MiB"));
        }
        let value: Value = serde_json::from_str(&command.json)
            .map_err(|e| Failure::invalid(format!("the command is not JSON: {e}")))?;
        match value {
            Value::Object(object) => Ok(Args { object, input: command.input.clone() }),
            _ => Err(Failure::invalid("a command is a JSON object like {\"prefix\": \"status\"}")),
        }
    }

    /// The arguments for the audit log; what is long or secret is left out.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for (key, value) in &self.object {
            if key != "prefix" && key != "format" && key != "csr" {
                let value: String = value.to_string().chars().take(200).collect();
                text.push_str(&format!(" {key}={value}"));
            }
        }
        if !self.input.is_empty() {
            text.push_str(&format!(" with {} bytes of input", self.input.len()));
        }
        text
    }

    /// Refuses arguments that the command does not know.
    pub fn only(&self, prefix: &str, known: &[&str]) -> Result<(), Failure> {
        let stranger = self
            .object
            .keys()
            .find(|key| *key != "prefix" && *key != "format" && !known.contains(&key.as_str()));
        match stranger {
            None => Ok(()),
            Some(key) => {
                let known = if known.is_empty() { "none".into() } else { known.join(", ") };
                Err(Failure::invalid(format!("'{prefix}' has no argument '{key}'; it takes {known}")))
            }
        }
    }

    fn value(&self, name: &str) -> Option<&Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }

    fn missing(name: &str) -> Failure {
        Failure::invalid(format!("the argument '{name}' is missing"))
    }

    pub fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    pub fn text(&self, name: &str) -> Result<&str, Failure> {
        self.text_if(name)?.ok_or_else(|| Args::missing(name))
    }

    pub fn text_if(&self, name: &str) -> Result<Option<&str>, Failure> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Failure::invalid(format!("the argument '{name}' must be text"))),
        }
    }

    /// Text, or a number or bool as text.
    pub fn scalar(&self, name: &str) -> Result<String, Failure> {
        match self.value(name) {
            None => Err(Args::missing(name)),
            Some(value) => scalar(value)
                .ok_or_else(|| Failure::invalid(format!("the argument '{name}' must be one value"))),
        }
    }

    pub fn parsed<T: FromStr>(&self, name: &str, wanted: &str) -> Result<T, Failure> {
        let text = self.scalar(name)?;
        text.trim().parse().map_err(|_| {
            let shown: String = text.chars().take(60).collect();
            Failure::invalid(format!("'{shown}' given for '{name}' is not {wanted}"))
        })
    }

    pub fn parsed_if<T: FromStr>(&self, name: &str, wanted: &str) -> Result<Option<T>, Failure> {
        if self.has(name) { self.parsed(name, wanted).map(Some) } else { Ok(None) }
    }

    pub fn flag(&self, name: &str) -> Result<bool, Failure> {
        match self.value(name) {
            None => Ok(false),
            Some(Value::Bool(value)) => Ok(*value),
            Some(Value::String(text)) => match text.as_str() {
                "true" | "yes" | "1" | "detail" => Ok(true),
                "false" | "no" | "0" | "" => Ok(false),
                // The long flags of old: --yes-i-really-really-mean-it.
                text if text.trim_start_matches('-').starts_with("yes-i-really") => Ok(true),
                _ => Err(Failure::invalid(format!("the argument '{name}' must be true or false"))),
            },
            Some(_) => Err(Failure::invalid(format!("the argument '{name}' must be true or false"))),
        }
    }

    /// Several values: an array, or text with spaces or commas between.
    pub fn list(&self, name: &str) -> Result<Vec<String>, Failure> {
        let wrong = || Failure::invalid(format!("the argument '{name}' must be a list"));
        match self.value(name) {
            None => Err(Args::missing(name)),
            Some(Value::Array(values)) => values.iter().map(|v| scalar(v).ok_or_else(wrong)).collect(),
            Some(value) => {
                let text = scalar(value).ok_or_else(wrong)?;
                let words =
                    text.split(|c: char| c.is_whitespace() || c == ',').filter(|word| !word.is_empty());
                Ok(words.map(String::from).collect())
            }
        }
    }

    /// OSDs by `ids` or `id`.
    pub fn osds(&self) -> Result<Vec<OsdId>, Failure> {
        let words = self.list(if self.has("ids") || !self.has("id") { "ids" } else { "id" })?;
        let osds = words.iter().map(|word| parse_osd(word)).collect::<Result<Vec<_>, _>>()?;
        if osds.is_empty() { Err(Args::missing("ids")) } else { Ok(osds) }
    }

    pub fn osd(&self, name: &str) -> Result<OsdId, Failure> {
        parse_osd(&self.scalar(name)?)
    }

    pub fn pg(&self) -> Result<PgId, Failure> {
        self.text("pgid")?.parse().map_err(|e: nacre_types::IdParseError| Failure::invalid(e.to_string()))
    }

    pub fn entity(&self, name: &str) -> Result<EntityName, Failure> {
        self.text(name)?.parse().map_err(|e: nacre_types::EntityNameError| Failure::invalid(e.to_string()))
    }

    /// A map of text to text: an object, or words `key=value`.
    pub fn pairs(&self, name: &str) -> Result<BTreeMap<String, String>, Failure> {
        let wrong = || Failure::invalid(format!("the argument '{name}' must be pairs like root=default"));
        match self.value(name) {
            None => Ok(BTreeMap::new()),
            Some(Value::Object(object)) => object
                .iter()
                .map(|(key, value)| Ok((key.clone(), scalar(value).ok_or_else(wrong)?)))
                .collect(),
            Some(_) => self
                .list(name)?
                .iter()
                .map(|word| word.split_once('=').map(|(k, v)| (k.into(), v.into())).ok_or_else(wrong))
                .collect(),
        }
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        _ => None,
    }
}

fn parse_osd(word: &str) -> Result<OsdId, Failure> {
    let id: OsdId = word.parse().map_err(|e: nacre_types::IdParseError| Failure::invalid(e.to_string()))?;
    if id.0 > nacre_crush::DEVICE_ID_MAX {
        return Err(Failure::invalid(format!(
            "{id} is above the highest OSD number {}",
            nacre_crush::DEVICE_ID_MAX
        )));
    }
    Ok(id)
}
