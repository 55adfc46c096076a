//! Reading JSON as Jackson does: unknown fields ignored, null a primitive's zero, texts coerced.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// The body is not JSON, or a value has a type that Jackson would not coerce.
#[derive(Clone, Copy, Debug)]
pub(super) struct Malformed;

/// A JSON object's fields.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    pub(super) fn parse(body: &[u8]) -> Result<Self, Malformed> {
        serde_json::from_slice(body)
            .map(Self)
            .map_err(|_| Malformed)
    }

    pub(super) fn of(value: &Value) -> Result<Self, Malformed> {
        value.as_object().cloned().map(Self).ok_or(Malformed)
    }

    pub(super) fn raw(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<String>, Malformed> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => scalar(value).map(Some),
        }
    }

    pub(super) fn boolean(&self, name: &str, absent: bool) -> Result<bool, Malformed> {
        match self.0.get(name) {
            None => Ok(absent),
            Some(Value::Null) => Ok(false),
            Some(Value::Bool(value)) => Ok(*value),
            Some(Value::Number(value)) => Ok(value.as_f64() != Some(0.0)),
            Some(Value::String(text)) => match text.trim() {
                "true" | "True" | "TRUE" => Ok(true),
                "false" | "False" | "FALSE" | "" => Ok(false),
                _ => Err(Malformed),
            },
            Some(_) => Err(Malformed),
        }
    }

    pub(super) fn integer(&self, name: &str, absent: i32) -> Result<i32, Malformed> {
        let number = match self.0.get(name) {
            None => return Ok(absent),
            Some(Value::Null) => return Ok(0),
            Some(Value::Number(value)) => value.as_f64().ok_or(Malformed)?,
            Some(Value::String(text)) if text.trim().is_empty() => 0.0,
            Some(Value::String(text)) => f64::from(text.trim().parse::<i32>().or(Err(Malformed))?),
            Some(_) => return Err(Malformed),
        };
        let fits = (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&number);
        fits.then_some(number as i32).ok_or(Malformed)
    }

    pub(super) fn number(&self, name: &str, absent: f64) -> Result<f64, Malformed> {
        match self.0.get(name) {
            None => Ok(absent),
            Some(Value::Null) => Ok(0.0),
            Some(Value::Number(value)) => value.as_f64().ok_or(Malformed),
            Some(Value::String(text)) => match text.trim() {
                "" => Ok(0.0),
                "NaN" => Ok(f64::NAN),
                "INF" | "Infinity" => Ok(f64::INFINITY),
                "-INF" | "-Infinity" => Ok(f64::NEG_INFINITY),
                text => text.parse().or(Err(Malformed)),
            },
            Some(_) => Err(Malformed),
        }
    }

    pub(super) fn texts(&self, name: &str) -> Result<BTreeMap<String, String>, Malformed> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(BTreeMap::new()),
            Some(Value::Object(map)) => map
                .iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| Ok((key.clone(), scalar(value)?)))
                .collect(),
            Some(_) => Err(Malformed),
        }
    }
}

fn scalar(value: &Value) -> Result<String, Malformed> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(value) => Ok(value.to_string()),
        _ => Err(Malformed),
    }
}
