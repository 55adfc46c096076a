use std::{
    collections::VecDeque,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::directory::{Consumer, Revision, Snapshot, Transition, outbox::Outbox, shared::Shared};

/// What a merged set has at one of its sources.
pub(super) struct Part {
    place: usize,
    merged: Arc<Shared>,
    state: Mutex<State>,
}

struct State {
    /// What is to be told once the source's lock is free.
    outbox: Outbox,
    /// Revisions of the source, and those of the merged set that they led to. In order; the first is
    /// the newest that the merged set's consumers are known to be quiet for.
    led_to: VecDeque<(Revision, Revision)>,
}

impl Part {
    /// For the source at `place`, which shows `snapshot` now. The source's lock is held.
    pub(super) fn new(place: usize, snapshot: Arc<Snapshot>, merged: &Arc<Shared>) -> Arc<Self> {
        let shows = snapshot.revision;
        let (revision, outbox) = merged.change(|state, out| {
            state.merge(place, snapshot, &merged.options, out);
            state.revision()
        });
        Arc::new(Self {
            place,
            merged: Arc::clone(merged),
            state: Mutex::new(State {
                outbox,
                led_to: [(shows, revision)].into(),
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn note(&mut self, shows: Revision, revision: Revision) {
        match self.led_to.back_mut() {
            // It changed nothing in the merged set: quiet for one is quiet for the other.
            Some(last) if last.1 == revision => last.0 = shows,
            _ => self.led_to.push_back((shows, revision)),
        }
        // Nobody asks, or somebody is long in leaving: what is not remembered is told with the next.
        if self.led_to.len() > MOST_REMEMBERED {
            self.led_to.remove(1);
        }
    }

    /// The newest revision of the source that led to what the merged set's consumers are quiet for.
    fn quiet(&mut self, applied: Revision) -> Revision {
        while self.led_to.get(1).is_some_and(|next| next.1 <= applied) {
            self.led_to.pop_front();
        }
        self.led_to
            .front()
            .map_or_else(Revision::default, |first| first.0)
    }
}

impl Consumer for Part {
    fn close(&self, next: &Arc<Snapshot>, _: &[Transition]) {
        let (revision, outbox) = self.merged.change(|state, out| {
            state.merge(self.place, Arc::clone(next), &self.merged.options, out);
            state.revision()
        });
        let mut state = self.lock();
        state.outbox.append(outbox);
        state.note(next.revision, revision);
    }

    /// The merged set's own consumers have opened what they may in [`close`](Self::close).
    fn reopen(&self, _: &Arc<Snapshot>, _: &[Transition]) {}

    fn wake(&self) {
        let mut outbox = mem::take(&mut self.lock().outbox);
        outbox.notify = false; // the source does that, which has a status to be read besides
        self.merged.deliver(outbox);
    }

    fn quiet(&self) -> Revision {
        let applied = self.merged.applied();
        self.lock().quiet(applied)
    }
}

const MOST_REMEMBERED: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_quiet_for_what_led_to_what_is_quiet() {
        let mut state = State {
            outbox: Outbox::default(),
            led_to: [(Revision(1), Revision(5))].into(),
        };
        state.note(Revision(2), Revision(5)); // nothing new for the merged set
        state.note(Revision(3), Revision(7));
        state.note(Revision(4), Revision(9));
        assert_eq!(state.quiet(Revision(5)), Revision(2));
        assert_eq!(state.quiet(Revision(8)), Revision(3));
        assert_eq!(state.quiet(Revision(9)), Revision(4));
        for n in 0..10_000 {
            state.note(Revision(5 + n), Revision(10 + n));
        }
        assert!(state.led_to.len() <= MOST_REMEMBERED);
        assert_eq!(
            state.quiet(Revision(9)),
            Revision(4),
            "not a step too early"
        );
        assert_eq!(state.quiet(Revision(10_009)), Revision(10_004));
    }
}
