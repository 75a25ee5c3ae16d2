//! The text form people write and `crushtool -d` prints: [`CrushMap::parse`] and [`CrushMap::to_text`].

mod parse;
mod print;
mod tokens;
mod weight;

#[cfg(test)]
mod tests;

pub use parse::{ParseError, ParseProblem};
