//! Reading single strings out of JSON that is broken as a whole.
//!
//! A push that cannot be decoded must be acknowledged all the same (a server repeats it every
//! second otherwise), and for that its `requestId` is needed.

/// The value of the first `"key":"value"` in `json`, if it stands there whole and needs no
/// unescaping.
pub(super) fn string_after<'a>(json: &'a [u8], key: &str) -> Option<&'a str> {
    let mut from = 0;
    while let Some(at) = find(&json[from..], key.as_bytes()) {
        let start = from + at;
        let end = start + key.len();
        from = end;
        if start == 0 || json[start - 1] != b'"' || json.get(end) != Some(&b'"') {
            continue;
        }
        let rest = json[end + 1..].trim_ascii_start();
        let Some(rest) = rest.strip_prefix(b":") else {
            continue;
        };
        let Some(rest) = rest.trim_ascii_start().strip_prefix(b"\"") else {
            continue;
        };
        let Some(len) = rest.iter().position(|b| *b == b'"' || *b == b'\\') else {
            continue;
        };
        if rest[len] == b'"' {
            return std::str::from_utf8(&rest[..len]).ok();
        }
    }
    None
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_is_found_in_truncated_json() {
        let json = br#"{"requestId" : "17","serviceInfo":{"name":"a","x":"requestId","hosts":[{"#;
        assert_eq!(string_after(json, "requestId"), Some("17"));
        assert_eq!(string_after(json, "name"), Some("a"));
        assert_eq!(string_after(json, "groupName"), None);
        assert_eq!(string_after(br#"{"requestId":"17"#, "requestId"), None);
        assert_eq!(string_after(br#"requestId"#, "requestId"), None);
    }
}
