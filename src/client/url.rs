//! `nacos://user:password@host,host/namespace?name=value`, taken apart, and
//! `nacos+http://user:password@endpoint/path?name=value`.

use super::error::ConfigError;

/// The parts of a URL, decoded. No `Debug`: one of them is a password.
pub(super) struct Url {
    pub(super) servers: Option<String>,
    /// In place of those.
    pub(super) address_server: Option<String>,
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) query: Vec<(String, String)>,
}

const SCHEME: &str = "nacos://";
/// An address server stands there, not servers.
const ADDRESSES: &str = "nacos+http://";
const SHAPE: &str = "nacos://user:password@host:8848,host:8848/namespace?name=value";

/// Errors never quote what stands before an `@`, or might.
pub(super) fn parse(text: &str) -> Result<Url, ConfigError> {
    let text = text.trim();
    let addresses = text.strip_prefix(ADDRESSES);
    let Some(rest) = addresses.or_else(|| text.strip_prefix(SCHEME)) else {
        return Err(invalid(format!("it does not begin with {SCHEME}")));
    };
    let (authority, rest) = split_before(rest, &['/', '?', '#']);
    if rest.contains('@') {
        return Err(invalid(
            "there is an @ behind the servers: in user name and password write / as %2F, ? as %3F, # as %23 and @ as %40; elsewhere @ as %40",
        ));
    }
    let (path, query) = split_before(rest, &['?', '#']);
    if query.contains('#') {
        return Err(invalid("it has a fragment, which means nothing here"));
    }
    let (user, servers) = match authority.rsplit_once('@') {
        Some((user, servers)) => (Some(user), servers),
        None => (None, authority),
    };
    if servers.contains(char::is_whitespace) {
        return Err(invalid(
            "there is white space between its servers, which a URL separates by commas",
        ));
    }
    if servers.is_empty() {
        return Err(invalid("it names no server"));
    }
    let (username, password) = match user.map(|user| user.split_once(':')) {
        None => (None, None),
        Some(Some((username, password))) => (
            Some(decoded(username, "the user name")?),
            Some(decoded(password, "the password")?),
        ),
        Some(None) => return Err(invalid("there is a user name but no password behind it")),
    };
    let endpoint = addresses.map(|_| format!("http://{servers}{path}"));
    let path = if endpoint.is_some() {
        ""
    } else {
        path.trim_matches('/')
    };
    if path.contains('/') {
        return Err(invalid(
            "the path has several parts; it is the namespace's id and nothing else",
        ));
    }
    let namespace = (!path.is_empty()).then(|| decoded(path, "the namespace"));
    let query = query
        .trim_start_matches('?')
        .split('&')
        .filter(|pair| !pair.is_empty());
    let query = query.map(|pair| {
        let (name, value) = pair
            .split_once('=')
            .ok_or_else(|| invalid("the query has a part without ="))?;
        Ok((
            decoded(name, "a name of the query")?,
            decoded(value, "a value of the query")?,
        ))
    });
    Ok(Url {
        servers: endpoint.is_none().then(|| servers.to_owned()),
        address_server: endpoint,
        username,
        password,
        namespace: namespace.transpose()?,
        query: query.collect::<Result<_, ConfigError>>()?,
    })
}

/// The text before the first of `ends`, and the rest with it.
fn split_before<'a>(text: &'a str, ends: &[char]) -> (&'a str, &'a str) {
    text.split_at(text.find(ends).unwrap_or(text.len()))
}

fn decoded(text: &str, what: &str) -> Result<String, ConfigError> {
    let broken = || {
        invalid(format!(
            "{what} has a % that is not followed by two digits of a byte, or bytes that are no UTF-8; write % as %25"
        ))
    };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            let digits = after
                .get(..2)
                .and_then(|digits| std::str::from_utf8(digits).ok());
            let digits = digits.filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
            let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
            bytes.push(byte.ok_or_else(broken)?);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).map_err(|_| broken())
}

fn invalid(what: impl AsRef<str>) -> ConfigError {
    ConfigError::url(format!("{}; expected {SHAPE}", what.as_ref()))
}
