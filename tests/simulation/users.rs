//! What the clients' users do.

use std::time::Instant;

use rand::RngExt;
use tower_nacos::model::{Instance, Weight};

use crate::{
    client::{Came, Ticket, Watched},
    network::SEC,
    world::{Checked, PERSISTENT, SERVICES, World},
};

impl World {
    pub(crate) fn subscribe(&mut self, client: usize, service: usize) {
        let (now, key) = (self.now, self.keys[service].clone());
        // As a process that starts from its cache, perhaps long after the one before it.
        let sub = self.clients[client].unit.subscribe(&key, now);
        let watched = Watched::new(key, sub);
        self.clients[client].subs.insert(service, watched);
    }

    pub(crate) fn toggle_subscription(&mut self) -> Checked {
        let client = self.some_client();
        let service = self.rng.random_range(0..SERVICES);
        let now = self.now;
        let key = self.keys[service].clone();
        let again = self.rng.random_bool(0.8);
        self.log(|| format!("client {client} toggles {key}, again: {again}"));
        let c = &mut self.clients[client];
        if let Some(watched) = c.subs.remove(&service) {
            c.disk.note(&watched, now);
            self.clients[client].unit.unsubscribe(&key, now);
            self.after(client, Came::Other)?;
        }
        if again {
            self.subscribe(client, service);
        }
        self.after(client, Came::Other)
    }

    /// As a process that ends and the next one, which knows what is on disk.
    pub(crate) fn starts(&mut self, client: usize) -> Checked {
        if self.clients[client].closed || self.calm_since.is_some() {
            return Ok(());
        }
        self.log(|| format!("client {client} starts"));
        let now = self.now;
        let services: Vec<usize> = self.clients[client].subs.keys().copied().collect();
        for service in &services {
            let c = &mut self.clients[client];
            if let Some(watched) = c.subs.remove(service) {
                c.disk.note(&watched, now);
                c.unit.unsubscribe(&watched.key, now);
            }
            self.after(client, Came::Other)?;
        }
        for service in services {
            self.subscribe(client, service);
            self.after(client, Came::Other)?;
        }
        self.disturbed = self.disturbed.max(now);
        Ok(())
    }

    pub(crate) fn toggle_publication(&mut self) -> Checked {
        let client = self.some_client();
        // Other servers would have to hear of it: only the redo matters there.
        let service = if self.servers.len() == 1 {
            self.rng.random_range(0..SERVICES)
        } else {
            SERVICES - 1
        };
        let (now, key) = (self.now, self.keys[service].clone());
        let now_published = self.clients[client].publishes.get(&service).cloned();
        let what = self.rng.random_range(0..6);
        if let Some(instances) = now_published {
            match what {
                // Both addresses at once, or the one again.
                0 if self.rng.random_bool(0.5) => {
                    let both = [80, 81].map(|port| own(client, service, port));
                    self.publish(client, service, both.to_vec(), now);
                }
                // Another weight, the same again, or back to the one before.
                0 | 1 => {
                    let weight = Weight::new(f64::from(self.rng.random_range(1..4)));
                    let instances = instances.into_iter();
                    let instances = instances.map(|i| i.with_weight(weight)).collect();
                    self.publish(client, service, instances, now);
                }
                2 | 3 => self.withdraw(client, service, now),
                // To another address.
                _ => {
                    let port = 161 - instances[0].address().port(); // 80 and 81
                    self.withdraw(client, service, now);
                    if what == 5 {
                        self.after(client, Came::Other)?;
                    }
                    self.publish(client, service, vec![own(client, service, port)], now);
                }
            }
        } else {
            self.publish(client, service, vec![own(client, service, 80)], now);
        }
        self.log(|| format!("client {client} changes its publication in {key}: {what}"));
        self.after(client, Came::Other)
    }

    fn publish(&mut self, client: usize, service: usize, wanted: Vec<Instance>, now: Instant) {
        self.last_ticket += 1;
        let (ticket, key) = (self.last_ticket, self.keys[service].clone());
        let c = &mut self.clients[client];
        let before = c.publishes.insert(service, wanted.clone());
        let what = Ticket::Register(service, wanted.clone());
        c.tickets.insert(ticket, (now, what));
        match &wanted[..] {
            [one] if before.is_none_or(|before| before.len() == 1) => {
                c.unit.register(ticket, &key, one.clone(), now);
            }
            _ => c.unit.register_batch(ticket, &key, wanted, now),
        }
    }

    fn withdraw(&mut self, client: usize, service: usize, now: Instant) {
        self.last_ticket += 1;
        let (ticket, key) = (self.last_ticket, self.keys[service].clone());
        let c = &mut self.clients[client];
        c.publishes.remove(&service);
        c.confirmed.remove(&service);
        c.tickets.insert(ticket, (now, Ticket::Deregister));
        c.unit.deregister(ticket, &key, now);
    }

    /// A persistent instance comes, or goes. Other servers would have to hear of it, and nobody can
    /// tell what is late: so there is one server, and a while between one and the next.
    pub(crate) fn persist(&mut self) -> Checked {
        let client = self.some_client();
        let (now, key) = (self.now, self.keys[PERSISTENT].clone());
        let c = &mut self.clients[client];
        let last = [c.persistent.last, self.held_up.1];
        if self.servers.len() > 1
            || c.persistent.pending
            || last.iter().any(|at| *at + SEC * 20 > now)
        {
            return Ok(());
        }
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        let on = c.persistent.known != Some(true);
        c.persistent.known = None;
        c.persistent.pending = true;
        c.tickets.insert(ticket, (now, Ticket::Persist(on)));
        c.unit.persist(ticket, &key, persistent(client), on, now);
        self.log(|| format!("client {client} persists: {on}"));
        self.after(client, Came::Other)
    }

    pub(crate) fn query(&mut self) -> Checked {
        let client = self.some_client();
        let service = self.rng.random_range(0..SERVICES);
        self.last_ticket += 1;
        let (now, ticket) = (self.now, self.last_ticket);
        let c = &mut self.clients[client];
        c.tickets.insert(ticket, (now, Ticket::Query));
        c.unit.query(ticket, &self.keys[service], now);
        self.after(client, Came::Other)
    }
}

/// One of the two addresses that a client publishes in a service.
pub(crate) fn own(client: usize, service: usize, port: u16) -> Instance {
    Instance::parse(&format!("10.2.{client}.{service}:{port}")).unwrap()
}

/// The persistent instance of a client.
pub(crate) fn persistent(client: usize) -> Instance {
    own(client, PERSISTENT, 90).with_ephemeral(false)
}
