use std::fmt;

use super::Instance;

/// The header, and gRPC metadata, by which a provider tells with each response that it goes offline.
/// Its value is the [`Incarnation`] that the registry lists for that instance.
pub const OFFLINE_HEADER: &str = "x-nacos-offline";

/// The metadata key that names one start of a provider, in ms since 1970, as Spring Cloud's and other
/// frameworks write it.
pub const START_TIME: &str = "startTime";

/// Which start of a provider somebody speaks of: what its instance's metadata say under
/// [`START_TIME`].
///
/// A text of 1 to 64 visible ASCII characters other than the comma, so that it fits into a header. Two
/// processes that follow each other on one address have different ones, and a response that comes
/// late, from another instance, or through a proxy that mixes answers up, says nothing of this one.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Incarnation(Box<str>);

impl Incarnation {
    /// Longer ones are none.
    const MOST: usize = 64;
    /// What is looked at of one header: its values, and the bytes of each. Nobody who means well
    /// sends more.
    const VALUES: usize = 4;
    const VALUE: usize = 256;

    /// Reads one; `None` for what cannot be one.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=Self::MOST).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_graphic() && b != b',');
        fits.then(|| Self(text.into()))
    }

    /// What the metadata of `instance` say, if they do.
    pub fn of(instance: &Instance) -> Option<Self> {
        Self::parse(instance.metadata().get(START_TIME)?)
    }

    /// As it stands in a header.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As they stand in the values of one [`OFFLINE_HEADER`], each once, for a provider of several
    /// instances. One value less than is looked at, which leaves room for what a proxy adds: what does not fit
    /// is left out. Nine of the longest fit.
    pub(crate) fn marks(all: impl IntoIterator<Item = Self>) -> Vec<String> {
        let mut written: Vec<Self> = Vec::new();
        let mut values: Vec<String> = Vec::new();
        for one in all {
            if written.contains(&one) {
                continue;
            }
            let room = values.len() + 1 < Self::VALUES;
            match values.last_mut() {
                Some(value) if value.len() + 1 + one.0.len() <= Self::VALUE => {
                    value.push(',');
                    value.push_str(&one.0);
                }
                _ if room => values.push(one.0.to_string()),
                _ => break,
            }
            written.push(one);
        }
        values
    }

    /// Whether the values of an [`OFFLINE_HEADER`] name this one.
    ///
    /// A proxy may add its own, or join several with commas: each is looked at, up to 4 values of
    /// 256 bytes. The rest, and what makes no sense, says nothing. Allocates nothing.
    pub fn is_marked_in<'a>(&self, values: impl IntoIterator<Item = &'a [u8]>) -> bool {
        let looked_at = values.into_iter().take(Self::VALUES);
        let mut sound = looked_at.filter(|value| value.len() <= Self::VALUE);
        sound.any(|value| {
            let mut parts = value.split(|byte| *byte == b',');
            parts.any(|part| part.trim_ascii() == self.0.as_bytes())
        })
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Incarnation({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Metadata;

    fn marked(values: &[&[u8]]) -> bool {
        let mine = Incarnation::parse("1764370000123").unwrap();
        mine.is_marked_in(values.iter().copied())
    }

    #[test]
    fn it_is_what_the_registry_lists() {
        let instance = Instance::parse("10.0.0.3:80").unwrap();
        assert_eq!(Incarnation::of(&instance), None);
        let pairs: Metadata = [(START_TIME, "17"), ("version", "2")].into_iter().collect();
        let found = Incarnation::of(&instance.with_metadata(pairs)).unwrap();
        assert_eq!(found.as_str(), "17");
    }

    #[test]
    fn it_fits_into_a_header() {
        for bad in ["", "a b", "a,b", "a\r\nb", "é", &"x".repeat(65)] {
            assert_eq!(Incarnation::parse(bad), None, "{bad:?}");
        }
        assert!(Incarnation::parse(&"x".repeat(64)).is_some());
    }

    #[test]
    fn what_is_written_of_several_is_read_of_each() {
        let named = |n: usize| Incarnation::parse(&format!("{n:064}")).unwrap();
        let values = Incarnation::marks((0..9).chain(0..9).map(named));
        let found = |one: Incarnation| one.is_marked_in(values.iter().map(String::as_bytes));
        assert!((0..9).map(named).all(found), "{values:?}");
        assert_eq!(values.len(), 3); // room for somebody else's
        assert_eq!(Incarnation::marks((0..100).map(named)), values);
        assert_eq!(Incarnation::marks([named(7), named(7)]).len(), 1);
        assert!(Incarnation::marks([]).is_empty());
    }

    #[test]
    fn a_mark_is_found_among_others_and_nonsense_is_none() {
        for values in [
            &[&b"1764370000123"[..]] as &[&[u8]],
            &[b"another", b" 1764370000123 "],
            &[b"another,1764370000123"],
        ] {
            assert!(marked(values), "{values:?}");
        }
        let long = vec![b'1'; 10_000_000];
        for values in [
            &[] as &[&[u8]],
            &[b""],
            &[b"1764370000124"],
            &[b"17643700001234"],
            &[b"\xff\0"],
            &[&long],
            &[b"a", b"b", b"c", b"d", b"1764370000123"],
        ] {
            assert!(!marked(values));
        }
    }
}
