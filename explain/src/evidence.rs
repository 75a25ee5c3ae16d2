//! What is known, and by whom it was said. Answers come as JSON; the views here are the one place that knows its fields.

use nacre_client::{MonitorContact, Waiting};
use nacre_maps::OsdMap;
use nacre_types::{ClientId, Needs, OsdId, PgId};
use serde_json::Value;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Something a walk would have liked to see.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Want {
    /// What an OSD says of itself and the PG in question.
    Osd(OsdId),
    /// What the monitors know of an OSD.
    MonOsd(OsdId),
}

#[derive(Clone, Debug, Default)]
pub struct Evidence {
    pub map: Option<Rc<OsdMap>>,
    pub contact: MonitorContact,
    pub client: Option<ClientId>,
    /// What the asking client itself waits for, where it is the one that is stuck.
    pub waiting: Vec<Waiting>,
    pub wall_ms: u64,
    /// What one monitor says by itself; `None` if none answers.
    pub mon: Option<MonView>,
    /// What the leader says; `None` if there is no answer.
    pub leader: Option<MonView>,
    pub osds: BTreeMap<OsdId, OsdAnswer>,
    /// Whom the monitors were asked about.
    pub asked: Vec<OsdId>,
}

#[derive(Clone, Debug)]
pub enum OsdAnswer {
    Told(OsdView),
    /// Nothing came back in time.
    Silent,
    Refused(String),
}

/// A wait as it was told.
#[derive(Clone, PartialEq, Debug)]
pub struct Wait {
    pub on: String,
    pub age_ms: u64,
    pub needs: Option<Needs>,
    pub text: String,
}

impl Wait {
    pub fn read(value: &Value) -> Wait {
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_string();
        let numbers: Vec<u64> = list(&value["numbers"], Value::as_u64);
        let numbers = [numbers.first().copied().unwrap_or(0), numbers.get(1).copied().unwrap_or(0)];
        let pg = value["pg"].as_str().and_then(|pg| pg.parse().ok());
        let needs = Needs::from_record(&text("code"), &osds(&value["osds"]), pg, &text("word"), numbers);
        Wait { on: text("on"), age_ms: value["age_ms"].as_u64().unwrap_or(0), needs, text: text("needs") }
    }

    pub fn is_operation(&self) -> bool {
        self.on.starts_with("osd_op ")
    }
}

fn list<T>(value: &Value, read: impl Fn(&Value) -> Option<T>) -> Vec<T> {
    value.as_array().into_iter().flatten().filter_map(read).collect()
}

fn osd_id(value: &Value) -> Option<OsdId> {
    value.as_u64().and_then(|id| u32::try_from(id).ok()).map(OsdId)
}

fn osds(value: &Value) -> Vec<OsdId> {
    list(value, osd_id)
}

/// An OSD's answer to `explain`.
#[derive(Clone, Debug)]
pub struct OsdView(pub Value);

impl OsdView {
    pub fn phase(&self) -> &str {
        self.0["phase"].as_str().unwrap_or("unknown")
    }

    pub fn epoch(&self) -> u64 {
        self.0["epoch"].as_u64().unwrap_or(0)
    }

    /// How long ago a monitor last said anything to it.
    pub fn mon_heard_ms(&self) -> u64 {
        self.0["mon_heard_ms"].as_u64().unwrap_or(0)
    }

    /// Age of the oldest request its disk has not answered.
    pub fn oldest_request_ms(&self) -> u64 {
        self.0["store"]["oldest_request_ms"].as_u64().unwrap_or(0)
    }

    pub fn checksum_errors(&self) -> u64 {
        self.0["store"]["checksum_errors"].as_u64().unwrap_or(0)
    }

    pub fn used_permille(&self) -> u64 {
        let number = |name: &str| u128::from(self.0["store"][name].as_u64().unwrap_or(0));
        match number("total_bytes") {
            0 => 0,
            total => (number("used_bytes") * 1000 / total) as u64,
        }
    }

    /// For how long it has not heard that peer, and whether nothing listens there; `None` if it does not watch it.
    pub fn silence_of(&self, osd: OsdId) -> Option<(u64, bool)> {
        let peers = self.0["heartbeats"].as_array()?;
        let peer = peers.iter().find(|peer| osd_id(&peer["osd"]) == Some(osd))?;
        Some((peer["silent_ms"].as_u64()?, peer["refused"] == true))
    }

    pub fn peers(&self) -> Vec<OsdId> {
        list(&self.0["heartbeats"], |peer| osd_id(&peer["osd"]))
    }

    pub fn waits(&self) -> Vec<Wait> {
        list(&self.0["waits"], |wait| Some(Wait::read(wait)))
    }

    pub fn pg(&self, pg: PgId) -> Option<PgView<'_>> {
        self.pgs().find(|view| view.id() == Some(pg))
    }

    pub fn pgs(&self) -> impl Iterator<Item = PgView<'_>> {
        self.0["pgs"].as_array().into_iter().flatten().map(PgView)
    }

    /// Whether the entity asked about is known, may read, may write.
    pub fn caps(&self) -> Option<(bool, bool, bool)> {
        let caps = self.0.get("caps")?;
        Some((caps["known"] == true, caps["read"] == true, caps["write"] == true))
    }

    pub fn slot_holders(&self, lent: bool) -> Vec<String> {
        let field = if lent { "slots_lent" } else { "recovery_slots" };
        list(&self.0[field], |pg| pg.as_str().map(String::from))
    }
}

/// A PG in an OSD's answer.
#[derive(Clone, Copy, Debug)]
pub struct PgView<'a>(&'a Value);

impl PgView<'_> {
    pub fn id(&self) -> Option<PgId> {
        self.0["pgid"].as_str()?.parse().ok()
    }

    pub fn state(&self) -> &str {
        self.0["state"].as_str().unwrap_or("unknown")
    }

    pub fn has(&self, word: &str) -> bool {
        self.state().split('+').any(|known| known == word)
    }

    pub fn is_primary(&self) -> bool {
        self.0["primary"] == true
    }

    pub fn acting(&self) -> Vec<OsdId> {
        osds(&self.0["acting"])
    }

    /// Whether OSDs that are to be members are being filled.
    pub fn is_backfilling(&self) -> bool {
        let acting = self.acting();
        osds(&self.0["up"]).iter().any(|osd| !acting.contains(osd))
    }

    /// Members since it was last clean that are down.
    pub fn past_down(&self) -> Vec<OsdId> {
        osds(&self.0["past_down"])
    }

    pub fn waits(&self) -> Vec<Wait> {
        list(&self.0["waits"], |wait| Some(Wait::read(wait)))
    }

    /// What an operation would wait for that came now.
    pub fn gate(&self) -> Option<Wait> {
        self.0.get("gate").map(Wait::read)
    }

    pub fn object(&self, what: &str) -> bool {
        self.0["object"][what] == true
    }

    pub fn scrub_errors(&self) -> u64 {
        self.0["scrub_errors"].as_u64().unwrap_or(0)
    }
}

/// A monitor's answer to `explain`.
#[derive(Clone, Debug)]
pub struct MonView(pub Value);

/// Why an OSD went down, by the cluster log.
#[derive(Clone, Debug)]
pub struct Down {
    pub kind: String,
    pub text: String,
    pub at_ms: u64,
}

impl MonView {
    fn names(&self, field: &str) -> Vec<String> {
        list(&self.0[field], |name| name.as_str().map(String::from))
    }

    pub fn name(&self) -> &str {
        self.0["mon"].as_str().unwrap_or("?")
    }

    pub fn leader(&self) -> Option<&str> {
        self.0["leader"].as_str()
    }

    /// How long ago the monitor that was asked last knew of a leader.
    pub fn led_ms(&self) -> u64 {
        self.0["led_ms"].as_u64().unwrap_or(0)
    }

    pub fn silent(&self) -> Vec<String> {
        self.names("silent")
    }

    pub fn in_quorum(&self) -> Vec<String> {
        self.names("in_quorum")
    }

    pub fn mons(&self) -> usize {
        self.0["mons"].as_array().map_or(0, Vec::len)
    }

    pub fn address(&self, mon: &str) -> String {
        let mons = self.0["mons"].as_array().into_iter().flatten();
        let found = mons.filter(|known| known["name"] == mon).find_map(|known| known["address"].as_str());
        found.unwrap_or("?").into()
    }

    pub fn epoch(&self) -> u64 {
        self.0["epoch"].as_u64().unwrap_or(0)
    }

    fn osd(&self, id: OsdId) -> Option<&Value> {
        self.0["osds"].as_array()?.iter().find(|osd| osd_id(&osd["osd"]) == Some(id))
    }

    pub fn down(&self, id: OsdId) -> Option<Down> {
        let down = &self.osd(id)?["down"];
        let text = |name: &str| down[name].as_str().map(String::from);
        Some(Down { kind: text("kind")?, text: text("text")?, at_ms: down["at_ms"].as_u64().unwrap_or(0) })
    }

    /// An OSD's request to be marked up: how long ago, from where, and why it is refused.
    pub fn boot(&self, id: OsdId) -> Option<(u64, String, Option<String>)> {
        let boot = self.osd(id)?.get("boot")?;
        let refused = boot["refused"].as_str().map(String::from);
        Some((boot["age_ms"].as_u64()?, boot["address"].as_str()?.into(), refused))
    }

    /// How long ago the OSD's statistics came.
    pub fn report_ms(&self, id: OsdId) -> Option<u64> {
        self.osd(id)?["report"]["age_ms"].as_u64()
    }

    pub fn leading_ms(&self) -> u64 {
        self.0["leading_ms"].as_u64().unwrap_or(0)
    }

    /// Who complains of it, and whether of refused connections.
    pub fn reports(&self, id: OsdId) -> Vec<(OsdId, bool)> {
        let read = |report: &Value| Some((osd_id(&report["by"])?, report["refused"] == true));
        self.osd(id).map_or_else(Vec::new, |osd| list(&osd["reports"], read))
    }

    pub fn out(&self, id: OsdId) -> Option<String> {
        self.osd(id)?["out"]["text"].as_str().map(String::from)
    }

    /// Who set a flag, and when.
    pub fn flag(&self, flag: &str) -> Option<(String, u64)> {
        let flags = self.0["flags"].as_array()?;
        let found = flags.iter().find(|known| known["flag"] == flag)?;
        Some((found["by"].as_str()?.into(), found["at_ms"].as_u64()?))
    }

    pub fn fullest(&self) -> Option<(OsdId, u64)> {
        let fullest = &self.0["fullest"];
        Some((osd_id(&fullest["osd"])?, fullest["used_permille"].as_u64()?))
    }

    /// The PG asked about, as the leader knows it: its last acting set.
    pub fn pg_acting(&self) -> Vec<OsdId> {
        osds(&self.0["pg"]["acting"])
    }

    pub fn entity_known(&self) -> Option<bool> {
        self.0.get("entity").map(|entity| entity["known"] == true)
    }

    pub fn entity_caps(&self, service: &str) -> Option<String> {
        self.0["entity"]["caps"][service].as_str().map(String::from)
    }
}
