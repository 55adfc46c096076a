//! What the session's machine says of services by filter, told to the copy of each list. No I/O and
//! no clock.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::{
    directory::ListWriter,
    model::ServiceFilter,
    session::{LinkId, Names, Timers},
};

/// The lists of services of one client.
#[derive(Debug, Default)]
pub(super) struct ListCopies {
    copies: HashMap<ServiceFilter, Copy>,
    /// When a writer wants to be woken, or its news to be seen, if it does.
    timers: Timers<ServiceFilter>,
    link: Option<LinkId>,
}

#[derive(Debug)]
struct Copy {
    writer: ListWriter,
    /// When readers saw something new last.
    published: Option<Instant>,
}

/// A server tells of its services ten at a time, and of each that comes or goes. To publish costs as
/// much as the list is long, so what follows closely is seen together: in a list that is quiet a change
/// is seen at once, and in one that is not this much later at most.
const PACE: Duration = Duration::from_millis(50);

impl ListCopies {
    pub(super) fn open(&mut self, filter: ServiceFilter, mut writer: ListWriter) {
        if let Some(link) = self.link {
            writer.handle_connection(link.number());
        }
        let copy = Copy {
            writer,
            published: None,
        };
        self.copies.insert(filter, copy);
    }

    /// Nobody reads it any longer: it closes.
    pub(super) fn close(&mut self, filter: &ServiceFilter) {
        self.copies.remove(filter);
        self.timers.stop(filter);
    }

    /// The end: every list closes.
    pub(super) fn close_all(&mut self) {
        self.timers.stop_all();
        self.copies.clear();
    }

    pub(super) fn apply(
        &mut self,
        link: LinkId,
        filter: &ServiceFilter,
        names: Names,
        now: Instant,
    ) {
        let Some(Copy { writer, .. }) = self.copies.get_mut(filter) else {
            return;
        };
        let link = link.number();
        match names {
            Names::All { names, certain } => writer.all(link, names, certain, now),
            Names::Some(names) => writer.some(link, names, now),
            Names::Gone(name) => writer.gone(link, &name),
        }
        self.look_after(filter, now);
    }

    pub(super) fn handle_connected(&mut self, link: LinkId, now: Instant) {
        self.link = Some(link);
        self.timers.stop_all(); // nothing ends before the new connection has told
        for copy in self.copies.values_mut() {
            copy.writer.handle_connection(link.number());
            copy.publish(now);
        }
    }

    pub(super) fn handle_disconnected(&mut self, now: Instant) {
        if self.link.take().is_none() {
            return; // it has not been connected since
        }
        self.timers.stop_all();
        for copy in self.copies.values_mut() {
            copy.writer.handle_disconnected();
            copy.publish(now);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while let Some(filter) = self.timers.expired(now) {
            let Some(Copy { writer, .. }) = self.copies.get_mut(&filter) else {
                continue;
            };
            if writer.poll_timeout().is_some_and(|at| at <= now) {
                writer.handle_timeout(now);
            }
            self.look_after(&filter, now);
        }
    }

    fn look_after(&mut self, filter: &ServiceFilter, now: Instant) {
        let Some(copy) = self.copies.get_mut(filter) else {
            return;
        };
        let news = copy.publish_in_time(now);
        let timeouts = [copy.writer.poll_timeout(), news];
        match timeouts.into_iter().flatten().min() {
            Some(at) => self.timers.set(filter.clone(), at),
            None => self.timers.stop(filter),
        }
    }
}

impl Copy {
    /// Publishes what is new, or says when that is to be done.
    fn publish_in_time(&mut self, now: Instant) -> Option<Instant> {
        let again = self.published.map(|at| at + PACE).filter(|at| *at > now);
        match again {
            Some(again) if !self.writer.is_turning() => self.writer.has_news().then_some(again),
            _ => {
                self.publish(now);
                None
            }
        }
    }

    fn publish(&mut self, now: Instant) {
        if self.writer.publish() {
            self.published = Some(now);
        }
    }
}
