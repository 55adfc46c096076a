//! What the session's machine says, told to the local copy of each service. No I/O and no clock,
//! so that the simulation runs what the driver runs.

use std::{
    collections::{HashMap, HashSet},
    time::Instant,
};

use crate::{
    directory::{self, Writer},
    model::{Listing, ServiceKey},
    session,
};

/// The writers of one client's services.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    writers: HashMap<ServiceKey, Writer>,
    /// Services whose writer wants to be woken by time, which is rare.
    timed: HashSet<ServiceKey>,
    connected: bool,
}

impl Copies {
    /// A service is subscribed from now on.
    pub(crate) fn open(&mut self, key: ServiceKey, mut writer: Writer, now: Instant) {
        if self.connected {
            writer.handle_connected(now);
        }
        self.writers.insert(key, writer);
    }

    /// A service is no longer subscribed: its copy closes.
    pub(crate) fn close(&mut self, key: &ServiceKey) {
        self.writers.remove(key);
        self.timed.remove(key);
    }

    /// The end: every copy closes.
    pub(crate) fn close_all(&mut self) {
        self.timed.clear();
        for (_, writer) in self.writers.drain() {
            writer.close();
        }
    }

    /// A list came.
    pub(crate) fn apply(
        &mut self,
        key: &ServiceKey,
        listing: Listing,
        origin: session::Origin,
        received: Instant,
    ) {
        let Some(writer) = self.writers.get_mut(key) else {
            return;
        };
        let origin = match origin {
            session::Origin::Push => directory::Origin::Push,
            session::Origin::FirstAnswer => directory::Origin::FirstAnswer,
            session::Origin::Read => directory::Origin::Read,
        };
        writer.apply(listing, origin, received);
        self.note_timer(key);
    }

    /// Something that cannot be read came about a service.
    pub(crate) fn undecodable(&mut self, key: &ServiceKey, reason: &str, now: Instant) {
        if let Some(writer) = self.writers.get_mut(key) {
            writer.handle_undecodable(reason, now);
        }
    }

    /// The session is connected, for the first time, again, or to another server.
    pub(crate) fn handle_connected(&mut self, now: Instant) {
        self.connected = true;
        self.writers
            .values_mut()
            .for_each(|writer| writer.handle_connected(now));
        self.note_timers();
    }

    /// It is not connected any longer.
    pub(crate) fn handle_disconnected(&mut self, now: Instant) {
        self.connected = false;
        self.writers
            .values_mut()
            .for_each(|writer| writer.handle_disconnected(now));
        self.note_timers();
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.timed
            .iter()
            .filter_map(|key| self.writers.get(key)?.poll_timeout())
            .min()
    }

    /// Time passed. Returns the services to be read, because what is held there is about to go.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Vec<ServiceKey> {
        let mut reads = Vec::new();
        for key in self.timed.clone() {
            if let Some(writer) = self.writers.get_mut(&key)
                && writer.poll_timeout().is_some_and(|at| at <= now)
            {
                writer.handle_timeout(now);
                if writer.take_read_wanted() {
                    reads.push(key.clone());
                }
            }
            self.note_timer(&key);
        }
        reads
    }

    fn note_timers(&mut self) {
        for key in self.writers.keys().cloned().collect::<Vec<_>>() {
            self.note_timer(&key);
        }
    }

    fn note_timer(&mut self, key: &ServiceKey) {
        let timer = self.writers.get(key).and_then(Writer::poll_timeout);
        match timer {
            Some(_) => self.timed.insert(key.clone()),
            None => self.timed.remove(key),
        };
    }
}
