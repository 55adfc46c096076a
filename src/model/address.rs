use std::{
    fmt,
    hash::{Hash, Hasher},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    str::FromStr,
    sync::Arc,
};

use super::OwnHost;

/// Where an instance listens, by address or by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Host {
    /// An IPv4 or IPv6 address.
    Ip(IpAddr),
    /// A host name, to be resolved at each dial.
    Name(Arc<str>),
    /// An address of this machine, to be found when it is registered. Never in a registry's list.
    Own(OwnHost),
}

/// Host and port: the identity of an instance within one service.
///
/// Displays as `10.0.0.3:8080`, `[::1]:8080` or `orders-0.orders:8080`, the form that
/// [`FromStr`] reads. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    host: Host,
    port: u16,
}

/// The usual one is one number: addresses are looked for by the thousand when a list comes.
impl Hash for Address {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match &self.host {
            Host::Ip(IpAddr::V4(ip)) => {
                state.write_u64(u64::from(ip.to_bits()) << 16 | u64::from(self.port));
            }
            host => (host, self.port).hash(state),
        }
    }
}

/// What is wrong with an address, and what one looks like.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid instance address {text:?}: {what}; expected host:port, such as 10.0.0.3:8080 or [::1]:8080"
)]
pub struct InvalidAddress {
    text: Box<str>,
    what: &'static str,
}

impl InvalidAddress {
    /// The rule that the text breaks.
    pub(crate) const fn what(&self) -> &'static str {
        self.what
    }
}

impl Host {
    /// Reads a host: an IPv4 address, an IPv6 address with or without brackets, or a name.
    ///
    /// Names are not resolved and are compared without regard to ASCII case.
    pub fn parse(text: &str) -> Result<Self, InvalidAddress> {
        let invalid = |what| InvalidAddress {
            text: text.into(),
            what,
        };
        let bare = text
            .strip_prefix('[')
            .and_then(|t| t.strip_suffix(']'))
            .unwrap_or(text);
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return Ok(Self::Ip(ip));
        }
        if text.is_empty() {
            return Err(invalid("the host is empty"));
        }
        if text.len() > 253 {
            return Err(invalid("the host is longer than 253 characters"));
        }
        if !text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        {
            return Err(invalid("the host is neither an IP address nor a host name"));
        }
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Ok(Self::Name(text.to_ascii_lowercase().into()));
        }
        Ok(Self::Name(text.into()))
    }

    /// The IP address, unless this is a name or still to be found.
    pub const fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(ip) => Some(*ip),
            Self::Name(_) | Self::Own(_) => None,
        }
    }

    /// Which of this machine's addresses is meant, if that is still to be found.
    pub(crate) const fn own(&self) -> Option<&OwnHost> {
        match self {
            Self::Own(own) => Some(own),
            Self::Ip(_) | Self::Name(_) => None,
        }
    }
}

impl Address {
    /// An address from its parts.
    pub const fn new(host: Host, port: u16) -> Self {
        Self { host, port }
    }

    /// Where the instance listens.
    pub const fn host(&self) -> &Host {
        &self.host
    }

    /// The port, never 0 in an instance that a registry listed.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The socket address, unless the host is a name or still to be found.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        self.host.ip().map(|ip| SocketAddr::new(ip, self.port))
    }
}

impl From<SocketAddr> for Address {
    fn from(addr: SocketAddr) -> Self {
        Self::new(Host::Ip(addr.ip()), addr.port())
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = |what| InvalidAddress {
            text: text.into(),
            what,
        };
        let (host, port) = text
            .rsplit_once(':')
            .ok_or_else(|| invalid("there is no port"))?;
        let port = port
            .parse::<u16>()
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(|| invalid("the port is not a number from 1 to 65535"))?;
        if host.contains(':') && !host.starts_with('[') {
            return Err(invalid("an IPv6 address needs brackets"));
        }
        let host = Host::parse(host).map_err(|e| invalid(e.what))?;
        Ok(Self::new(host, port))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Name(name) => name.fmt(f),
            Self::Own(own) => own.fmt(f),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(IpAddr::V6(ip)) => write_v6(f, *ip, self.port),
            host => write!(f, "{host}:{}", self.port),
        }
    }
}

fn write_v6(f: &mut fmt::Formatter<'_>, ip: Ipv6Addr, port: u16) -> fmt::Result {
    write!(f, "[{ip}]:{port}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_back_as_it_is_shown() {
        for text in ["10.0.0.3:8080", "[::1]:9", "orders-0.orders:65535"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        assert_eq!("Orders:1".parse::<Address>(), "orders:1".parse());
    }

    #[test]
    fn a_bad_address_says_what_is_wrong() {
        for (text, what) in [
            ("10.0.0.3", "there is no port"),
            ("10.0.0.3:0", "the port is not"),
            ("10.0.0.3:70000", "the port is not"),
            (":80", "the host is empty"),
            ("::1:80", "needs brackets"),
            ("a b:80", "neither an IP address nor a host name"),
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(what) && error.contains(text), "{error}");
        }
    }
}
