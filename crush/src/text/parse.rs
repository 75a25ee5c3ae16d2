//! Reading the text form: sections in any order, but everything defined before it is used, which also is what
//! keeps a text from describing a cycle. Hostile text costs time and memory linear in its length, and that is bounded.

use std::collections::BTreeMap;

use super::tokens::{Token, Tokens};
use super::weight;
use crate::check::{CheckError, is_name};
use crate::map::{
    Alg, BUCKET_ITEMS_MAX, BUCKETS_MAX, Bucket, CrushMap, Device, Item, Mode, NAME_BYTES_MAX, Rule, RuleKind,
    STEPS_MAX, Step, Tunables, WEIGHT_ONE,
};

/// Longest text that is read: a map of 100,000 devices takes about 6 MiB.
pub const TEXT_BYTES_MAX: usize = 16 << 20;

/// Why a text is not a map: where, and what to do.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct ParseError {
    /// From 1. What concerns the map as a whole is reported at its last line.
    pub line: usize,
    pub problem: ParseProblem,
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ParseProblem {
    #[error("the text is longer than {TEXT_BYTES_MAX} bytes: is it a CRUSH map?")]
    TooLong,
    #[error("the text ends where {expected} should be: complete it")]
    End { expected: &'static str },
    #[error("found '{found}' instead of {expected}")]
    Unexpected { found: String, expected: &'static str },
    #[error("'{found}' is not {expected}")]
    Bad { found: String, expected: &'static str },
    #[error("tunable '{name}' is unknown: remove the line")]
    UnknownTunable { name: String },
    #[error("{what} '{name}' is not defined above: define it first")]
    Undefined { what: &'static str, name: String },
    #[error("{what} '{name}' is defined twice: remove or rename one")]
    Twice { what: &'static str, name: String },
    #[error("bucket '{bucket}' uses alg {alg}, which is not supported: change it to straw2 (data will move)")]
    Alg { bucket: String, alg: String },
    #[error("bucket '{bucket}' uses hash {hash}: only 0 (rjenkins1) exists")]
    Hash { bucket: String, hash: String },
    #[error("bucket '{bucket}' has no alg: add 'alg straw2'")]
    NoAlg { bucket: String },
    #[error(
        "bucket '{bucket}' does not give every position from 0 on to one item: number all of them or none"
    )]
    Positions { bucket: String },
    #[error("rule '{rule}' has no id: add 'id N'")]
    NoRuleId { rule: String },
    #[error("choose_args are not supported: remove the section (upmap pins balance instead)")]
    ChooseArgs,
    #[error("more than {max} {what}")]
    TooMany { what: &'static str, max: usize },
    #[error(transparent)]
    Map(#[from] CheckError),
}

type Outcome<T> = Result<T, ParseError>;

impl CrushMap {
    /// Reads the text form. A text without tunables means legacy tunables, as it does to `crushtool`.
    pub fn parse(text: &str) -> Result<CrushMap, ParseError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(ParseError { line: 1, problem: ParseProblem::TooLong });
        }
        let mut parser = Parser {
            tokens: Tokens::new(text),
            map: CrushMap { tunables: Tunables::legacy(), ..CrushMap::default() },
            names: BTreeMap::new(),
            types: BTreeMap::new(),
            classes: Vec::new(),
            free_id: -1,
        };
        parser.sections()?;
        let line = parser.tokens.line();
        let Parser { mut map, classes, .. } = parser;
        // Once before shadows are made, so that they are made of a sound and bounded map, once with them.
        let problem = |error: CheckError| ParseError { line, problem: error.into() };
        map.check().map_err(problem)?;
        map.assign_shadows(&classes).map_err(problem)?;
        map.check().map_err(problem)?;
        Ok(map)
    }
}

struct Parser<'a> {
    tokens: Tokens<'a>,
    map: CrushMap,
    /// Devices and buckets so far.
    names: BTreeMap<&'a str, i32>,
    types: BTreeMap<&'a str, u32>,
    /// In the order they are first named: the order new shadows are numbered in.
    classes: Vec<String>,
    /// No bucket id above this one is free.
    free_id: i32,
}

impl<'a> Parser<'a> {
    fn error<T>(&self, problem: ParseProblem) -> Outcome<T> {
        Err(ParseError { line: self.tokens.line(), problem })
    }

    fn word(&mut self, expected: &'static str) -> Outcome<&'a str> {
        match self.tokens.next() {
            Some(Token { word, .. }) => Ok(word),
            None => self.error(ParseProblem::End { expected }),
        }
    }

    fn expect(&mut self, expected: &'static str) -> Outcome<()> {
        match self.word(expected)? {
            word if word == expected => Ok(()),
            word => self.error(ParseProblem::Unexpected { found: clip(word), expected }),
        }
    }

    /// Reads the word if it comes next.
    fn accept(&mut self, wanted: &str) -> bool {
        let found = self.tokens.peek().is_some_and(|token| token.word == wanted);
        if found {
            self.tokens.next();
        }
        found
    }

    fn number<T: std::str::FromStr>(&mut self, expected: &'static str) -> Outcome<T> {
        let word = self.word(expected)?;
        word.parse().or_else(|_| self.error(ParseProblem::Bad { found: clip(word), expected }))
    }

    fn name(&mut self, expected: &'static str) -> Outcome<&'a str> {
        let word = self.word(expected)?;
        if is_name(word) { Ok(word) } else { self.error(ParseProblem::Bad { found: clip(word), expected }) }
    }

    fn class(&mut self) -> Outcome<String> {
        let class = self.name("a device class")?;
        if !self.classes.iter().any(|known| known == class) {
            if self.classes.len() >= crate::map::CLASSES_MAX {
                return self
                    .error(ParseProblem::TooMany { what: "device classes", max: crate::map::CLASSES_MAX });
            }
            self.classes.push(class.into());
        }
        Ok(class.into())
    }

    fn define(&mut self, name: &'a str, id: i32) -> Outcome<()> {
        match self.names.insert(name, id) {
            None => Ok(()),
            Some(_) => self.error(ParseProblem::Twice { what: "item", name: name.into() }),
        }
    }

    fn sections(&mut self) -> Outcome<()> {
        while let Some(Token { word, .. }) = self.tokens.next() {
            match word {
                "tunable" => self.tunable()?,
                "device" => self.device()?,
                "type" => self.bucket_type()?,
                "rule" => self.rule()?,
                "choose_args" => return self.error(ParseProblem::ChooseArgs),
                _ => match self.types.get(word) {
                    Some(&type_id) => self.bucket(type_id)?,
                    None => {
                        let expected = "'tunable', 'device', 'type', 'rule' or a type declared above";
                        return self.error(ParseProblem::Unexpected { found: clip(word), expected });
                    }
                },
            }
        }
        Ok(())
    }

    fn tunable(&mut self) -> Outcome<()> {
        let name = self.word("a tunable's name")?;
        let value = self.number("a number that is not negative")?;
        let t = &mut self.map.tunables;
        let place = match name {
            "choose_local_tries" => &mut t.choose_local_tries,
            "choose_local_fallback_tries" => &mut t.choose_local_fallback_tries,
            "choose_total_tries" => &mut t.choose_total_tries,
            "chooseleaf_descend_once" => &mut t.chooseleaf_descend_once,
            "chooseleaf_vary_r" => &mut t.chooseleaf_vary_r,
            "chooseleaf_stable" => &mut t.chooseleaf_stable,
            "straw_calc_version" => &mut t.straw_calc_version,
            "allowed_bucket_algs" => &mut t.allowed_bucket_algs,
            _ => return self.error(ParseProblem::UnknownTunable { name: clip(name) }),
        };
        *place = value;
        Ok(())
    }

    fn device(&mut self) -> Outcome<()> {
        let id: u32 = self.number("a device id")?;
        let name = self.name("a device name")?;
        let class = if self.accept("class") { Some(self.class()?) } else { None };
        if id > crate::map::DEVICE_ID_MAX {
            return self
                .error(ParseProblem::Bad { found: id.to_string(), expected: "a device id below 1000000" });
        }
        self.define(name, id as i32)?;
        match self.map.devices.insert(id, Device { name: name.into(), class }) {
            None => Ok(()),
            Some(_) => self.error(ParseProblem::Twice { what: "device", name: id.to_string() }),
        }
    }

    fn bucket_type(&mut self) -> Outcome<()> {
        let id = self.number("a type id")?;
        let name = self.name("a type name")?;
        if self.types.insert(name, id).is_some() || self.map.types.insert(id, name.into()).is_some() {
            return self.error(ParseProblem::Twice { what: "type", name: name.into() });
        }
        Ok(())
    }

    fn bucket(&mut self, type_id: u32) -> Outcome<()> {
        let name = self.name("a bucket name")?;
        self.expect("{")?;
        if self.map.buckets.len() >= BUCKETS_MAX {
            return self.error(ParseProblem::TooMany { what: "buckets", max: BUCKETS_MAX });
        }
        let (mut id, mut alg, mut shadows) = (None, None, BTreeMap::new());
        let mut items: Vec<(Item, Option<usize>)> = Vec::new();
        loop {
            match self.word("'}'")? {
                "}" => break,
                "id" => {
                    let number: i32 = self.number("a bucket id below 0")?;
                    if !self.accept("class") {
                        id = Some(number);
                    } else {
                        let class = self.class()?;
                        if shadows.insert(class.clone(), number).is_some() {
                            return self.error(ParseProblem::Twice { what: "the id of class", name: class });
                        }
                    }
                }
                "alg" => alg = Some(self.alg(name)?),
                "hash" => {
                    let hash = self.word("a hash")?;
                    if !matches!(hash, "0" | "rjenkins1") {
                        return self.error(ParseProblem::Hash { bucket: name.into(), hash: clip(hash) });
                    }
                }
                "item" => {
                    if items.len() >= BUCKET_ITEMS_MAX {
                        let what = "items in one bucket";
                        return self.error(ParseProblem::TooMany { what, max: BUCKET_ITEMS_MAX });
                    }
                    items.push(self.item()?);
                }
                word => {
                    let expected = "'id', 'alg', 'hash', 'item' or '}'";
                    return self.error(ParseProblem::Unexpected { found: clip(word), expected });
                }
            }
        }
        let id = match id {
            Some(id) if id < 0 => id,
            Some(id) => {
                return self
                    .error(ParseProblem::Bad { found: id.to_string(), expected: "a bucket id below 0" });
            }
            None => self.free_id(),
        };
        let Some(alg) = alg else { return self.error(ParseProblem::NoAlg { bucket: name.into() }) };
        let Some(items) = in_position(items) else {
            return self.error(ParseProblem::Positions { bucket: name.into() });
        };
        self.define(name, id)?;
        match self.map.buckets.insert(id, Bucket { id, name: name.into(), type_id, alg, items, shadows }) {
            None => Ok(()),
            Some(_) => self.error(ParseProblem::Twice { what: "bucket id", name: id.to_string() }),
        }
    }

    /// For a bucket without an id: the highest that no bucket above it has.
    fn free_id(&mut self) -> i32 {
        while self.map.buckets.contains_key(&self.free_id) {
            self.free_id -= 1;
        }
        self.free_id
    }

    fn alg(&mut self, bucket: &str) -> Outcome<Alg> {
        match self.word("a bucket algorithm")? {
            "straw2" => Ok(Alg::Straw2),
            "uniform" => Ok(Alg::Uniform),
            "list" => Ok(Alg::List),
            alg => self.error(ParseProblem::Alg { bucket: bucket.into(), alg: clip(alg) }),
        }
    }

    fn item(&mut self) -> Outcome<(Item, Option<usize>)> {
        let name = self.word("an item's name")?;
        let Some(&id) = self.names.get(name) else {
            return self.error(ParseProblem::Undefined { what: "item", name: clip(name) });
        };
        let (mut given, mut position) = (None, None);
        loop {
            if self.accept("weight") {
                let word = self.word("a weight")?;
                given = match weight::parse(word) {
                    Some(weight) => Some(weight),
                    None => {
                        let expected = "a weight from 0 to 32767";
                        return self.error(ParseProblem::Bad { found: clip(word), expected });
                    }
                };
            } else if self.accept("pos") {
                position = Some(self.number("a position")?);
            } else {
                break;
            }
        }
        // Without a weight, a bucket weighs what its items do and a device weighs 1.
        let default = || self.map.buckets.get(&id).map_or(WEIGHT_ONE, Bucket::weight);
        Ok((Item { id, weight: given.unwrap_or_else(default) }, position))
    }

    fn rule(&mut self) -> Outcome<()> {
        let name = match self.accept("{") {
            true => None,
            false => {
                let name = self.name("a rule's name")?;
                self.expect("{")?;
                Some(name)
            }
        };
        let (mut id, mut kind, mut min_size, mut max_size) = (None, RuleKind::Replicated, 1, 10);
        let mut steps = Vec::new();
        loop {
            match self.word("'}'")? {
                "}" => break,
                "id" | "ruleset" => id = Some(self.number("a rule id")?),
                "type" => {
                    kind = match self.word("a rule type")? {
                        "replicated" | "1" => RuleKind::Replicated,
                        "erasure" | "3" => RuleKind::Erasure,
                        word => {
                            let expected = "'replicated' or 'erasure'";
                            return self.error(ParseProblem::Bad { found: clip(word), expected });
                        }
                    }
                }
                "min_size" => min_size = self.number("a size")?,
                "max_size" => max_size = self.number("a size")?,
                "step" if steps.len() < STEPS_MAX => steps.push(self.step()?),
                "step" => return self.error(ParseProblem::TooMany { what: "steps", max: STEPS_MAX }),
                word => {
                    let expected = "'id', 'type', 'min_size', 'max_size', 'step' or '}'";
                    return self.error(ParseProblem::Unexpected { found: clip(word), expected });
                }
            }
        }
        let Some(id) = id else {
            return self.error(ParseProblem::NoRuleId { rule: name.unwrap_or("(no name)").into() });
        };
        let name = name.map_or_else(|| format!("rule{id}"), String::from);
        match self.map.rules.insert(id, Rule { id, name, kind, min_size, max_size, steps }) {
            None => Ok(()),
            Some(_) => self.error(ParseProblem::Twice { what: "rule", name: id.to_string() }),
        }
    }

    fn step(&mut self) -> Outcome<Step> {
        let expected = "a number that is not negative";
        Ok(match self.word("a step")? {
            "take" => {
                let name = self.word("a bucket to take")?;
                let Some(&item) = self.names.get(name) else {
                    return self.error(ParseProblem::Undefined { what: "item", name: clip(name) });
                };
                let class = if self.accept("class") { Some(self.class()?) } else { None };
                Step::Take { item, class }
            }
            "choose" => self.choose(false)?,
            "chooseleaf" => self.choose(true)?,
            "emit" => Step::Emit,
            "set_choose_tries" => Step::SetChooseTries(self.number(expected)?),
            "set_chooseleaf_tries" => Step::SetChooseleafTries(self.number(expected)?),
            "set_choose_local_tries" => Step::SetChooseLocalTries(self.number(expected)?),
            "set_choose_local_fallback_tries" => Step::SetChooseLocalFallbackTries(self.number(expected)?),
            "set_chooseleaf_vary_r" => Step::SetChooseleafVaryR(self.number(expected)?),
            "set_chooseleaf_stable" => Step::SetChooseleafStable(self.number(expected)?),
            word => {
                let expected = "'take', 'choose', 'chooseleaf', 'emit' or a known 'set_' step";
                return self.error(ParseProblem::Unexpected { found: clip(word), expected });
            }
        })
    }

    fn choose(&mut self, leaf: bool) -> Outcome<Step> {
        let mode = match self.word("'firstn' or 'indep'")? {
            "firstn" => Mode::Firstn,
            "indep" => Mode::Indep,
            word => {
                let expected = "'firstn' or 'indep'";
                return self.error(ParseProblem::Unexpected { found: clip(word), expected });
            }
        };
        let num = self.number("how many to choose")?;
        self.expect("type")?;
        let name = self.word("a type's name")?;
        match self.types.get(name) {
            Some(&type_id) => Ok(Step::Choose { mode, leaf, num, type_id }),
            None => self.error(ParseProblem::Undefined { what: "type", name: clip(name) }),
        }
    }
}

/// Items with a position go there, the others fill the places between. `None` if that leaves holes or clashes.
fn in_position(items: Vec<(Item, Option<usize>)>) -> Option<Vec<Item>> {
    let mut places = vec![None; items.len()];
    for (item, position) in &items {
        if let Some(position) = position {
            let place = places.get_mut(*position)?;
            if place.replace(*item).is_some() {
                return None;
            }
        }
    }
    let mut others = items.iter().filter(|(_, position)| position.is_none()).map(|(item, _)| *item);
    places.into_iter().map(|place| place.or_else(|| others.next())).collect()
}

/// A word as an error repeats it.
fn clip(word: &str) -> String {
    word.chars().take(NAME_BYTES_MAX.min(80)).collect()
}
