//! The settings of the central configuration: names, types, defaults, meanings, in one table. A name that is not in it
//! is an error when set, so that no setting silently does nothing.

use nacre_maps::ConfigMap;
use nacre_types::EntityName;

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Kind {
    /// Whole number between the bounds.
    Number {
        min: u64,
        max: u64,
    },
    /// Between the bounds, in thousandths when read by [`number`].
    Fraction {
        min: f64,
        max: f64,
    },
    Bool,
    Choice(&'static [&'static str]),
}

/// One known setting.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ConfigOption {
    pub name: &'static str,
    /// Kinds of daemon that read it.
    pub services: &'static [&'static str],
    pub kind: Kind,
    pub default: &'static str,
    pub description: &'static str,
}

macro_rules! options {
    ($($name:ident $services:tt $kind:expr, $default:literal, $description:literal;)*) => {
        &[$(ConfigOption {
            name: stringify!($name),
            services: &$services,
            kind: $kind,
            default: $default,
            description: $description,
        }),*]
    };
}

const fn number(min: u64, max: u64) -> Kind {
    Kind::Number { min, max }
}

const DAY: u64 = 86_400;

pub const OPTIONS: &[ConfigOption] = options! {
    mon_osd_down_out_interval ["mon"] number(0, 30 * DAY), "600",
        "Seconds an OSD is down before its data is copied elsewhere; 0 for never.";
    mon_osd_down_out_subtree_limit ["mon"] Kind::Choice(&["host", "chassis", "rack", "row", "pdu", "pod", "room",
        "datacenter", "zone", "region", "root"]), "rack",
        "OSDs are not marked out by themselves when everything in a subtree of this type or larger is down.";
    mon_osd_min_in_ratio ["mon"] Kind::Fraction { min: 0.0, max: 1.0 }, "0.5",
        "OSDs are not marked out by themselves when fewer than this share of them would stay in.";
    mon_osd_min_up_ratio ["mon"] Kind::Fraction { min: 0.0, max: 1.0 }, "0.3",
        "OSDs are not marked down on reports when fewer than this share of them would stay up.";
    mon_osd_min_down_reporters ["mon"] number(1, 10), "2",
        "OSDs of different hosts that must report a peer before it is marked down, as far as there are as many.";
    mon_osd_report_timeout ["mon"] number(30, DAY), "120",
        "Seconds without any report from an OSD after which it is marked down although nobody else complains.";
    mon_allow_pool_delete ["mon"] Kind::Bool, "false",
        "Whether pools may be deleted.";
    mon_allow_pool_size_one ["mon"] Kind::Bool, "false",
        "Whether pools without a second copy may be made.";
    mon_max_pg_per_osd ["mon"] number(1, 10_000), "1000",
        "PG copies per OSD above which a pool is made with fewer PGs.";
    osd_pool_default_size ["mon"] number(1, 10), "3",
        "Copies of a new pool.";
    osd_pool_default_min_size ["mon"] number(0, 10), "0",
        "Copies without which a new pool takes no writes; 0 for more than half.";
    osd_pool_default_pg_num ["mon"] number(0, 65_536), "0",
        "PGs of a new pool; 0 lets the cluster choose.";
    osd_heartbeat_interval_ms ["osd"] number(100, 60_000), "1000",
        "Milliseconds between heartbeats to a peer.";
    osd_heartbeat_grace_ms ["osd", "mon"] number(3600, 600_000), "4000",
        "Milliseconds of silence after which a peer is reported; above the 3200 of a read lease.";
    osd_stats_interval_ms ["osd"] number(100, 600_000), "1500",
        "Milliseconds between an OSD's reports to the monitors.";
    osd_max_backfills ["osd"] number(1, 64), "3",
        "PGs an OSD recovers or backfills at once as their primary, and as many as a member.";
    osd_recovery_max_active ["osd"] number(1, 256), "16",
        "Objects an OSD recovers at once at most; fewer while clients wait.";
    osd_scrub_interval ["osd"] number(0, 365 * DAY), "86400",
        "Seconds between scrubs of a PG; 0 for never.";
    osd_deep_scrub_interval ["osd"] number(0, 365 * DAY), "604800",
        "Seconds between deep scrubs of a PG; 0 for never.";
    osd_op_complaint_time_ms ["osd"] number(100, 3_600_000), "5000",
        "Milliseconds after which a request counts as slow.";
};

pub fn find(name: &str) -> Option<&'static ConfigOption> {
    OPTIONS.iter().find(|option| option.name == name)
}

impl ConfigOption {
    /// The value in its one spelling, or why it is none.
    pub fn parse(&self, text: &str) -> Result<String, String> {
        let wrong = |wanted: String| format!("'{text}' is no value for {}: give {wanted}", self.name);
        match self.kind {
            Kind::Number { min, max } => match text.parse::<u64>() {
                Ok(value) if (min..=max).contains(&value) => Ok(value.to_string()),
                _ => Err(wrong(format!("a whole number from {min} to {max}"))),
            },
            Kind::Fraction { min, max } => match text.parse::<f64>() {
                Ok(value) if (min..=max).contains(&value) => Ok(value.to_string()),
                _ => Err(wrong(format!("a number from {min} to {max}"))),
            },
            Kind::Bool => match text {
                "true" | "yes" | "on" | "1" => Ok("true".into()),
                "false" | "no" | "off" | "0" => Ok("false".into()),
                _ => Err(wrong("true or false".into())),
            },
            Kind::Choice(choices) if choices.contains(&text) => Ok(text.into()),
            Kind::Choice(choices) => Err(wrong(format!("one of {}", choices.join(", ")))),
        }
    }
}

/// A setting's value for the monitors: whole numbers as they are, fractions in thousandths, bools as 0 and 1.
pub(crate) fn mon_number(config: &ConfigMap, mon: &EntityName, name: &str) -> u64 {
    let option = find(name).expect("only settings of the table are asked for");
    let text = config.get(mon, name).unwrap_or(option.default);
    match option.kind {
        Kind::Bool => u64::from(text == "true"),
        Kind::Fraction { .. } => text.parse::<f64>().map_or(0, |value| (value * 1000.0) as u64),
        _ => text.parse().unwrap_or(0),
    }
}

pub(crate) fn mon_text<'a>(config: &'a ConfigMap, mon: &EntityName, name: &str) -> &'a str {
    let option = find(name).expect("only settings of the table are asked for");
    config.get(mon, name).unwrap_or(option.default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_a_value_and_names_are_unique() {
        for (at, option) in OPTIONS.iter().enumerate() {
            assert_eq!(option.parse(option.default).as_deref(), Ok(option.default), "{}", option.name);
            assert!(OPTIONS[..at].iter().all(|other| other.name != option.name));
            assert!(option.parse("nonsense").is_err());
        }
    }
}
