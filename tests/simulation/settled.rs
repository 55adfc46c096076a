//! A whole life, and what must be true in the end.

use tower_nacos::{directory::Status, model::Instance, simulation::SimLink};

use crate::{
    client::{Came, RECONNECTED, ensure},
    network::SEC,
    users,
    world::{Checked, PERSISTENT, World},
};

impl World {
    /// Faults, then peace, then what must be true.
    pub(crate) fn live(&mut self) -> Checked {
        for client in 0..self.clients.len() {
            self.after(client, Came::Other)?;
        }
        while self.calm_since.is_none() {
            self.run(self.now + SEC * 10)?;
        }
        let calm = self.calm_since.unwrap();
        self.run(calm + RECONNECTED)?;
        for client in 0..self.clients.len() {
            ensure(self.clients[client].connected, || {
                format!("client {client} is not connected {RECONNECTED:?} after the last fault")
            })?;
        }
        // Holds end, what was refused is asked again, what was lost is read.
        self.run(calm + SEC * 150)?;
        let denials = self.denials();
        self.run(calm + SEC * 200)?;
        self.all_is_well()?;
        self.lists_are_well()?;
        self.files_are_well()?;
        // Whatever tokens came to an end, new ones came before the next requests needed them.
        ensure(self.denials() == denials, || {
            "requests are denied in peace".to_owned()
        })?;
        // A change now is seen by everybody soon.
        self.change_provider();
        self.run(self.now + SEC * 4)?;
        self.all_is_well()?;
        self.farewell()
    }

    /// Where nothing was disturbed for a while, every set is what its server lists.
    pub(crate) fn quiet_is_well(&self) -> Checked {
        let blocked = self.clients.iter().flat_map(|c| c.blocked.values());
        let frozen = self.servers.iter().map(|s| &s.frozen_until);
        let held_up = blocked
            .chain(frozen)
            .chain([&self.disturbed, &self.no_names_until]);
        let quiet = held_up.max().is_none_or(|at| *at + SEC * 8 < self.now);
        if !quiet || self.lies {
            return Ok(());
        }
        for (n, client) in self.clients.iter().enumerate().filter(|(_, c)| c.connected) {
            let Some((server, _)) = self.is_connected_to(n) else {
                continue;
            };
            if client.open_links().count() > 1 || client.open_links().any(|(_, wire)| wire.cut) {
                continue; // it does not know yet
            }
            for (service, watched) in &client.subs {
                if watched.sub.status() != Status::Fresh {
                    continue;
                }
                let listed = self.listed(*service, server);
                if let Some(why) = self.differs(watched, server, &listed) {
                    return Err(format!(
                        "client {n}: all is quiet, but of {} {why}; server {server} lists {:?}",
                        watched.key,
                        self.addresses(server, *service)
                    ));
                }
            }
        }
        Ok(())
    }

    fn all_is_well(&mut self) -> Checked {
        for client in 0..self.clients.len() {
            self.is_well(client)
                .map_err(|error| format!("client {client}: {error}"))?;
        }
        for server in 0..self.servers.len() {
            for (client, conns) in self.clients_of(server) {
                let at = self.is_connected_to(client).map(|(_, conn)| conn);
                let here = self
                    .is_connected_to(client)
                    .is_some_and(|(s, _)| s == server);
                ensure(here && conns.iter().all(|conn| Some(*conn) == at), || {
                    format!(
                        "server {server} still counts {conns:?} of client {client}, which has {at:?}"
                    )
                })?;
            }
        }
        Ok(())
    }

    fn is_well(&self, client: usize) -> Checked {
        let c = &self.clients[client];
        ensure(c.connected, || "not connected".to_owned())?;
        let open: Vec<SimLink> = c.open_links().map(|(link, _)| *link).collect();
        ensure(open.len() == 1, || format!("transports {open:?}"))?;
        let Some((server, conn)) = self.is_connected_to(client) else {
            return Err("the server does not know its connection".to_owned());
        };
        let view = self.servers[server].machine.view();
        for (service, key) in self.keys.iter().enumerate() {
            let wanted = c.subs.contains_key(&service);
            let has = view.subscribers(key).contains(&conn);
            ensure(wanted == has, || {
                format!("subscription to {key}: {has}, wanted: {wanted}")
            })?;
            let listed = self.addresses(server, service);
            for port in [80, 81] {
                let own = users::own(client, service, port);
                let published = c.publishes.get(&service).into_iter().flatten();
                let wanted = published
                    .map(Instance::address)
                    .any(|address| address == own.address());
                let has = listed.contains(&own.address().to_string());
                ensure(wanted == has, || {
                    format!(
                        "{} is published in {key}: {has}, wanted: {wanted}",
                        own.address()
                    )
                })?;
            }
        }
        for (service, watched) in &c.subs {
            let publishes = self.clients.iter().filter_map(|c| c.publishes.get(service));
            for other in publishes.flatten() {
                let snapshot = watched.sub.snapshot();
                let seen = snapshot
                    .find(other.address())
                    .map(|entry| entry.instance().weight());
                ensure(seen.is_none_or(|seen| seen == other.weight()), || {
                    format!(
                        "{} has weight {seen:?}, should be {:?}",
                        other.address(),
                        other.weight()
                    )
                })?;
            }
            let expected = self.expected(*service, server);
            if let Some(why) = self.differs(watched, server, &expected) {
                return Err(format!(
                    "{} on server {server}: {why}; the server lists {:?}; {:?} {:?}",
                    watched.key,
                    self.addresses(server, *service),
                    watched.sub.status(),
                    watched.sub.counters(),
                ));
            }
        }
        if let Some(wanted) = c.persistent.known {
            let own = users::persistent(client);
            let has = self.addresses(server, PERSISTENT);
            let has = has.contains(&own.address().to_string());
            ensure(wanted == has, || {
                format!("{} persists: {has}, wanted: {wanted}", own.address())
            })?;
        }
        if let Some((ticket, (since, what))) = c.tickets.iter().next() {
            return Err(format!(
                "ticket {ticket} ({what:?}) has no answer since {:?}",
                self.now - *since
            ));
        }
        Ok(())
    }

    fn farewell(&mut self) -> Checked {
        let now = self.now;
        for client in 0..self.clients.len() {
            self.clients[client].unit.close(now);
            self.after(client, Came::Other)?;
        }
        self.run(now + SEC * 10)?;
        for (n, client) in self.clients.iter().enumerate() {
            ensure(client.closed, || format!("client {n} does not close"))?;
            ensure(client.open_links().next().is_none(), || {
                format!("client {n} left a transport")
            })?;
            ensure(client.unit.poll_timeout().is_none(), || {
                format!("client {n} still waits")
            })?;
            let left = client.unit.still_registered();
            ensure(left.is_empty(), || format!("client {n} left {left:?}"))?;
        }
        for client in &mut self.clients {
            client.unit.close_all();
            for listed in client.lists.values_mut() {
                ensure(listed.read()?, || "a list has no end".to_owned())?;
                ensure(!listed.is_fresh(), || "it claims to be fresh".to_owned())?;
            }
        }
        for server in 0..self.servers.len() {
            let left = self.clients_of(server);
            ensure(left.is_empty(), || {
                format!("server {server} still has {left:?}")
            })?;
        }
        Ok(())
    }
}
