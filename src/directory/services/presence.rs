//! Which services are there, of all that was ever told: what is missing is believed late.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use crate::{
    directory::Options,
    model::{MOST_SERVICES, ServiceName},
};

/// A list read in pages may miss a service that moved to a page that was read already: it is gone
/// when two complete ones in a row miss it.
const MISSES: u8 = 2;

/// What is there, and what is held although the registry does not list it.
#[derive(Debug)]
pub(super) struct Presence {
    names: BTreeMap<ServiceName, Seen>,
    /// The number of the connection, if there is one.
    connection: Option<u64>,
    /// Whether everything was told on it.
    listed: bool,
    /// Whether everything was told, ever.
    known: bool,
    holding: usize,
    /// No hold began before this.
    held_since: Option<Instant>,
    /// Names beyond so many are left out.
    most: usize,
    /// When the list last grew, or the connection first told everything.
    grown_at: Option<Instant>,
    /// How long after that the holds end.
    idle: Duration,
}

#[derive(Debug)]
struct Seen {
    /// The connection that it was told on last.
    on: u64,
    /// Complete lists of this connection in a row that missed it.
    missed: u8,
    /// Since when it is held, if it is.
    held: Option<Instant>,
}

/// What became of the names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) added: Vec<ServiceName>,
    pub(super) removed: Vec<ServiceName>,
    /// So many are held from now on, and for so long at least.
    pub(super) hold: Option<(usize, Duration)>,
    /// Whether what was removed had been held until now.
    pub(super) hold_ended: bool,
    /// Whether who is held are others.
    pub(super) held_changed: bool,
    /// So many were left out, since there are too many.
    pub(super) left_out: usize,
}

impl Default for Presence {
    fn default() -> Self {
        Self {
            names: BTreeMap::new(),
            connection: None,
            listed: false,
            known: false,
            holding: 0,
            held_since: None,
            most: MOST_SERVICES,
            grown_at: None,
            idle: Duration::ZERO,
        }
    }
}

impl Presence {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &ServiceName> {
        self.names.keys()
    }

    #[cfg(test)]
    pub(super) const fn limit(&mut self, most: usize) {
        self.most = most;
    }

    /// Those that are held.
    pub(super) fn held(&self) -> impl Iterator<Item = &ServiceName> {
        let held = self.names.iter().filter(|(_, seen)| seen.held.is_some());
        held.map(|(name, _)| name)
    }

    pub(super) const fn is_known(&self) -> bool {
        self.known
    }

    /// Whether everything was told on the present connection.
    pub(super) const fn is_fresh(&self) -> bool {
        self.listed && self.connection.is_some()
    }

    /// There is a connection, the first or another one.
    pub(super) const fn connected(&mut self, connection: u64) {
        self.connection = Some(connection);
        self.listed = false;
    }

    pub(super) const fn disconnected(&mut self) {
        self.connection = None;
        self.listed = false;
    }

    /// These are there, among others.
    pub(super) fn some(
        &mut self,
        connection: u64,
        names: Vec<ServiceName>,
        now: Instant,
    ) -> Difference {
        let mut difference = Difference::default();
        if self.connection != Some(connection) {
            return difference;
        }
        for name in names {
            self.see(name, connection, now, &mut difference);
        }
        difference
    }

    /// These are all. Not `certain` if it may have missed one.
    pub(super) fn all(
        &mut self,
        connection: u64,
        names: BTreeSet<ServiceName>,
        certain: bool,
        now: Instant,
        options: &Options,
    ) -> Difference {
        let mut difference = Difference::default();
        if self.connection != Some(connection) {
            return difference;
        }
        let before = self.names.len();
        let first = !self.listed;
        (self.listed, self.known) = (true, true);
        let misses = if certain { MISSES } else { 1 };
        let mut missing = 0;
        for (name, seen) in &mut self.names {
            if names.contains(name) {
                continue;
            }
            if first {
                seen.missed = 0; // what a connection before missed may be what a restart forgot
            }
            seen.missed = seen.missed.saturating_add(misses);
            // What was told on this connection, and then is missing, has really gone.
            if first && seen.on != connection {
                missing += 1;
                if seen.held.is_none() {
                    seen.held = Some(now);
                    self.holding += 1;
                    self.held_since = self.held_since.or(Some(now));
                    difference.held_changed = true;
                }
            }
        }
        if missing > 0 {
            let believed = (options.believed_share * before as f64) as usize;
            let brief = missing <= believed.max(1) && !names.is_empty();
            self.idle = if brief {
                options.believed_hold
            } else {
                options.hold
            };
            difference.hold = Some((missing, self.idle));
        }
        if first {
            self.grown_at = Some(now);
        }
        for name in names {
            self.see(name, connection, now, &mut difference);
        }
        self.drop_missed(&mut difference);
        self.end_holds(now, options, &mut difference);
        difference
    }

    /// It went. Believed of what was told on this connection: a registry that comes back may take
    /// for gone what it has not heard of yet.
    pub(super) fn gone(&mut self, connection: u64, name: &ServiceName) -> Difference {
        let mut difference = Difference::default();
        let seen = self.names.get(name).filter(|seen| seen.held.is_none());
        let told_here = seen.is_some_and(|seen| seen.on == connection);
        if self.connection == Some(connection) && told_here {
            self.names.remove(name);
            difference.removed.push(name.clone());
        }
        difference
    }

    /// When [`time_passed`](Self::time_passed) has something to do.
    pub(super) fn poll_timeout(&self, options: &Options) -> Option<Instant> {
        if self.holding == 0 || !self.is_fresh() {
            return None; // while nobody tells, nothing ends
        }
        let idle = self.grown_at.and_then(|at| at.checked_add(self.idle));
        let began = self.held_since;
        let limit = began.and_then(|began| began.checked_add(options.hold_limit));
        idle.into_iter().chain(limit).min()
    }

    pub(super) fn time_passed(&mut self, now: Instant, options: &Options) -> Difference {
        let mut difference = Difference::default();
        self.end_holds(now, options, &mut difference);
        difference
    }

    fn see(
        &mut self,
        name: ServiceName,
        connection: u64,
        now: Instant,
        difference: &mut Difference,
    ) {
        let seen = Seen {
            on: connection,
            missed: 0,
            held: None,
        };
        if let Some(known) = self.names.get_mut(&name) {
            let former = std::mem::replace(known, seen);
            if former.held.is_some() {
                self.let_go(difference);
                self.grown_at = Some(now);
            }
        } else if self.names.len() >= self.most {
            difference.left_out += 1;
        } else {
            difference.added.push(name.clone());
            self.names.insert(name, seen);
            self.grown_at = Some(now);
        }
    }

    /// One less is held.
    fn let_go(&mut self, difference: &mut Difference) {
        self.holding -= 1;
        difference.held_changed = true;
        if self.holding == 0 {
            self.held_since = None;
        }
    }

    fn drop_missed(&mut self, difference: &mut Difference) {
        self.names.retain(|name, seen| {
            let gone = seen.missed >= MISSES && seen.held.is_none();
            if gone {
                difference.removed.push(name.clone());
            }
            !gone
        });
    }

    /// What is held for long enough is listed or not, as anything else.
    fn end_holds(&mut self, now: Instant, options: &Options, difference: &mut Difference) {
        if self.poll_timeout(options).is_none_or(|at| at > now) {
            return;
        }
        let lasted = |since: Instant, limit| now.saturating_duration_since(since) >= limit;
        let idle = self.grown_at.is_some_and(|at| lasted(at, self.idle));
        let mut ended = 0;
        self.held_since = None;
        for seen in self.names.values_mut() {
            let Some(began) = seen.held else { continue };
            if idle || lasted(began, options.hold_limit) {
                seen.held = None;
                ended += 1;
            } else {
                let since = self.held_since.map_or(began, |since| since.min(began));
                self.held_since = Some(since);
            }
        }
        for _ in 0..ended {
            self.let_go(difference);
        }
        let before = difference.removed.len();
        self.drop_missed(difference);
        difference.hold_ended = difference.removed.len() > before;
    }
}
