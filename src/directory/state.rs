//! The state of one service under the writer's lock, and what lists do to it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use crate::{
    directory::{
        Cause, Counters, Entry, Mode, Options, Origin, Revision, Snapshot, Status, Transition,
        TransitionKind,
        admit::{Admitted, Missing, Order, Rules, Twins, admit},
        cause::{Tombstone, Tombstones},
        change, diff,
        guard::Guard,
        ladder::{self, Health},
        outbox::{Note, Outbox, Warning},
        selection::Selection,
        view::View,
    },
    model::{Address, Instance, Listing, Rejected},
};

/// A read that is answered this soon after a push was sent too early to know better than it.
const READ_LAG: Duration = Duration::from_secs(1);
const REJECTED_KEPT: usize = 64;
const WARN_EVERY: Duration = Duration::from_secs(60);

/// The instances themselves are the root view's newest snapshot; what it does not show is here.
#[derive(Debug)]
pub(super) struct State {
    root: Arc<View>,
    derived: Vec<Weak<View>>,
    /// Parallel to the root's entries.
    health: Vec<Health>,
    twins: Twins,
    protected: bool,
    pub(super) guard: Guard,
    pub(super) link: Link,
    pub(super) answered: bool,
    known: bool,
    settle_at: Option<Instant>,
    revision: u64,
    generations: u64,
    listed: usize,
    /// What pushes removed or closed of late.
    recent: BTreeMap<Address, Instant>,
    pub(super) stones: Tombstones,
    pub(super) rejected: Vec<Rejected>,
    pub(super) undecodable: Option<Box<str>>,
    /// When the newest list was received, changed or not.
    pub(super) heard_at: Option<Instant>,
    /// The newest instant that the writer was told.
    pub(super) news_at: Option<Instant>,
    pub(super) counters: Counters,
    pub(super) closed: bool,
    warned: [Option<Instant>; Warning::COUNT],
}

/// What is known of the connection that lists come from.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// Whether the writer was told of a connection and it stands.
    connected: bool,
    /// Whether the connection is lost or new, and has not brought a list yet.
    pub(super) awaiting: bool,
    stale_since: Option<Instant>,
    stamp: i64,
    stamp_warned: bool,
    pushed_at: Option<Instant>,
}

impl State {
    pub(super) fn new(root: Arc<View>) -> Self {
        Self {
            root,
            derived: Vec::new(),
            health: Vec::new(),
            twins: Twins::new(),
            protected: false,
            guard: Guard::default(),
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
            heard_at: None,
            news_at: None,
            counters: Counters::default(),
            closed: false,
            warned: [None; Warning::COUNT],
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

    /// The views other than the root that somebody holds.
    fn derived_views(&mut self) -> Vec<Arc<View>> {
        let mut views = Vec::with_capacity(self.derived.len());
        self.derived.retain(|view| {
            let view = view.upgrade();
            let lives = view.is_some();
            views.extend(view);
            lives
        });
        views
    }

    pub(super) fn views(&mut self) -> Vec<Arc<View>> {
        let mut views = self.derived_views();
        views.push(Arc::clone(&self.root));
        views
    }

    /// The view of `selection`, shared with everybody else who asks for the same.
    pub(super) fn view(&mut self, selection: Selection, options: &Options) -> Arc<View> {
        if let Some(view) = self
            .views()
            .into_iter()
            .find(|view| view.selection == selection)
        {
            return view;
        }
        let root = self.root.snapshot();
        let mut snapshot = self.select(root.entries.to_vec(), &selection, options);
        snapshot.revision = root.revision;
        snapshot.received = root.received;
        let view = Arc::new(View::new(selection, snapshot));
        self.derived.push(Arc::downgrade(&view));
        view
    }

    pub(super) fn connected(&mut self, now: Instant) {
        self.news(now);
        self.link = Link {
            connected: true,
            awaiting: self.answered,
            stale_since: self.link.stale_since,
            ..Link::default()
        };
    }

    pub(super) fn disconnected(&mut self, now: Instant, out: &mut Outbox) {
        self.news(now);
        if self.answered && self.link.stale_since.is_none() {
            out.notes.push(Note::Stale);
        }
        self.link = Link {
            connected: false,
            awaiting: self.answered,
            stale_since: self.link.stale_since.or(Some(now)),
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

    pub(super) fn apply(
        &mut self,
        listing: Listing,
        origin: Origin,
        options: &Options,
        now: Instant,
        out: &mut Outbox,
    ) {
        self.news(now);
        if origin != Origin::Push && self.link.pushed_at.is_some_and(|at| now < at + READ_LAG) {
            self.counters.reads_dropped += 1;
            return;
        }
        self.note_stamp(listing.stamp(), out);
        self.note_rejected(&listing, now, out);
        if listing.is_undecodable() {
            let reason = format!("none of its {} hosts can be used", listing.rejected().len());
            return self.unreadable(&reason, now, out);
        }
        self.counters.lists += 1;
        if origin == Origin::Push && self.link.connected {
            self.link.pushed_at = Some(now);
        }
        self.recent
            .retain(|_, at| now.saturating_duration_since(*at) <= options.lag);

        let protected = listing.is_protected();
        let instances = listing.into_instances();
        let listed = instances.len();
        let order = Order::of(&instances);
        let before = self.root.snapshot();
        let first_on_connection =
            self.answered && (origin == Origin::FirstAnswer || self.link.awaiting);
        let missing = self.guard.judge(
            &before,
            &instances,
            &order,
            first_on_connection,
            protected,
            options,
        );
        let rules = Rules {
            options,
            protected,
            missing,
            lagging: (first_on_connection && origin != Origin::Push && !self.recent.is_empty())
                .then_some(&self.recent),
            before: &before.entries,
            health: &self.health,
            twins: &self.twins,
        };
        let admitted = admit(instances, &order, &rules, &mut self.generations);

        self.counters.twins += admitted.twins.len() as u64;
        self.counters.not_resurrected += admitted.not_resurrected;
        let newly_held = admitted.newly_held;
        let last_heard = self.heard_at;
        self.bury(&admitted, last_heard, now);
        if first_on_connection || listed > self.listed {
            self.guard.grown(now);
        }
        self.guard
            .track(&admitted.entries, last_heard, missing, options, now);
        let mut force = self.settle(listed, origin, options, now);
        force |= self.protected != protected;
        self.protected = protected;
        self.listed = listed;
        self.heard_at = Some(now);
        if self.link.stale_since.take().is_some() {
            out.notes.push(Note::Fresh);
            out.notify = true;
        }
        self.link.awaiting = false;
        self.undecodable = None;

        let transitions = self.advance(admitted, force, Some(now), options, out);
        self.note_outcome(origin, transitions.as_deref(), newly_held, now, out);
        self.expire(options, now, out);
    }

    /// Takes a set that nothing will ever change.
    pub(super) fn fix(&mut self, instances: Vec<Instance>, options: &Options, out: &mut Outbox) {
        let order = Order::of(&instances);
        let rules = Rules {
            options,
            protected: false,
            missing: Missing::Remove,
            lagging: None,
            before: &[],
            health: &[],
            twins: &Twins::new(),
        };
        let admitted = admit(instances, &order, &rules, &mut self.generations);
        self.answered = true;
        self.known = true;
        self.advance(admitted, true, None, options, out);
    }

    /// When [`expire`](Self::expire) has something to do.
    pub(super) fn next_deadline(&self, options: &Options) -> Option<Instant> {
        let holds = (!self.link.awaiting)
            .then(|| self.guard.next_end(options))
            .flatten();
        [holds, self.settle_at].into_iter().flatten().min()
    }

    /// Ends the holds and the doubt whose time is up. Not while the registry is out of reach: the
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
        if self.link.awaiting {
            return;
        }
        let due = self.guard.due(now, options);
        if due.is_empty() {
            return;
        }
        self.release(
            |entry| due.contains(entry.instance.address()),
            options,
            now,
            out,
        );
        self.counters.collapses_obeyed += 1;
        out.notes.push(Note::Obeyed {
            instances: due.len(),
        });
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
        self.guard
            .track(&admitted.entries, None, Missing::KeepHeld, options, now);
        self.advance(admitted, false, Some(now), options, out);
    }

    /// The present state without the entries that `keep` refuses.
    fn kept(&self, keep: impl Fn(&Entry) -> bool) -> Admitted {
        let mut admitted = Admitted {
            twins: self.twins.clone(),
            ..Admitted::default()
        };
        for (entry, health) in self.root.snapshot().entries.iter().zip(&self.health) {
            if keep(entry) {
                admitted.entries.push(entry.clone());
                admitted.health.push(*health);
            } else {
                admitted.ended.push((entry.clone(), Cause::HoldEnded));
                admitted.changed = true;
            }
        }
        admitted
    }

    /// Makes snapshots of a new state and publishes those that differ. Returns what happened in
    /// the root view, `None` if nothing was published.
    fn advance(
        &mut self,
        admitted: Admitted,
        force: bool,
        received: Option<Instant>,
        options: &Options,
        out: &mut Outbox,
    ) -> Option<Vec<Transition>> {
        self.twins = admitted.twins;
        if !admitted.changed && !force {
            return None;
        }
        self.health = admitted.health;
        let first = self.revision == 0;
        let root = Arc::clone(&self.root);
        let old = root.snapshot();
        let mut next = self.select(admitted.entries, &root.selection, options);
        let (transitions, differs) = diff::transitions(&old, &next);
        let mut derived = Vec::new();
        for view in self.derived_views() {
            let selected = self.select(next.entries.to_vec(), &view.selection, options);
            let (transitions, differs) = diff::transitions(&view.snapshot(), &selected);
            if first || differs {
                derived.push((view, selected, transitions));
            }
        }
        if !first && !differs && derived.is_empty() {
            return None;
        }
        self.revision += 1;
        // The root goes last, so that no view is behind the revision that it shows.
        for (view, mut snapshot, transitions) in derived {
            snapshot.revision = self.revision();
            snapshot.received = received;
            view.publish(Arc::new(snapshot), &transitions, out);
        }
        next.revision = self.revision();
        next.received = received;
        let next = Arc::new(next);
        root.publish(Arc::clone(&next), &transitions, out);
        if tracing::enabled!(tracing::Level::INFO) {
            out.changes
                .extend(change::between(&old, &next, &self.stones));
        }
        if next.mode == Mode::Panic && old.mode != Mode::Panic {
            if let Some(now) = self.news_at {
                self.warn(Warning::Panic, Note::Panic, now, out);
            }
        }
        out.notify = true;
        Some(transitions)
    }

    fn select(
        &self,
        mut entries: Vec<Entry>,
        selection: &Selection,
        options: &Options,
    ) -> Snapshot {
        let (mode, callable) = ladder::climb(
            &mut entries,
            &self.health,
            selection,
            self.protected,
            options.on_all_unhealthy,
        );
        Snapshot {
            mode,
            callable,
            known: self.known,
            entries: entries.into_boxed_slice(),
            ..Snapshot::default()
        }
    }

    /// Takes note that a list came; returns whether the set became known by it.
    fn settle(&mut self, listed: usize, origin: Origin, options: &Options, now: Instant) -> bool {
        let first = !self.answered;
        let known = self.known;
        self.answered = true;
        if listed > 0 {
            self.known = true;
            self.settle_at = None;
        } else if first {
            let doubt = origin == Origin::FirstAnswer && !options.unknown_while_empty.is_zero();
            self.known = !doubt;
            self.settle_at = doubt.then(|| now + options.unknown_while_empty);
        }
        first || known != self.known
    }

    fn bury(&mut self, admitted: &Admitted, last_heard: Option<Instant>, now: Instant) {
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

    fn note_outcome(
        &mut self,
        origin: Origin,
        transitions: Option<&[Transition]>,
        newly_held: u64,
        now: Instant,
        out: &mut Outbox,
    ) {
        if newly_held > 0 {
            self.counters.collapses += 1;
            self.counters.held += newly_held;
            let instances = self.guard.len();
            self.warn(Warning::Holding, Note::Holding { instances }, now, out);
        }
        let Some(transitions) = transitions else {
            self.counters.unchanged += 1;
            return;
        };
        match origin {
            Origin::Push => {
                for transition in transitions {
                    match transition.kind {
                        TransitionKind::Evicted | TransitionKind::Closed => {
                            self.recent.insert(transition.address.clone(), now);
                        }
                        TransitionKind::Opened => {
                            self.recent.remove(&transition.address);
                        }
                        TransitionKind::Updated => {}
                    }
                }
            }
            Origin::Read if self.revision > 1 => {
                self.counters.reads_corrected += 1;
                self.warn(Warning::Corrected, Note::Corrected, now, out);
            }
            _ => {}
        }
    }

    fn note_stamp(&mut self, stamp: i64, out: &mut Outbox) {
        if stamp == 0 {
            return;
        }
        if stamp < self.link.stamp {
            self.counters.stamps_back += 1;
            if !self.link.stamp_warned {
                self.link.stamp_warned = true;
                out.notes.push(Note::StampBack {
                    from: self.link.stamp,
                    to: stamp,
                });
            }
        }
        self.link.stamp = stamp;
    }

    fn note_rejected(&mut self, listing: &Listing, now: Instant, out: &mut Outbox) {
        let rejected = listing.rejected();
        self.rejected.clear();
        let Some(first) = rejected.first() else {
            return;
        };
        self.rejected
            .extend(rejected.iter().take(REJECTED_KEPT).cloned());
        self.counters.rejected += rejected.len() as u64;
        let note = Note::Rejected {
            hosts: rejected.len(),
            first: format!("{}: {}", first.text(), first.reason()),
        };
        self.warn(Warning::Rejected, note, now, out);
    }

    fn warn(&mut self, kind: Warning, note: Note, now: Instant, out: &mut Outbox) {
        let last = &mut self.warned[kind as usize];
        if last.is_none_or(|last| now.saturating_duration_since(last) >= WARN_EVERY) {
            *last = Some(now);
            out.notes.push(note);
        }
    }

    fn news(&mut self, now: Instant) {
        self.news_at = self.news_at.max(Some(now));
    }
}
