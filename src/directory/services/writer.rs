use std::{
    collections::BTreeSet,
    fmt::{self, Write as _},
    sync::Arc,
    time::Instant,
};

use super::{
    list::ServiceList,
    names::ServiceNames,
    presence::{Difference, Presence},
    shared::Shared,
};
use crate::{
    directory::{Options, Owner},
    logs,
    model::{ServiceFilter, ServiceName},
};

/// Writes one list. Its drop closes the list.
pub(crate) struct ListWriter {
    shared: Arc<Shared>,
    presence: Presence,
    options: Options,
    revision: u64,
}

/// A list of which nothing is known yet, and who writes it.
pub(crate) fn service_list(filter: ServiceFilter, options: Options) -> (ListWriter, ServiceList) {
    let shared = Arc::new(Shared::new(filter));
    let list = ServiceList::new(Arc::clone(&shared));
    let writer = ListWriter {
        shared,
        presence: Presence::default(),
        options,
        revision: 0,
    };
    (writer, list)
}

/// How many services a line of the log names.
const NAMED: usize = 3;

impl ListWriter {
    /// There is a connection of this number, the first or another one.
    pub(crate) fn handle_connection(&mut self, connection: u64) {
        self.presence.connected(connection);
        self.publish(&Difference::default());
    }

    /// There is none any longer: what is known stays.
    pub(crate) fn handle_disconnected(&mut self) {
        self.presence.disconnected();
        self.publish(&Difference::default());
    }

    /// These are there, among others.
    pub(crate) fn some(&mut self, connection: u64, names: Vec<ServiceName>, now: Instant) {
        let difference = self.presence.some(connection, names, now);
        self.publish(&difference);
    }

    /// These are all, but for one that may have been missed if it is not `certain`.
    pub(crate) fn all(
        &mut self,
        connection: u64,
        names: BTreeSet<ServiceName>,
        certain: bool,
        now: Instant,
    ) {
        let options = &self.options;
        let difference = self.presence.all(connection, names, certain, now, options);
        self.publish(&difference);
    }

    /// This one went.
    pub(crate) fn gone(&mut self, connection: u64, name: &ServiceName) {
        let difference = self.presence.gone(connection, name);
        self.publish(&difference);
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.presence.poll_timeout(&self.options)
    }

    /// Time passed.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let difference = self.presence.time_passed(now, &self.options);
        self.publish(&difference);
    }

    fn publish(&mut self, difference: &Difference) {
        let before = self.shared.names();
        let changed = !(difference.added.is_empty() && difference.removed.is_empty());
        let names = if changed {
            self.revision += 1;
            self.presence.names().cloned().collect()
        } else {
            Arc::clone(&before.names)
        };
        let names = ServiceNames {
            revision: self.revision,
            names,
            held: self.presence.held().cloned().collect(),
            known: self.presence.is_known(),
            fresh: self.presence.is_fresh(),
        };
        let as_before = (before.known, before.fresh) == (names.known, names.fresh);
        if !changed && as_before && before.held == names.held {
            return; // nobody is woken for nothing
        }
        let now_known = names.known && !before.known;
        let total = names.len();
        self.shared.publish(names);
        self.tell(difference, now_known, total);
    }

    fn tell(&self, difference: &Difference, now_known: bool, total: usize) {
        let client = self.options.owner.as_deref().map_or("", Owner::name);
        let filter = &self.shared.filter;
        let Difference { added, removed, .. } = difference;
        if now_known {
            tracing::info!(target: logs::DIRECTORY, client, %filter, total, "services are known");
        } else if self.presence.is_known() && !(added.is_empty() && removed.is_empty()) {
            let (added, removed) = (Named(added), Named(removed));
            tracing::info!(target: logs::DIRECTORY, client, %filter, total, %added, %removed, "services changed");
        }
        if let Some((held, least)) = difference.hold
            && least > self.options.believed_hold
        {
            tracing::warn!(target: logs::DIRECTORY, client, %filter, held, ?least, "services are missing since the registry came back; they are held");
        }
        if difference.hold_ended {
            let removed = Named(removed);
            tracing::warn!(target: logs::DIRECTORY, client, %filter, total, %removed, "the registry has not listed these services again: they are taken for gone");
        }
    }
}

impl Drop for ListWriter {
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// The first of some services, and how many more there are.
struct Named<'a>(&'a [ServiceName]);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, name) in self.0.iter().take(NAMED).enumerate() {
            f.write_str(if at == 0 { "" } else { ", " })?;
            name.fmt(f)?;
        }
        match self.0.len().saturating_sub(NAMED) {
            0 if self.0.is_empty() => f.write_char('-'),
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

impl fmt::Debug for ListWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListWriter")
            .field("filter", &self.shared.filter)
            .field("presence", &self.presence)
            .finish_non_exhaustive()
    }
}
