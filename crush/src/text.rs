//! The text form people write and `crushtool -d` prints: [`CrushMap::parse`] and [`CrushMap::to_text`].

mod parse;
mod print;
mod tokens;
mod weight;

pub use parse::{ParseError, ParseProblem};
