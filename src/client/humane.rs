//! Values as people write them, in files, URLs and variables alike: each reads itself from a text,
//! and from a number or a truth value where a format has those.

use std::{fmt, marker::PhantomData, str::FromStr, time::Duration};

use serde::{
    Deserialize, Deserializer,
    de::{self, IntoDeserializer, Visitor, value::Error},
    forward_to_deserialize_any,
};

use super::{ServerAddress, StartFrom, secret::Secret, server_address};

/// What can be read from a text.
pub(super) trait FromText: Sized {
    const EXPECTED: &'static str;

    fn from_text(text: &str) -> Result<Self, String>;

    /// From a whole number, where that says everything.
    fn from_number(_: u64) -> Option<Self> {
        None
    }

    fn from_flag(_: bool) -> Option<Self> {
        None
    }
}

/// A time with its unit: `500ms`, `10s`, `1m30s`, `2h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Time(pub(super) Duration);

/// A time, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TimeOrOff(pub(super) Option<Duration>);

/// A number of bytes: `1048576`, `64MiB`, `512KiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size(pub(super) usize);

/// `true` or `false`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flag(pub(super) bool);

/// `registry`, `cache_then_registry` or `cache_only`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Start(pub(super) StartFrom);

/// A whole number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Number<T>(pub(super) T);

/// Any text, an empty one included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plain(pub(super) String);

/// One or more addresses, with commas or spaces between them; a format's list of such texts as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Servers(pub(super) Vec<ServerAddress>);

/// The value of one key of a URL, or of one variable.
pub(super) struct Text<'a>(pub(super) &'a str);

struct Reader<T>(PhantomData<T>);

impl FromText for Time {
    const EXPECTED: &'static str = "a time with its unit, such as 500ms, 10s or 1m30s";

    fn from_text(text: &str) -> Result<Self, String> {
        duration(text).map(Self).ok_or_else(|| {
            let expected = Self::EXPECTED;
            format!("{text:?} is not {expected}")
        })
    }
}

impl FromText for TimeOrOff {
    const EXPECTED: &'static str = "a time with its unit, such as 60s, or off";

    fn from_text(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(None));
        }
        match duration(text) {
            Some(time) => Ok(Self(Some(time))),
            None => Err(format!("{text:?} is not {}", Self::EXPECTED)),
        }
    }

    fn from_flag(on: bool) -> Option<Self> {
        (!on).then_some(Self(None))
    }
}

impl FromText for Size {
    const EXPECTED: &'static str = "a number of bytes, such as 67108864, 64MiB or 512KiB";

    fn from_text(text: &str) -> Result<Self, String> {
        let (digits, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
            Some(at) => text.split_at(at),
            None => (text, ""),
        };
        let unit = match unit {
            "" | "B" => Some(1),
            "KiB" => Some(1 << 10),
            "MiB" => Some(1 << 20),
            "GiB" => Some(1 << 30),
            _ => None,
        };
        let size = digits.parse::<usize>().ok().zip(unit);
        size.and_then(|(number, unit)| number.checked_mul(unit))
            .map(Self)
            .ok_or_else(|| format!("{text:?} is not {}", Self::EXPECTED))
    }

    fn from_number(number: u64) -> Option<Self> {
        usize::try_from(number).ok().map(Self)
    }
}

impl FromText for Flag {
    const EXPECTED: &'static str = "true or false";

    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "true" => Ok(Self(true)),
            "false" => Ok(Self(false)),
            _ => Err(format!("{text:?} is neither true nor false")),
        }
    }

    fn from_flag(on: bool) -> Option<Self> {
        Some(Self(on))
    }
}

impl FromText for Start {
    const EXPECTED: &'static str = "registry, cache_then_registry or cache_only";

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map(Self)
    }
}

impl<T: FromStr + TryFrom<u64>> FromText for Number<T> {
    const EXPECTED: &'static str = "a whole number within its range";

    fn from_text(text: &str) -> Result<Self, String> {
        let number = text.parse().map(Self);
        number.map_err(|_| format!("{text:?} is not {}", Self::EXPECTED))
    }

    fn from_number(number: u64) -> Option<Self> {
        T::try_from(number).ok().map(Self)
    }
}

impl FromText for Plain {
    const EXPECTED: &'static str = "a text";

    fn from_text(text: &str) -> Result<Self, String> {
        Ok(Self(text.to_owned()))
    }
}

impl FromText for Secret {
    const EXPECTED: &'static str = "a text";

    fn from_text(text: &str) -> Result<Self, String> {
        Ok(text.into())
    }

    fn from_number(number: u64) -> Option<Self> {
        Some(number.to_string().into())
    }
}

impl FromText for Servers {
    const EXPECTED: &'static str =
        "an address, several with commas or spaces between them, or a list";

    fn from_text(text: &str) -> Result<Self, String> {
        let servers = server_address::list(text);
        servers.map(Self).map_err(|error| error.to_string())
    }
}

impl<'de, T: FromText> Visitor<'de> for Reader<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        T::from_text(text).map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        T::from_number(number).ok_or_else(|| E::custom(format_args!("expected {}", T::EXPECTED)))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        let number = u64::try_from(number).ok().and_then(T::from_number);
        number.ok_or_else(|| E::custom(format_args!("expected {}", T::EXPECTED)))
    }

    // These three never quote what they were given, which may be a secret.
    fn visit_f64<E: de::Error>(self, _: f64) -> Result<T, E> {
        Err(E::custom(format_args!("expected {}", T::EXPECTED)))
    }

    fn visit_bool<E: de::Error>(self, on: bool) -> Result<T, E> {
        T::from_flag(on).ok_or_else(|| E::custom(format_args!("expected {}", T::EXPECTED)))
    }

    fn visit_bytes<E: de::Error>(self, _: &[u8]) -> Result<T, E> {
        Err(E::custom(format_args!("expected {}", T::EXPECTED)))
    }
}

macro_rules! deserialize {
    ($($name:ty),*) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                from.deserialize_any(Reader(PhantomData))
            }
        }
    )*};
}

deserialize!(
    Time,
    TimeOrOff,
    Size,
    Flag,
    Start,
    Number<u16>,
    Number<u32>,
    Plain,
    Secret
);

impl<'de> Deserialize<'de> for Servers {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Servers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(Servers::EXPECTED)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Servers, E> {
                Servers::from_text(text).map_err(E::custom)
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Servers, A::Error> {
                let mut servers = Vec::new();
                while let Some(Servers(more)) = list.next_element::<Servers>()? {
                    servers.extend(more);
                }
                Ok(Servers(servers))
            }
        }
        from.deserialize_any(List)
    }
}

impl<'de> Deserializer<'de> for Text<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_str(self.0)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl IntoDeserializer<'_> for Text<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// Numbers, each with its unit, added up.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    loop {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| !c.is_ascii_alphabetic());
        let (unit, after) = after.split_at(letters.unwrap_or(after.len()));
        let milliseconds = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        let number = number.parse::<u64>().ok()?.checked_mul(milliseconds)?;
        total = total.checked_add(Duration::from_millis(number))?;
        if after.is_empty() {
            return Some(total);
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_with_its_unit() {
        for (text, milliseconds) in [
            ("500ms", 500),
            ("10s", 10_000),
            ("1m30s", 90_000),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
            ("0s", 0),
        ] {
            assert_eq!(
                duration(text),
                Some(Duration::from_millis(milliseconds)),
                "{text}"
            );
        }
        for text in [
            "",
            "10",
            "s",
            "1.5s",
            "-1s",
            "10 s",
            "10x",
            "10s5",
            "99999999999999999999s",
            "99999999999999999h",
        ] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn a_size_is_read_with_and_without_a_unit() {
        for (text, bytes) in [("7", 7), ("64MiB", 64 << 20), ("512KiB", 512 << 10)] {
            assert_eq!(Size::from_text(text), Ok(Size(bytes)));
        }
        for text in ["", "MiB", "1.5MiB", "64MB", "99999999999999GiB"] {
            assert!(Size::from_text(text).is_err(), "{text}");
        }
    }
}
