//! `ServiceInfo`: the list of a service's instances, in pushes and in answers.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    body::{AnyFlag, AnyNumber, LenientMetadata, LenientWeight, Text},
    common::Common,
};
use crate::model::{
    Address, DEFAULT_GROUP, Host, Instance, InvalidName, Listing, Rejected, ServiceName, Weight,
};

/// The list with hosts of type `H`: of [`RawHost`] when all is well, of `&RawValue` when one is not, one
/// `&RawValue` when they are read apart from it.
#[derive(Debug, Deserialize)]
#[serde(
    rename_all = "camelCase",
    bound(deserialize = "H: Deserialize<'de>, 'de: 'a")
)]
pub(super) struct ServiceInfo<'a, H> {
    #[serde(default, borrow)]
    name: Option<Text<'a>>,
    #[serde(default, borrow)]
    group_name: Option<Text<'a>>,
    #[serde(default)]
    last_ref_time: AnyNumber,
    #[serde(default)]
    reach_protection_threshold: AnyFlag,
    hosts: Option<H>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawHost<'a> {
    #[serde(default, borrow)]
    ip: Option<Text<'a>>,
    #[serde(default)]
    port: Option<i64>,
    #[serde(default)]
    weight: Option<LenientWeight>,
    #[serde(default)]
    healthy: Option<bool>,
    #[serde(default)]
    enabled: Option<bool>,
    #[serde(default)]
    ephemeral: Option<bool>,
    #[serde(default, borrow)]
    cluster_name: Option<Text<'a>>,
    #[serde(default)]
    metadata: Option<LenientMetadata>,
}

/// Just enough of a host to say which one it was.
#[derive(Deserialize)]
struct HostName<'a> {
    #[serde(default, borrow)]
    ip: Option<&'a RawValue>,
    #[serde(default, borrow)]
    port: Option<&'a RawValue>,
}

impl<H> ServiceInfo<'_, H> {
    /// The service that the list is of. Servers of the first generation write `group@@name` into
    /// the name.
    pub(super) fn service(&self) -> Result<ServiceName, InvalidName> {
        let name = self.name.as_ref().map_or("", |text| &text.0);
        service_of(name, self.group_name.as_ref().map(|text| &*text.0))
    }

    /// The same of an answer, whose service is known: `None` if it leaves half of the name out, or
    /// it cannot be read.
    pub(super) fn named_in_full(&self) -> Option<ServiceName> {
        let name = self.name.as_ref().filter(|name| !name.0.is_empty())?;
        let full = self
            .group_name
            .as_ref()
            .is_some_and(|group| !group.0.is_empty())
            || name.0.contains("@@");
        full.then(|| self.service().ok()).flatten()
    }

    pub(super) const fn hosts(&self) -> Option<&H> {
        self.hosts.as_ref()
    }

    pub(super) fn listing(
        &self,
        instances: Vec<Arc<Instance>>,
        rejected: Vec<Rejected>,
    ) -> Listing {
        Listing::from_parts(instances, rejected)
            .with_protected(self.reach_protection_threshold.0.unwrap_or(false))
            .with_stamp(self.last_ref_time.0.unwrap_or(0))
    }
}

/// The service of this name, in this group unless the name has its own.
pub(super) fn service_of(name: &str, group: Option<&str>) -> Result<ServiceName, InvalidName> {
    match group {
        _ if name.contains("@@") => name.parse(),
        Some(group) => ServiceName::new(group, name),
        None => ServiceName::new(DEFAULT_GROUP, name),
    }
}

impl<'a> ServiceInfo<'a, Vec<RawHost<'a>>> {
    /// The list; `None` if the message has none (`hosts: null`), which says nothing.
    pub(super) fn into_listing(mut self) -> Option<Listing> {
        let hosts = self.hosts.take()?;
        let mut instances = Vec::with_capacity(hosts.len());
        let mut rejected = Vec::new();
        let mut common = Common::default();
        for host in hosts {
            match host.into_instance(&mut common) {
                Ok(instance) => instances.push(Arc::new(instance)),
                Err(no) => rejected.push(no),
            }
        }
        Some(self.listing(instances, rejected))
    }
}

impl<'a> ServiceInfo<'a, Vec<&'a RawValue>> {
    /// The same, each host decoded on its own: one that cannot be read is left out and named.
    pub(super) fn into_listing_leniently(mut self, lossy: bool) -> Option<Listing> {
        let hosts = self.hosts.take()?;
        let mut instances = Vec::with_capacity(hosts.len());
        let mut rejected = Vec::new();
        let mut common = Common::default();
        for raw in hosts {
            if lossy && raw.get().contains(char::REPLACEMENT_CHARACTER) {
                rejected.push(Rejected::new(name_of(raw), "it is not valid UTF-8"));
                continue;
            }
            match serde_json::from_str::<RawHost<'_>>(raw.get()) {
                Ok(host) => match host.into_instance(&mut common) {
                    Ok(instance) => instances.push(Arc::new(instance)),
                    Err(no) => rejected.push(no),
                },
                Err(error) => rejected.push(Rejected::new(name_of(raw), error.to_string())),
            }
        }
        Some(self.listing(instances, rejected))
    }
}

impl RawHost<'_> {
    pub(super) fn into_instance(self, common: &mut Common) -> Result<Instance, Rejected> {
        let ip = self.ip.as_ref().map_or("", |text| &text.0);
        let port = self.port.unwrap_or(0);
        let reject = |reason: String| Rejected::new(format!("{ip}:{port}"), reason);
        let host = Host::parse(ip).map_err(|error| reject(error.what().to_owned()))?;
        let Some(port) = u16::try_from(port).ok().filter(|port| *port != 0) else {
            return Err(reject(
                "its port is not a number from 1 to 65535".to_owned(),
            ));
        };
        let cluster = self.cluster_name.as_ref().map_or("", |text| &text.0);
        Ok(
            Instance::new_in(Address::new(host, port), common.cluster(cluster))
                .with_weight(self.weight.map_or(Weight::ONE, |weight| weight.0))
                .with_healthy(self.healthy.unwrap_or(true))
                .with_enabled(self.enabled.unwrap_or(true))
                .with_ephemeral(self.ephemeral.unwrap_or(true))
                .with_metadata(common.metadata(self.metadata.unwrap_or_default().0)),
        )
    }
}

fn name_of(raw: &RawValue) -> String {
    let short = |value: Option<&RawValue>| -> String {
        let text = value.map_or("?", RawValue::get).trim_matches('"');
        text.chars().take(64).collect()
    };
    match serde_json::from_str::<HostName<'_>>(raw.get()) {
        Ok(host) => format!("{}:{}", short(host.ip), short(host.port)),
        Err(_) => raw.get().chars().take(64).collect(),
    }
}
