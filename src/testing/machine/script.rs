//! The test as provider and operator, without the detour over HTTP.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use crate::model::{Instance, Metadata};

use super::{
    Machine, ServiceId,
    instance::{Edit, EditKey, Stored},
    services::{Edited, Publisher},
};

impl Machine {
    /// Registers an instance as a provider of its own that only the test plays: it has no
    /// connection to lose and stays until it is deregistered. The same address and cluster again
    /// replaces it. No parameter is checked, so that an instance that a server would refuse
    /// can be listed.
    pub fn register(&mut self, service: impl Into<ServiceId>, instance: &Instance, now: Instant) {
        let service = service.into();
        let stored = Stored::from(instance).completed(&service);
        let publisher = if stored.ephemeral {
            let key = stored.key();
            Publisher::Scripted(format!("{}:{}@{}", key.ip, key.port, key.cluster))
        } else {
            Publisher::Persistent(stored.key())
        };
        self.publish(&service, publisher, vec![stored], now);
        self.settle(now);
    }

    /// Lets the provider called `provider` publish exactly these instances of a service, as a
    /// batch registration of its own connection would. Two providers with one address make it listed twice.
    pub fn register_as<'a>(
        &mut self,
        provider: &str,
        service: impl Into<ServiceId>,
        instances: impl IntoIterator<Item = &'a Instance>,
        now: Instant,
    ) {
        let service = service.into();
        let instances = instances
            .into_iter()
            .map(|instance| Stored::from(instance).completed(&service))
            .collect();
        let publisher = Publisher::Scripted(provider.to_owned());
        self.publish(&service, publisher, instances, now);
        self.settle(now);
    }

    /// Takes an address (`10.0.0.3:8080`) out of a service, whoever published it, as if each of its
    /// providers had deregistered it. Whether it was there.
    pub fn deregister(
        &mut self,
        service: impl Into<ServiceId>,
        address: &str,
        now: Instant,
    ) -> bool {
        let service = service.into();
        let Some(state) = self.services.get_mut(&service) else {
            return false;
        };
        let mut found = false;
        for instances in state.publications.values_mut() {
            instances.retain(|instance| {
                let same = is_at(instance, address);
                found |= same;
                !same
            });
        }
        state
            .publications
            .retain(|_, instances| !instances.is_empty());
        if found {
            self.changed(&service, now);
            self.settle(now);
        }
        found
    }

    /// Sets what a provider says of its health, in all clusters and wherever the address is listed twice.
    /// Whether it was there.
    pub fn set_healthy(
        &mut self,
        service: impl Into<ServiceId>,
        address: &str,
        healthy: bool,
        now: Instant,
    ) -> bool {
        let service = service.into();
        let Some(state) = self.services.get_mut(&service) else {
            return false;
        };
        let mut found = false;
        for instance in state.publications.values_mut().flatten() {
            if is_at(instance, address) {
                found = true;
                Arc::make_mut(instance).healthy = healthy;
            }
        }
        if found {
            self.changed(&service, now);
            self.settle(now);
        }
        found
    }

    /// The operator takes an instance offline or lets it back: an edit, which outlives later
    /// registrations of the address. Whether it was there.
    pub fn set_enabled(
        &mut self,
        service: impl Into<ServiceId>,
        address: &str,
        enabled: bool,
        now: Instant,
    ) -> bool {
        self.edit_all(&service.into(), address, now, |edit| edit.enabled = enabled)
    }

    /// The operator sets an instance's weight, within nothing: −1 and 1e308 are kept as they are.
    /// Whether it was there.
    pub fn set_weight(
        &mut self,
        service: impl Into<ServiceId>,
        address: &str,
        weight: f64,
        now: Instant,
    ) -> bool {
        self.edit_all(&service.into(), address, now, |edit| edit.weight = weight)
    }

    /// The operator adds to an instance's metadata. Whether it was there.
    pub fn set_metadata(
        &mut self,
        service: impl Into<ServiceId>,
        address: &str,
        metadata: &Metadata,
        now: Instant,
    ) -> bool {
        self.edit_all(&service.into(), address, now, |edit| {
            let pairs = metadata.iter();
            edit.metadata
                .extend(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())));
        })
    }

    /// The operator creates or edits a service: from then on, when no more than this share of its
    /// instances is healthy, all are listed as healthy and the protection flag is up. 0.0 protects
    /// a service of which none is healthy, 1.0 always.
    pub fn set_protect_threshold(
        &mut self,
        service: impl Into<ServiceId>,
        threshold: f64,
        now: Instant,
    ) {
        let service = service.into();
        let state = self.services.entry(service.clone()).or_default();
        state.exists = true;
        state.threshold = Some(threshold);
        self.changed(&service, now);
        self.settle(now);
    }

    /// Forgets all edits of a service's instances.
    pub fn clear_edits(&mut self, service: impl Into<ServiceId>, now: Instant) {
        let service = service.into();
        if let Some(state) = self.services.get_mut(&service) {
            state.edits.clear();
            self.changed(&service, now);
            self.settle(now);
        }
    }

    /// Schedules a push of a service although nothing changed, after the usual delay.
    pub fn push_again(&mut self, service: impl Into<ServiceId>, now: Instant) {
        let delay = self.settings.push_delay;
        self.schedule_push(&service.into(), None, delay, now);
        self.settle(now);
    }

    fn edit_all(
        &mut self,
        service: &ServiceId,
        address: &str,
        now: Instant,
        change: impl Fn(&mut Edit),
    ) -> bool {
        let Some(state) = self.services.get(service) else {
            return false;
        };
        let mut found: BTreeMap<EditKey, Edit> = BTreeMap::new();
        for instance in state.publications.values().flatten() {
            if is_at(instance, address) {
                let key = instance.key();
                let standing = state.edits.get(&key).map(|edited| edited.edit.clone());
                found.entry(key).or_insert_with(|| {
                    standing.unwrap_or_else(|| Edit {
                        weight: instance.weight,
                        enabled: instance.enabled,
                        metadata: BTreeMap::new(),
                    })
                });
            }
        }
        for (key, mut edit) in found.clone() {
            change(&mut edit);
            self.edit(service, key, edit, now);
        }
        self.settle(now);
        !found.is_empty()
    }

    /// Keeps an operator's edit, whether there is such an instance or not.
    pub(super) fn edit(&mut self, service: &ServiceId, key: EditKey, edit: Edit, now: Instant) {
        let Some(state) = self.services.get_mut(service) else {
            return;
        };
        let absent_since = (!state.publishes(&key)).then_some(now);
        let edited = Edited { edit, absent_since };
        state.edits.insert(key, edited);
        self.changed(service, now);
    }
}

pub(super) fn is_at(instance: &Stored, address: &str) -> bool {
    let (ip, port) = address.rsplit_once(':').unwrap_or((address, ""));
    let ip = ip
        .strip_prefix('[')
        .and_then(|ip| ip.strip_suffix(']'))
        .unwrap_or(ip);
    instance.ip == ip && instance.port.to_string() == port
}
