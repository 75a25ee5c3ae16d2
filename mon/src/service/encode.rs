//! The replicated state as the bytes of a checkpoint.

use super::{Answer, History, Service};
use bytes::Bytes;
use nacre_maps::{AuthMap, ConfigMap, MapError, MonMap, OsdMap};
use nacre_wire::messages::LogLine;
use prost::Message;

#[derive(Clone, PartialEq, Message)]
struct ServiceBytes {
    #[prost(uint64, tag = "1")]
    version: u64,
    #[prost(fixed64, tag = "2")]
    hash: u64,
    #[prost(uint64, tag = "3")]
    at_ms: u64,
    #[prost(bytes = "bytes", tag = "4")]
    osdmap: Bytes,
    #[prost(bytes = "bytes", tag = "5")]
    history_base: Bytes,
    #[prost(bytes = "bytes", repeated, tag = "6")]
    history_steps: Vec<Bytes>,
    #[prost(bytes = "bytes", tag = "7")]
    monmap: Bytes,
    #[prost(bytes = "bytes", tag = "8")]
    auth: Bytes,
    #[prost(bytes = "bytes", tag = "9")]
    config: Bytes,
    #[prost(string, tag = "10")]
    ca_key_pem: String,
    #[prost(string, tag = "11")]
    ca_cert_pem: String,
    #[prost(message, repeated, tag = "12")]
    log: Vec<LogLine>,
    #[prost(uint64, tag = "13")]
    log_seq: u64,
    #[prost(message, repeated, tag = "14")]
    answers: Vec<Answer>,
}

impl Service {
    pub fn encode(&self) -> Bytes {
        let answer = |key: &(String, nacre_types::RequestId)| {
            let reply = self.answers.get(key).cloned().unwrap_or_default();
            Answer::new(&key.0, key.1, reply)
        };
        let bytes = ServiceBytes {
            version: self.version,
            hash: self.hash,
            at_ms: self.at_ms,
            osdmap: self.osdmap.encode(),
            history_base: self.history.base().encode(),
            history_steps: self.history.steps().iter().cloned().collect(),
            monmap: self.monmap.encode(),
            auth: self.auth.encode(),
            config: self.config.encode(),
            ca_key_pem: self.ca_key_pem.clone(),
            ca_cert_pem: self.ca_cert_pem.clone(),
            log: self.log.iter().cloned().collect(),
            log_seq: self.log_seq,
            answers: self.answer_order.iter().map(answer).collect(),
        };
        bytes.encode_to_vec().into()
    }

    pub fn decode(bytes: Bytes) -> Result<Service, String> {
        let raw = ServiceBytes::decode(bytes).map_err(|e| e.to_string())?;
        let text = |e: MapError| e.to_string();
        let osdmap = OsdMap::decode(&raw.osdmap).map_err(text)?;
        let base = OsdMap::decode(&raw.history_base).map_err(text)?;
        let history = History::from_parts(base, raw.history_steps);
        let folded = history.at(history.newest()).ok_or("the osdmap's history does not apply")?;
        if (folded.epoch(), folded.hash()) != (osdmap.epoch(), osdmap.hash()) {
            return Err(format!("the history ends at {}, the map at {}", folded.epoch(), osdmap.epoch()));
        }
        let monmap = MonMap::decode(&raw.monmap).map_err(text)?;
        let auth = AuthMap::decode(&raw.auth).map_err(text)?;
        let mut service = Service::new(osdmap, monmap, auth, raw.ca_key_pem, raw.ca_cert_pem);
        (service.version, service.hash, service.at_ms) = (raw.version, raw.hash, raw.at_ms);
        service.history = history;
        service.config = ConfigMap::decode(&raw.config).map_err(text)?;
        (service.log, service.log_seq) = (raw.log.into(), raw.log_seq);
        for answer in &raw.answers {
            service.remember(answer);
        }
        Ok(service)
    }
}
