use std::fmt;

use tokio::time::Instant;

use crate::directory::Generation;

/// What one call has learnt of instances: which refused it, which are full, and since when it waits
/// for one that can be reached. Costs a word until there is something.
#[derive(Default)]
pub(crate) struct Tried(Option<Box<Learnt>>);

#[derive(Default)]
struct Learnt {
    refusers: List,
    /// Of which it takes the first that has room.
    full: List,
    since: Option<Instant>,
    /// When it began to wait for whatever it waits for.
    began: Option<Instant>,
}

/// The first `len` count.
struct List {
    generations: [Generation; MOST_TRIES],
    len: usize,
}

impl Tried {
    /// One refused it.
    #[cold]
    pub(crate) fn push(&mut self, generation: Generation) {
        self.0.get_or_insert_default().refusers.push(generation);
    }

    /// One has no room now. False if it waits for as many as it may.
    #[cold]
    pub(crate) fn push_full(&mut self, generation: Generation) -> bool {
        self.0.get_or_insert_default().full.push(generation)
    }

    /// Whom another call for the same request has tried.
    #[cold]
    pub(crate) fn inherit(&mut self, other: &Self) {
        for refuser in other.0.iter().flat_map(|learnt| learnt.refusers.all()) {
            self.push(*refuser);
        }
    }

    /// Those that refused it may be asked again.
    #[cold]
    pub(crate) fn forgive(&mut self) {
        if let Some(learnt) = &mut self.0 {
            learnt.refusers.len = 0;
        }
    }

    /// It waits for none of them any more.
    #[cold]
    pub(crate) fn clear_full(&mut self) {
        if let Some(learnt) = &mut self.0 {
            learnt.full.len = 0;
        }
    }

    /// It waits for one that can be reached, from now on unless it did already.
    #[cold]
    pub(crate) fn wait_since(&mut self, now: Instant) {
        self.0.get_or_insert_default().since.get_or_insert(now);
    }

    /// Since when it does.
    pub(crate) fn since(&self) -> Option<Instant> {
        self.0.as_ref().and_then(|learnt| learnt.since)
    }

    /// It waits, for whatever, from now on unless it did already.
    #[cold]
    pub(crate) fn begin_waiting(&mut self, now: Instant) {
        self.0.get_or_insert_default().began.get_or_insert(now);
    }

    /// It waits no longer: since when it did.
    #[inline]
    pub(crate) fn end_waiting(&mut self) -> Option<Instant> {
        self.0.as_mut().and_then(|learnt| learnt.began.take())
    }

    /// Whether it has learnt of nobody.
    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Whether this one is not to be chosen.
    #[inline]
    pub(crate) fn contains(&self, generation: Generation) -> bool {
        self.0.as_ref().is_some_and(|learnt| learnt.has(generation))
    }

    /// Whether one more refusal would be too many.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        let learnt = self.0.as_ref();
        learnt.is_some_and(|learnt| learnt.refusers.len == MOST_TRIES)
    }

    /// Whether it waits for room.
    pub(crate) fn waits_for_room(&self) -> bool {
        self.0.as_ref().is_some_and(|learnt| learnt.full.len > 0)
    }
}

impl Learnt {
    /// Out of the way of the calls that have learnt nothing.
    #[cold]
    fn has(&self, generation: Generation) -> bool {
        let lists = [self.refusers.all(), self.full.all()];
        lists.into_iter().any(|list| list.contains(&generation))
    }
}

impl List {
    fn push(&mut self, generation: Generation) -> bool {
        let place = self.generations.get_mut(self.len);
        let has_room = place.is_some();
        if let Some(place) = place {
            *place = generation;
            self.len += 1;
        }
        has_room
    }

    fn all(&self) -> &[Generation] {
        &self.generations[..self.len]
    }
}

impl Default for List {
    fn default() -> Self {
        Self {
            generations: [Generation(0); MOST_TRIES],
            len: 0,
        }
    }
}

impl fmt::Debug for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let refusers = self.0.as_ref().map(|learnt| learnt.refusers.all());
        f.debug_tuple("Tried")
            .field(&refusers.unwrap_or_default())
            .finish()
    }
}

/// Each callable instance is tried at most once, and no more than these.
pub(crate) const MOST_TRIES: usize = 10;
