//! What was measured, as a table for people and as JSON for programs.

use std::io::Write as _;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::Failure;

/// A table. A column of lists is in the JSON only.
#[derive(Debug)]
pub(crate) struct Report {
    title: String,
    columns: &'static [&'static str],
    rows: Vec<Vec<Value>>,
}

impl Report {
    pub(crate) fn new(title: String, columns: &'static [&'static str]) -> Self {
        Self {
            title,
            columns,
            rows: Vec::new(),
        }
    }

    pub(crate) fn row(&mut self, cells: Vec<Value>) {
        self.rows.push(cells);
    }

    /// Writes it to standard output.
    pub(crate) fn print(&self, as_json: bool) -> Result<(), Failure> {
        let text = if as_json {
            self.json().to_string()
        } else {
            self.table()
        };
        writeln!(std::io::stdout(), "{text}")?;
        Ok(())
    }

    fn json(&self) -> Value {
        let object = |row: &Vec<Value>| {
            let members = self
                .columns
                .iter()
                .zip(row)
                .map(|(name, cell)| ((*name).to_owned(), cell.clone()));
            Value::Object(members.collect::<Map<_, _>>())
        };
        json!({"title": self.title, "rows": self.rows.iter().map(object).collect::<Vec<_>>()})
    }

    fn table(&self) -> String {
        let mut lines = vec![String::new(); self.rows.len() + 1];
        for (column, name) in self.columns.iter().enumerate() {
            let cells: Vec<_> = self.rows.iter().filter_map(|row| row.get(column)).collect();
            if cells.iter().any(|cell| cell.is_array()) {
                continue;
            }
            let texts: Vec<_> = std::iter::once((*name).to_owned())
                .chain(cells.into_iter().map(text))
                .collect();
            let width = texts.iter().map(String::len).max().unwrap_or_default();
            for (line, text) in lines.iter_mut().zip(texts) {
                line.extend([format!("{text:>width$}"), "  ".to_owned()]);
            }
        }

        let lines: Vec<_> = lines.iter().map(|line| line.trim_end()).collect();

        format!("{}\n{}", self.title, lines.join("\n"))
    }
}

fn text(cell: &Value) -> String {
    match cell {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => cell.to_string(),
    }
}

/// A number with three places.
pub(crate) fn number(value: f64) -> Value {
    json!((value * 1000.0).round() / 1000.0)
}

pub(crate) fn milliseconds(time: Duration) -> Value {
    number(time.as_secs_f64() * 1000.0)
}

/// How many there are of something; exact up to four billions, which nothing here comes near.
pub(crate) fn count(items: usize) -> f64 {
    f64::from(u32::try_from(items).unwrap_or(u32::MAX))
}

/// How long something took, each time.
#[derive(Debug)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// The time that so many in a thousand did not exceed.
    pub(crate) fn at(&self, per_thousand: usize) -> Duration {
        let rank = (self.0.len() * per_thousand)
            .div_ceil(1000)
            .saturating_sub(1);
        self.0.get(rank).copied().unwrap_or_default()
    }

    /// Pairs of an upper bound in microseconds and how many were below it and not below the one
    /// before: four for each power of two.
    pub(crate) fn histogram(&self) -> Value {
        let mut buckets: Vec<(u64, u64)> = Vec::new();
        for time in &self.0 {
            let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(4);
            let step = 1 << (micros.ilog2() - 2);
            let bound = (micros / step + 1) * step;
            match buckets.last_mut() {
                Some((last, count)) if *last == bound => *count += 1,
                _ => buckets.push((bound, 1)),
            }
        }
        json!(buckets)
    }
}
