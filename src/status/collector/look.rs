use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{
    finding::{Finding, Found},
    registries::Followed,
    services::Service,
};
use crate::status::{
    clock::Moment,
    observe::Place,
    seen::{Seen, ServiceSeen},
    timeline::Timeline,
};

/// What is remembered from look to look.
#[derive(Default)]
pub(in crate::status) struct Collector {
    sources: Vec<Place>,
    registries: Vec<Followed>,
    services: HashMap<usize, Service>,
    timeline: Timeline,
    version: u64,
    /// Whether something was added since the last look.
    added: bool,
}

impl Collector {
    /// Looks there as well. What is there already did not just happen.
    pub(in crate::status) fn add(&mut self, source: Place, now: Moment) {
        self.added = true;
        let mut finding = Finding::default();
        if let Place::Registry(overview) = &source {
            if self.registries.iter().any(|known| known.is(overview)) {
                return;
            }
            let number = self.registries.len() + 1;
            let registry = Followed::new(overview.clone(), number, now);
            finding.add_registry(&registry);
            self.registries.push(registry);
        } else {
            finding.add(&source);
            self.sources.push(source);
        }
        for found in finding.all() {
            let services = self.services.entry(found.subscription.identity());
            let service = services.or_insert_with(|| Service::new(&found, now));
            service.begin(&found);
        }
    }

    /// Whether all registries were closed.
    pub(in crate::status) fn is_over(&self) -> bool {
        !self.registries.is_empty() && self.registries.iter().all(Followed::is_over)
    }

    /// Takes note of what changed. Says whether anything did.
    pub(in crate::status) fn look(&mut self, now: Moment) -> (Arc<Seen>, bool) {
        let before = self.timeline.last();
        let mut changed = std::mem::take(&mut self.added);
        for registry in &mut self.registries {
            changed |= registry.look(now, &mut self.timeline);
        }
        let found = self.find();
        let present: HashSet<usize> = found.iter().map(|f| f.subscription.identity()).collect();
        let known = self.services.keys().copied();
        let gone: Vec<usize> = known.filter(|key| !present.contains(key)).collect();
        for service in gone
            .iter()
            .filter_map(|key| self.services.remove(key))
            .collect::<Vec<_>>()
        {
            changed = true;
            service.end(now, &mut self.timeline);
        }
        let mut services = Vec::with_capacity(found.len());
        for found in found {
            let known = self.services.entry(found.subscription.identity());
            let service = known.or_insert_with(|| {
                let service = Service::new(&found, now);
                service.tell(now, &mut self.timeline);
                service
            });
            changed |= service.look(found, now, &mut self.timeline);
            services.push(Arc::clone(service.seen()));
        }
        services.sort_by_cached_key(|service| order(service));
        changed |= self.timeline.last() != before;
        self.version += u64::from(changed);
        let of = |number: usize| services.iter().filter(|s| s.registry == number).count();
        let registries = self.registries.iter();
        let registries = registries.map(|registry| registry.seen(of(registry.number())));
        let seen = Seen {
            version: self.version,
            registries: registries.collect(),
            services,
            timeline: self.timeline.events().cloned().collect(),
        };
        (Arc::new(seen), changed)
    }

    /// All services that there are, each once, and who picks from them.
    fn find(&mut self) -> Vec<Found> {
        self.sources.retain(|source| match source {
            Place::Balance(_, looked) => looked.strong_count() > 0,
            Place::Balances(balances) => balances.strong_count() > 0,
            Place::Registry(_) | Place::Service(_) => true,
        });
        let mut finding = Finding::default();
        for registry in &self.registries {
            finding.add_registry(registry);
        }
        for source in &self.sources {
            finding.add(source);
        }
        finding.all()
    }
}

/// By registry and name; what none knows comes last.
fn order(service: &ServiceSeen) -> (bool, usize, Arc<str>, Arc<str>) {
    let key = service.subscription.key();
    let (name, group) = (Arc::clone(key.name()), Arc::clone(key.group()));
    (service.registry == 0, service.registry, name, group)
}
