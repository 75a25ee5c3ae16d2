//! What people see: tables, JSON, progress bars.

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use std::io::{IsTerminal, Write};

/// How a command answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    Human,
    Json,
}

/// Prints a value: as JSON, or by `human`.
pub fn print(format: Format, value: &Value, human: impl FnOnce(&Value) -> String) {
    let text = match format {
        Format::Json => serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string()),
        Format::Human => human(value),
    };
    let mut out = std::io::stdout().lock();
    let text = text.trim_end();
    if !text.is_empty() {
        // A reader that went away ends the program by SIGPIPE; any other failure has nobody to tell.
        let _ = writeln!(out, "{text}");
    }
}

/// Rows under headings, each column as wide as its widest cell; numbers to the right.
pub struct Table {
    rows: Vec<Vec<String>>,
    columns: usize,
}

impl Table {
    pub fn new(headings: &[&str]) -> Table {
        Table { rows: vec![headings.iter().map(|h| h.to_string()).collect()], columns: headings.len() }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let mut cells: Vec<String> = cells.into_iter().collect();
        cells.resize(self.columns, String::new());
        self.rows.push(cells);
    }

    pub fn render(&self) -> String {
        let width =
            |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.columns).map(width).collect();
        let numeric = |column: usize| {
            let mut cells =
                self.rows.iter().skip(1).map(|row| row[column].as_str()).filter(|c| !c.is_empty());
            let is_number = |cell: &str| cell.starts_with(|c: char| c.is_ascii_digit());
            cells.clone().next().is_some()
                && cells.all(|c| is_number(c) && !c.contains(['.', ':']) || c == "-")
        };
        let right: Vec<bool> = (0..self.columns).map(numeric).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (at, cell) in row.iter().enumerate() {
                let pad = " ".repeat(widths[at] - cell.chars().count());
                if right[at] {
                    line.push_str(&pad);
                    line.push_str(cell);
                } else {
                    line.push_str(cell);
                    line.push_str(&pad);
                }
                line.push_str("  ");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A scalar without quotes; lists as `[1,2]`.
pub fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => {
                format!("{float:.5}").trim_end_matches('0').trim_end_matches('.').into()
            }
            _ => number.to_string(),
        },
        Value::Bool(flag) => flag.to_string(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(cell).collect();
            format!("[{}]", items.join(","))
        }
        Value::Object(_) => value.to_string(),
    }
}

/// A table of a list of objects, by field name.
pub fn rows(list: &Value, columns: &[(&str, &str)]) -> String {
    let headings: Vec<&str> = columns.iter().map(|(heading, _)| *heading).collect();
    let mut table = Table::new(&headings);
    for item in list.as_array().into_iter().flatten() {
        table.row(columns.iter().map(|(_, field)| cell(item.get(*field).unwrap_or(&Value::Null))));
    }
    table.render()
}

/// A bar for long work on bytes; silent where nobody looks.
pub fn progress(total_bytes: u64, what: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = "{msg} [{bar:30}] {percent}% {bytes}/{total_bytes} {bytes_per_sec} eta {eta}";
    let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(total_bytes).with_style(style.progress_chars("=> ")).with_message(what.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tables_line_up() {
        let list = json!([{"name": "a", "size": 1}, {"name": "longer", "size": 100}]);
        assert_eq!(
            rows(&list, &[("NAME", "name"), ("SIZE", "size")]),
            "NAME    SIZE\na          1\nlonger   100\n"
        );
    }

    #[test]
    fn cells_are_plain() {
        assert_eq!(cell(&json!([0, 1])), "[0,1]");
        assert_eq!(cell(&json!(0.5)), "0.5");
        assert_eq!(cell(&json!(null)), "-");
    }
}
