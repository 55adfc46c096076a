use std::{
    fmt, mem,
    num::NonZeroU32,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, PoisonError},
    task::Waker,
};

use crate::logs;

/// Tasks that wait for one thing to change, each woken at every change until it leaves: in the order
/// in which they came, since what has changed may be enough for some of them only.
///
/// Whoever waits registers first and looks after that, so no change is missed. Costs a word until
/// somebody waits, and nothing on the way of those who need not.
#[derive(Default)]
pub(crate) struct Wakers {
    list: Mutex<Option<Box<List>>>,
}

/// A place in [`Wakers`], to be given back by [`Wakers::leave`]. An `Option` of it takes 4 bytes, for
/// those who carry it about and seldom need it.
#[derive(Debug)]
pub(crate) struct Ticket(NonZeroU32);

#[derive(Default)]
struct List {
    places: Vec<Place>,
    /// The first free place.
    free: Option<usize>,
    /// How many came so far.
    came: u64,
    /// Where the one sits whose turn it is.
    turn: usize,
}

enum Place {
    Free {
        next: Option<usize>,
    },
    /// `came` counts all who did: places are used again, so their own order says nothing.
    Taken {
        came: u64,
        waker: Option<Waker>,
    },
}

/// Wakes somebody. Wakers are not our code: one that panics must take neither the driver nor
/// those that are woken after it with it.
pub(crate) fn guarded(wake: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(wake)).is_err() {
        tracing::warn!(target: logs::DIRECTORY, "a waker panicked");
    }
}

impl Wakers {
    /// Has `waker` woken at the next change. `ticket` is filled at the first call and must be
    /// given back with [`leave`](Self::leave).
    pub(crate) fn register(&self, ticket: &mut Option<Ticket>, waker: &Waker) {
        let former = {
            let mut list = self.lock();
            let list = list.get_or_insert_default();
            match ticket {
                Some(known) => match &mut list.places[known.at()] {
                    Place::Taken {
                        waker: Some(known), ..
                    } if known.will_wake(waker) => None,
                    Place::Taken { waker: known, .. } => known.replace(waker.clone()),
                    Place::Free { .. } => None, // not while there is a ticket
                },
                None => {
                    *ticket = Some(Ticket::new(list.add(waker.clone())));
                    None
                }
            }
        };
        drop(former); // as in `leave`
    }

    /// Gives a place back.
    pub(crate) fn leave(&self, ticket: Ticket) {
        let former = {
            let mut list = self.lock();
            list.as_mut().map(|list| {
                let place = Place::Free { next: list.free };
                list.free = Some(ticket.at());
                mem::replace(&mut list.places[ticket.at()], place)
            })
        };
        drop(former); // a waker's drop may run anything: not under the lock
    }

    /// Wakes one that registered since it was last woken, each in its turn: for what is enough for one only.
    /// Whoever is woken and leaves without having taken it wakes the next.
    pub(crate) fn wake_next(&self) {
        let waker = {
            let mut list = self.lock();
            let Some(list) = list.as_mut() else { return };
            list.next()
        };
        if let Some(waker) = waker {
            guarded(|| waker.wake());
        }
    }

    /// Wakes all that registered since they were last woken, who came first first.
    pub(crate) fn wake_all(&self) {
        let mut woken: Vec<(u64, Waker)> = {
            let mut list = self.lock();
            let Some(list) = list.as_mut() else { return };
            list.places
                .iter_mut()
                .filter_map(|place| match place {
                    Place::Taken { came, waker } => Some((*came, waker.take()?)),
                    Place::Free { .. } => None,
                })
                .collect()
        };
        woken.sort_unstable_by_key(|(came, _)| *came);
        for (_, waker) in woken {
            guarded(|| waker.wake());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Box<List>>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket {
    fn new(at: usize) -> Self {
        let place = u32::try_from(at + 1).ok().and_then(NonZeroU32::new);
        Self(place.expect("fewer than 2³² tasks wait"))
    }

    const fn at(&self) -> usize {
        self.0.get() as usize - 1
    }
}

impl List {
    /// Takes the waker of the next. Nobody is passed over for those who came after: a turn goes round.
    fn next(&mut self) -> Option<Waker> {
        let from = self.turn.min(self.places.len());
        let (before, after) = self.places.split_at_mut(from);
        let mut round = after.iter_mut().chain(before).enumerate();
        let (passed, waker) = round.find_map(|(passed, place)| match place {
            Place::Taken { waker, .. } => Some((passed, waker.take()?)),
            Place::Free { .. } => None,
        })?;
        self.turn = (from + passed + 1) % self.places.len();
        Some(waker)
    }

    fn add(&mut self, waker: Waker) -> usize {
        self.came += 1;
        let place = Place::Taken {
            came: self.came,
            waker: Some(waker),
        };
        match self.free {
            Some(at) => {
                if let Place::Free { next } = mem::replace(&mut self.places[at], place) {
                    self.free = next;
                }
                at
            }
            None => {
                self.places.push(place);
                self.places.len() - 1
            }
        }
    }
}

impl fmt::Debug for Wakers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wakers").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use futures_util::task::{ArcWake, waker};

    use super::*;

    struct Count(AtomicUsize);

    impl ArcWake for Count {
        fn wake_by_ref(this: &Arc<Self>) {
            this.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Owns what a waker's drop may run: here, a task that leaves the same set.
    struct Owner(Arc<Wakers>, Mutex<Option<Ticket>>);

    impl ArcWake for Owner {
        fn wake_by_ref(_: &Arc<Self>) {}
    }

    impl Drop for Owner {
        fn drop(&mut self) {
            if let Some(ticket) = self.1.lock().unwrap().take() {
                self.0.leave(ticket);
            }
        }
    }

    #[test]
    fn the_drop_of_a_replaced_waker_may_use_the_set() {
        let wakers = Arc::new(Wakers::default());
        let (mut inner, mut outer) = (None, None);
        wakers.register(&mut inner, Waker::noop());
        let owner = Owner(Arc::clone(&wakers), Mutex::new(inner));
        wakers.register(&mut outer, &waker(Arc::new(owner)));
        wakers.register(&mut outer, Waker::noop());
        wakers.leave(outer.unwrap());
    }

    /// Notes who is woken.
    struct Named(usize, Arc<Mutex<Vec<usize>>>);

    impl ArcWake for Named {
        fn wake_by_ref(this: &Arc<Self>) {
            this.1.lock().unwrap().push(this.0);
        }
    }

    #[test]
    fn who_came_first_is_woken_first_wherever_it_sits() {
        let woken = Arc::new(Mutex::new(Vec::new()));
        let named = |name| waker(Arc::new(Named(name, Arc::clone(&woken))));
        let wakers = Wakers::default();
        let come = |name| {
            let mut ticket = None;
            wakers.register(&mut ticket, &named(name));
            ticket
        };
        let mut waiting: Vec<_> = (0..4).map(come).collect();
        for gone in [0, 2] {
            wakers.leave(waiting[gone].take().unwrap());
        }
        waiting.extend((4..7).map(come));
        // Registered again it is no newcomer.
        wakers.register(&mut waiting[1], &named(1));
        wakers.wake_all();
        assert_eq!(*woken.lock().unwrap(), [1, 3, 4, 5, 6]);
    }

    #[test]
    fn what_is_enough_for_one_wakes_each_in_its_turn() {
        let woken = Arc::new(Mutex::new(Vec::new()));
        let named = |name| waker(Arc::new(Named(name, Arc::clone(&woken))));
        let wakers = Wakers::default();
        wakers.wake_next();
        let mut waiting: Vec<_> = (0..4)
            .map(|name| {
                let mut ticket = None;
                wakers.register(&mut ticket, &named(name));
                ticket
            })
            .collect();
        wakers.wake_next();
        // Who was woken and waits again has had its turn.
        wakers.register(&mut waiting[0], &named(0));
        wakers.leave(waiting[1].take().unwrap());
        wakers.wake_next();
        wakers.wake_next();
        wakers.wake_next();
        wakers.wake_next();
        assert_eq!(*woken.lock().unwrap(), [0, 2, 3, 0]);
    }

    #[test]
    fn a_change_wakes_once_and_places_are_used_again() {
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = waker(Arc::clone(&count));
        let wakers = Wakers::default();
        wakers.wake_all();
        let (mut a, mut b) = (None, None);
        wakers.register(&mut a, &waker);
        wakers.register(&mut a, &waker);
        wakers.register(&mut b, &waker);
        wakers.wake_all();
        wakers.wake_all();
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
        wakers.register(&mut a, &waker);
        wakers.leave(a.take().unwrap());
        wakers.wake_all();
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
        wakers.register(&mut a, &waker);
        assert_eq!(a.as_ref().map(Ticket::at), Some(0));
        wakers.leave(a.unwrap());
        wakers.leave(b.unwrap());
        assert_eq!(Arc::strong_count(&count), 2, "no waker is kept");
    }
}
