use std::{fmt, str::FromStr};

use crate::{
    model::{Host, InvalidAddress},
    session::Server,
};

/// The main port of a Nacos server that names none.
const MAIN_PORT: u16 = 8848;
/// What a server adds to its main port for gRPC.
const GRPC_OFFSET: u16 = 1000;

/// The address of a Nacos server: a host, its main (HTTP) port, and its gRPC port.
///
/// Reads `host`, `host:8848`, `host:8848/9848`, `[::1]:8848`, each optionally behind `http://`.
/// The main port is 8848 unless given, the gRPC port the main port + 1000 unless given after a
/// slash (for port mappings that do not keep the distance).
///
/// ```
/// use tower_nacos::client::ServerAddress;
///
/// let server: ServerAddress = "nacos.internal:8848/9848".parse()?;
/// assert_eq!(server.host().to_string(), "nacos.internal");
/// assert!("nacos.internal:port".parse::<ServerAddress>().is_err());
/// # Ok::<(), tower_nacos::client::InvalidServer>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerAddress {
    host: Host,
    main_port: u16,
    grpc_port: u16,
}

/// What is wrong with a server's address, and what one looks like.
///
/// Example: [an address that cannot be read](crate::client::ServerAddress)
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid server address {text:?}: {what}; expected host:port with the server's main port, such as 127.0.0.1:8848, or host:8848/9848 to name the gRPC port too"
)]
pub struct InvalidServer {
    text: String,
    what: String,
}

impl ServerAddress {
    /// The host: a name or an IP address.
    pub const fn host(&self) -> &Host {
        &self.host
    }

    /// The main (HTTP) port.
    pub const fn main_port(&self) -> u16 {
        self.main_port
    }

    /// The gRPC port.
    pub const fn grpc_port(&self) -> u16 {
        self.grpc_port
    }

    /// Names the gRPC port.
    #[must_use]
    pub const fn with_grpc_port(mut self, port: u16) -> Self {
        self.grpc_port = port;
        self
    }

    /// Whether the gRPC port is another than the main port + 1000.
    pub(super) fn names_grpc_port(&self) -> bool {
        self.main_port.checked_add(GRPC_OFFSET) != Some(self.grpc_port)
    }

    pub(super) fn grpc(&self) -> Server {
        Server {
            host: self.host.clone(),
            port: self.grpc_port,
        }
    }
}

/// Several addresses in one text, with commas, semicolons or white space between them. One at either
/// end is let pass, as lists that are put together have it; two with nothing between them are not: a
/// server that should stand there may be missing.
pub(super) fn list(text: &str) -> Result<Vec<ServerAddress>, InvalidServer> {
    if let Some((_, host)) = text.rsplit_once('@') {
        return Err(InvalidServer::with_user(host)); // a password may hold any separator
    }
    let is_separator = |c: char| matches!(c, ',' | ';') || c.is_whitespace();
    let trimmed = text.trim_matches(is_separator);
    if trimmed.is_empty() {
        return Err(InvalidServer::none());
    }
    let mut servers = Vec::new();
    for part in trimmed.split([',', ';']) {
        if part.trim().is_empty() {
            return Err(InvalidServer {
                text: text.to_owned(),
                what: "two separators follow each other with no server between them".to_owned(),
            });
        }
        for one in part.split_whitespace() {
            servers.push(one.parse()?);
        }
    }
    Ok(servers)
}

impl InvalidServer {
    /// An address with an `@`: what stands before it may be a password.
    fn with_user(host: &str) -> Self {
        Self {
            text: format!("…@{host}"),
            what: "user and password are no part of an address; use `Client::from_url` or `ClientBuilder::login`".to_owned(),
        }
    }

    pub(super) fn none() -> Self {
        Self {
            text: String::new(),
            what: "no server is given".to_owned(),
        }
    }
}

impl FromStr for ServerAddress {
    type Err = InvalidServer;

    fn from_str(given: &str) -> Result<Self, InvalidServer> {
        let invalid = |what: &dyn fmt::Display| InvalidServer {
            text: given.to_owned(),
            what: what.to_string(),
        };
        if let Some((_, host)) = given.rsplit_once('@') {
            return Err(InvalidServer::with_user(host));
        }
        let text = given.trim();
        let text = text
            .strip_prefix("http://")
            .unwrap_or(text)
            .trim_end_matches('/');
        if text.starts_with("https://") {
            return Err(invalid(
                &"TLS is not chosen by the address's scheme but by `ClientBuilder::tls`, or tls=true",
            ));
        }
        if text.starts_with("nacos://") {
            return Err(invalid(&"a nacos:// URL is read by `Client::from_url`"));
        }
        let (text, grpc) = match text.split_once('/') {
            Some((_, path)) if !path.starts_with(|c: char| c.is_ascii_digit()) => {
                return Err(invalid(&format_args!(
                    "it has a path, /{path}: leave that out (behind the slash stands a gRPC port); the paths of the servers begin with /nacos, or with what `context_path` says"
                )));
            }
            Some((text, grpc)) => (text, Some(port(grpc).map_err(|e| invalid(&e))?)),
            None => (text, None),
        };
        let (host, main) = split_port(text).map_err(|e| invalid(&e))?;
        let host = Host::parse(host).map_err(|e: InvalidAddress| invalid(&e.what()))?;
        let grpc = match grpc {
            Some(port) => port,
            None => main.checked_add(GRPC_OFFSET).ok_or_else(|| {
                invalid(&"the main port + 1000 is no port; name the gRPC port after a slash")
            })?,
        };
        Ok(Self {
            host,
            main_port: main,
            grpc_port: grpc,
        })
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = crate::model::Address::new(self.host.clone(), self.main_port);
        write!(f, "{address}/{}", self.grpc_port)
    }
}

fn split_port(text: &str) -> Result<(&str, u16), &'static str> {
    let colons = text.matches(':').count();
    let bracketed = text.starts_with('[');
    match text.rsplit_once(':') {
        Some((host, given)) if colons == 1 || (bracketed && host.ends_with(']')) => {
            Ok((host, port(given)?))
        }
        Some(_) if !bracketed => Err("an IPv6 address needs brackets"),
        _ => Ok((text, MAIN_PORT)),
    }
}

fn port(text: &str) -> Result<u16, &'static str> {
    let port = text.parse().ok().filter(|port| *port != 0);
    port.ok_or("a port is not a number from 1 to 65535")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read() {
        for (text, shown) in [
            ("127.0.0.1:8848", "127.0.0.1:8848/9848"),
            ("nacos", "nacos:8848/9848"),
            ("http://nacos:80/9000", "nacos:80/9000"),
            ("[::1]:8848", "[::1]:8848/9848"),
            ("[::1]", "[::1]:8848/9848"),
            (" nacos:1/2/ ", "nacos:1/2"),
        ] {
            assert_eq!(text.parse::<ServerAddress>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn a_list_is_read_however_it_was_put_together() {
        for text in [
            "a,b",
            "a, b",
            "a b",
            "a;b",
            " a\tb ",
            "a,b,",
            ",a,b",
            "a\nb\n",
            "a ,\n b ,",
        ] {
            let servers = list(text).unwrap();
            let shown: Vec<_> = servers.iter().map(ToString::to_string).collect();
            assert_eq!(shown, ["a:8848/9848", "b:8848/9848"], "{text:?}");
        }
        for text in ["", ",", " ; "] {
            let error = list(text).unwrap_err().to_string();
            assert!(error.contains("no server is given"), "{error}");
        }
        for text in ["jo:s3 cret@a,,b", "a,jo:s3,cret@b", "a jo:s3;cret@b"] {
            let error = list(text).unwrap_err().to_string();
            assert!(!error.contains("s3") && !error.contains("cret"), "{error}");
        }
        let error = list("a,,b").unwrap_err().to_string();
        assert!(
            error.contains("\"a,,b\"") && error.contains("two separators"),
            "{error}"
        );
    }

    #[test]
    fn a_bad_address_says_what_is_wrong() {
        for (text, what) in [
            ("", "the host is empty"),
            ("nacos:0", "a port is not"),
            ("nacos:8848/x", "it has a path, /x"),
            ("nacos:8848/0", "a port is not"),
            ("nacos:65000", "+ 1000 is no port"),
            ("::1", "needs brackets"),
            ("https://nacos:8848", "TLS is not chosen"),
            ("nacos://nacos:8848", "`Client::from_url`"),
            ("nacos://jo:s3cret@nacos:8848", "\"…@nacos:8848\""),
            ("http://nacos:8848/nacos", "leave that out"),
            ("http://nacos:8848/nacos/", "leave that out"),
            ("na cos:8848", "neither an IP address nor a host name"),
        ] {
            let error = text.parse::<ServerAddress>().unwrap_err().to_string();
            assert!(error.contains(what), "{text}: {error}");
        }
    }
}
