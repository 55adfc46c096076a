//! What one list does to the state.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    directory::{
        Options, Origin, Transition, TransitionKind,
        admit::{Missing, Order, Rules, Twins, admit},
        guard::Guard,
        outbox::{Note, Outbox, Warning},
        state::State,
    },
    model::{Instance, Listing},
};

/// A read that is answered this soon after a push was sent too early to know better than it.
const READ_LAG: Duration = Duration::from_secs(1);
const REJECTED_KEPT: usize = 64;

impl State {
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
            self.answered && (origin == Origin::FirstAnswer || self.is_awaiting());
        let lagging = (first_on_connection && origin != Origin::Push && !self.recent.is_empty())
            .then_some(&self.recent);
        let verdict = Guard::judge(
            &before,
            &instances,
            &order,
            first_on_connection,
            protected,
            lagging,
            options,
        );
        let rules = Rules {
            options,
            protected,
            missing: verdict.missing,
            lagging,
            before: &before.entries,
            health: &self.health,
            twins: &self.twins,
        };
        let admitted = admit(instances, &order, &rules, &mut self.generations);

        self.counters.duplicates += admitted.twins.len() as u64;
        self.counters.not_resurrected += admitted.not_resurrected;
        let newly_held = admitted.newly_held;
        let last_heard = self.heard_at;
        self.bury(&admitted, last_heard, now);
        if first_on_connection || listed > self.listed {
            self.guard.grown(now);
        }
        self.guard
            .track(&admitted.entries, last_heard, verdict.hold, now);
        let mut force = self.settle(listed, origin, options, now);
        force |= self.protected != protected;
        self.protected = protected;
        self.listed = listed;
        self.heard_at = Some(now);
        self.origin = Some(origin);
        if listed > 0 || origin == Origin::FirstAnswer {
            self.hint.set(None); // what stood in the way does no longer, or is found anew
        }
        if self.link.stale_since.take().is_some() {
            out.notify = true;
        }
        if std::mem::take(&mut self.link.stale_told) {
            out.notes.push(Note::Fresh);
        }
        self.link.heard_on = Some(self.link.number);
        self.undecodable = None;

        let transitions = self.advance(admitted, force, Some(now), options, out);
        self.note_outcome(origin, transitions.as_deref(), newly_held, now, out);
        self.keep_the_last(options, now, out);
        self.expire(options, now, out);
    }

    /// Takes a set that nothing will ever change.
    pub(super) fn fix(
        &mut self,
        instances: Vec<Arc<Instance>>,
        options: &Options,
        out: &mut Outbox,
    ) {
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

    /// Few were held for a moment, and now they are all there is to be called.
    fn keep_the_last(&mut self, options: &Options, now: Instant, out: &mut Outbox) {
        if !(self.guard.is_brief() && self.guard.is_holding()) {
            return;
        }
        let snapshot = self.root.snapshot();
        if snapshot.callable().all(|entry| entry.held) {
            self.guard.lengthen(options);
            self.counters.collapses += 1;
            let instances = self.guard.len();
            self.warn(Warning::Holding, Note::Holding { instances }, now, out);
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
            // From a registry, which may just have restarted, and not from a program. Its first
            // list may be a push that overtook the answer.
            let registry = origin == Origin::FirstAnswer || self.link.connected;
            let doubt = registry && !options.unknown_while_empty.is_zero();
            self.known = !doubt;
            self.settle_at = doubt
                .then(|| now.checked_add(options.unknown_while_empty))
                .flatten();
        }
        first || known != self.known
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
            self.counters.held += newly_held;
            let instances = self.guard.len();
            if self.guard.is_brief() {
                out.notes.push(Note::Awaited { instances });
            } else {
                self.counters.collapses += 1;
                self.warn(Warning::Holding, Note::Holding { instances }, now, out);
            }
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
            self.counters.older_stamps += 1;
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
        self.counters.hosts_rejected += rejected.len() as u64;
        let note = Note::Rejected {
            hosts: rejected.len(),
            first: format!("{}: {}", first.text(), first.reason()),
        };
        self.warn(Warning::Rejected, note, now, out);
    }
}
