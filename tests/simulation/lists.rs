//! Lists of services, and what must hold of them after every step.

use std::{
    collections::BTreeSet,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Instant,
};

use rand::{RngExt, seq::IndexedRandom};
use tower_nacos::{
    directory::{ServiceChange, ServiceChanges, ServiceList, ServiceNames},
    model::{Instance, ServiceFilter, ServiceName},
};

use crate::{
    client::{Came, ensure},
    network::SEC,
    truth::Provider,
    world::{Checked, LISTED, PERSISTENT, World},
};

/// A list that a client keeps, and who reads what changes in it.
pub(crate) struct Listed {
    pub(crate) filter: ServiceFilter,
    list: ServiceList,
    changes: ServiceChanges,
    /// What the reader put together.
    mine: BTreeSet<ServiceName>,
    last: Arc<ServiceNames>,
    /// Whether there was a connection in the step before.
    connected: bool,
    steps: u32,
}

/// A reader looks now and then.
const LOOKS: u32 = 7;

/// The filters that lists are kept of: all that there is in the group, those that come and go, and few
/// of them.
pub(crate) fn filters() -> [ServiceFilter; 3] {
    let group = || ServiceFilter::group("DEFAULT_GROUP");
    [group(), group().name("l*"), group().name("l0*")]
}

impl Listed {
    pub(crate) fn new(filter: ServiceFilter, list: ServiceList) -> Self {
        Self {
            filter,
            changes: list.changes(),
            mine: BTreeSet::new(),
            last: list.snapshot(),
            list,
            connected: true,
            steps: 0,
        }
    }

    /// Takes in what the list is now. `serves` says whether a service has surely been there for a while.
    pub(crate) fn check(
        &mut self,
        connected: bool,
        serves: impl Fn(&ServiceName) -> bool,
    ) -> Checked {
        let filter = &self.filter;
        let next = self.list.snapshot();
        ensure(connected || !next.is_fresh(), || {
            format!("{filter} is fresh without a connection")
        })?;
        ensure(next.is_known() || !self.last.is_known(), || {
            format!("{filter} was known and is not")
        })?;
        // What was told before the loss may be seen with it.
        let tells = std::mem::replace(&mut self.connected, connected) || connected;
        if !Arc::ptr_eq(&next, &self.last) {
            let before = std::mem::replace(&mut self.last, Arc::clone(&next));
            ensure(tells || next.revision() == before.revision(), || {
                format!("{filter} changes although nobody tells")
            })?;
            ensure(next.iter().is_sorted(), || {
                format!("{filter} is not sorted")
            })?;
            let held = next.held().iter().all(|name| next.contains(name));
            ensure(held, || format!("{filter}: {:?} of {next:?}", next.held()))?;
            for name in before.iter().filter(|name| !next.contains(name)) {
                ensure(!serves(name), || {
                    format!("{name} is taken for gone, and is there ({filter})")
                })?;
            }
        }
        self.steps += 1;
        if self.steps.is_multiple_of(LOOKS) {
            self.read()?;
        }
        Ok(())
    }

    pub(crate) fn is_fresh(&self) -> bool {
        self.list.snapshot().is_fresh()
    }

    /// Reads all that changed: nothing is told twice. True if it was the end.
    pub(crate) fn read(&mut self) -> Result<bool, String> {
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            let next = pin!(self.changes.next()).poll(&mut cx);
            let (service, told) = match next {
                Poll::Pending => break,
                Poll::Ready(None) => return Ok(true),
                Poll::Ready(Some(ServiceChange::Added(service))) => {
                    (service.clone(), self.mine.insert(service))
                }
                Poll::Ready(Some(ServiceChange::Removed(service))) => {
                    (service.clone(), self.mine.remove(&service))
                }
                Poll::Ready(Some(other)) => return Err(format!("{other:?}")),
            };
            ensure(told, || {
                format!("{service} is told twice ({})", self.filter)
            })?;
        }
        let names = self.list.snapshot();
        ensure(self.mine.iter().eq(names.iter()), || {
            format!(
                "of {} a reader has {:?}, and there is {:?}",
                self.filter, self.mine, names
            )
        })?;
        Ok(false)
    }

    /// What must be true in the end: everything that comes and goes is as the server has it, and of the
    /// rest nothing is missing that has an instance.
    fn is_well(&mut self, has: &BTreeSet<ServiceName>, pool: &BTreeSet<ServiceName>) -> Checked {
        self.read()?;
        let (filter, names) = (&self.filter, self.list.snapshot());
        ensure(names.is_fresh() && names.held().is_empty(), || {
            format!("{filter} is {names:?}")
        })?;
        let has: BTreeSet<_> = has.iter().filter(|name| filter.matches(name)).collect();
        let listed: BTreeSet<_> = names.iter().collect();
        let missing: Vec<_> = has.difference(&listed).collect();
        let extra = listed.difference(&has);
        let extra: Vec<_> = extra.filter(|name| pool.contains(**name)).collect();
        ensure(missing.is_empty() && extra.is_empty(), || {
            format!("{filter} lacks {missing:?} and has {extra:?}")
        })
    }
}

impl World {
    /// Services that come and go, each with one instance.
    pub(crate) fn add_listed(&mut self) {
        for n in 0..LISTED {
            let address = format!("10.3.0.{n}:80");
            let instance = Instance::parse(&address).unwrap();
            self.add_provider(PERSISTENT + 1 + n, instance, false);
        }
    }

    pub(crate) fn watch(&mut self, client: usize, filter: usize) {
        let (now, wanted) = (self.now, filters()[filter].clone());
        let c = &mut self.clients[client];
        let list = c.unit.watch(&wanted, now);
        c.lists.insert(filter, Listed::new(wanted, list));
    }

    pub(crate) fn toggle_list(&mut self) -> Checked {
        let client = self.some_client();
        let filter = self.rng.random_range(0..filters().len());
        let again = self.rng.random_bool(0.8);
        self.log(|| format!("client {client} toggles list {filter}, again: {again}"));
        let now = self.now;
        if let Some(listed) = self.clients[client].lists.remove(&filter) {
            self.clients[client].unit.unwatch(&listed.filter, now);
            self.after(client, Came::Other)?;
        }
        if again {
            self.watch(client, filter);
        }
        self.after(client, Came::Other)
    }

    /// One of the services comes or goes, or several.
    pub(crate) fn change_services(&mut self) {
        let pool: Vec<usize> = (0..self.providers.len())
            .filter(|p| self.providers[*p].service > PERSISTENT)
            .collect();
        for _ in 0..self.rng.random_range(1..6) {
            let p = *pool.choose(&mut self.rng).unwrap();
            let home = &self.servers[self.providers[p].home];
            if home.frozen_until > self.now || self.providers[p].alive && !home.up {
                continue; // its server would not hear of it
            }
            if self.providers[p].alive {
                self.stop(p);
            } else {
                self.start(p);
            }
        }
    }

    /// Which services surely are there for a while, by what is `known`.
    pub(crate) fn serves(providers: &[Provider], known: Instant, name: &ServiceName) -> bool {
        let of = |p: &&Provider| p.service > PERSISTENT && pool_name(p.service) == **name.name();
        let of = providers.iter().find(of);
        of.is_some_and(|p| p.alive && p.since <= known)
    }

    /// Where the end has come, every list is what its server has.
    pub(crate) fn lists_are_well(&mut self) -> Checked {
        for client in 0..self.clients.len() {
            let Some((server, _)) = self.is_connected_to(client) else {
                continue;
            };
            let keys = self.keys.iter().enumerate();
            let there = keys.clone();
            let there = there.filter(|(n, _)| !self.addresses(server, *n).is_empty());
            let has = there.map(|(_, key)| name_of(key.name())).collect();
            // A service that was just emptied is listed on for a minute, and two passes miss it then.
            let emptied = &self.servers[server].emptied;
            let over = |n: &usize| emptied.get(n).is_none_or(|at| *at + SEC * 100 < self.now);
            let pool = keys.filter(|(n, _)| *n > PERSISTENT && over(n));
            let pool = pool.map(|(_, key)| name_of(key.name())).collect();
            for listed in self.clients[client].lists.values_mut() {
                listed
                    .is_well(&has, &pool)
                    .map_err(|error| format!("client {client}, server {server}: {error}"))?;
            }
        }
        Ok(())
    }
}

/// What the service of this number is called.
pub(crate) fn pool_name(service: usize) -> String {
    format!("l{:02}", service - PERSISTENT - 1)
}

fn name_of(name: &str) -> ServiceName {
    name.parse().unwrap()
}
