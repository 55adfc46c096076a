//! What the session's machine says of services by filter, told to the copy of each list. No I/O and
//! no clock.

use std::{collections::HashMap, time::Instant};

use crate::{
    directory::ListWriter,
    model::ServiceFilter,
    session::{LinkId, Names, Timers},
};

/// The writers of one client's lists of services.
#[derive(Debug, Default)]
pub(super) struct ListCopies {
    writers: HashMap<ServiceFilter, ListWriter>,
    /// When a writer wants to be woken, if it does.
    timers: Timers<ServiceFilter>,
    link: Option<LinkId>,
}

impl ListCopies {
    pub(super) fn open(&mut self, filter: ServiceFilter, mut writer: ListWriter) {
        if let Some(link) = self.link {
            writer.handle_connection(link.number());
        }
        self.writers.insert(filter, writer);
    }

    /// Nobody reads it any longer: it closes.
    pub(super) fn close(&mut self, filter: &ServiceFilter) {
        self.writers.remove(filter);
        self.timers.stop(filter);
    }

    /// The end: every list closes.
    pub(super) fn close_all(&mut self) {
        self.timers.stop_all();
        self.writers.clear();
    }

    pub(super) fn apply(
        &mut self,
        link: LinkId,
        filter: &ServiceFilter,
        names: Names,
        now: Instant,
    ) {
        let Some(writer) = self.writers.get_mut(filter) else {
            return;
        };
        let link = link.number();
        match names {
            Names::All { names, certain } => writer.all(link, names, certain, now),
            Names::Some(names) => writer.some(link, names, now),
            Names::Gone(name) => writer.gone(link, &name),
        }
        self.look_after(filter);
    }

    pub(super) fn handle_connected(&mut self, link: LinkId) {
        self.link = Some(link);
        for writer in self.writers.values_mut() {
            writer.handle_connection(link.number());
        }
        self.timers.stop_all(); // nothing ends before the new connection has told
    }

    pub(super) fn handle_disconnected(&mut self) {
        if self.link.take().is_none() {
            return; // it has not been connected since
        }
        for writer in self.writers.values_mut() {
            writer.handle_disconnected();
        }
        self.timers.stop_all();
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while let Some(filter) = self.timers.expired(now) {
            if let Some(writer) = self.writers.get_mut(&filter) {
                writer.handle_timeout(now);
                self.look_after(&filter);
            }
        }
    }

    fn look_after(&mut self, filter: &ServiceFilter) {
        let at = self.writers.get(filter).and_then(ListWriter::poll_timeout);
        match at {
            Some(at) => self.timers.set(filter.clone(), at),
            None => self.timers.stop(filter),
        }
    }
}
