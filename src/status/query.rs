use http::{HeaderMap, header::ACCEPT};

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Query {
    pub(super) format: Format,
    /// One of the page's own files.
    pub(super) file: Option<String>,
    /// A service as it is written, and its registry's number.
    pub(super) service: Option<String>,
    pub(super) registry: Option<usize>,
    pub(super) page: usize,
    pub(super) limit: usize,
    pub(super) filter: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Html,
    Json,
    Events,
}

impl Query {
    /// Reads what a request asks for. The error says what is wrong and what to ask instead.
    pub(super) fn read(query: Option<&str>, headers: &HeaderMap) -> Result<Self, String> {
        let mut read = Self {
            format: accepted(headers),
            file: None,
            service: None,
            registry: None,
            page: 1,
            limit: LIMIT,
            filter: String::new(),
        };
        for pair in query.unwrap_or_default().split('&').take(MOST_PAIRS) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decode(value);
            match key {
                "format" => {
                    read.format = match &*value {
                        "html" => Format::Html,
                        "json" => Format::Json,
                        "events" => Format::Events,
                        _ => return Err("`format` is html, json or events".to_owned()),
                    }
                }
                "file" => read.file = Some(value),
                "service" => read.service = Some(value).filter(|text| !text.is_empty()),
                "registry" => read.registry = Some(number(key, &value)?),
                "page" => read.page = number(key, &value)?,
                "limit" => read.limit = number(key, &value)?.min(MOST),
                "filter" => read.filter = value.trim().chars().take(MOST_FILTER).collect(),
                _ => {} // what proxies and people add
            }
        }
        Ok(read)
    }
}

fn number(key: &str, value: &str) -> Result<usize, String> {
    let number = value.trim().parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| format!("`{key}` is a number from 1 on"))
}

/// The format that a client likes best, HTML if it does not say.
fn accepted(headers: &HeaderMap) -> Format {
    let mut best = (0.0, Format::Html);
    let accept = headers.get_all(ACCEPT).iter();
    for range in accept
        .filter_map(|value| value.to_str().ok())
        .flat_map(|v| v.split(','))
    {
        let mut parts = range.split(';').map(str::trim);
        let format = match parts
            .next()
            .unwrap_or_default()
            .to_ascii_lowercase()
            .as_str()
        {
            "text/html" | "application/xhtml+xml" => Format::Html,
            "application/json" => Format::Json,
            "text/event-stream" => Format::Events,
            _ => continue,
        };
        let quality = parts.find_map(|part| part.strip_prefix("q="));
        let quality = quality.map_or(1.0, |q| q.parse().unwrap_or(0.0));
        if quality > best.0 {
            best = (quality, format);
        }
    }
    best.1
}

/// Undoes percent-encoding, and `+` as forms write a space.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let hex = hex.and_then(|two| u8::from_str_radix(two, 16).ok());
        (bytes, rest) = match (first, hex) {
            (b'%', Some(byte)) => (push(bytes, byte), &tail[2..]),
            (b'+', _) => (push(bytes, b' '), tail),
            (other, _) => (push(bytes, *other), tail),
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn push(mut bytes: Vec<u8>, byte: u8) -> Vec<u8> {
    bytes.push(byte);
    bytes
}

/// Adds a text to a query.
pub(super) fn encode(text: &str, out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

/// How much of a list is shown, unless something else is asked for.
pub(super) const LIMIT: usize = 50;
/// The most that can be asked for.
const MOST: usize = 200;
const MOST_FILTER: usize = 256;
const MOST_PAIRS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Query, String> {
        Query::read(Some(query), &HeaderMap::new())
    }

    #[test]
    fn what_is_asked_for_is_read_and_bounded() {
        let query =
            read("service=billing%40%40a+b%2&page=3&limit=100000&filter=%C3%A9&x&y=1").unwrap();
        assert_eq!(query.service.as_deref(), Some("billing@@a b%2"));
        assert_eq!((query.page, query.limit, &*query.filter), (3, MOST, "é"));
        let mut encoded = String::new();
        encode("a b%é&<", &mut encoded);
        assert_eq!(decode(&encoded), "a b%é&<");
        assert_eq!(
            read(&format!("filter={}", "x".repeat(9_999)))
                .unwrap()
                .filter
                .len(),
            MOST_FILTER
        );
        for bad in [
            "page=0",
            "page=-1",
            "page=",
            "limit=x",
            "registry=99999999999999999999",
            "format=xml",
        ] {
            let error = read(bad).unwrap_err();
            assert!(error.contains(bad.split('=').next().unwrap()), "{error}");
        }
        read("%&=&&%ff=%ff&filter=%ff%00").unwrap();
    }

    #[test]
    fn the_best_liked_format_is_taken() {
        for (accept, format) in [
            ("", Format::Html),
            ("*/*", Format::Html),
            ("application/json", Format::Json),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Format::Html),
            ("text/html;q=0.5, application/json", Format::Json),
            ("text/event-stream", Format::Events),
            ("application/json;q=zzz", Format::Html),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().unwrap());
            assert_eq!(
                Query::read(None, &headers).unwrap().format,
                format,
                "{accept}"
            );
        }
    }
}
