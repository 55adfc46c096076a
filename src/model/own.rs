use std::{fmt, net::IpAddr, str::FromStr, sync::Arc};

use super::reach;

/// One of this machine's own addresses, which is found when an instance is registered.
///
/// What [`Instance::on_port`](super::Instance::on_port) and its siblings put in the place of a host.
/// No list of a registry has one, and nothing can be called by it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OwnHost(Arc<Choice>);

#[derive(Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Choice {
    /// Where the connection to the registry leaves from.
    Link,
    Interface(Box<str>),
    Network(Cidr),
}

/// The addresses of one network: `10.1.0.0/16`, `fd00::/8`, or one address alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    base: IpAddr,
    bits: u8,
}

/// What is wrong with a network, and what one looks like.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid network {text:?}: {what}; expected an address and a length, such as 10.1.0.0/16")]
pub struct InvalidCidr {
    text: Box<str>,
    what: &'static str,
}

/// This machine's interfaces by name, and their addresses, in the system's order.
pub(crate) type Interfaces = Arc<[(Box<str>, IpAddr)]>;

/// How many are named in an error.
const SHOWN: usize = 8;

impl OwnHost {
    pub(crate) fn link() -> Self {
        Self(Arc::new(Choice::Link))
    }

    pub(crate) fn interface(name: &str) -> Self {
        Self(Arc::new(Choice::Interface(name.into())))
    }

    pub(crate) fn network(network: Cidr) -> Self {
        Self(Arc::new(Choice::Network(network)))
    }

    /// Whether the connection to the registry alone does not tell it.
    pub(crate) fn needs_interfaces(&self) -> bool {
        *self.0 != Choice::Link
    }

    /// The address that is meant, on a machine with these interfaces whose connection to the registry
    /// leaves from `link`; or why there is none.
    ///
    /// Of several it is `link` itself, else the first of its family, else the first.
    pub(crate) fn find(&self, link: IpAddr, interfaces: &Interfaces) -> Result<IpAddr, String> {
        let link = link.to_canonical();
        let here = || interfaces.iter().map(|(name, ip)| (&**name, *ip));
        let (found, none) = match &*self.0 {
            Choice::Link => {
                return match reach::objection(link) {
                    None => Ok(link),
                    Some(what) => Err(format!(
                        "the connection to the registry leaves from {link}, and {what}; `Instance::on_interface` or `Instance::in_network` name another"
                    )),
                };
            }
            Choice::Interface(wanted) => {
                let all: Vec<IpAddr> = here()
                    .filter_map(|(name, ip)| (name == &**wanted).then_some(ip))
                    .collect();
                let mut names: Vec<&str> = here().map(|(name, _)| name).collect();
                names.dedup();
                let none = match all.is_empty() {
                    true => format!(
                        "this machine has no interface {wanted} with an address; it has {}",
                        listed(names)
                    ),
                    false => format!(
                        "interface {wanted} has no address that others could call; it has {}",
                        listed(all.clone())
                    ),
                };
                (all, none)
            }
            Choice::Network(network) => {
                let all: Vec<IpAddr> = here()
                    .map(|(_, ip)| ip)
                    .filter(|ip| network.contains(*ip))
                    .collect();
                let none = format!(
                    "no address of this machine that others could call lies in {network}; it has {}",
                    listed(here().map(|(_, ip)| ip))
                );
                (all, none)
            }
        };
        let callable = || found.iter().filter(|ip| reach::objection(**ip).is_none());
        let first = callable()
            .find(|ip| **ip == link)
            .or_else(|| callable().find(|ip| ip.is_ipv4() == link.is_ipv4()))
            .or_else(|| callable().next());
        first.copied().ok_or(none)
    }
}

impl Cidr {
    /// Whether `ip` lies in it.
    pub fn contains(&self, ip: IpAddr) -> bool {
        masked(ip.to_canonical(), self.bits).is_some_and(|ip| ip == self.base)
    }
}

/// The address with all but its first `bits` bits 0; `None` if it has fewer.
fn masked(ip: IpAddr, bits: u8) -> Option<IpAddr> {
    match ip {
        IpAddr::V4(ip) => {
            let rest = 32_u8.checked_sub(bits)?;
            let mask = u32::MAX.checked_shl(rest.into()).unwrap_or(0);
            Some(IpAddr::V4((ip.to_bits() & mask).into()))
        }
        IpAddr::V6(ip) => {
            let rest = 128_u8.checked_sub(bits)?;
            let mask = u128::MAX.checked_shl(rest.into()).unwrap_or(0);
            Some(IpAddr::V6((ip.to_bits() & mask).into()))
        }
    }
}

fn listed<T: fmt::Display>(all: impl IntoIterator<Item = T>) -> String {
    let mut all = all.into_iter();
    let mut shown: Vec<String> = all
        .by_ref()
        .take(SHOWN)
        .map(|one| one.to_string())
        .collect();
    match all.count() {
        0 if shown.is_empty() => return "none".to_owned(),
        0 => {}
        more => shown.push(format!("{more} more")),
    }
    shown.join(", ")
}

impl FromStr for Cidr {
    type Err = InvalidCidr;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = |what| InvalidCidr {
            text: text.chars().take(100).collect(),
            what,
        };
        let (ip, bits) = match text.split_once('/') {
            Some((ip, bits)) => (ip, Some(bits)),
            None => (text, None),
        };
        let ip: IpAddr = ip
            .parse()
            .map_err(|_| invalid("it does not begin with an IP address"))?;
        let all = if ip.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) => bits.parse().ok().filter(|bits| *bits <= all),
            None => Some(all),
        };
        let bits = bits.ok_or_else(|| invalid("the length is no number of the address's bits"))?;
        let base = masked(ip, bits).ok_or_else(|| invalid("the length is too large"))?;
        if base != ip {
            return Err(invalid("the address has bits beyond the length"));
        }
        Ok(Self { base, bits })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.bits)
    }
}

/// In angle brackets, which no host has: nobody takes it for one.
impl fmt::Display for OwnHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Choice::Link => f.write_str("<this machine>"),
            Choice::Interface(name) => write!(f, "<this machine on {name}>"),
            Choice::Network(network) => write!(f, "<this machine in {network}>"),
        }
    }
}

#[cfg(test)]
#[path = "own_tests.rs"]
mod tests;
