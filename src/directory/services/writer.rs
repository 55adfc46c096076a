use std::{
    collections::BTreeSet,
    fmt::{self, Write as _},
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    changes::{ServiceChange, between},
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
///
/// What it is told is not seen by readers before [`publish`](Self::publish), whose cost is the length
/// of the list: who is told name by name publishes now and then.
pub(crate) struct ListWriter {
    shared: Arc<Shared>,
    presence: Presence,
    options: Options,
    revision: u64,
    /// Whether names came or went since the last publication.
    names_changed: bool,
    held_changed: bool,
    /// When it was last said that there are too many.
    warned: Option<Instant>,
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
        names_changed: false,
        held_changed: false,
        warned: None,
    };
    (writer, list)
}

/// How many services a line of the log names.
const NAMED: usize = 3;

/// A registry with too many services has them again and again: one warning in so long.
const WARN_EVERY: Duration = Duration::from_secs(60);

impl ListWriter {
    /// There is a connection of this number, the first or another one.
    pub(crate) const fn handle_connection(&mut self, connection: u64) {
        self.presence.connected(connection);
    }

    /// There is none any longer: what is known stays.
    pub(crate) const fn handle_disconnected(&mut self) {
        self.presence.disconnected();
    }

    /// These are there, among others.
    pub(crate) fn some(&mut self, connection: u64, names: Vec<ServiceName>, now: Instant) {
        let difference = self.presence.some(connection, names, now);
        self.note(&difference, now);
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
        self.note(&difference, now);
    }

    /// This one went.
    pub(crate) fn gone(&mut self, connection: u64, name: &ServiceName) {
        let difference = self.presence.gone(connection, name);
        self.names_changed |= !difference.removed.is_empty();
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.presence.poll_timeout(&self.options)
    }

    /// Time passed.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let difference = self.presence.time_passed(now, &self.options);
        self.note(&difference, now);
    }

    /// How many services there are.
    pub(crate) fn len(&self) -> usize {
        self.presence.len()
    }

    #[cfg(test)]
    pub(super) const fn limit(&mut self, most: usize) {
        self.presence.limit(most);
    }

    /// Whether readers see something else than there is: names.
    pub(crate) const fn has_news(&self) -> bool {
        self.names_changed || self.held_changed
    }

    /// Whether how far the list can be believed is another thing than readers see.
    pub(crate) fn is_turning(&self) -> bool {
        let seen = self.shared.names();
        (seen.known, seen.fresh) != (self.presence.is_known(), self.presence.is_fresh())
    }

    /// Lets readers see what there is. Nobody is woken for nothing: true if it was something new.
    pub(crate) fn publish(&mut self) -> bool {
        if !(self.has_news() || self.is_turning()) {
            return false;
        }
        let before = self.shared.names();
        let mut names = Arc::clone(&before.names);
        if mem::take(&mut self.names_changed) {
            let now: Arc<[ServiceName]> = self.presence.names().cloned().collect();
            // What came and went since, or went and came, is no change.
            if now != names {
                self.revision += 1;
                names = now;
            }
        }
        let held = if mem::take(&mut self.held_changed) {
            self.presence.held().cloned().collect()
        } else {
            Arc::clone(&before.held)
        };
        let names = ServiceNames {
            revision: self.revision,
            names,
            held,
            known: self.presence.is_known(),
            fresh: self.presence.is_fresh(),
        };
        let as_before = (before.known, before.fresh) == (names.known, names.fresh);
        if as_before && before.revision == names.revision && before.held == names.held {
            return false;
        }
        let names = Arc::new(names);
        self.shared.publish(Arc::clone(&names));
        self.tell(&before, &names);
        true
    }

    fn note(&mut self, difference: &Difference, now: Instant) {
        let Difference { added, removed, .. } = difference;
        self.names_changed |= !(added.is_empty() && removed.is_empty());
        self.held_changed |= difference.held_changed;
        let client = self.options.owner.as_deref().map_or("", Owner::name);
        let (filter, total) = (&self.shared.filter, self.presence.len());
        if let Some((held, least)) = difference.hold
            && least > self.options.believed_hold
        {
            tracing::warn!(target: logs::DIRECTORY, client, %filter, held, ?least, "services are missing since the registry came back; they are held");
        }
        if difference.hold_ended {
            let removed = Named(removed);
            tracing::warn!(target: logs::DIRECTORY, client, %filter, total, %removed, "the registry has not listed these services again: they are taken for gone");
        }
        let due = |last| now.saturating_duration_since(last) >= WARN_EVERY;
        if difference.left_out > 0 && self.warned.is_none_or(due) {
            self.warned = Some(now);
            let left_out = difference.left_out;
            tracing::warn!(target: logs::DIRECTORY, client, %filter, total, left_out, "the registry names more services than are kept: the rest is left out; name a group in the filter, or a longer beginning of the name");
        }
    }

    fn tell(&self, before: &ServiceNames, names: &ServiceNames) {
        // What nobody reads is not looked for on the way of a push: it takes the longer, the longer the list is.
        if !tracing::enabled!(target: logs::DIRECTORY, tracing::Level::INFO) {
            return;
        }
        let client = self.options.owner.as_deref().map_or("", Owner::name);
        let (filter, total) = (&self.shared.filter, names.len());
        if names.known && !before.known {
            tracing::info!(target: logs::DIRECTORY, client, %filter, total, "services are known");
        } else if names.known && names.revision != before.revision {
            let (mut added, mut removed) = (Vec::new(), Vec::new());
            for change in between(&before.names, &names.names) {
                match change {
                    ServiceChange::Added(service) => added.push(service),
                    ServiceChange::Removed(service) => removed.push(service),
                }
            }
            let (added, removed) = (Named(&added), Named(&removed));
            tracing::info!(target: logs::DIRECTORY, client, %filter, total, %added, %removed, "services changed");
        }
    }
}

impl Drop for ListWriter {
    fn drop(&mut self) {
        self.presence.disconnected(); // nobody tells any more
        self.publish();
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
