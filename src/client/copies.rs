//! What the session's machine says, told to the local copy of each service. No I/O and no clock,
//! so that the simulation runs what the driver runs.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::{
    directory::Writer,
    model::{Listing, Origin, ServiceKey},
    session::{LinkId, Timers},
};

/// The writers of one client's services.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    writers: HashMap<ServiceKey, Writer>,
    /// When a service's writer wants to be woken, if it does.
    timers: Timers<ServiceKey>,
    /// Services that a writer wants read: what is held there is about to go.
    reads: Vec<ServiceKey>,
    link: Option<LinkId>,
}

impl Copies {
    /// A service is subscribed from now on.
    pub(crate) fn open(&mut self, key: ServiceKey, mut writer: Writer, now: Instant) {
        if let Some(link) = self.link {
            writer.handle_connection(link.number(), now);
        }
        self.writers.insert(key, writer);
    }

    /// A service is no longer subscribed: its copy closes.
    pub(crate) fn close(&mut self, key: &ServiceKey) {
        self.writers.remove(key);
        self.timers.stop(key);
    }

    /// The end: every copy closes.
    pub(crate) fn close_all(&mut self) {
        self.timers.stop_all();
        for (_, writer) in self.writers.drain() {
            writer.close();
        }
    }

    /// How many there are.
    #[cfg(feature = "testing")]
    pub(crate) fn len(&self) -> usize {
        self.writers.len()
    }

    /// A list came on `link`.
    pub(crate) fn apply(
        &mut self,
        link: LinkId,
        key: &ServiceKey,
        listing: Listing,
        origin: Origin,
        received: Instant,
    ) {
        if let Some(writer) = self.writers.get_mut(key) {
            writer.apply_from(link.number(), listing, origin, received);
            self.look_after(key);
        }
    }

    /// What a process before this one kept of a service.
    pub(crate) fn restore(
        &mut self,
        key: &ServiceKey,
        listing: Listing,
        age: Duration,
        now: Instant,
    ) {
        if let Some(writer) = self.writers.get_mut(key) {
            writer.restore(listing, age, now);
            self.look_after(key);
        }
    }

    /// Something that cannot be read came about a service.
    pub(crate) fn undecodable(&mut self, key: &ServiceKey, reason: &str, now: Instant) {
        if let Some(writer) = self.writers.get_mut(key) {
            writer.handle_undecodable(reason, now);
        }
    }

    /// The session is connected, for the first time, again, or to another server.
    pub(crate) fn handle_connected(&mut self, link: LinkId, now: Instant) {
        self.link = Some(link);
        for writer in self.writers.values_mut() {
            writer.handle_connection(link.number(), now);
        }
        self.look_after_all();
    }

    /// It is not connected any longer.
    pub(crate) fn handle_disconnected(&mut self, now: Instant) {
        if self.link.take().is_none() {
            return; // it has not been since
        }
        for writer in self.writers.values_mut() {
            writer.handle_disconnected(now);
        }
        self.look_after_all();
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Time passed.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some(key) = self.timers.expired(now) {
            if let Some(writer) = self.writers.get_mut(&key) {
                // What consumers reported since may have made it needless.
                if writer.poll_timeout().is_some_and(|at| at <= now) {
                    writer.handle_timeout(now);
                }
                self.look_after(&key);
            }
        }
    }

    /// The next service to be read, until there is none.
    pub(crate) fn take_read(&mut self) -> Option<ServiceKey> {
        self.reads.pop()
    }

    fn look_after_all(&mut self) {
        for key in self.writers.keys().cloned().collect::<Vec<_>>() {
            self.look_after(&key);
        }
    }

    /// Whatever happened to a writer, a read may be due, and its timer is another.
    pub(crate) fn look_after(&mut self, key: &ServiceKey) {
        let Some(writer) = self.writers.get_mut(key) else {
            return;
        };
        if writer.take_read_wanted() {
            self.reads.push(key.clone());
        }
        match writer.poll_timeout() {
            Some(at) => self.timers.set(key.clone(), at),
            None => self.timers.stop(key),
        }
    }
}
