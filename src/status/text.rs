//! Texts of others, made fit to be shown: short, without what moves other texts about, without secrets.

use crate::model::Metadata;

use super::model::Pair;

/// The longest name, address or error.
const MOST_TEXT: usize = 512;
/// The longest value of metadata.
const MOST_VALUE: usize = 256;
const MOST_KEY: usize = 128;
/// The most of an instance's metadata, in bytes and in pairs.
const MOST_BYTES: usize = 8 * 1024;
const MOST_PAIRS: usize = 64;
/// In the place of what is not to be seen.
const HIDDEN: &str = "[hidden]";

/// A text of somebody else's: cut, and with passwords struck out.
pub(super) fn clean(text: &str) -> String {
    shorten(
        &strike_out(head(text, 4 * MOST_TEXT)),
        MOST_TEXT,
        text.len() > 4 * MOST_TEXT,
    )
    .0
}

/// Metadata as it is shown, and what was left out.
pub(super) fn metadata(all: &Metadata) -> (Vec<Pair>, Option<String>) {
    let (mut pairs, mut bytes) = (Vec::new(), 0);
    for (key, value) in all.iter() {
        if pairs.len() == MOST_PAIRS || bytes >= MOST_BYTES {
            break;
        }
        let pair = pair(key, value);
        bytes += pair.key.len() + pair.value.len();
        pairs.push(pair);
    }
    let left = all.len() - pairs.len();
    let note = (left > 0).then(|| format!("{left} more pairs are not shown"));
    (pairs, note)
}

fn pair(key: &str, value: &str) -> Pair {
    let (shown, key_cut) = shorten(head(key, 4 * MOST_KEY), MOST_KEY, key.len() > 4 * MOST_KEY);
    if is_secret_key(key) || is_secret_value(value) {
        return Pair {
            key: shown,
            value: HIDDEN.to_owned(),
            hidden: true,
            cut: key_cut,
            bytes: value.len(),
        };
    }
    let (start, more) = (head(value, 4 * MOST_VALUE), value.len() > 4 * MOST_VALUE);
    let (text, cut) = shorten(&strike_out(start), MOST_VALUE, more);
    Pair {
        key: shown,
        value: text,
        hidden: false,
        cut: cut || key_cut,
        bytes: value.len(),
    }
}

/// The first `most` bytes, or a little less.
fn head(text: &str, most: usize) -> &str {
    if text.len() <= most {
        return text;
    }
    let end = (0..=most).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
}

/// At most so many characters, each of them harmless; and whether some were cut, here or before.
fn shorten(text: &str, most: usize, cut: bool) -> (String, bool) {
    let mut chars = text.chars();
    let mut short: String = chars.by_ref().take(most).map(harmless).collect();
    let cut = cut || chars.next().is_some();
    if cut {
        short.push('…');
    }
    (short, cut)
}

/// Control characters do things to terminals, and bidirectional ones have a page say what it does not.
fn harmless(c: char) -> char {
    let moves = matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}');
    if c.is_control() || moves {
        char::REPLACEMENT_CHARACTER
    } else {
        c
    }
}

/// Whether what goes by this name is not to be seen.
fn is_secret_key(key: &str) -> bool {
    let mut plain = String::new();
    for c in key.chars().take(1024).filter(|c| c.is_alphanumeric()) {
        plain.extend(c.to_lowercase());
    }
    SECRET_NAMES.contains(&&*plain) || SECRET_PARTS.iter().any(|part| plain.contains(part))
}

/// Whether it looks like something that opens a door, whatever it is called.
fn is_secret_value(value: &str) -> bool {
    let value = head(value.trim_start(), 4096);
    let begins = |with: &str| {
        let start = value.get(..with.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(with))
    };
    let is_jwt = value.starts_with("eyJ") && value.matches('.').count() >= 2;
    is_jwt || value.contains("-----BEGIN ") || SECRET_BEGINNINGS.iter().any(|with| begins(with))
}

/// Hides what follows `password=` and the like, and the password before the `@` of an address.
fn strike_out(text: &str) -> String {
    strike_out_users(&strike_out_pairs(text))
}

fn strike_out_pairs(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['=', ':']) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        out.push_str(&from[..1]);
        rest = &from[1..];
        let name = before.trim_end_matches(['"', '\'', ' ', '\\']);
        let name_at = name.rfind(|c: char| !(c.is_alphanumeric() || "_-.".contains(c)));
        let name = name_at.map_or(name, |at| &name[at..]);
        if is_secret_key(name) {
            let value = rest.trim_start_matches(['"', '\'', ' ', '\\']);
            out.push_str(&rest[..rest.len() - value.len()]);
            let is_end = |c: char| "&;,\"'}\\".contains(c) || c.is_whitespace();
            let end = value.find(is_end).unwrap_or(value.len());
            out.push_str(HIDDEN);
            rest = &value[end..];
        }
    }
    out.push_str(rest);
    out
}

fn strike_out_users(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("//") {
        let (before, from) = rest.split_at(at + 2);
        out.push_str(before);
        let address = &from[..from
            .find(|c: char| "\"'<>".contains(c) || c.is_whitespace())
            .unwrap_or(from.len())];
        let authority = &address[..address.find(['/', '?', '#']).unwrap_or(address.len())];
        // A password may hold a slash, and then this is no port.
        let odd = authority.rsplit_once(':').is_some_and(|(host, port)| {
            !host.ends_with(']') && !port.is_empty() && !port.bytes().all(|b| b.is_ascii_digit())
        });
        let within = if authority.contains('@') || !odd {
            authority
        } else {
            address
        };
        rest = match within.rfind('@') {
            Some(user) => {
                out.push_str(HIDDEN);
                &from[user..]
            }
            None => from,
        };
    }
    out.push_str(rest);
    out
}

/// In names without their punctuation.
const SECRET_PARTS: [&str; 18] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "credential",
    "apikey",
    "accesskey",
    "privatekey",
    "signingkey",
    "encryptionkey",
    "authorization",
    "signature",
    "sessionid",
    "cookie",
    "bearer",
    "jwt",
    "certificatekey",
];
const SECRET_NAMES: [&str; 9] = [
    "auth", "pass", "pwd", "ak", "sk", "key", "psk", "pin", "salt",
];
const SECRET_BEGINNINGS: [&str; 9] = [
    "bearer ",
    "basic ",
    "akia",
    "asia",
    "ltai",
    "ghp_",
    "sk-",
    "xoxb-",
    "-----begin",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_secret_is_not_shown() {
        let secrets = [
            ("db.password", "hunter2"),
            ("X-Api-Key", "hunter2"),
            ("ACCESS_TOKEN", "hunter2"),
            ("spring.datasource.url", "jdbc:mysql://root:hunter2@db/x"),
            ("slash", "http://root:hunter2/x@db/x"),
            (
                "callback",
                "https://x.example/?a=1&access_token=hunter2&b=2",
            ),
            ("json", r#"{"user":"a","password": "hunter2"}"#),
            ("header", "Bearer hunter2"),
            ("id", "eyJhbGciOi.hunter2.x"),
            ("cloud", "LTAIhunter2"),
            ("pem", "-----BEGIN PRIVATE KEY-----hunter2"),
            ("pass", "hunter2"),
        ];
        let (pairs, note) = metadata(&secrets.into_iter().collect());
        assert_eq!((pairs.len(), note), (secrets.len(), None));
        for pair in &pairs {
            assert!(!pair.value.contains("hunter2"), "{pair:?}");
            assert!(pair.value.contains(HIDDEN), "{pair:?}");
        }
        let error = clean("http://nacos:hunter2@10.0.0.1:8848/nacos?accessToken=hunter2: refused");
        assert!(
            !error.contains("hunter2") && error.contains("@10.0.0.1:8848/nacos"),
            "{error}"
        );
    }

    #[test]
    fn what_is_none_is() {
        let plain = [
            ("version", "1.2.3"),
            ("preserved.register.source", "SPRING_CLOUD"),
            ("gRPC_port", "9090"),
            ("side", "provider"),
            ("url", "http://10.0.0.1:80/a?b=c"),
            ("author", "somebody"),
        ];
        let (pairs, _) = metadata(&plain.into_iter().collect());
        for pair in pairs {
            let known = plain.iter().find(|(key, _)| *key == pair.key).unwrap();
            assert_eq!(
                (known.1, pair.hidden, pair.cut),
                (&*pair.value, false, false)
            );
        }
        assert_eq!(clean("10.0.0.1:80"), "10.0.0.1:80");
    }

    #[test]
    fn two_megabytes_are_cut_with_a_note() {
        let long = "é".repeat(1 << 20);
        let (pairs, _) = metadata(&[("long", long.clone())].into_iter().collect());
        assert!(pairs[0].cut && pairs[0].value.chars().count() == MOST_VALUE + 1);
        assert_eq!(pairs[0].bytes, 2 << 20);
        let many = (0..10_000).map(|n| (format!("key{n:05}"), "v".repeat(200)));
        let (pairs, note) = metadata(&many.collect());
        assert!(pairs.len() <= MOST_PAIRS);
        let left = 10_000 - pairs.len();
        assert_eq!(note.unwrap(), format!("{left} more pairs are not shown"));
        assert!(clean(&long).len() < 2_000);
    }

    #[test]
    fn nothing_turns_a_text_about() {
        let text = clean("a\u{202e}b\0c\u{1b}[31m\u{2066}d\nz");
        assert_eq!(text, "a\u{fffd}b\u{fffd}c\u{fffd}[31m\u{fffd}d\u{fffd}z");
    }
}
