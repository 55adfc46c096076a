//! Going through JSON by places, with serde as the judge of every value.

use serde::Deserialize;
use serde_json::{Deserializer, de::Read};

/// Reads a whole message. Of one that is UTF-8 throughout, as it should be, that is asked once and not of each
/// string: a tenth of what it takes. What comes of it is the same.
pub(super) fn read<'a, T: Deserialize<'a>>(json: &'a [u8]) -> serde_json::Result<T> {
    match std::str::from_utf8(json) {
        Ok(text) => serde_json::from_str(text),
        // Where nobody looks it may be anything.
        Err(_) => serde_json::from_slice(json),
    }
}

/// The value that begins at `at`, and where it ends. `None` if serde refuses it.
pub(super) fn value<'a, T: Deserialize<'a>>(json: &'a [u8], at: usize) -> Option<(T, usize)> {
    first(Deserializer::from_slice(json.get(at..)?), at)
}

/// The same of what is known to be UTF-8.
pub(super) fn value_of<'a, T: Deserialize<'a>>(text: &'a str, at: usize) -> Option<(T, usize)> {
    first(Deserializer::from_str(text.get(at..)?), at)
}

fn first<'a, T: Deserialize<'a>>(
    json: Deserializer<impl Read<'a>>,
    at: usize,
) -> Option<(T, usize)> {
    let mut values = json.into_iter();
    let value = values.next()?.ok()?;
    Some((value, at + values.byte_offset()))
}

/// The first place from `at` on that is not white space.
pub(super) fn blank(json: &[u8], mut at: usize) -> usize {
    while json.get(at).is_some_and(|byte| b" \t\r\n".contains(byte)) {
        at += 1;
    }
    at
}

/// The place after `byte`, which stands at `at` but for white space.
pub(super) fn after(json: &[u8], at: usize, byte: u8) -> Option<usize> {
    let at = blank(json, at);
    (json.get(at) == Some(&byte)).then_some(at + 1)
}

/// Where the object at `at` ends, if it is one. Quick, and no judge: of what is no JSON it says
/// anything.
pub(super) fn object_end(json: &[u8], at: usize) -> Option<usize> {
    if json.get(at) != Some(&b'{') {
        return None;
    }
    let mut depth = 0_usize;
    let mut rest = json.get(at..)?.iter();
    while let Some(byte) = rest.next() {
        match byte {
            b'"' => loop {
                match rest.next()? {
                    b'"' => break,
                    b'\\' => {
                        rest.next();
                    }
                    _ => {}
                }
            },
            b'{' => depth += 1,
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    return Some(json.len() - rest.len());
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use serde::de::IgnoredAny;

    use super::*;

    #[test]
    fn a_value_ends_where_it_ends() {
        let json = br#" {"a":"}\"","b":[{}]} ,"#;
        assert_eq!(blank(json, 0), 1);
        assert_eq!(object_end(json, 1), Some(21));
        assert_eq!(value::<IgnoredAny>(json, 1).unwrap().1, 21);
        assert_eq!(after(json, 21, b','), Some(23));
        assert_eq!(after(json, 21, b']'), None);
        for cut in 2..21 {
            assert_eq!(object_end(&json[..cut], 1), None);
            assert!(value::<IgnoredAny>(&json[..cut], 1).is_none());
        }
        assert_eq!(object_end(json, 0), None);
        assert_eq!(object_end(json, 99), None);
    }
}
