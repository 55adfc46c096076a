//! Readers for the JSON scalars that servers of several kinds write differently.

use std::{borrow::Cow, cell::RefCell, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeSeed, MapAccess, Visitor},
};

use crate::model::{Metadata, Pairs, Weight};

/// A string that borrows from the message where it needs no unescaping.
#[derive(Debug)]
pub(super) struct Text<'a>(pub(super) Cow<'a, str>);

/// A weight: a number, a numeric string, or null (which means 1).
#[derive(Debug, PartialEq)]
pub(super) struct LenientWeight(pub(super) Weight);

/// Metadata whose values may be null (dropped) or, from careless providers, numbers and booleans.
#[derive(Debug, Default)]
pub(super) struct LenientMetadata(pub(super) Metadata);

/// A number that is beside the point: anything else counts as absent.
#[derive(Debug, Default, PartialEq)]
pub(super) struct AnyNumber(pub(super) Option<i64>);

/// A flag that is beside the point: anything else counts as absent.
#[derive(Debug, Default, PartialEq)]
pub(super) struct AnyFlag(pub(super) Option<bool>);

struct TextVisitor;
struct WeightVisitor;
struct MetadataVisitor;
struct Key<'a>(&'a mut Pairs);
struct Value<'a>(&'a mut Pairs);

thread_local! {
    /// What the metadata of one instance after the other is read into.
    static PAIRS: RefCell<Pairs> = RefCell::default();
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor).map(Text)
    }
}

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for AnyNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        Ok(Self(value.as_i64()))
    }
}

impl<'de> Deserialize<'de> for AnyFlag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        Ok(Self(value.as_bool()))
    }
}

impl<'de> Deserialize<'de> for LenientWeight {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WeightVisitor).map(Self)
    }
}

impl Visitor<'_> for WeightVisitor {
    type Value = Weight;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a weight: a number, a numeric string or null")
    }

    fn visit_f64<E>(self, value: f64) -> Result<Weight, E> {
        Ok(Weight::new(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Weight, E> {
        Ok(Weight::new(value as f64))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Weight, E> {
        Ok(Weight::new(value as f64))
    }

    fn visit_unit<E>(self) -> Result<Weight, E> {
        Ok(Weight::ONE)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Weight, E> {
        // "NaN", "Infinity" and "-Infinity" are how Java writes them; Rust reads all three.
        let number = text.trim().parse::<f64>();
        number
            .map(Weight::new)
            .map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

impl<'de> Deserialize<'de> for LenientMetadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MetadataVisitor).map(Self)
    }
}

impl<'de> Visitor<'de> for MetadataVisitor {
    type Value = Metadata;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("metadata: an object of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metadata, A::Error> {
        let mut pairs = PAIRS.take();
        while map.next_key_seed(Key(&mut pairs))?.is_some() {
            map.next_value_seed(Value(&mut pairs))?;
        }
        let made = pairs.take();
        if pairs.are_small() {
            PAIRS.set(pairs);
        }
        Ok(made)
    }
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.0.push_key(text);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Value<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a metadata value: a string")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.0.push_value(text);
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.0.drop_key();
        Ok(())
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<(), E> {
        self.visit_str(&value.to_string())
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<(), E> {
        self.visit_str(&value.to_string())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<(), E> {
        self.visit_str(&value.to_string())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<(), E> {
        self.visit_str(&value.to_string())
    }
}
