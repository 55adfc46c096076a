//! What providers do, and what servers tell each other of them.

use rand::{RngExt, seq::IndexedRandom};
use tower_nacos::model::{Instance, Metadata, Weight};

use crate::{
    network::{Event, MS},
    truth::Provider,
    world::{SERVICES, World},
};

impl World {
    pub(crate) fn add_providers(&mut self) {
        for service in 0..SERVICES {
            for n in 0..self.rng.random_range(0..5u8) {
                let address = format!("10.1.{service}.{n}:80");
                let instance = Instance::parse(&address).unwrap();
                self.add_provider(service, instance.clone(), false);
                if self.rng.random_bool(0.15) {
                    let other = self.rng.random_bool(0.5);
                    let cluster = if other { "OTHER" } else { "DEFAULT" };
                    self.add_provider(service, instance.with_cluster(cluster), true);
                }
            }
        }
    }

    pub(crate) fn add_provider(&mut self, service: usize, instance: Instance, is_twin: bool) {
        let home = self.rng.random_range(0..self.servers.len());
        self.providers.push(Provider {
            service,
            instance,
            is_twin,
            home,
            alive: true,
            registered: false,
            since: self.now,
        });
        self.provider_returns(self.providers.len() - 1);
    }

    pub(crate) fn change_provider(&mut self) {
        let own = self.providers.iter().filter(|p| p.service < SERVICES);
        let own = own.count(); // they are the first
        if own == 0 {
            return;
        }
        let p = self.rng.random_range(0..own);
        let now = self.now;
        let home = &self.servers[self.providers[p].home];
        if home.frozen_until > now || self.providers[p].alive && !home.up {
            return; // its server would not hear of it
        }
        if !self.providers[p].alive {
            return self.start(p);
        }
        let instance = self.providers[p].instance.clone();
        let instance = match self.rng.random_range(0..6) {
            0..=2 => return self.stop(p),
            // Which of twins counts is no matter of weight: it would be one of history.
            3 if !self.has_twin(p) => instance.with_weight(Weight::new(0.0)),
            4 => {
                let healthy = instance.is_healthy();
                instance.with_healthy(!healthy)
            }
            _ => {
                let version = self.rng.random_range(1..4).to_string();
                let metadata: Metadata = [("version", &*version)].into_iter().collect();
                instance.with_metadata(metadata)
            }
        };
        self.providers[p].instance = instance;
        self.changed(p);
        self.provider_returns(p);
    }

    fn has_twin(&self, p: usize) -> bool {
        let address = self.providers[p].address();
        let same = self.providers.iter().filter(|p| p.address() == address);
        same.count() > 1
    }

    pub(crate) fn changed(&mut self, p: usize) {
        let provider = &mut self.providers[p];
        provider.since = self.now;
        let runs = provider.alive.then_some(&provider.instance);
        let text = format!("{} at {}: {runs:?}", provider.name(), provider.home);
        self.log(|| text);
    }

    pub(crate) fn stop(&mut self, p: usize) {
        self.providers[p].alive = false;
        self.changed(p);
        if std::mem::take(&mut self.providers[p].registered) {
            self.tell_all(p);
        }
    }

    pub(crate) fn start(&mut self, p: usize) {
        let servers = self.servers.len();
        let provider = &mut self.providers[p];
        if provider.alive {
            return;
        }
        provider.alive = true;
        let cluster = provider.instance.cluster().clone();
        provider.instance = Instance::new(provider.address().clone()).with_cluster(cluster);
        if self.servers[provider.home].dead {
            provider.home = (provider.home + 1) % servers;
        }
        self.changed(p);
        self.provider_returns(p);
    }

    /// A provider registers with its server, or with another one if that is down.
    pub(crate) fn provider_returns(&mut self, p: usize) {
        if !self.providers[p].alive {
            return;
        }
        let up = |n: &usize| self.servers[*n].up && self.servers[*n].frozen_until <= self.now;
        let home = self.providers[p].home;
        let servers: Vec<usize> = (0..self.servers.len()).filter(up).collect();
        let server = if servers.contains(&home) {
            home
        } else if let Some(other) = servers.choose(&mut self.rng) {
            *other
        } else {
            let after = self.rng.random_range(500..1_500) * MS;
            return self.later(after, Event::Return(p));
        };
        self.providers[p].home = server;
        self.providers[p].registered = true;
        self.tell_all(p);
    }

    /// The provider's own server knows at once, the others soon.
    pub(crate) fn tell_all(&mut self, p: usize) {
        let home = self.providers[p].home;
        let registered = self.providers[p].registered;
        self.list(home, p, registered);
        for server in (0..self.servers.len()).filter(|n| *n != home) {
            self.replicate_later(server, p);
        }
    }

    pub(crate) fn replicate_later(&mut self, server: usize, provider: usize) {
        let lag = self.rng.random_range(600..1_600) * MS;
        self.later(lag, Event::Replicate { server, provider });
    }

    /// A server hears from the others how a provider stands.
    pub(crate) fn replicate(&mut self, n: usize, p: usize) {
        let server = &self.servers[n];
        if server.frozen_until > self.now {
            let until = server.frozen_until;
            return self.at(
                until,
                Event::Replicate {
                    server: n,
                    provider: p,
                },
            );
        }
        let registered = self.providers[p].registered;
        let others = self
            .servers
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != n);
        let known = others
            .clone()
            .any(|(_, s)| s.up && s.lists.contains_key(&p));
        if !registered || known {
            self.list(n, p, registered);
        }
    }

    pub(crate) fn list(&mut self, n: usize, p: usize, wanted: bool) {
        let (server, provider) = (&mut self.servers[n], &self.providers[p]);
        let wanted = wanted.then_some(&provider.instance);
        if !server.up || server.lists.get(&p) == wanted {
            return;
        }
        let key = &self.keys[provider.service];
        server
            .machine
            .register_as(&provider.name(), key, wanted, self.now);
        match wanted {
            Some(instance) => {
                server.lists.insert(p, instance.clone());
                server.listed_since.entry(p).or_insert(self.now);
            }
            None => {
                server.lists.remove(&p);
                server.listed_since.remove(&p);
                server.emptied.insert(provider.service, self.now);
            }
        }
        self.disturbed = self.disturbed.max(self.now);
        let name = self.providers[p].name();
        let lists = self.servers[n].lists.contains_key(&p);
        self.log(|| format!("server {n} lists {name}: {lists}"));
        self.take_outputs(n);
    }

    pub(crate) fn forget(&mut self, p: usize) {
        if !self.providers[p].alive && self.providers[p].registered {
            self.log(|| format!("provider {p} is forgotten"));
            self.providers[p].registered = false;
            self.tell_all(p);
        }
    }
}
