use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Instant,
};

use super::{
    ConnId, Machine, ServiceId,
    instance::{Edit, EditKey, Stored},
};

/// Who published instances, and with whom they go.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Publisher {
    /// A client, through its connection.
    Connection(ConnId),
    /// A provider that the test plays, by name.
    Scripted(String),
    /// Nobody: a persistent instance stays until it is deregistered.
    Persistent(EditKey),
}

/// One service.
#[derive(Debug, Default)]
pub(super) struct Service {
    /// Whether it exists for the service list; one that is only subscribed does not.
    pub(super) exists: bool,
    /// Whether those who watch patterns are told that there is one: while it has an instance.
    pub(super) listed: bool,
    pub(super) persistent: bool,
    pub(super) publications: BTreeMap<Publisher, Vec<Arc<Stored>>>,
    /// The instances as of the last push task: what reads are answered from.
    pub(super) data: Option<Arc<Vec<Arc<Stored>>>>,
    /// The protection threshold, if the service was created or edited by an operator.
    pub(super) threshold: Option<f64>,
    /// The service's own metadata, if an operator set some.
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) edits: BTreeMap<EditKey, Edited>,
    /// The clusters that each connection subscribed to, "" for all.
    pub(super) subscribers: BTreeMap<ConnId, String>,
    pub(super) task: Option<PushTask>,
    pub(super) empty_since: Option<Instant>,
    flipped: bool,
}

#[derive(Debug)]
pub(super) struct Edited {
    pub(super) edit: Edit,
    pub(super) absent_since: Option<Instant>,
}

/// A push that is due.
#[derive(Debug)]
pub(super) struct PushTask {
    pub(super) due: Instant,
    /// To whom; `None` is everybody who subscribes when it runs.
    pub(super) to: Option<BTreeSet<ConnId>>,
}

impl Service {
    /// Recomputes what reads and pushes show. Each time in another order, as real servers do, so
    /// that twins change places.
    pub(super) fn refresh(&mut self, seed: u64) -> Arc<Vec<Arc<Stored>>> {
        let mut list: Vec<(u64, Arc<Stored>)> = self
            .publications
            .iter()
            .flat_map(|(publisher, instances)| instances.iter().map(move |i| (publisher, i)))
            .map(|(publisher, instance)| {
                let mut hasher = DefaultHasher::new();
                (
                    seed,
                    publisher,
                    &instance.ip,
                    instance.port,
                    &instance.cluster,
                )
                    .hash(&mut hasher);
                let shown = match self.edits.get(&instance.key()) {
                    Some(edited) => Arc::new(instance.edited(&edited.edit)),
                    None => instance.clone(),
                };
                (hasher.finish(), shown)
            })
            .collect();
        list.sort_by_key(|(position, _)| *position);
        if self.flipped {
            list.reverse();
        }
        self.flipped = !self.flipped;
        let list: Arc<Vec<_>> = Arc::new(list.into_iter().map(|(_, instance)| instance).collect());
        self.data = self.exists.then(|| list.clone());
        list
    }

    pub(super) fn publishes(&self, key: &EditKey) -> bool {
        self.publications
            .values()
            .flatten()
            .any(|instance| instance.key() == *key)
    }

    fn is_forgotten(&self) -> bool {
        !self.exists
            && self.publications.is_empty()
            && self.subscribers.is_empty()
            && self.edits.is_empty()
            && self.threshold.is_none()
            && self.task.is_none()
    }
}

impl Machine {
    /// Replaces what `publisher` publishes of a service, and lets subscribers know.
    pub(super) fn publish(
        &mut self,
        service: &ServiceId,
        publisher: Publisher,
        instances: Vec<Stored>,
        now: Instant,
    ) {
        self.check_from_now(&instances, now);
        let state = self.services.entry(service.clone()).or_default();
        let had = state.publications.remove(&publisher).is_some();
        if instances.is_empty() {
            if !had {
                return;
            }
        } else {
            if !state.exists {
                state.exists = true;
                state.persistent = instances.iter().all(|instance| !instance.ephemeral);
            }
            let instances = instances.into_iter().map(Arc::new).collect();
            state.publications.insert(publisher, instances);
        }
        self.changed(service, now);
    }

    /// Notes who is gone and who is back, and schedules the push.
    pub(super) fn changed(&mut self, service: &ServiceId, now: Instant) {
        let Some(state) = self.services.get_mut(service) else {
            return;
        };
        if state.publications.is_empty() {
            state.empty_since = Some(now);
        } else {
            state.empty_since = None;
        }
        if !state.edits.is_empty() {
            let present: BTreeSet<EditKey> = state
                .publications
                .values()
                .flatten()
                .map(|instance| instance.key())
                .collect();
            for (key, edited) in &mut state.edits {
                if present.contains(key) {
                    edited.absent_since = None;
                } else {
                    edited.absent_since.get_or_insert(now);
                }
            }
        }
        let listed = !state.publications.is_empty();
        let was_listed = std::mem::replace(&mut state.listed, listed);
        self.schedule_push(service, None, self.settings.push_delay, now);
        if listed != was_listed {
            self.fuzzy_changed(service, listed, now);
        }
    }

    /// Drops empty services and expired edits.
    pub(super) fn clean_services(&mut self, now: Instant) {
        let settings = &self.settings;
        self.services.retain(|_, state| {
            if state.exists
                && state
                    .empty_since
                    .is_some_and(|t| t + settings.empty_service <= now)
            {
                state.exists = false;
                state.data = None;
                state.threshold = None;
                state.empty_since = None;
            }
            state.edits.retain(|_, edited| {
                edited
                    .absent_since
                    .is_none_or(|t| t + settings.edit_expiry > now)
            });
            !state.is_forgotten()
        });
    }

    pub(super) fn next_cleaning(&self) -> Option<Instant> {
        self.services
            .values()
            .flat_map(|state| {
                let empty = state
                    .exists
                    .then_some(state.empty_since)
                    .flatten()
                    .map(|t| t + self.settings.empty_service);
                let edits = state
                    .edits
                    .values()
                    .filter_map(|edited| edited.absent_since)
                    .map(|t| t + self.settings.edit_expiry);
                empty.into_iter().chain(edits)
            })
            .min()
    }
}
