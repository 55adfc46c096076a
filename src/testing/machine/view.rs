use std::{collections::BTreeMap, net::SocketAddr, time::Instant};

use super::{ConnId, Machine, Received, ServiceId};

/// What a registry knows and has seen, at one moment.
///
/// Example: [a registry](crate::testing)
#[derive(Clone, Copy, Debug)]
pub struct View<'a>(&'a Machine);

/// A client's connection.
///
/// Example: [a registry](crate::testing)
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// Its number here.
    pub id: ConnId,
    /// Its name on the wire, `<millis>_<ip>_<port>`.
    pub name: String,
    /// The client's end of the transport.
    pub address: SocketAddr,
    /// Whether its setup came and it was not given up.
    pub registered: bool,
    /// Whether its stream is open.
    pub streaming: bool,
    /// `clientVersion` of its setup.
    pub client_version: String,
    /// `tenant` of its setup.
    pub tenant: String,
    /// `labels` of its setup.
    pub labels: BTreeMap<String, String>,
    /// How many pushes were sent to it, repetitions included.
    pub pushes: u64,
    /// How many it acknowledged.
    pub acks: u64,
    /// How many it refused.
    pub refusals: u64,
    /// How many it may still acknowledge.
    pub unacknowledged: usize,
}

impl<'a> View<'a> {
    pub(super) const fn of(machine: &'a Machine) -> Self {
        Self(machine)
    }

    /// The open connections, oldest first.
    pub fn connections(&self) -> Vec<ConnectionInfo> {
        let conns = self.0.conns.iter();
        conns
            .map(|(id, conn)| {
                let setup = conn.setup.clone().unwrap_or_default();
                ConnectionInfo {
                    id: *id,
                    name: conn.name.clone(),
                    address: conn.address,
                    registered: conn.setup.is_some(),
                    streaming: conn.stream,
                    client_version: setup.client_version,
                    tenant: setup.tenant,
                    labels: setup.labels,
                    pushes: conn.pushes,
                    acks: conn.acks,
                    refusals: conn.refusals,
                    unacknowledged: conn.unacked.len(),
                }
            })
            .collect()
    }

    /// The connections that count as clients, oldest first.
    pub fn registered(&self) -> Vec<ConnId> {
        let conns = self.0.conns.iter();
        conns
            .filter(|(_, conn)| conn.setup.is_some())
            .map(|(id, _)| *id)
            .collect()
    }

    /// Logins that brought a token.
    pub const fn logins(&self) -> u64 {
        self.0.logins()
    }

    /// Logins that were refused.
    pub const fn refused_logins(&self) -> u64 {
        self.0.refused_logins()
    }

    /// Naming requests that were answered 403.
    pub const fn denials(&self) -> u64 {
        self.0.denials()
    }

    /// Who subscribes to a service, oldest connection first.
    pub fn subscribers(&self, service: impl Into<ServiceId>) -> Vec<ConnId> {
        let state = self.0.services.get(&service.into());
        state.map_or_else(Vec::new, |s| s.subscribers.keys().copied().collect())
    }

    /// Who watches this pattern, `namespace>>group>>name` as it was asked for, oldest connection first.
    pub fn watchers(&self, pattern: &str) -> Vec<ConnId> {
        self.0.fuzzy.watchers(pattern).collect()
    }

    /// The addresses published of a service now, sorted; one that is listed twice stands there twice: what reads and pushes will
    /// show soon, and disabled ones, which they will not.
    pub fn addresses(&self, service: impl Into<ServiceId>) -> Vec<String> {
        let state = self.0.services.get(&service.into());
        let published = state.into_iter().flat_map(|s| s.publications.values());
        let mut addresses: Vec<String> = published
            .flatten()
            .map(|instance| {
                let (ip, port) = (&instance.ip, instance.port);
                if ip.contains(':') {
                    format!("[{ip}]:{port}")
                } else {
                    format!("{ip}:{port}")
                }
            })
            .collect();
        addresses.sort();
        addresses
    }

    /// The share of healthy instances at which a service is protected, if an operator set one.
    pub fn protect_threshold(&self, service: impl Into<ServiceId>) -> Option<f64> {
        self.0.services.get(&service.into())?.threshold
    }

    /// Whether a push of this service is due or waits for an acknowledgement.
    pub fn is_pushing(&self, service: impl Into<ServiceId>) -> bool {
        let service = service.into();
        let scheduled = self
            .0
            .services
            .get(&service)
            .is_some_and(|s| s.task.is_some());
        let mut unacked = self.0.conns.values().flat_map(|c| c.unacked.values());
        scheduled || unacked.any(|unacked| unacked.service == service)
    }

    /// How many frames were pushed for a service, to all its subscribers together.
    pub fn pushes(&self, service: impl Into<ServiceId>) -> u64 {
        let pushed = self.0.log.pushed.get(&service.into());
        pushed.map_or(0, |(count, _)| *count)
    }

    /// When the last push of a service left the machine for the socket.
    pub fn last_push(&self, service: impl Into<ServiceId>) -> Option<Instant> {
        let pushed = self.0.log.pushed.get(&service.into());
        pushed.map(|(_, at)| *at)
    }

    /// The messages received, oldest first, as far back as the log goes.
    pub fn received(&self) -> impl DoubleEndedIterator<Item = &'a Received> {
        self.0.log.received.iter()
    }

    /// The messages received on one connection, oldest first, as far back as the log goes.
    pub fn received_on(&self, conn: ConnId) -> impl DoubleEndedIterator<Item = &'a Received> {
        self.received()
            .filter(move |received| received.conn == conn)
    }

    /// The last message of this kind.
    pub fn last_received(&self, kind: &str) -> Option<&'a Received> {
        self.received()
            .rev()
            .find(|received| received.frame.kind == kind)
    }

    /// How many messages of this kind came from anybody, since the registry began.
    pub fn count(&self, kind: &str) -> u64 {
        let counts = self.0.log.counts.iter();
        counts
            .filter(|((k, _), _)| k == kind)
            .map(|(_, count)| count)
            .sum()
    }

    /// How many messages of this kind came on one connection, also after its end.
    pub fn count_on(&self, conn: ConnId, kind: &str) -> u64 {
        let key = (kind.to_owned(), conn);
        self.0.log.counts.get(&key).copied().unwrap_or(0)
    }

    /// How many setups were taken.
    pub fn setups(&self) -> u64 {
        self.0.log.setups
    }

    /// How many detections were sent.
    pub fn detections(&self) -> u64 {
        self.0.log.detections
    }
}
