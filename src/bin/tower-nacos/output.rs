//! What is written: lines, tables, JSON.

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
};

use serde_json::{Value, json};
use tower_nacos::{Instance, directory::Entry};

pub(crate) struct Output {
    pub(crate) json: bool,
    /// Whether a person reads it as it comes.
    pub(crate) terminal: bool,
    colors: bool,
}

#[derive(Clone, Copy)]
pub(crate) enum Color {
    Good,
    Bad,
    Faint,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        let terminal = io::stdout().is_terminal() && !json;
        let colors = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self {
            json,
            terminal,
            colors,
        }
    }

    pub(crate) fn line(&mut self, text: impl Display) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{text}")?;
        stdout.flush()
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        stdout.flush()
    }

    pub(crate) fn value(&mut self, value: &Value) -> io::Result<()> {
        self.line(value)
    }

    /// Columns as wide as their widest cell; the last is as long as it is.
    pub(crate) fn table(&mut self, head: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
        for line in columns(head, rows) {
            self.line(line)?;
        }
        Ok(())
    }

    /// A text that stands out where colours are wanted.
    pub(crate) fn paint(&self, color: Color, text: impl Display) -> String {
        let code = match color {
            Color::Good => 32,
            Color::Bad => 31,
            Color::Faint => 2,
        };
        if self.colors {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_string()
        }
    }
}

pub(crate) fn columns(head: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let head: Vec<String> = head.iter().map(|&cell| cell.to_owned()).collect();
    let all = || std::iter::once(&head).chain(rows);
    let width = |column: usize| {
        let cells = all().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths);
        let cells = cells.map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    all().map(line).collect()
}

pub(crate) const INSTANCE_HEAD: [&str; 5] = ["ADDRESS", "STATE", "WEIGHT", "CLUSTER", "METADATA"];

/// What comes from a registry or a peer goes to a terminal without what would move its cursor.
pub(crate) fn plain(text: &str) -> String {
    text.chars()
        .map(|letter| {
            if letter.is_control() {
                '\u{fffd}'
            } else {
                letter
            }
        })
        .collect()
}

pub(crate) fn instance_row(entry: &Entry) -> Vec<String> {
    let instance = entry.instance();
    let held = if entry.is_held() { ", held" } else { "" };
    let metadata = instance.metadata().iter();
    let metadata: Vec<_> = metadata
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    vec![
        plain(&instance.address().to_string()),
        format!("{}{held}", entry.standing()),
        instance.weight().get().to_string(),
        plain(instance.cluster()),
        plain(&metadata.join(" ")),
    ]
}

pub(crate) fn instance_json(entry: &Entry) -> Value {
    let mut value = plain_json(entry.instance());
    value["callable"] = entry.standing().is_callable().into();
    value["state"] = entry.standing().to_string().into();
    value["held"] = entry.is_held().into();
    value
}

pub(crate) fn plain_json(instance: &Instance) -> Value {
    json!({
        "address": instance.address().to_string(),
        "weight": instance.weight().get(),
        "cluster": &**instance.cluster(),
        "healthy": instance.is_healthy(),
        "enabled": instance.is_enabled(),
        "ephemeral": instance.is_ephemeral(),
        "metadata": instance.metadata().iter().collect::<std::collections::BTreeMap<_, _>>(),
    })
}
