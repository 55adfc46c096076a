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
/// is seen at once, and in one that is not this much later at most, and [`PER_NAME`] more for each name.
const PACE: Duration = Duration::from_millis(50);

/// A publication of a million names takes longer than [`PACE`], and pushes wait for the driver
/// meanwhile. With this the driver has the most of its time for them, however long a list is; what comes
/// or goes in one of a million names is seen 10 s later at most.
const PER_NAME: Duration = Duration::from_micros(10);

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
        let pace = PACE + PER_NAME * u32::try_from(self.writer.len()).unwrap_or(u32::MAX);
        let again = self.published.map(|at| at + pace).filter(|at| *at > now);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        directory::{Options, ServiceList, service_list},
        model::ServiceName,
    };

    const LINK: LinkId = LinkId::of(1);

    struct World {
        lists: ListCopies,
        list: ServiceList,
        filter: ServiceFilter,
        now: Instant,
    }

    impl World {
        /// A connection that has told of so many services, just now.
        fn of(names: usize) -> Self {
            #[expect(clippy::disallowed_methods, reason = "the origin of virtual time")]
            let now = Instant::now();
            let filter = ServiceFilter::group("G");
            let (writer, list) = service_list(filter.clone(), Options::default());
            let mut lists = ListCopies::default();
            lists.open(filter.clone(), writer);
            lists.handle_connected(LINK, now);
            let names = Names::All {
                names: (0..names).map(|n| service(&format!("s-{n}"))).collect(),
                certain: true,
            };
            lists.apply(LINK, &filter, names, now);
            Self {
                lists,
                list,
                filter,
                now,
            }
        }

        fn pass(&mut self, time: Duration) {
            self.now += time;
            self.lists.handle_timeout(self.now);
        }

        fn comes(&mut self, name: &str) {
            let names = Names::Some(vec![service(name)]);
            self.lists.apply(LINK, &self.filter, names, self.now);
        }
    }

    fn service(name: &str) -> ServiceName {
        ServiceName::new("G", name).unwrap()
    }

    #[test]
    fn the_longer_a_list_the_rarer_it_is_published() {
        for (names, pace) in [(100, 51), (100_000, 1050)] {
            let mut world = World::of(names);
            assert_eq!(
                world.list.snapshot().len(),
                names,
                "the first is seen at once"
            );
            let seen = world.now;
            world.pass(Duration::from_millis(1));
            world.comes("new");
            world.pass(Duration::from_millis(pace) - Duration::from_millis(2));
            assert_eq!(world.list.snapshot().len(), names, "of {names}: too soon");
            let due = world.lists.poll_timeout().unwrap();
            assert!(due - seen <= Duration::from_millis(pace + 1));
            world.now = due;
            world.pass(Duration::ZERO);
            assert_eq!(world.list.snapshot().len(), names + 1);
            // After as long a rest a change is seen at once.
            world.pass(Duration::from_millis(pace + 1));
            world.comes("newer");
            assert_eq!(world.list.snapshot().len(), names + 2);
        }
    }
}
