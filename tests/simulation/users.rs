//! What the clients' users do.

use rand::RngExt;
use tower_nacos::model::{Address, Instance};

use crate::{
    client::{Came, Ticket, Watched},
    world::{Checked, SERVICES, World},
};

impl World {
    pub(crate) fn subscribe(&mut self, client: usize, service: usize) {
        let (now, key) = (self.now, self.keys[service].clone());
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
        if self.clients[client].subs.remove(&service).is_some() {
            self.clients[client].unit.unsubscribe(&key, now);
            self.after(client, Came::Other)?;
        }
        if again {
            self.subscribe(client, service);
        }
        self.after(client, Came::Other)
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
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        let c = &mut self.clients[client];
        if c.publishes.remove(&service).is_some() {
            c.tickets.insert(ticket, (now, Ticket::Deregister(service)));
            c.unit.deregister(ticket, &key, now);
        } else {
            let address: Address = format!("10.2.{client}.{service}:80").parse().unwrap();
            c.publishes.insert(service, address.clone());
            c.unsure.remove(&service);
            c.tickets.insert(ticket, (now, Ticket::Register(service)));
            c.unit.register(ticket, &key, Instance::new(address), now);
        }
        self.log(|| format!("client {client} toggles its publication in {key}"));
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
