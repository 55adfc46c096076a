use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Which of this machine's addresses connections leave from: one a family. Without any the system chooses.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::transport) struct Local {
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
}

impl Local {
    pub(in crate::transport) const fn set(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.v4 = Some(address),
            IpAddr::V6(address) => self.v6 = Some(address),
        }
    }

    /// The one that a connection to there leaves from.
    pub(in crate::transport) fn of(&self, to: SocketAddr) -> Option<IpAddr> {
        match to {
            SocketAddr::V4(_) => self.v4.map(IpAddr::V4),
            SocketAddr::V6(_) => self.v6.map(IpAddr::V6),
        }
    }

    /// Whether one of the families is closed, since the other alone was named, and which is open then.
    pub(in crate::transport) const fn only(&self) -> Option<&'static str> {
        match (self.v4, self.v6) {
            (Some(_), None) => Some("IPv4"),
            (None, Some(_)) => Some("IPv6"),
            _ => None,
        }
    }

    /// Whether a connection may go there.
    pub(in crate::transport) fn reaches(&self, to: SocketAddr) -> bool {
        self.only().is_none() || self.of(to).is_some()
    }
}
