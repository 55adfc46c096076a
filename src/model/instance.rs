use std::{net::SocketAddr, sync::Arc};

use crate::model::{Address, Cidr, Host, InvalidAddress, Metadata, OwnHost, Source, Weight};

/// The cluster of instances that name none.
pub const DEFAULT_CLUSTER: &str = "DEFAULT";

/// One provider of a service, as it was registered.
///
/// The [`Address`] is its identity within the service; everything else is an attribute that may
/// change in place. What an `Instance` says is as old as the list it came from: whether it may be
/// called now is asked of a snapshot, not of this value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    address: Address,
    cluster: Arc<str>,
    weight: Weight,
    healthy: bool,
    enabled: bool,
    ephemeral: bool,
    metadata: Metadata,
    rare: Option<Arc<Rare>>,
}

/// What few instances have, so that the others need no room for it.
#[derive(Debug, PartialEq, Eq)]
struct Rare {
    also_in: Box<[Arc<str>]>,
    source: Option<Arc<Source>>,
}

impl Instance {
    /// An instance with Nacos's defaults: cluster `DEFAULT`, weight 1, healthy, enabled, ephemeral.
    pub fn new(address: Address) -> Self {
        Self::new_in(address, DEFAULT_CLUSTER.into())
    }

    /// The same in another cluster, of which nothing is copied.
    pub(crate) fn new_in(address: Address, cluster: Arc<str>) -> Self {
        Self {
            address,
            cluster,
            weight: Weight::ONE,
            healthy: true,
            enabled: true,
            ephemeral: true,
            metadata: Metadata::new(),
            rare: None,
        }
    }

    /// Reads the address and takes the defaults of [`Instance::new`].
    pub fn parse(address: &str) -> Result<Self, InvalidAddress> {
        address.parse().map(Self::new)
    }

    /// This machine on `port`, to be registered: its address is found when that is done.
    ///
    /// It is the one that this machine's connection to the registry leaves from, which others who
    /// reach the registry reach as a rule. Where that is not so, as behind NAT or with a network for
    /// calls alone, [`on_interface`](Self::on_interface) and [`in_network`](Self::in_network) say which;
    /// a container that is called by its host's address has to be told it.
    ///
    /// Not connected yet, it is found once there is a connection. It is looked for again with each
    /// connection, and when it is registered again: if it is another then, that one takes the place of
    /// the former, and if there is none any more, the former is announced on, with a warning.
    pub fn on_port(port: u16) -> Self {
        Self::new(Address::new(Host::Own(OwnHost::link()), port))
    }

    /// As [`on_port`](Self::on_port), with the address of the interface of this name: `eth1`.
    ///
    /// Of several the one that the registry sees, else the first of that one's family.
    pub fn on_interface(name: &str, port: u16) -> Self {
        Self::new(Address::new(Host::Own(OwnHost::interface(name)), port))
    }

    /// As [`on_port`](Self::on_port), with this machine's address in a network: `10.1.0.0/16`.
    pub fn in_network(network: Cidr, port: u16) -> Self {
        Self::new(Address::new(Host::Own(OwnHost::network(network)), port))
    }

    /// Sets the address.
    #[must_use]
    pub(crate) fn with_address(mut self, address: Address) -> Self {
        self.address = address;
        self
    }

    /// Sets the cluster.
    #[must_use]
    pub fn with_cluster(mut self, cluster: impl Into<Arc<str>>) -> Self {
        self.cluster = cluster.into();
        self
    }

    /// Sets the cluster to an equal one.
    pub(crate) fn set_cluster(&mut self, cluster: Arc<str>) {
        self.cluster = cluster;
    }

    /// Sets the weight, brought into range as [`Weight`] says.
    #[must_use]
    pub fn with_weight(mut self, weight: impl Into<Weight>) -> Self {
        self.weight = weight.into();
        self
    }

    /// Sets whether the instance says that it is well.
    #[must_use]
    pub const fn with_healthy(mut self, healthy: bool) -> Self {
        self.healthy = healthy;
        self
    }

    /// Sets whether an operator lets the instance take calls.
    #[must_use]
    pub const fn with_enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// Sets whether the registration lives and dies with its connection.
    #[must_use]
    pub const fn with_ephemeral(mut self, ephemeral: bool) -> Self {
        self.ephemeral = ephemeral;
        self
    }

    /// Sets the metadata.
    #[must_use]
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }

    /// Sets further clusters that list the same address; empty for none.
    #[must_use]
    pub(crate) fn with_also_in(mut self, clusters: Vec<Arc<str>>) -> Self {
        let source = self.rare.and_then(|rare| rare.source.clone());
        self.rare = Rare::of(clusters.into(), source);
        self
    }

    /// Sets which source of a merged subscription it is from.
    #[must_use]
    pub(crate) fn with_source(mut self, source: Arc<Source>) -> Self {
        let also_in = self.rare.map(|rare| rare.also_in.clone());
        self.rare = Rare::of(also_in.unwrap_or_default(), Some(source));
        self
    }

    /// Its identity within the service.
    pub const fn address(&self) -> &Address {
        &self.address
    }

    /// The Nacos cluster it belongs to.
    pub const fn cluster(&self) -> &Arc<str> {
        &self.cluster
    }

    /// Whether it belongs to `cluster`. One address listed in two clusters is one instance and
    /// belongs to both, so ask this rather than compare [`cluster`](Self::cluster).
    pub fn is_in_cluster(&self, cluster: &str) -> bool {
        *self.cluster == *cluster
            || self
                .rare
                .as_ref()
                .is_some_and(|rare| rare.also_in.iter().any(|other| **other == *cluster))
    }

    /// Further clusters that list the same address.
    pub(crate) fn also_in(&self) -> impl Iterator<Item = &Arc<str>> {
        self.rare.iter().flat_map(|rare| rare.also_in.iter())
    }

    /// Which source of a merged subscription it is from, as long as that lists it: of several that do the
    /// one of the lowest tier, then the first. `None` where nothing was merged
    /// ([`Subscription::merge`](crate::Subscription::merge)).
    pub fn source(&self) -> Option<&Source> {
        self.rare.as_ref()?.source.as_deref()
    }

    /// The share of calls it asks for.
    pub const fn weight(&self) -> Weight {
        self.weight
    }

    /// Whether the list said that it is well.
    ///
    /// While a server's protection rule is in force this is `true` of every instance and means
    /// nothing; the snapshot's mode tells.
    pub const fn is_healthy(&self) -> bool {
        self.healthy
    }

    /// Whether it may take calls at all. Servers leave disabled instances out of their lists; a
    /// server before 2.1.1 did not in its answers to a subscription.
    pub const fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Whether the registration lives and dies with its provider's connection.
    pub const fn is_ephemeral(&self) -> bool {
        self.ephemeral
    }

    /// What the provider said about itself.
    pub const fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}

impl Rare {
    /// None where there is nothing of it, so that equal instances are.
    fn of(also_in: Box<[Arc<str>]>, source: Option<Arc<Source>>) -> Option<Arc<Self>> {
        let is_any = !also_in.is_empty() || source.is_some();
        is_any.then(|| Arc::new(Self { also_in, source }))
    }
}

impl From<SocketAddr> for Instance {
    fn from(addr: SocketAddr) -> Self {
        Self::new(addr.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten thousand of them are in memory at once, each behind two counts.
    #[test]
    fn an_instance_is_small() {
        assert!(size_of::<Instance>() <= 88, "{}", size_of::<Instance>());
    }
}
