use std::{cmp::Ordering, fmt, sync::Arc};

/// An instance's metadata: string pairs, sorted by key, each key once.
///
/// Equality is by content whatever the order in which a registry listed the pairs. Lookup is a
/// binary search. A key given twice keeps the value given last. A clone shares the texts.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Metadata {
    /// Nothing, or where the pairs' texts end (see [`Layout`]) and the texts one after the other: one allocation
    /// an instance, however many pairs it has.
    packed: Arc<str>,
}

/// How metadata lie in one text: numbers first, of `width` ASCII characters each, seven bits a character, then the
/// texts. The width itself, how many pairs there are, and for each where its key ends, and its value.
#[derive(Clone, Copy)]
struct Layout {
    width: usize,
    pairs: usize,
}

/// Pairs in the order in which they come, in memory that is used again for the next instance's.
#[derive(Debug, Default)]
pub(crate) struct Pairs {
    given: Row,
    /// Which come one after the other once they are sorted.
    order: Vec<u32>,
    sorted: Row,
    packed: String,
}

/// Texts of pairs, and where they end.
#[derive(Debug, Default)]
struct Row {
    text: String,
    ends: Vec<u32>,
}

impl Metadata {
    /// No pairs.
    pub fn new() -> Self {
        Self::default()
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        let layout = Layout::of(&self.packed);
        let (mut low, mut high) = (0, layout.pairs);
        while low < high {
            let middle = low.midpoint(high);
            let (found, value) = layout.pair(&self.packed, middle);
            match found.cmp(key) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Some(value),
                Ordering::Greater => high = middle,
            }
        }
        None
    }

    /// The pairs, sorted by key.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        let layout = Layout::of(&self.packed);
        (0..layout.pairs).map(move |at| layout.pair(&self.packed, at))
    }

    /// How many pairs there are.
    pub fn len(&self) -> usize {
        Layout::of(&self.packed).pairs
    }

    /// Whether there are no pairs.
    pub fn is_empty(&self) -> bool {
        self.packed.is_empty()
    }

    /// Whether there are clones that share the texts.
    pub(crate) fn is_cloned(&self) -> bool {
        Arc::strong_count(&self.packed) > 1
    }

    /// All of them as one text, equal if and only if they are.
    pub(crate) fn packed(&self) -> &str {
        &self.packed
    }

    /// Whether both keep their texts in one place.
    #[cfg(test)]
    pub(crate) fn is_shared_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.packed, &other.packed)
    }
}

impl Pairs {
    /// A key, whose value comes next.
    pub(crate) fn push_key(&mut self, key: &str) {
        self.given.push(key);
    }

    /// The value of the key that came last.
    pub(crate) fn push_value(&mut self, value: &str) {
        self.given.push(value);
    }

    /// That key has no value, and counts for nothing.
    pub(crate) fn drop_key(&mut self) {
        self.given.ends.pop();
        let end = self.given.ends.last().copied().unwrap_or(0);
        self.given.text.truncate(end as usize);
    }

    /// What they make. Leaves none of them, and their memory.
    pub(crate) fn take(&mut self) -> Metadata {
        let row = if self.given.is_sorted() {
            &self.given
        } else {
            self.sort();
            &self.sorted
        };
        let made = if row.ends.is_empty() {
            Metadata::new()
        } else {
            Layout::pack(row, &mut self.packed);
            Metadata {
                packed: self.packed.as_str().into(),
            }
        };
        self.given.clear();
        made
    }

    /// Whether their memory is worth to be kept.
    pub(crate) fn are_small(&self) -> bool {
        // What is packed has five characters a text at most beside the texts.
        self.given.text.capacity() <= MOST_KEPT && self.given.ends.capacity() <= MOST_KEPT
    }

    fn sort(&mut self) {
        let Self {
            given,
            order,
            sorted,
            ..
        } = self;
        sorted.clear();
        order.clear();
        order.extend(0..given.len() as u32);
        // Stable: of equal keys the last given stays last.
        order.sort_by(|a, b| given.pair(*a).0.cmp(given.pair(*b).0));
        for (nth, at) in order.iter().enumerate() {
            let (key, value) = given.pair(*at);
            let next = order.get(nth + 1);
            if next.is_none_or(|next| given.pair(*next).0 != key) {
                sorted.push(key);
                sorted.push(value);
            }
        }
    }
}

impl Row {
    /// What 32 bits do not count is left out: nobody has 4 GiB of it.
    fn push(&mut self, text: &str) {
        if text.len() <= u32::MAX as usize - self.text.len() {
            self.text.push_str(text);
        }
        self.ends.push(self.text.len() as u32);
    }

    fn len(&self) -> usize {
        self.ends.len() / 2
    }

    fn pair(&self, at: u32) -> (&str, &str) {
        pair(&self.text, &self.ends, at as usize)
    }

    /// Each key once, too.
    fn is_sorted(&self) -> bool {
        let mut keys = (0..self.len() as u32).map(|at| self.pair(at).0);
        let Some(mut last) = keys.next() else {
            return true;
        };
        keys.all(|key| std::mem::replace(&mut last, key) < key)
    }

    fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
    }
}

impl Layout {
    fn of(packed: &str) -> Self {
        let Some(width) = packed.bytes().next() else {
            return Self { width: 0, pairs: 0 };
        };
        let width = usize::from(width);
        let of_none = Self { width, pairs: 0 };
        Self {
            width,
            pairs: of_none.number(packed, 0),
        }
    }

    /// Makes what `row` is as one text.
    fn pack(row: &Row, packed: &mut String) {
        let largest = row.text.len().max(row.len());
        let width = (1..WIDEST).find(|width| largest >> (BITS * width) == 0);
        let width = width.unwrap_or(WIDEST);
        packed.clear();
        packed.push(char::from(width as u8));
        let ends = row.ends.iter().map(|end| *end as usize);
        for number in std::iter::once(row.len()).chain(ends) {
            for digit in (0..width).rev() {
                packed.push(char::from((number >> (BITS * digit)) as u8 & DIGIT));
            }
        }
        packed.push_str(&row.text);
    }

    fn number(self, packed: &str, at: usize) -> usize {
        let from = 1 + at * self.width;
        let digits = &packed.as_bytes()[from..from + self.width];
        digits
            .iter()
            .fold(0, |number, digit| number << BITS | usize::from(*digit))
    }

    fn pair(self, packed: &str, at: usize) -> (&str, &str) {
        let text = &packed[1 + (1 + 2 * self.pairs) * self.width..];
        let from = match at {
            0 => 0,
            at => self.number(packed, 2 * at),
        };
        let (key, value) = (
            self.number(packed, 2 * at + 1),
            self.number(packed, 2 * at + 2),
        );
        (&text[from..key], &text[key..value])
    }
}

fn pair<'a>(text: &'a str, ends: &[u32], at: usize) -> (&'a str, &'a str) {
    let from = match at {
        0 => 0,
        at => ends[2 * at - 1] as usize,
    };
    let (key, value) = (ends[2 * at] as usize, ends[2 * at + 1] as usize);
    (&text[from..key], &text[key..value])
}

/// Of a character that carries a number, so that it is one byte in UTF-8.
const BITS: usize = 7;
const DIGIT: u8 = 0x7f;
/// So many characters hold each length that there may be.
const WIDEST: usize = 5;
/// Bytes of texts, and texts, that a thread keeps room for.
const MOST_KEPT: usize = 64 * 1024;

impl<K: Into<Box<str>>, V: Into<Box<str>>> FromIterator<(K, V)> for Metadata {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut made = Pairs::default();
        for (key, value) in pairs {
            made.push_key(&key.into());
            made.push_value(&value.into());
        }
        made.take()
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_does_not_matter_and_the_last_of_twins_wins() {
        let a: Metadata = [("b", "2"), ("a", "1"), ("b", "3")].into_iter().collect();
        let b: Metadata = [("a", "1"), ("b", "3")].into_iter().collect();
        assert_eq!(a, b);
        assert_eq!(a.get("b"), Some("3"));
        assert_eq!(a.get("c"), None);
        assert_eq!(a.len(), 2);
    }

    /// Of every width that numbers may have, texts of more than a byte a character among them.
    #[test]
    fn lengths_of_all_sizes_are_found_again() {
        for (pairs, len) in [
            (1, 0),
            (1, 127),
            (130, 0),
            (1, 128),
            (40, 500),
            (2, 16_384),
            (3, 1 << 20),
        ] {
            let text = "ü".repeat(len / 2) + &"x".repeat(len % 2);
            let wanted: Vec<_> = (0..pairs)
                .map(|at| (format!("k{at:04}"), text.clone()))
                .collect();
            let made: Metadata = wanted.iter().cloned().collect();
            assert_eq!(made.len(), pairs);
            assert!(made.iter().eq(wanted.iter().map(|(k, v)| (&**k, &**v))));
            assert_eq!(made.get("k0000"), Some(&*text));
            assert_eq!(made.get("k"), None);
            assert_eq!(made, wanted.into_iter().rev().collect());
        }
    }

    /// Whatever comes, in whatever order: as a map has it. In memory that is used again and again.
    #[test]
    fn pairs_are_what_a_map_makes_of_them() {
        let mut random = 7_u64;
        let mut below = |n: u64| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (random >> 33) % n
        };
        let texts = ["", "a", "ab", "b", "ä", "版本", "version", "a\0", "zone"];
        let mut pairs = Pairs::default();
        for _ in 0..2_000 {
            let mut map = std::collections::BTreeMap::new();
            for _ in 0..below(8) {
                let key = texts[below(9) as usize];
                pairs.push_key(key);
                if below(4) == 0 {
                    pairs.drop_key();
                } else {
                    let value = texts[below(9) as usize];
                    pairs.push_value(value);
                    map.insert(key, value);
                }
            }
            let made = pairs.take();
            assert!(
                made.iter()
                    .eq(map.iter().map(|(key, value)| (*key, *value)))
            );
            assert_eq!((made.len(), made.is_empty()), (map.len(), map.is_empty()));
            for key in texts {
                assert_eq!(made.get(key), map.get(key).copied());
            }
            let again: Metadata = map.into_iter().rev().collect();
            assert_eq!(made, again);
        }
    }
}
