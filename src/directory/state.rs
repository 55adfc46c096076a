//! The state of one service under the writer's lock: connection, clock, departures.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use crate::{
    directory::{
        Entry, Options, RemovalCause, Revision, Status, SubscriptionCounters,
        admit::{Admitted, Twins},
        cause::{Tombstone, Tombstones},
        flapping::Flapping,
        guard::Guard,
        health::Health,
        hint::Hint,
        leaving::Leaving,
        merge::parts::Parts,
        outbox::{Note, Outbox, Warning},
        view::View,
    },
    model::{Address, Origin, Rejected, ServiceDetails},
};

const WARN_EVERY: Duration = Duration::from_secs(60);

/// The instances themselves are the root view's newest snapshot; what it does not show is here.
#[derive(Debug)]
pub(super) struct State {
    pub(super) root: Arc<View>,
    pub(super) hint: Hint,
    pub(super) derived: Vec<Weak<View>>,
    /// Parallel to the root's entries.
    pub(super) health: Vec<Health>,
    pub(super) twins: Twins,
    pub(super) protected: bool,
    pub(super) guard: Guard,
    pub(super) leaving: Leaving,
    pub(super) flapping: Flapping,
    /// Since when nobody may be called, if that was told.
    pub(super) nobody_since: Option<Instant>,
    /// Whether the registry is to be asked for the list.
    pub(super) read_wanted: bool,
    pub(super) link: Link,
    pub(super) answered: bool,
    pub(super) known: bool,
    pub(super) settle_at: Option<Instant>,
    pub(super) revision: u64,
    pub(super) generations: u64,
    pub(super) listed: usize,
    /// What pushes removed or closed of late.
    pub(super) recent: BTreeMap<Address, Instant>,
    pub(super) stones: Tombstones,
    pub(super) rejected: Vec<Rejected>,
    pub(super) undecodable: Option<Box<str>>,
    /// What an operator set of the service, as far as that was asked.
    pub(super) details: Option<Arc<ServiceDetails>>,
    /// How the newest list came.
    pub(super) origin: Option<Origin>,
    /// When the newest list was received, changed or not.
    pub(super) heard_at: Option<Instant>,
    /// The newest instant that the writer was told.
    pub(super) news_at: Option<Instant>,
    pub(super) counters: SubscriptionCounters,
    pub(super) closed: bool,
    pub(super) warned: [Option<Instant>; Warning::COUNT],
    /// Of a merged set: what it is made of.
    pub(super) parts: Option<Box<Parts>>,
}

/// What is known of the connection that lists come from.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// Whether the writer was told of a connection and it stands.
    pub(super) connected: bool,
    /// The number of the newest connection.
    pub(super) number: u64,
    /// The one that the newest list came on, unless that was lost since.
    pub(super) heard_on: Option<u64>,
    pub(super) stale_since: Option<Instant>,
    /// Whether a line said that the set is stale.
    pub(super) stale_told: bool,
    pub(super) stamp: i64,
    pub(super) stamp_warned: bool,
    pub(super) pushed_at: Option<Instant>,
}

impl State {
    pub(super) fn new(root: Arc<View>, hint: Hint) -> Self {
        Self {
            root,
            hint,
            derived: Vec::new(),
            health: Vec::new(),
            twins: Twins::new(),
            protected: false,
            guard: Guard::default(),
            leaving: Leaving::default(),
            flapping: Flapping::default(),
            nobody_since: None,
            read_wanted: false,
            link: Link::default(),
            answered: false,
            known: false,
            settle_at: None,
            revision: 0,
            generations: 0,
            listed: 0,
            recent: BTreeMap::new(),
            stones: Tombstones::default(),
            rejected: Vec::new(),
            undecodable: None,
            details: None,
            origin: None,
            heard_at: None,
            news_at: None,
            counters: SubscriptionCounters::default(),
            closed: false,
            warned: [None; Warning::COUNT],
            parts: None,
        }
    }

    pub(super) const fn revision(&self) -> Revision {
        Revision(self.revision)
    }

    pub(super) fn status(&self) -> Status {
        if self.closed {
            return Status::Closed;
        }
        match self.link.stale_since {
            _ if !self.answered && self.undecodable.is_some() => Status::Undecodable,
            _ if !self.answered => Status::Unknown,
            Some(since) if !self.link.connected => Status::Stale { since },
            _ if self.undecodable.is_some() => Status::Undecodable,
            Some(since) => Status::Stale { since },
            None if self.guard.is_holding() => Status::Held {
                instances: self.guard.len(),
            },
            None => Status::Fresh,
        }
    }

    /// Whether what is known came on another connection than the newest, or on one that is lost.
    pub(super) fn is_awaiting(&self) -> bool {
        self.answered && self.link.heard_on != Some(self.link.number)
    }

    /// Another connection, with this number or the next. One that took over from one that stood
    /// may have heard of changes that we did not: nothing is fresh before its first list.
    pub(super) fn connected(&mut self, number: Option<u64>, now: Instant) {
        self.news(now);
        let moved = self.answered.then_some(now);
        self.link = Link {
            connected: true,
            number: number.unwrap_or(self.link.number + 1),
            stale_since: self.link.stale_since.or(moved),
            stale_told: self.link.stale_told,
            ..Link::default()
        };
    }

    /// Whether a list that came on `connection` counts; a newer one than was known is taken note
    /// of. Without a number it came on the newest.
    pub(super) fn is_of_this_connection(&mut self, connection: Option<u64>, now: Instant) -> bool {
        let number = connection.unwrap_or(self.link.number);
        if number > self.link.number {
            self.connected(connection, now);
        }
        number >= self.link.number
    }

    pub(super) fn disconnected(&mut self, now: Instant, out: &mut Outbox) {
        self.news(now);
        if self.answered && self.link.stale_since.is_none() {
            out.notes.push(Note::Stale);
            self.link.stale_told = true;
        }
        self.link = Link {
            number: self.link.number,
            stale_since: self.link.stale_since.or(Some(now)),
            stale_told: self.link.stale_told,
            ..Link::default()
        };
        out.notify = true;
    }

    pub(super) fn unreadable(&mut self, reason: &str, now: Instant, out: &mut Outbox) {
        self.news(now);
        self.counters.undecodable += 1;
        self.undecodable = Some(reason.into());
        out.notify = true;
        let reason = reason.to_owned();
        self.warn(Warning::Undecodable, Note::Undecodable { reason }, now, out);
    }

    /// When [`expire`](Self::expire) has something to do.
    pub(super) fn next_deadline(&self, options: &Options) -> Option<Instant> {
        let holds = |at: Option<Instant>| at.filter(|_| !self.is_awaiting());
        let read = holds(self.guard.next_read(options));
        let end = holds(self.guard.next_end(options));
        let mark = self.leaving.next_end();
        let calm = self.flapping.next_end();
        let all = [read, end, mark, calm, self.settle_at];
        all.into_iter().flatten().min()
    }

    /// Ends the holds and the doubt whose time is up, and asks for a list before. Not while the registry is out of reach: the
    /// last set serves then, without limit.
    pub(super) fn expire(&mut self, options: &Options, now: Instant, out: &mut Outbox) {
        self.news(now);
        self.stones.prune(now);
        if self.settle_at.is_some_and(|at| at <= now) {
            self.settle_at = None;
            self.known = true;
            let same = self.kept(|_| true);
            self.advance(same, true, self.heard_at, options, out);
        }
        self.lapse_marks(options, now, out);
        let [here, gone] = self.flapping.take_calm(now);
        out.notes
            .extend((!here.is_empty()).then_some(Note::Stays(here)));
        out.notes
            .extend((!gone.is_empty()).then_some(Note::StaysAway(gone)));
        if self.is_awaiting() {
            return;
        }
        self.read_wanted |= self.guard.take_read(now, options);
        let due = self.guard.due(now, options);
        if due.is_empty() {
            return;
        }
        let brief = self.guard.is_brief();
        self.release(
            |entry| due.contains(entry.instance.address()),
            options,
            now,
            out,
        );
        let instances = due.len();
        if brief {
            out.notes.push(Note::Left { instances });
        } else {
            self.counters.collapses_obeyed += 1;
            out.notes.push(Note::Obeyed { instances });
        }
    }

    /// Lets consumers know that a set that is not known will never be.
    pub(super) fn end_unknown(&mut self, options: &Options, out: &mut Outbox) {
        self.settle_at = None;
        let same = self.kept(|_| true);
        self.advance(same, true, self.heard_at, options, out);
    }

    /// Lets go of the held instances that `is_due` names.
    pub(super) fn release(
        &mut self,
        is_due: impl Fn(&Entry) -> bool,
        options: &Options,
        now: Instant,
        out: &mut Outbox,
    ) {
        let admitted = self.kept(|entry| !(entry.held && is_due(entry)));
        if !admitted.changed {
            return;
        }
        self.bury(&admitted, None, now);
        self.guard.track(&admitted.entries, None, None, now);
        self.advance(admitted, false, self.heard_at, options, out);
    }

    /// The present state without the entries that `keep` refuses.
    pub(super) fn kept(&self, keep: impl Fn(&Entry) -> bool) -> Admitted {
        let mut admitted = Admitted {
            twins: self.twins.clone(),
            ..Admitted::default()
        };
        for (entry, health) in self.root.snapshot().entries.iter().zip(&self.health) {
            if keep(entry) {
                admitted.entries.push(entry.clone());
                admitted.health.push(*health);
            } else {
                admitted
                    .ended
                    .push((entry.clone(), RemovalCause::HoldEnded));
                admitted.changed = true;
            }
        }
        admitted
    }

    pub(super) fn bury(&mut self, admitted: &Admitted, last_heard: Option<Instant>, now: Instant) {
        for (entry, cause) in &admitted.ended {
            let address = entry.instance.address();
            let last_seen = if entry.held {
                self.guard.last_seen(address)
            } else {
                last_heard
            };
            self.stones.push(Tombstone {
                address: address.clone(),
                generation: entry.generation,
                cause: *cause,
                last_seen,
                at: now,
            });
        }
    }

    pub(super) fn warn(&mut self, kind: Warning, note: Note, now: Instant, out: &mut Outbox) {
        let last = &mut self.warned[kind as usize];
        if last.is_none_or(|last| now.saturating_duration_since(last) >= WARN_EVERY) {
            *last = Some(now);
            out.notes.push(note);
        }
    }

    pub(super) fn news(&mut self, now: Instant) {
        self.news_at = self.news_at.max(Some(now));
    }
}
